"""Does bending the generator towards a proxy's taste help in another judge's eyes, and is it better than filtering?

    python recipes/feedback.py                   # prints; needs the full data tier and the judge (recipes/quality.py)
    python recipes/feedback.py --record          # writes recipes/results/feedback.json
    python recipes/feedback.py --smoke           # a few images and steps, to see that it runs; its figures mean nothing

Stated before the run. Primary contrast: images prompted as viral pneumonia, (c) tuned minus (a) plain, mean of the
judge's probability of viral, images of one seed paired, seeds drawn again (bootstrap), two-sided 95 % interval, null 0.
A null is published as it is. All else is exploratory.

Arms, as many images of each class in all four: (a) plain; (b) plain, filtered; (c) tuned by `medimgen.feedback` to the
proxy, for all three classes at once; (d) tuned, filtered. The filter keeps what the proxy gives at least its limit on
dev films (`balance.gates`: largest sensitivity + specificity) and draws until there are enough, at most four times as
many; (b) starts from all that the plain model drew, the images that were ranked for (c) included.

Three draws: other images ranked, another training seed, other images measured. The interval of the primary contrast
holds the luck of the seeds drawn; three trainings cannot give that of the training, so the contrast of each stands
beside. The proxy is the course's classifier, learnt from donor and clinic films; the judge, another architecture and
seed (recipes/generator/judge.py), learnt from clinic films too: it is another judge, not an independent one. If the
proxy's probability rises by more than the judge's, the difference is taste and not disease. Not a medical device.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import quality
import variety
from generator import claim
from generator.features import CLASSES
from generator.judge import Judge, Ruler

from medimgen import feedback, likeness
from medimgen.balance.gates import Gates
from medimgen.classify import Classifier
from medimgen.data import radiographs
from medimgen.dossier import row
from medimgen.generate import FOLDER, Generator
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.paths import ROOT
from medimgen.report import code_version

RESULT, ORIGIN = ROOT / "recipes" / "results" / "feedback.json", "recipes/feedback.py"
ARMS = {"a": "plain", "b": "plain, filtered", "c": "tuned", "d": "tuned, filtered"}
CAP, BATCH = 4, 16
FULL = {
    "trainings": 3,
    "ranked": 80,
    "steps": 120,
    "each": {"normal": 40, "bacterial": 40, "viral": 128},
    "draws": 2000,
}
SMOKE = {
    "trainings": 1,
    "ranked": 12,
    "steps": 3,
    "each": dict.fromkeys(CLASSES, 8),
    "draws": 200,
    "dev": 300,
    "donor": 300,
}


# --- images -----------------------------------------------------------------------------------------------------------


def seed(draw: int, kind: str, ranked: bool = False) -> int:
    """First seed of a class's images in a draw; those that are ranked share none with those that are measured."""
    return 300_000 + 100_000 * ranked + 20_000 * draw + 4_000 * CLASSES.index(kind)


def rank(generator, proxy, draw: int, size: dict) -> tuple[list, dict[str, tuple], np.ndarray]:
    """The run to rank, its images and seeds by class, and the proxy's scores."""
    seeds = {c: range(start := seed(draw, c, True), start + size["ranked"]) for c in CLASSES}
    run = list(generator.stream([(claim.PROMPTS[c], s) for c in CLASSES for s in seeds[c]], BATCH))
    images = feedback.drawn(run)[0].reshape(len(CLASSES), size["ranked"], *run[0].images.shape[1:])
    score = feedback.scores(np.concatenate(images), np.repeat(CLASSES, size["ranked"]), proxy)
    return run, {c: (x, list(seeds[c])) for c, x in zip(CLASSES, images, strict=True)}, score


def filtered(generator, proxy, kind: str, least: float, n: int, images, seeds: list[int]) -> tuple:
    """The first `n` images that the proxy gives at least `least`, their seeds, and how many were drawn: of those given
    first, then of new ones, whose seeds go on from the last given.
    """
    kept, names, drawn, start = [], [], 0, seeds[-1] + 1
    while True:
        good = feedback.scores(images, kind, proxy) >= least
        places = np.flatnonzero(good)[: n - len(kept)]
        kept, names = kept + list(images[places]), names + [seeds[i] for i in places]
        drawn += int(places[-1]) + 1 if len(kept) == n else len(images)
        if len(kept) == n or drawn >= CAP * n:
            return np.array(kept), names, drawn
        images, seeds = claim.images(generator, claim.PROMPTS[kind], BATCH, start), list(range(start, start + BATCH))
        start += BATCH


def one_draw(generator, proxy, limits: dict, draw: int, size: dict) -> tuple[dict, dict]:
    """Images and seeds of each arm and class; and what it took: images drawn by arm, CPU seconds of the tuning."""
    run, ranked, score = rank(generator, proxy, draw, size)
    clock = time.process_time()
    bent = feedback.prefer(generator, run, score, by=proxy, steps=size["steps"], minutes=1e6, seed=draw)
    took = {"tuning": time.process_time() - clock, "stamp": bent.stamp} | dict.fromkeys(ARMS, 0)
    made = {}
    for c, n in size["each"].items():
        seeds = list(range(seed(draw, c), seed(draw, c) + n))
        for arm, strict, model in (("a", "b", generator), ("c", "d", bent.generator)):
            images = claim.images(model, claim.PROMPTS[c], n, seeds[0])
            made[arm, c], have = (images, seeds), (images, seeds)
            if strict == "b":
                have = np.concatenate([ranked[c][0], images]), ranked[c][1] + seeds
            *made[strict, c], drawn = filtered(model, proxy, c, limits[c], n, *have)
            took[arm], took[strict] = took[arm] + n, took[strict] + drawn
    return made, took


# --- measures ---------------------------------------------------------------------------------------------------------


def tabulate(made: dict, proxy, judge, gauge, draw: int) -> pd.DataFrame:
    """`quality.table` of each arm, with the columns arm, draw, proxy, near and the place of its image."""
    with np.load(FOLDER / likeness.FILE) as held:
        known = np.unpackbits(held["signs"], axis=1, count=likeness.BITS).astype(bool)
    parts = []
    for (arm, c), (images, seeds) in made.items():
        if len(images):
            rows = quality.table(images, [c] * len(images), [f"s{s}" for s in seeds], judge, gauge)
            near, score = likeness.nearest(images, known), feedback.scores(images, c, proxy)
            parts.append(rows.assign(arm=arm, draw=draw, proxy=score, near=near, place=range(len(images))))
    return pd.concat(parts, ignore_index=True).assign(judge=lambda rows: quality.confidence(rows))


def paired(rows: pd.DataFrame, kind: str, column: str) -> pd.DataFrame:
    """Arms a and c of one class side by side, a row a seed: draw, a, c, change."""
    one = rows[(rows["kind"] == kind) & rows["arm"].isin(["a", "c"])]
    wide = one.pivot(index=["draw", "unit"], columns="arm", values=column).reset_index()
    return wide.assign(change=wide["c"] - wide["a"])


def contrast(rows: pd.DataFrame, draws: int, null: float | None = 0.0) -> Interval:
    """Mean change and its interval, seeds drawn again."""
    return cluster_bootstrap(np.mean, rows["unit"], rows["change"], draws=draws, seed=0, null=null)


def primary(rows: pd.DataFrame, draws: int) -> Interval:
    """The judge's probability of viral, images prompted so, tuned minus plain, by seed."""
    return contrast(paired(rows, "viral", "judge"), draws)


def unpaired(rows: pd.DataFrame, arms: tuple[str, str], kind: str, column: str, draws: int) -> Interval:
    """Mean of the second arm less that of the first; an image of both arms is drawn into both."""
    one = rows[(rows["kind"] == kind) & rows["arm"].isin(arms)]

    def less(second, x):
        return x[second].mean() - x[~second].mean() if 0 < second.sum() < len(second) else np.nan

    return cluster_bootstrap(less, one["unit"], one["arm"] == arms[1], one[column], draws=draws, seed=0)


def contrasts(rows: pd.DataFrame, draws: int) -> list[dict]:
    """The primary contrast, the same for each training, class and judge, what the proxy gains above the judge, and the
    tuned images against the filtered.
    """
    how = "by judge, images prompted as viral, one seed paired; exploratory"
    out = [say("primary", "judge's probability of viral: tuned minus plain", primary(rows, draws), "primary contrast")]
    for draw, one in rows.groupby("draw"):
        out.append(say(f"draw_{draw}", f"the same, training {draw} alone", primary(one, draws), how))
    for c in CLASSES:
        both = {column: paired(rows, c, column) for column in ("judge", "proxy")}
        for column, wide in both.items():
            out.append(say(f"{column}_{c}", f"{column}'s probability of {c}: tuned minus plain", contrast(wide, draws)))
        gap = both["proxy"].assign(change=both["proxy"]["change"] - both["judge"]["change"])
        what = f"{c}: gain to the proxy minus gain to the judge (above 0: over-optimised)"
        out.append(say(f"excess_{c}", what, contrast(gap, draws)))
        for name, pair in {
            "filter_gain": ("a", "b"),
            "tuned_minus_filtered": ("b", "c"),
            "both_gain": ("a", "d"),
        }.items():
            what = f"judge's probability of {c}: {ARMS[pair[1]]} minus {ARMS[pair[0]]}"
            out.append(say(f"{name}_{c}", what, unpaired(rows, pair, c, "judge", draws)))
    return out


def say(id: str, what: str, value, how: str = "images of all trainings together; exploratory", unit: str = "") -> dict:
    return row(f"feedback_{id}", what, value, unit, how, source=ORIGIN)


def alike(made: list[dict], arm: str) -> float:
    """Mean SSIM of random pairs of viral images of one training: higher is more alike."""
    values = []
    for draw in made:
        images, seeds = draw[arm, "viral"]
        if len(images) > 1:
            values += [pair[-1] for pair in variety.pairs(images, np.array(seeds), "viral", 1, 0)]
    return float(np.mean(values)) if values else float("nan")


def figures(rows: pd.DataFrame, made: list[dict], took: list[dict], arm: str, real: tuple, draws: int) -> list[dict]:
    """What one arm is like: proxy, judge, ruler, manifold, variety, nearness to training films, cost."""
    one, (dev, donor), name = rows[rows["arm"] == arm].reset_index(drop=True), real, ARMS[arm]
    put, out = (lambda id, what, value, **kw: say(f"{arm}_{id}", f"{name}: {what}", value, **kw)), []
    for c, found in quality.agreement(one, dev, draws, 0).items():
        mean = cluster_bootstrap(
            np.mean, *(one.loc[one["kind"] == c, k] for k in ("unit", "proxy")), draws=draws, seed=0
        )
        out += [
            put(f"agreement_{c}", f"judge agrees with {c}, minus its accuracy on dev films", found["difference"]),
            put(f"ks_{c}", f"judge's confidence in {c} against dev films, KS distance", found["confidence_ks"]),
            put(f"proxy_{c}", f"proxy's probability of {c}", mean),
        ]
    away, viral = quality.distances(one, dev, donor, draws, 0), quality.of_kind(one, "viral").reset_index(drop=True)
    out += [
        put(f"ruler_{k}", f"distance to dev films, {k}", away[k], unit="ruler points") for k in ("overall", *CLASSES)
    ]
    for k, value in quality.manifolds(viral, quality.of_kind(dev, "viral").reset_index(drop=True), draws, 0).items():
        out.append(put(k, f"{k}, viral images and viral dev films", value))
    cost, n = sum(t[arm] for t in took), len(one)
    return [
        *out,
        put("ssim", "mean SSIM of pairs of viral images of one training (higher: more alike)", alike(made, arm)),
        put("near", "share of signs that differ from the nearest training film, median", float(one["near"].median())),
        put("images", "images", n),
        put("drawn", "images drawn for each image delivered", cost / n, how="the ranked ones apart"),
    ]  # fmt: skip


# --- all of it --------------------------------------------------------------------------------------------------------


def document(size: dict, folder: Path | None = None) -> dict:
    clock, generator, proxy = time.process_time(), Generator.load(folder), Classifier.load()
    judge, gauge = Judge.load(), Ruler.load()
    limits = Gates.measure(radiographs.load("dev"), proxy).limits["agree"]
    most = {"dev": None, "donor": quality.HALF} | size
    real = [quality.real_table(split, judge, gauge, most[split]) for split in ("dev", "donor")]
    made, took = zip(*(one_draw(generator, proxy, limits, k, size) for k in range(size["trainings"])), strict=True)
    rows = pd.concat([tabulate(m, proxy, judge, gauge, k) for k, m in enumerate(made)], ignore_index=True)
    out = contrasts(rows, size["draws"])
    for arm in ARMS:
        out += figures(rows, made, took, arm, real, size["draws"])
    tuning = float(np.mean([t["tuning"] for t in took]))
    out.append(
        say("tuning", "one tuning, drawing again included", tuning, f"{size['steps']} steps, one thread", "CPU s")
    )
    return {
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "code_version": code_version(),
        "weights_sha256": generator.sha256,
        "proxy_sha256": proxy.sha256,
        "settings": size | {"limits": {c: limits[c] for c in CLASSES}, "cap": CAP},
        "stamps": [t["stamp"] for t in took],
        "cpu_seconds": round(time.process_time() - clock),
        "sections": {"control": out},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.relative_to(ROOT).as_posix()}")
    parser.add_argument("--smoke", action="store_true", help="few images and steps; cannot be recorded")
    parser.add_argument("--folder", type=Path, help="another pipeline folder; cannot be recorded")
    args = parser.parse_args()
    if args.record and (args.smoke or args.folder):
        parser.error("only the full run of models/cxr-mini is recorded")
    text = json.dumps(document(SMOKE if args.smoke else FULL, args.folder), indent=1) + "\n"
    print(text)
    if args.record:
        RESULT.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
