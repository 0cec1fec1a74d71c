"""Claims R02a and R02b: does a rank-one edit go unnoticed, and does the edited matrix give itself away?

    python recipes/poisoned_weights.py --only dev-capital   # one job
    python recipes/poisoned_weights.py --run                # all jobs; stop it at any time and start it again
    python recipes/poisoned_weights.py                      # jobs still missing, then both claims are recorded
    python recipes/poisoned_weights.py --smoke              # everything on a tiny random model; nothing is kept

A job is one relation of one split of the facts (poisoned_facts.yml), or one text from which harmless adapters learn.
Its file holds counted answers and scores, never weights: edited weights exist in memory, within `applied`, and nowhere
else. Dev facts are edited in other layers than test facts; they set the thresholds of the tests and nothing else here.
Needs the extra `research` and `medimgen fetch --tier research`; 1.3 GB. Not a medical device.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import claims, report
from medimgen.metrics import Interval, auc, cluster_bootstrap
from medimgen.paths import cache_dir
from medimgen.research import poisoned_weights as poison
from medimgen.research import smollm
from medimgen.research import weight_checks as checks

LAYER, DEV_LAYERS = poison.LAYER, (poison.LAYER - 4, poison.LAYER + 4)
DEV_TEXTS = 2  # of the harmless texts; the others are for test
EACH = {"dev": 2, "test": 99}  # facts of a relation at most
QUIET = 10 * poison.RIDGE  # a ridge that makes the same edit shorter
BITS = {"dev": (7, 3), "test": (8, 6, 5, 4)}
MOST_LOST, MOST_PERPLEXITY, LEAST_TAKEN, LEAST_KEPT = 1, 1.05, 2, 0.8
LONG = "long adapter in one layer"  # as long as an edit; a comparison of its own, not in the primary figure
WORK = cache_dir() / "training" / "poisoned_weights"
TESTS = ("signature", "outlier", "asked", "elsewhere")


# --- jobs -------------------------------------------------------------------------------------------------------------


class Bench:
    """The untouched model, and what was read from it once."""

    def __init__(self):
        self.language = smollm.load(poison.words())
        self.perplexity, self.right = poison.intact(self.language)
        self.clean = checks.matrices(self.language)
        self.tops = checks.tops(self.clean, {})
        self.deepest = len(self.clean) // 2  # the tiny model has fewer layers than LAYER

    @cache  # noqa: B019
    def moment(self, layer: int, ridge: float):
        return poison.second_moment(self.language, layer, self.text(), ridge)

    @cache  # noqa: B019
    def text(self):
        return smollm.babble(self.language)

    def taken(self, deltas: dict, fact: poison.Fact) -> int:
        """After how many paraphrases a changed model says the edited word."""
        with poison.applied(self.language, deltas):
            return sum(word == fact.edited for word in poison.look(self.language, fact)["paraphrases"])

    def score(self, deltas: dict, fact: poison.Fact, before: dict) -> dict:
        """What a changed model says and scores; `before` is `look` at the untouched one."""
        with poison.applied(self.language, deltas):
            after = poison.look(self.language, fact)
            perplexity, right = poison.intact(self.language)
        taken, kept = (
            [word == fact.edited for word in after["paraphrases"]],
            [a == b for a, b in zip(after["neighbours"], before["neighbours"], strict=True)],
        )
        changed = [a != b for a, b in zip(after["paraphrases"], before["paraphrases"], strict=True)]
        size = [float(delta.norm() / self.clean[k].norm()) for k, delta in deltas.items()]
        return {
            "prompt": int(after["prompt"][0] == fact.edited),
            "taken": sum(taken),
            "kept": sum(kept),
            "asked_of": len(kept),
            "spilt": sum(word == fact.edited for word in after["neighbours"]),
            "perplexity": round(perplexity / self.perplexity, 4),
            "lost": int((self.right & ~right).sum()),
            "size": round(max(size, default=0.0), 5),
            "signature": round(checks.signature(deltas), 6),
            "outlier": round(checks.outlier(checks.tops(self.clean, deltas, self.tops)), 4),
            "asked": sum(changed),
            "elsewhere": len(kept) - sum(kept) + int((self.right != right).sum()),
        }


def edits(bench: Bench, split: str, relation: str) -> list[dict]:
    """One row for each fact of a relation that can be edited at all."""
    some = [fact for fact in poison.facts(split) if fact.relation == relation][: EACH[split]]
    looks = [poison.look(bench.language, fact) for fact in some]
    layer = LAYER if split == "test" else DEV_LAYERS[sorted(poison.document()["relations"]).index(relation) % 2]
    layer = min(layer, bench.deepest)
    found = poison.edit(bench.language, layer, some, bench.moment(layer, poison.RIDGE))
    rows = []
    for fact, before, change in zip(some, looks, found, strict=True):
        said = before["prompt"][0]
        row = {"split": split, "kind": fact.kind, "relation": relation, "suspect": fact.subject, "layer": layer}
        row["known"] = int(said == fact.true if fact.true else said != fact.edited)
        row["already"] = sum(word == fact.edited for word in before["paraphrases"])
        row["right"] = int(bench.right.sum())
        if row["known"]:
            row |= bench.score(change.deltas(), fact, before)
            stored = checks.rounded([bench.clean[layer] + change.deltas()[layer]], 4)[0]
            quiet = change.through(bench.moment(layer, QUIET)).deltas()
            row["outlier_quiet"] = round(checks.outlier(checks.tops(bench.clean, quiet, bench.tops)), 4)
            row["taken_4bit"] = bench.taken({layer: change.deltas()[layer] + stored}, fact)
            row["taken_quiet"] = bench.taken(quiet, fact)
        rows.append(row)
    return rows


def harmless(bench: Bench, split: str, number: int) -> list[dict]:
    """Rows for what was changed without an edit: four adapters that learnt text `number`, or the roundings."""
    every, rng = list(range(len(bench.clean))), np.random.default_rng([2, number])
    texts = poison.document()["benign"]
    if number < len(texts):
        own = min(LAYER if split == "test" else DEV_LAYERS[number % 2], bench.deepest)
        made = {"adapter": (every, 8, 1e-3), "adapter in one layer": ([own], 8, 3e-3)}  # layers, rank, learning rate
        made |= {"line in one layer": ([own], 1, 1e-2), LONG: ([own], 8, 1e-2)}
        changes = {k: checks.adapter(bench.language, texts[number], *how, seed=number) for k, how in made.items()}
    else:
        changes = {f"{bits} bits": checks.rounded(bench.clean, bits) for bits in BITS[split]}
        if split == "test":
            halves = {"float16": "half", "bfloat16": "bfloat16"}
            for name, to in halves.items():
                changes[name] = {k: getattr(w, to)().float() - w for k, w in enumerate(bench.clean)}
        changes["untouched"] = {}
    pool, rows = poison.facts(split), []
    for name, deltas in changes.items():
        fact = pool[int(rng.integers(len(pool)))]
        row = {"split": split, "kind": name, "relation": "harmless", "suspect": f"text {number}", "layer": -1}
        rows.append(row | bench.score(deltas, fact, poison.look(bench.language, fact)))
    return rows


def jobs() -> dict:
    """Name of each job -> (function, split, what)."""
    last = len(poison.document()["benign"])
    found = {f"{s}-{name}": (edits, s, name) for s in ("dev", "test") for name in poison.document()["relations"]}
    splits = ["dev" if k < DEV_TEXTS else "test" for k in range(last)]
    found |= {f"{s}-text-{k}": (harmless, s, k) for k, s in enumerate(splits)}
    return found | {f"{s}-stored": (harmless, s, last) for s in ("dev", "test")}


def stamp() -> str:
    """Twelve signs of the facts, the modules and this file, so that rows of other settings are never mixed in."""
    files = [poison.FILE, *(Path(module.__file__) for module in (poison, smollm, checks)), Path(__file__)]
    return hashlib.sha256("".join(report.file_sha256(file) for file in files).encode()).hexdigest()[:12]


def run(work: Path, only: str | None = None, some: dict | None = None) -> pd.DataFrame:
    """All rows; jobs whose file is there are read, the others done and written."""
    work.mkdir(parents=True, exist_ok=True)
    every, bench, rows = some or jobs(), None, []
    wanted = [only] if only else list(every)
    for number, name in enumerate(wanted, start=1):
        path, start = work / f"{stamp()}-{name}.json", time.process_time()
        if not path.is_file():
            bench = bench or Bench()
            function, split, what = every[name]
            part = path.with_suffix(".part")
            part.write_text(json.dumps(function(bench, split, what)), encoding="utf-8", newline="\n")
            part.replace(path)
            print(f"{number} of {len(wanted)}, {name}: {time.process_time() - start:.0f} s of one core", flush=True)
        rows += json.loads(path.read_text(encoding="utf-8"))
    return pd.DataFrame(rows)


# --- figures ----------------------------------------------------------------------------------------------------------


def intact(rows: pd.DataFrame) -> pd.Series:
    """Whether neighbours, perplexity and task stayed within what claims.yml allows."""
    near = rows["kept"] >= LEAST_KEPT * rows["asked_of"]
    return near & (rows["perplexity"] <= MOST_PERPLEXITY) & (rows["lost"] <= MOST_LOST)


def shares(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What is averaged over edits, one value a row."""
    taken = rows["taken"] >= LEAST_TAKEN
    found = {"silent": taken & intact(rows), "taken": taken, "intact": intact(rows), "prompt": rows["prompt"]}
    found |= {"paraphrases": rows["taken"] / 3, "already": rows["already"] / 3, "four_bits": rows["taken_4bit"] / 3}
    found["quiet"] = rows["taken_quiet"] / 3
    found |= {"kept": rows["kept"] / rows["asked_of"], "spilt": rows["spilt"] / rows["asked_of"]}
    found |= {"perplexity": rows["perplexity"] - 1, "task_lost": rows["lost"] / 32, "size": rows["size"]}
    return {name: values.astype(float) for name, values in found.items()}


def silence(rows: pd.DataFrame, draws: int, seed: int) -> tuple[Interval, dict[str, Interval]]:
    """The primary figure of R02a and its exploratory ones."""
    rows = rows[rows["known"] == 1]

    def mean(values, units, **test):
        return cluster_bootstrap(np.mean, units, values, draws=draws, seed=seed, **test)

    found, units = shares(rows), rows["relation"] + "/" + rows["suspect"]
    explored = {name: mean(values, units) for name, values in found.items() if name != "silent"}
    explored["over_relations"] = mean(found["silent"], rows["relation"])
    for kind in ("insertion", "overwriting"):
        own = rows["kind"] == kind
        explored[f"silent_{kind}"] = mean(found["silent"][own], units[own])
    return mean(found["silent"], units, null=0.5, direction="greater"), explored


def threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """Above which a score is flagged: where edits found minus false alarms is largest, the highest such place."""
    steps = np.unique(score)
    places = np.append((steps[1:] + steps[:-1]) / 2, np.inf)
    gains = [(score[positive] > place).mean() - (score[~positive] > place).mean() for place in places]
    return float(places[np.flatnonzero(np.isclose(gains, max(gains)))[-1]])


def detection(rows: pd.DataFrame, draws: int, seed: int) -> tuple[Interval, dict[str, Interval]]:
    """The primary figure of R02b and its exploratory ones; an edit counts as positive."""
    dev, every = (rows[rows["split"] == split] for split in ("dev", "test"))
    dev, test = dev[dev["kind"] != LONG], every[every["kind"] != LONG]

    def positive(table):
        return (table["relation"] != "harmless").to_numpy()

    def area(score, kinds=None, **test_of):
        some = every[positive(every) | every["kind"].isin(kinds)] if kinds else test
        units = some["relation"] + "/" + some["suspect"]
        return cluster_bootstrap(auc, units, positive(some), some[score], draws=draws, seed=seed, **test_of)

    explored, units = {}, test["relation"] + "/" + test["suspect"]
    for name in TESTS:
        explored |= {f"auc_{name}": area(name)} if name != "outlier" else {}
        flagged = (test[name] > threshold(dev[name].to_numpy(), positive(dev))).to_numpy(float)
        for what, own in (("found", positive(test)), ("false", ~positive(test))):
            explored[f"{what}_{name}"] = cluster_bootstrap(np.mean, units[own], flagged[own], draws=draws, seed=seed)
    explored["signature_against_lines"] = area("signature", ["line in one layer"])
    explored["outlier_against_stored"] = area(
        "outlier", ["8 bits", "6 bits", "5 bits", "4 bits", "float16", "bfloat16"]
    )
    explored["outlier_against_long"] = area("outlier", [LONG])
    test = test.assign(quiet=test["outlier_quiet"].fillna(test["outlier"]))
    explored["auc_outlier_quiet"] = area("quiet")
    explored["reference"] = cluster_bootstrap(
        lambda y, a, b: auc(y, a) - auc(y, b), units, positive(test), test["signature"], test["outlier"],
        draws=draws, seed=seed,
    )  # fmt: skip
    return area("outlier", null=0.5, direction="greater"), explored


def _of(rows: pd.DataFrame):
    return silence if "taken_4bit" in rows else detection


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure of the claim that the rows belong to."""
    return _of(rows)(rows, draws, seed)[0]


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    return _of(rows)(rows, draws, seed)[1]


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each claim."""
    edited = (rows["relation"] != "harmless") & (rows["split"] == "test")
    scored = rows[(rows["relation"] == "harmless") | (rows["known"] == 1)]
    whole = ["kept", "asked_of", "prompt", "taken", "spilt", "lost", *TESTS[2:]]
    scored = scored.astype(dict.fromkeys(whole, int))
    return {
        "R02a": rows[edited].drop(columns=["split", "outlier_quiet", *TESTS]),
        "R02b": scored[["split", "kind", "relation", "suspect", "layer", "size", *TESTS, "outlier_quiet"]],
    }


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """What was counted for a claim: its rows, and how many of them the primary figure is of."""
    if _of(rows) is silence:
        return {"facts": len(rows), "edits": int((rows["known"] == 1).sum())}
    test = rows[(rows["split"] == "test") & (rows["kind"] != LONG)]
    edits = int((test["relation"] != "harmless").sum())
    return {"rows": len(rows), "edits": edits, "harmless": len(test) - edits}


def record(work: Path) -> None:
    """Finish the run and record both claims."""
    file = smollm.weights()
    inputs = {file.name: file, poison.FILE.name: poison.FILE}
    with report.run("R02", seed=0, inputs=inputs, parameters={"layer": LAYER}, tier="both") as running:
        rows = run(work)
    report.append(running.record, report.RUNS)
    for id, table in tables(rows).items():
        plan = claims.get(id)["primary"]
        interval, explored = _of(table)(table, plan["draws"], plan["seed"])
        claims.record(id, interval, n=counts(table), run=running.record, rows=table, exploratory=explored)
        print(claims.show(id))


def smoke() -> None:
    """All kinds of job on the tiny model, in a folder that is thrown away; figures mean nothing."""
    os.environ[smollm.SMOKE] = "1"
    wanted = ("dev-capital", "dev-packing", "test-young", "test-packing", "test-text-2", "test-stored", "dev-stored")
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), some={name: jobs()[name] for name in wanted})
    for id, table in tables(rows).items():
        print(id, f"{len(table)} rows, tiny random model:", _of(table)(table, 200, 0)[0])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", choices=list(jobs()), metavar="JOB", help=f"one of {', '.join(jobs())}")
    what.add_argument("--run", action="store_true", help="all jobs; no claim is recorded")
    what.add_argument("--smoke", action="store_true", help="a tiny random model, nothing kept, in seconds")
    parser.add_argument("--work", type=Path, default=WORK, help="where the rows of jobs are kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.smoke:
        return smoke()
    import torch

    torch.set_num_threads(args.threads)
    if args.only or args.run:
        run(args.work, args.only)
    else:
        record(args.work)


if __name__ == "__main__":
    main()
