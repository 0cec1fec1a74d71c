"""Claim R01: what do three examples in the prompt do to how a small language model reads a radiology report?

    python recipes/prompting.py --only 06     # one run of the design ("01" to "16"), or "plain" or "tuned"
    python recipes/prompting.py --run         # all runs; stop it at any time and start it again
    python recipes/prompting.py               # runs still missing, then the claim is recorded
    python recipes/prompting.py --pilot       # half of the runs on the pilot's reports: what the design can detect
    python recipes/prompting.py --smoke       # everything on a tiny random model and invented reports; nothing is kept

A run puts one prompt of the design to SmolLM2-135M-Instruct for 100 reports (20 in each of five wordings). Its file
holds counts for each hashed report, never a word of a report or an answer: the reports may be neither shown nor
adapted. "plain" asks for the JSON form and adds nothing else; "tuned" is the same prompt after an adapter learnt
invented reports. Needs the extra `research` and `medimgen fetch --tier research`; 2 GB, about 40 minutes of one core.
Not a medical device.

Engine: transformers on the GGUF file, reports side by side, the prompt's common beginning computed once. Measured on
one busy thread, cyllama 0.2.18 (MIT; llama.cpp in a wheel, nothing to compile) loads in 0.5 s of one core instead of
27 and needs 0.2 GB instead of 1.3, but reads 84 tokens a second instead of 326, and writes 34 to 44 instead of 43 to
76. One conversation at a time it would win (10 for transformers); for twenty at once it does not, and it cannot be
trained.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from medimgen import claims, report
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.paths import cache_dir
from medimgen.research import prompting, smollm

WORK = cache_dir() / "training" / "prompting"
PRIMARY, PLAIN = "examples", prompting.Prompt(format=True)
PILOT = [name for name, prompt in prompting.design().items() if not prompt.context]  # 8 runs, examples on in 4
COUNTS = ("right", "named", "true", "unsupported", "denied")
STEPS = 20  # of the adapter


# --- jobs -------------------------------------------------------------------------------------------------------------


def jobs() -> dict[str, prompting.Prompt]:
    """Name of each job -> its prompt."""
    return {**prompting.design(), "plain": PLAIN, "tuned": PLAIN}


def answers(language: smollm.Language, name: str, table: pd.DataFrame) -> list[dict]:
    """One row of counts for each report."""
    prompt, rows = jobs()[name], []
    for wording, some in table.groupby("wording"):
        seed = 100 * list(jobs()).index(name) + int(wording)
        said = prompting.ask(language, prompt, int(wording), list(some["text"]), seed)
        for one, (_, case) in zip(said, some.iterrows(), strict=True):
            first, last = (prompting.read(text, prompt.format) for text in (one.first, one.last))
            counts = prompting.score(last.findings, case["truth"], case["text"])
            before = prompting.score(first.findings, case["truth"], case["text"])
            row = {"run": name, "report": case["report"], "wording": int(wording), "valid": int(last.valid)} | counts
            row |= {"first_right": before["right"], "first_named": before["named"]}
            rows.append(row | {"exact": int(last.valid and last.findings == case["truth"])})
    return rows


def job(language: smollm.Language, name: str, table: pd.DataFrame) -> list[dict]:
    """The rows of a job; "tuned" trains its adapter first, on invented reports, and takes it off again."""
    if name != "tuned":
        return answers(language, name, table)
    with prompting.tuned(language, PLAIN, 2 if smollm.smoke() else STEPS) as other:
        return answers(other, name, table)


def baselines(table: pd.DataFrame) -> list[dict]:
    """Without a model: the search for words, the finding that the pilot has most often, and nothing at all."""
    pilot = prompting.drawn("pilot")["truth"].explode().dropna()
    often, rows = frozenset([pilot.value_counts().idxmax()]), []
    ways = {
        "search": lambda text: prompting.search(text)[0],
        "majority": lambda _: often,
        "none": lambda _: frozenset(),
    }
    for name, way in ways.items():
        for _, case in table.iterrows():
            found = way(case["text"])
            counts = prompting.score(found, case["truth"], case["text"])
            row = {"run": name, "report": case["report"], "wording": -1, "valid": 1} | counts
            row |= {"first_right": counts["right"], "first_named": counts["named"]}
            rows.append(row | {"exact": int(found == case["truth"])})
    return rows


def stamp() -> str:
    """Twelve signs of the prompts, the modules and this file, so that rows of other settings are never mixed in."""
    files = [prompting.FILE, Path(prompting.__file__), Path(smollm.__file__), Path(__file__)]
    return hashlib.sha256("".join(report.file_sha256(file) for file in files).encode()).hexdigest()[:12]


def run(work: Path, wanted: list[str], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of jobs; those whose file is there are read, the others done and written."""
    work.mkdir(parents=True, exist_ok=True)
    language, rows = None, []
    for number, name in enumerate(wanted, start=1):
        path, start = work / f"{stamp()}-{name}.json", time.process_time()
        if not path.is_file():
            language = language or smollm.load(prompting.words())
            part = path.with_suffix(".part")
            part.write_text(json.dumps(job(language, name, table)), encoding="utf-8", newline="\n")
            part.replace(path)
            print(f"{number} of {len(wanted)}, {name}: {time.process_time() - start:.0f} s of one core", flush=True)
        rows += json.loads(path.read_text(encoding="utf-8"))
    return pd.DataFrame(rows)


# --- figures ----------------------------------------------------------------------------------------------------------


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure: F1 with three examples minus F1 with none, whole reports resampled."""
    return prompting.effect(rows, PRIMARY, draws, seed, null=0.0, direction="less")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    design = prompting.design()
    formed = [name for name, prompt in design.items() if prompt.format]
    checked = [name for name, prompt in design.items() if prompt.check]
    on = np.array([prompt.examples for name, prompt in design.items() if prompt.format])

    def over(statistic, *columns, runs=None, table=rows):
        arrays = prompting.square(table, *columns, runs=runs)
        return cluster_bootstrap(statistic, np.arange(len(arrays[0])), *arrays, draws=draws, seed=seed)

    def mean_f1(*counts):
        return prompting.f1(*counts).mean()

    three = ("right", "named", "true")
    found = {name: prompting.effect(rows, name, draws, seed) for name in vars(PLAIN) if name != PRIMARY}
    for name, runs in (("examples_json", formed), ("examples_words", [n for n in design if n not in formed])):
        found[name] = prompting.effect(rows, PRIMARY, draws, seed, runs)
    found |= {f"f1_{name}": over(mean_f1, *three, runs=[name]) for name in ("search", "majority", "plain", "tuned")}
    found["f1_runs"] = over(mean_f1, *three)
    found["f1_best"] = over(lambda *counts: prompting.f1(*counts).max(), *three)
    found["tuning"] = over(lambda *c: np.diff(prompting.f1(*c))[0], *three, runs=["plain", "tuned"])
    found["checking"] = over(
        lambda right, named, true, first, before: (
            prompting.f1(right, named, true) - prompting.f1(first, before, true)
        ).mean(),
        *three, "first_right", "first_named", runs=checked,
    )  # fmt: skip
    for name, top in (("hallucinated", "unsupported"), ("denied", "denied")):
        found[name] = over(lambda a, b: a.sum() / max(1, b.sum()), top, "named")
        found[f"{name}_tuned"] = over(lambda a, b: a.sum() / max(1, b.sum()), top, "named", runs=["tuned"])
    found["invalid_zero"] = over(lambda valid: 1 - valid[:, ~on].mean(), "valid", runs=formed)
    found["invalid_three"] = over(lambda valid: 1 - valid[:, on].mean(), "valid", runs=formed)
    found["exact"] = over(np.mean, "exact")
    found["exact_none"] = over(np.mean, "exact", runs=["none"])
    spread = rows[rows["run"].isin(list(design))].groupby(["wording", "report"])[list(three)].sum()
    by = [spread.loc[k].to_numpy(float) for k in sorted(set(spread.index.get_level_values(0)))]
    found["wordings"] = _range(by, draws, seed)
    return found


def _range(by: list[np.ndarray], draws: int, seed: int) -> Interval:
    """F1 of the best wording minus that of the worst; reports are resampled within each wording."""
    units = np.concatenate([np.full(len(some), k) * 1000 + np.arange(len(some)) for k, some in enumerate(by)])
    kind, counts = units // 1000, np.concatenate(by)

    def statistic(kind, counts):
        each = [prompting.f1(*counts[kind == k].T) for k in np.unique(kind)]
        return max(each) - min(each)

    return cluster_bootstrap(statistic, units, kind, counts, draws=draws, seed=seed)


def pilot(work: Path) -> None:
    """Half of the design on the pilot's reports: the primary contrast's standard error, scaled to the test's."""
    table = prompting.drawn("pilot")
    rows = run(work / "pilot", PILOT, table)
    found = prompting.effect(rows, PRIMARY, 2000, 0, PILOT)
    error = (found.high - found.low) / (2 * norm.ppf(0.975))
    scaled = error * np.sqrt(len(table) / sum(prompting.SIZES["test"]))
    print(f"{len(table)} reports: examples {found.estimate:+.3f} ({found.low:+.3f} to {found.high:+.3f})")
    print(f"detectable with {sum(prompting.SIZES['test'])}: {(norm.ppf(0.975) + norm.ppf(0.8)) * scaled:.3f}")
    shown = rows.groupby("run")[[*COUNTS, "valid", "exact"]].sum()
    print(shown.assign(f1=2 * shown["right"] / (shown["named"] + shown["true"])).round(3).to_string())


def record(work: Path) -> None:
    """Finish the run and record the claim."""
    from medimgen.data.fetch import fetch

    file, archive = smollm.weights(), fetch("nlm-reports") / "NLMCXR_reports.tgz"
    inputs = {path.name: path for path in (file, archive, prompting.FILE)}
    plan = claims.get("R01")["primary"]
    with report.run("R01", seed=0, inputs=inputs, parameters={"steps": STEPS}, tier="both") as running:
        table = prompting.drawn("test")
        rows = pd.concat([run(work, list(jobs()), table), pd.DataFrame(baselines(table))], ignore_index=True)
        interval, explored = (f(rows, plan["draws"], plan["seed"]) for f in (measure, explore))
    report.append(running.record, report.RUNS)
    n = {"rows": len(rows), "reports": len(table), "runs": len(prompting.design())}
    claims.record("R01", interval, n=n, run=running.record, rows=rows, exploratory=explored)
    print(claims.show("R01"))


def invented() -> pd.DataFrame:
    """The notebook's invented reports in the form of `prompting.drawn`."""
    rows = prompting.document()["reports"]
    table = pd.DataFrame({"report": [f"invented{k}" for k in range(len(rows))], "text": [r["report"] for r in rows]})
    return table.assign(truth=[frozenset(r["findings"]) for r in rows], wording=np.arange(len(rows)) % 5)


def smoke() -> None:
    """Every run on the tiny model, in a folder that is thrown away; figures mean nothing."""
    os.environ[smollm.SMOKE] = "1"
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), list(jobs()), invented())
    rows = pd.concat([rows, pd.DataFrame(baselines(invented()))], ignore_index=True)
    print(f"{len(rows)} rows, tiny random model:", measure(rows, 200, 0))
    print(explore(rows, 200, 0))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", choices=list(jobs()), metavar="RUN", help=f"one of {', '.join(jobs())}")
    what.add_argument("--run", action="store_true", help="all runs; no claim is recorded")
    what.add_argument("--pilot", action="store_true", help="half of the runs on the pilot's reports")
    what.add_argument("--smoke", action="store_true", help="a tiny random model, nothing kept, in seconds")
    parser.add_argument("--work", type=Path, default=WORK, help="where the rows of runs are kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.smoke:
        return smoke()
    import torch

    torch.set_num_threads(args.threads)
    if args.pilot:
        pilot(args.work)
    elif args.only or args.run:
        run(args.work, [args.only] if args.only else list(jobs()), prompting.drawn("test"))
    else:
        record(args.work)


if __name__ == "__main__":
    main()
