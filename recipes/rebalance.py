"""Claim L2a: does a classifier that lacks viral films gain from generated ones more than from class weights?

    python recipes/rebalance.py --only filtered 3      # one cell: arm and draw (under a minute of one core)
    python recipes/rebalance.py --train                # all cells; stop it at any time and start it again
    python recipes/rebalance.py --dev                  # figures on dev of the cells that are there
    python recipes/rebalance.py                        # cells still missing, one look at the test films, claim L2a
    python recipes/rebalance.py --draw 3               # one draw once more, beside what was recorded of it
    python recipes/rebalance.py --after                # what the recorded rows say of the negative control

A draw thins clinic to an imbalance (largest class over smallest) of 20, one viral film for every 20 bacterial ones: it
picks whole numbers, whose viral films stay; of all other numbers the viral films go, and nothing else. 1x is what went.
The generator learnt from donor films and saw neither clinic nor dev nor test. All arms are augmented, take the same
steps, and choose no checkpoint; class weights follow from the films that an arm learns from. The filter is the draw's
own classifier without generated films: of twice as many, it keeps the half that it finds most viral, so it knows what
the learner knows. Cells keep their net and what it says of dev. The full data tier is needed. Not a medical device.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tstr
from draws import FINE, LETTERS, both_ways, codes, over_draws, resamples, words
from generator import claim
from generator.captions import WORDS
from generator.common import load_state, save_state
from generator.features import CLASSES

from medimgen import claims, generate, report
from medimgen.classify import Classifier, Net
from medimgen.data import radiographs
from medimgen.likeness import too_like
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.paths import cache_dir

VIRAL, RATIO, REMOVED = CLASSES.index("viral"), 20, 340
STEPS, SEED = 200, {"plain": 400_000, "rich": 410_000}
BLOCKS = {"plain": 10, "rich": 4}
ALL, FEW = range(10), range(5)
WORK = cache_dir() / "training" / "rebalance"


@dataclass(frozen=True)
class Arm:
    """What is added to the thinned films, how often (1 = as many as went), and how the classes are evened out."""

    source: str = ""  # "", "plain" or "rich" prompts, "donor"
    times: float = 1.0
    filtered: bool = False
    even: str = "weights"
    shuffled: bool = False
    draws: range = FEW


PRIMARY = {
    "weights": Arm(draws=ALL),
    "filtered": Arm("plain", filtered=True, draws=ALL),
    "donor": Arm("donor", draws=ALL),
    "shuffled": Arm("plain", filtered=True, shuffled=True, draws=ALL),
}
ARMS = PRIMARY | {
    "nothing": Arm(even="nothing"),
    "oversampling": Arm(even="oversampling"),
    "unfiltered": Arm("plain"),
    "rich": Arm("rich", filtered=True),
    "quarter": Arm("plain", 0.25, filtered=True),
    "four": Arm("plain", 4, filtered=True),
    "ten": Arm("plain", 10),
}


# --- films ------------------------------------------------------------------------------------------------------------


def thinned(table: pd.DataFrame, draw: int) -> np.ndarray:
    """bool (films,): what a draw leaves; one viral film for every 20 bacterial ones, of numbers drawn at random."""
    rng, viral = np.random.default_rng([2, draw]), (table["subtype"] == "viral").to_numpy()
    left, keep = round((table["subtype"] == "bacterial").sum() / RATIO), ~viral
    films = table[viral].groupby("number").size()
    for number in rng.permutation(films.index):
        if films[number] <= left:
            keep |= viral & (table["number"] == number).to_numpy()
            left -= films[number]
    return keep


def prompts(source: str, seeds: range) -> list[tuple[str, int]]:
    """The class prompt for every seed, or the same with two attributes that the seed draws."""
    pairs = [(claim.PROMPTS["viral"], seed) for seed in seeds]
    if source == "plain":
        return pairs
    rngs = [np.random.default_rng(seed) for seed in seeds]
    words = [[WORDS[name][rng.integers(-1, 2)][0] for name in rng.permutation(list(WORDS))[:2]] for rng in rngs]
    return [(", ".join([prompt, *two]), seed) for (prompt, seed), two in zip(pairs, words, strict=True)]


def block(source: str, k: int, work: Path) -> np.ndarray:
    """Block `k` of REMOVED generated films, those too like a donor film left out; kept once made."""
    path = work / f"{source}-{k}-{REMOVED}-{generate.weights_sha256(generate.FOLDER)[:12]}.npy"
    if not path.is_file():
        first = SEED[source] + REMOVED * k
        made = generate.Generator.load().stream(prompts(source, range(first, first + REMOVED)), batch=32)
        images = np.concatenate([result.images for result in made])
        temporary = path.with_name(f"part-{path.name}")
        work.mkdir(parents=True, exist_ok=True)
        np.save(temporary, images[~too_like(images, generate.FOLDER)])
        temporary.replace(path)
    return np.load(path)


def added(arm: str, draw: int, work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films that an arm adds, the classes they are called, and their patients ("" for a generated film)."""
    plan, rng = ARMS[arm], np.random.default_rng([3, draw])
    n = round(plan.times * REMOVED)
    if plan.source == "donor":
        films = radiographs.load("donor")
        chosen = rng.permutation(np.flatnonzero(films.table["subtype"] == "viral"))[:n]
        return films.images[chosen], np.full(n, VIRAL), films.table["number"].to_numpy()[chosen]
    wanted = 2 * n if plan.filtered else n
    chosen = rng.permutation(BLOCKS[plan.source])[: -(-wanted // REMOVED)]
    images = np.concatenate([block(plan.source, int(k), work) for k in chosen])[:wanted]
    if plan.filtered:
        proxy = network(cell("weights", draw, work))
        images = images[np.sort(np.argsort(-proxy.predict(images)[:, VIRAL], kind="stable")[:n])]
    kinds = np.full(len(images), VIRAL)
    if plan.shuffled:
        kinds = rng.permutation(np.arange(len(images)) % len(CLASSES))
    return images, kinds, np.full(len(images), "")


def learnt(arm: str, draw: int, work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All films that an arm learns from in a draw, their classes, and their patients."""
    films = radiographs.load("clinic")
    keep = thinned(films.table, draw)
    kinds, who = films.table["subtype"].map(CLASSES.index).to_numpy(), films.table["number"].astype(str).to_numpy()
    own = (films.images[keep], kinds[keep], who[keep])
    if not ARMS[arm].source:
        return own
    return tuple(np.concatenate(pair) for pair in zip(own, added(arm, draw, work), strict=True))


# --- cells ------------------------------------------------------------------------------------------------------------


def train(images: np.ndarray, kinds: np.ndarray, draw: int, even: str, steps: int) -> Net:
    """The net after `steps` steps; even: "weights", "oversampling" or "nothing" (see tstr.py, whose loop this is)."""
    return tstr.train(images, kinds, 8000 + draw, steps, even, decay=0.97)


def cell(arm: str, draw: int, work: Path, steps: int | None = None) -> Path:
    """The file with the net of one training, and beside it (.csv) its probabilities on dev; made if missing."""
    steps = steps or STEPS
    made = ARMS[arm].source in SEED
    name = f"{arm}-{draw}-{steps}" + (f"-{generate.weights_sha256(generate.FOLDER)[:12]}" if made else "")
    path, table = work / f"{name}.pt", work / f"{name}.csv"
    if not table.is_file():
        images, kinds, _ = learnt(arm, draw, work)
        net = train(images, kinds, draw, ARMS[arm].even, steps)
        save_state(path, net=net.state_dict())
        found = Classifier(net).predict(radiographs.load("dev").images).round(4)
        part = table.with_suffix(".part")
        pd.DataFrame(found, columns=CLASSES).to_csv(part, index=False, lineterminator="\n")
        part.replace(table)
    return path


def network(path: Path) -> Classifier:
    net = Net()
    net.load_state_dict(load_state(path)["net"])
    return Classifier(net)


def offset(path: Path) -> float:
    """What to add to the log probability of viral for the largest macro F1 on dev; a choice made by dev alone."""
    p = np.log(pd.read_csv(path.with_suffix(".csv")).to_numpy() + 1e-6)
    y = radiographs.load("dev").table["subtype"].map(CLASSES.index).to_numpy()
    tries = np.linspace(-2, 2, 41)[np.argsort(np.abs(np.linspace(-2, 2, 41)), kind="stable")]  # 0 first: it wins ties
    said = np.stack([(p + t * (np.arange(3) == VIRAL)).argmax(1) for t in tries], 1)
    return float(tries[f1(confusion(y, said, 3), np.ones((1, len(y)))).mean(-1)[0].argmax()])


# --- rows -------------------------------------------------------------------------------------------------------------


def test_films() -> tuple[np.ndarray, pd.DataFrame]:
    """The official test films and the adults' (nih-cxr8-subset), with set, kind and patient; logged as a test use."""
    from flips import adult_films

    from medimgen.films import source

    report.log_test_use("recipes/rebalance.py", "macro F1 of classifiers of thinned clinic films", "claim L2a")
    films, (files, numbers, kinds) = radiographs.load("test"), adult_films()
    adults = (source(files, 128).read()[0] * 255).round().astype(np.uint8)
    children = pd.DataFrame({"set": "test", "kind": films.table["subtype"], "unit": films.table["number"].astype(str)})
    rows = pd.concat([children, pd.DataFrame({"set": "adults", "kind": kinds, "unit": numbers})], ignore_index=True)
    return np.concatenate([films.images, adults]), rows


def make_rows(work: Path = WORK, films=None, arms=None) -> pd.DataFrame:
    """One row a film. A column for each arm holds one letter a draw: the class it is given (n, b, v).

    *_tuned: the same with the constant that dev chose; *_viral: P(viral) among pneumonia in 52 steps, A the lowest.
    """
    arms = arms or ARMS
    cells = {arm: [cell(arm, draw, work) for draw in plan.draws] for arm, plan in arms.items()}
    images, rows = films or test_films()  # once every cell is there
    for arm, paths in cells.items():
        p = [network(path).predict(images) for path in paths]
        rows[arm] = words([x.argmax(1) for x in p], LETTERS)
        if arm in PRIMARY:
            shift = [(np.arange(3) == VIRAL) * offset(path) for path in paths]
            rows[f"{arm}_tuned"] = words(
                [(np.log(x + 1e-6) + s).argmax(1) for x, s in zip(p, shift, strict=True)], LETTERS
            )
            viral = [x[:, 2] / (x[:, 1] + x[:, 2] + 1e-9) for x in p]
            rows[f"{arm}_viral"] = words([(v * 51.999).astype(int) for v in viral], FINE)
    return rows


# --- figures ----------------------------------------------------------------------------------------------------------


def confusion(y: np.ndarray, said: np.ndarray, k: int) -> np.ndarray:
    """bool (films, draws, k, k): in which field of the table (true class, class given) each film stands."""
    return (np.arange(k) == y[:, None])[:, None, :, None] & (np.arange(k) == said[..., None])[:, :, None, :]


def f1(table: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """F1 (resamples, draws, classes) of films (n, draws, k, k), each counted (resamples, n) times; else 0."""
    n, draws, k, _ = table.shape
    sums = (counted @ table.reshape(n, -1).astype(float)).reshape(-1, draws, k, k)
    right, total = np.einsum("rdkk->rdk", sums), sums.sum(2) + sums.sum(3)
    return 2 * right / np.maximum(total, 1)


class Table:
    """The rows of one set, and its resamples: F1 of any column by resample and draw."""

    def __init__(self, rows: pd.DataFrame, part: str, draws: int, seed: int):
        self.rows, self.seed = rows[rows["set"] == part].reset_index(drop=True), seed
        self.k, self.counted = 3 if part != "adults" else 2, resamples(self.rows["unit"], draws, seed)
        names = {"normal": 0, "bacterial": 1, "pneumonia": 1, "viral": 2}
        self.y = self.rows["kind"].map(names).to_numpy().clip(max=self.k - 1)

    def f1(self, column: str, classes=slice(None)) -> np.ndarray:
        """Mean F1 (1 + resamples, draws) over classes; adults: normal or pneumonia."""
        said = codes(self.rows, column).clip(max=self.k - 1)
        return f1(confusion(self.y, said, self.k), self.counted)[..., classes].mean(-1)

    def gain(self, a: str, b: str = "weights", test: bool = False, classes=slice(None)) -> Interval:
        """Column `a` minus `b`, paired by film and draw, on the draws that both have."""
        one, two = self.f1(a, classes), self.f1(b, classes)
        n = min(one.shape[1], two.shape[1])
        return both_ways(one[:, :n] - two[:, :n], self.seed, test)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Macro F1 on test, filtered generated films minus class weights alone."""
    return Table(rows, "test", draws, seed).gain("filtered", test=True)


def auc_gain(rows: pd.DataFrame, draws: int, seed: int, arms=("filtered", "weights")) -> Interval:
    """AUC, viral against bacterial, one arm minus another, mean over draws; patients resampled."""
    ill = rows[(rows["set"] == "test") & (rows["kind"] != "normal")]
    pair = [codes(ill, f"{arm}_viral", FINE) for arm in arms]
    return cluster_bootstrap(
        tstr.mean_auc, ill["unit"], (ill["kind"] == "viral").to_numpy(), *pair, draws=draws, seed=seed
    )


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    test, adults = (Table(rows, part, draws, seed) for part in ("test", "adults"))
    one, two = test.f1("filtered")[0], test.f1("weights")[0]
    out = {f"f1_{arm}": both_ways(test.f1(arm), seed) for arm in PRIMARY}
    out |= {"over_draws": over_draws(one - two), "f1_viral": test.gain("filtered", classes=[VIRAL])}
    out |= {"auc_viral": auc_gain(rows, draws, seed), "tuned": test.gain("filtered_tuned", "weights_tuned")}
    out |= {f"gain_{arm}": test.gain(arm) for arm in ARMS if arm not in ("weights", "filtered")}
    out |= {"short_of_donor": test.gain("filtered", "donor"), "filter": test.gain("filtered", "unfiltered")}
    out |= {"rich_words": test.gain("rich", "filtered")}
    return out | {f"adults_{arm}": adults.gain(arm) for arm in ("filtered", "donor", "four", "ten")}


def after(rows: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Contrasts with the negative control, thought of when the result was known; from the recorded rows, no new look.

    content_*: the same films with right labels minus labels dealt out at random. called_viral_*: share of test films.
    """
    test, out = Table(rows, "test", draws, seed), {}
    out["content_f1"] = test.gain("filtered", "shuffled")
    out["content_f1_tuned"] = test.gain("filtered_tuned", "shuffled_tuned")
    out["content_f1_donor"] = test.gain("donor", "shuffled")
    for a, b in (("shuffled", "weights"), ("donor", "weights"), ("filtered", "shuffled"), ("donor", "filtered")):
        out[f"auc_{a}_minus_{b}"] = auc_gain(rows, draws, seed, (a, b))
    for arm in PRIMARY:
        said = (codes(test.rows, arm) == VIRAL).mean(1)
        out[f"called_viral_{arm}"] = cluster_bootstrap(np.mean, test.rows["unit"], said, draws=draws, seed=seed)
    return out


def record_after(path: Path = report.RESULTS / "L2a_after.json") -> dict[str, dict]:
    """`after` of the recorded rows, written beside them with their hash."""
    rows = claims.read_rows("L2a")
    told = {k: {"estimate": round(v.estimate, 6), "ci95": [round(v.low, 6), round(v.high, 6)]}
            for k, v in after(rows).items()}  # fmt: skip
    document = {"figures": told, "rows_sha256": report.file_sha256(report.RESULTS / "L2a.rows.csv")}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    return told


def count(rows: pd.DataFrame) -> dict[str, int]:
    n = {f"{part}_films": int((rows["set"] == part).sum()) for part in ("test", "adults")}
    return {"films": len(rows)} | n | {"trainings": sum(len(plan.draws) for plan in ARMS.values())}


# --- command line -----------------------------------------------------------------------------------------------------


def on_dev(work: Path) -> pd.DataFrame:
    """Macro F1 on dev, draw by draw, of the cells that are there, and the standard deviation of its gain over weights
    when patients are drawn; for choices and for the size of the design.
    """
    films, found = radiographs.load("dev").table, {}
    y, counted = films["subtype"].map(CLASSES.index).to_numpy(), resamples(films["number"], 500, 0)
    for file in sorted(work.glob(f"*-*-{STEPS}*.csv")):
        arm, draw = file.stem.split("-")[:2]
        said = pd.read_csv(file).to_numpy().argmax(1)[:, None]
        found[arm, int(draw)] = f1(confusion(y, said, 3), counted).mean(-1)[:, 0]
    rows = []
    for (arm, draw), values in found.items():
        gain = values - found.get(("weights", draw), np.full(len(values), np.nan))
        rows.append({"arm": arm, "draw": draw, "f1": values[0], "gain": gain[0], "sd_patients": gain[1:].std()})
    return pd.DataFrame(rows).round(4)


def again(draw: int, work: Path) -> str:
    """Train the primary arms of one draw anew, on films generated before; macro F1 on test beside the recorded one."""
    one = {arm: Arm(**vars(plan) | {"draws": range(draw, draw + 1)}) for arm, plan in PRIMARY.items()}
    with tempfile.TemporaryDirectory() as folder:
        for file in work.glob("*.npy"):
            shutil.copy(file, folder)
        here = Table(make_rows(Path(folder), arms=one), "test", 1, 0)
    before = Table(claims.read_rows("L2a"), "test", 1, 0)
    lines = [f"{arm:9} recorded {before.f1(arm)[0, draw]:.4f}, now {here.f1(arm)[0, 0]:.4f}" for arm in PRIMARY]
    return "\n".join([f"Draw {draw}, macro F1 on test", *lines])


def train_all(work: Path) -> None:
    """Every cell, the arms of the primary figure first."""
    for arm, plan in ARMS.items():
        for draw in plan.draws:
            start = time.process_time()
            cell(arm, draw, work)
            print(f"{arm} {draw}: {time.process_time() - start:.0f} s of one core", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", nargs=2, metavar=("ARM", "DRAW"), help=f"one cell; arms: {', '.join(ARMS)}")
    what.add_argument("--train", action="store_true", help="all cells; no look at test")
    what.add_argument("--dev", action="store_true", help="figures on dev of the cells that are there")
    what.add_argument("--draw", type=int, choices=ALL, help="one draw again, beside the record")
    what.add_argument("--after", action="store_true", help="contrasts with the negative control, of the recorded rows")
    parser.add_argument("--work", type=Path, default=WORK, help="where cells are kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.only:
        cell(args.only[0], int(args.only[1]), args.work)
    elif args.train:
        train_all(args.work)
    elif args.dev:
        print(on_dev(args.work))
    elif args.after:
        print(json.dumps(record_after(), indent=1))
    elif args.draw is not None:
        print(again(args.draw, args.work))
    else:
        claim.record("L2a", lambda: make_rows(args.work), measure, explore, count)
        print(claims.show("L2a"))


if __name__ == "__main__":
    main()
