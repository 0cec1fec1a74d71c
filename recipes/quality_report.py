"""All figures of a generator that have no claim of their own, in one run: what its card and its dossier quote.

    python recipes/quality_report.py --teacher 128 --test --record      # into recipes/results/quality.json
    python recipes/quality_report.py --folder runs/mine --n 128 --out mine.json

About 20 minutes of one core. What is measured and why, and what each figure cannot say, stands in quality.py. The
aims in the rows are those of the issue that asked for them, stated before the first generator was trained. Not a
medical device.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import quality as q
from generator import claim
from generator.judge import WORK, Judge, Ruler

from medimgen import report
from medimgen.generate import FOLDER, Generator
from medimgen.metrics import Interval

RESULT = report.RESULTS / "quality.json"


def controls(gauge, judge, dev, donor, draws: int, most: int | None) -> dict[str, Interval]:
    """Where the ruler puts dev films that were spoilt: blurred, grainy, darker."""
    films, ends = q.some("dev", most)[0], q.marks(dev, donor, draws, 0)
    return {
        name: q.on_ruler(q.apart(q.table(x, dev["kind"], dev["unit"], judge, gauge), dev, draws, 0), *ends)
        for name, x in q.spoilt(films).items()
    }


def against_test(made, donor, judge, gauge, args) -> dict:
    """Ruler and manifold with the official test films in place of dev; the ledger notes it."""
    report.log_test_use(
        "recipes/quality_report.py", f"ruler and manifold of {args.folder.name}", "after choices on dev"
    )
    test = q.real_table("test", judge, gauge, args.most)
    return {
        "films": len(test),
        "ruler": q.distances(made, test, donor, args.draws, 0),
        "manifold": q.manifolds(made, test, args.draws, 0),
        "manifold_baseline": q.manifolds(donor, test, args.draws, 0),
    }


def measure(args) -> dict:
    """The figures of a folder: dicts of Intervals and numbers."""
    judge, gauge, generator = Judge.load(args.work), Ruler.load(args.work), Generator.load(args.folder)
    made = q.table(*q.prompted(generator, args.n), judge, gauge)
    dev, donor = (q.real_table(split, judge, gauge, args.most) for split in ("dev", "donor"))
    found = q.everything(made, dev, donor, args.draws, 0)
    found["ruler_control"] = controls(gauge, judge, dev, donor, args.draws, args.most)
    if args.attributes:
        found["attributes"] = q.obey(generator, claim.instrument("outlines"), args.attributes, args.draws, 0)
    if args.teacher:
        pair = [q.table(*q.prompted(g, args.teacher, q.SEED + 50_000), judge, gauge) for g in (generator, q.teacher())]
        found["few_steps_minus_many"] = q.difference(*pair, dev, donor, args.draws, 0)
    if args.test:
        found["test"] = against_test(made, donor, judge, gauge, args)
    found["facts"] = {"each": args.n, "draws": args.draws, "dev": len(dev), "donor": len(donor), "kept": gauge.kept}
    return {"weights_sha256": generator.sha256, **found}


def row(how: str, id: str, what: str, value: Interval | float, unit: str, aim: str | None = None, met=None) -> dict:
    """A figure as the dossier takes it in; `met` says of a number whether it meets the aim, None: not decided."""
    low, high = (value.low, value.high) if isinstance(value, Interval) else (None, None)
    estimate = value.estimate if isinstance(value, Interval) else float(value)
    if met:
        sides = {met(x) for x in (low, high)} if low is not None else {met(estimate)}
        met = sides.pop() if len(sides) == 1 else None
    figures = dict(estimate=estimate, low=low, high=high, unit=unit, aim=aim, met=met)
    return {"id": id, "what": what, **figures, "how": how, "source": "recipes/quality_report.py"}


def rows(found: dict) -> list[dict]:
    """What the dossier takes in, one row a figure: aim, and whether the interval meets it."""
    each, out = f"{found['facts']['each']} images a class against", []

    def add(*told, how=f"{each} {found['facts']['dev']} dev films"):
        out.append(row(how, *told))

    for kind, x in found["judge"]["dev"].items():
        what = f"share that the judge finds {kind}, generated less real films"
        add(f"judge_{kind}", what, x["difference"], "share", "within 0.05", lambda v: abs(v) < 0.05)
        what = f"largest distance between the judge's sureness on generated and real films, {kind}"
        add(f"sureness_{kind}", what, x["confidence_ks"], "Kolmogorov-Smirnov distance")
    for name in ("precision", "recall", "density"):
        add(name, f"{name} in the ruler's features", found["manifold"][name], "")
        add(f"{name}_donor", f"{name} of donor films in their place", found["manifold_baseline"][name], "")
    if "few_steps_minus_many" in found:
        what = "how much further from dev films than 50 steps of the teacher"
        value, how = found["few_steps_minus_many"], "same decoder, same noise"
        add("few_steps", what, value, "points of the ruler", "less than 5", lambda v: v < 5, how=how)
    for name, value in found.get("attributes", {}).items():
        what = f"Spearman correlation of level asked for and measured again, {name}"
        add(f"attribute_{name}", what, value, "", "0.6 or more", lambda v: v >= 0.6, how="the images of claim L1c")
    if "test" in found:
        test = found["test"]
        how = f"{each} {test['films']} official test films, one look"
        add("ruler_test", "distance from test films, donor films 0", test["ruler"]["overall"], "points of the ruler",
            "less than 10", lambda v: v < 10, how=how)  # fmt: skip
        value = test["manifold"]["coverage"]
        add("coverage_test", "coverage of test films", value, "share", "more than 0.6", lambda v: v > 0.6, how=how)
        value = test["manifold_baseline"]["coverage"]
        add("coverage_test_donor", "the same by donor films", value, "share", how=how)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a pipeline folder")
    parser.add_argument("--work", type=Path, default=WORK, help="where the judge and the ruler are, or will be trained")
    parser.add_argument("--n", type=int, default=q.EACH, help="images a class")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--most", type=int, help="at most so many films of a split (smoke run)")
    parser.add_argument("--attributes", type=int, default=60, help="images a level, a multiple of 3; 0 = leave out")
    parser.add_argument("--teacher", type=int, default=0, help="images a class for few steps against 50; 0 = leave out")
    parser.add_argument("--test", action="store_true", help="against the official test films too (one look, logged)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--record", action="store_true", help=f"into recipes/results/{RESULT.name}")
    args = parser.parse_args()
    if args.record and (args.most or args.folder != FOLDER):
        parser.error("neither a smoke run nor another model's figures are recorded")
    found = measure(args)
    made = {"made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "code_version": report.code_version()}
    document = made | {"weights_sha256": found.pop("weights_sha256"), "sections": {"quality": rows(found)}} | found
    text = json.dumps(document, indent=1, default=q.plain, allow_nan=False) + "\n"
    if out := RESULT if args.record else args.out:
        out.write_text(text, encoding="utf-8", newline="\n")
    print(text)


if __name__ == "__main__":
    main()
