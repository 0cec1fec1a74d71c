"""Does a generator help a classifier when it knows no more than the classifier does? An estimate, not a claim.

    python recipes/owndata.py --only 0       # one draw: generator, its films, both classifiers (35 CPU minutes)
    python recipes/owndata.py                # all draws and recipes/results/owndata.json; stop it and start it again
    python recipes/owndata.py --steps 2 --only 0 --work runs/try       # a smoke run

The draws are those of claim L2a (rebalance.py). Linear code, decoder, perceptual features, attributes' cuts, captions
and generator learn from the films a draw leaves, through the stages of train_generator.py, with fewer steps and
without its few-step copy. While they run, no other film can be loaded. The filter is the draw's own classifier.
Measured on dev, which nothing here has seen or chosen on; without a threshold. Not a medical device.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import rebalance
import torch
from draws import LETTERS, both_ways, over_draws, resamples, words
from generator import claim, common
from generator.features import CLASSES
from train_generator import Recipe

from medimgen import likeness, report
from medimgen.classify import Classifier
from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.metrics import Interval
from medimgen.paths import cache_dir

STEPS = {"features": 150, "code": 300, "autoencoder": 700, "unet": 1500}
WALK, SEED, DRAWS = 24, 600_000, rebalance.FEW
WORK = cache_dir() / "training" / "owndata"
RESULT = report.RESULTS / "owndata.json"
DONE = report.RESULTS / "owndata"  # what is left of a draw that has been run: probabilities on dev


def left(draw: int) -> radiographs.Films:
    """The films that a draw leaves."""
    films = radiographs.load("clinic")
    keep = rebalance.thinned(films.table, draw)
    return radiographs.Films(films.images[keep], films.table[keep].reset_index(drop=True))


@contextmanager
def only(films: radiographs.Films) -> Iterator[list[str]]:
    """Inside, whoever loads the films to learn from ("donor") or to watch ("dev") gets `films`; for any other split
    CourseError is raised. Yields the splits asked for.
    """
    asked, before = [], radiographs.load

    def load(split=None, **_) -> radiographs.Films:
        if split not in ("donor", "dev"):
            raise CourseError(f"split {split} is not part of the draw", next="load it outside of `only`")
        asked.append(split)
        return films

    radiographs.load = load
    try:
        yield asked
    finally:
        radiographs.load = before


def drawn(films: radiographs.Films, n: int, work: Path, steps: dict[str, int]) -> np.ndarray:
    """`n` generated viral films, uint8 (n, 128, 128), of a generator that learnt from `films` alone."""
    from diffusers import DPMSolverMultistepScheduler
    from generator import diffusion

    path = work / f"films-{n}.npy"
    if not path.is_file():
        with only(films):
            recipe = Recipe(work, work / "none", steps)
            (data, model), vae = recipe.unet(), recipe.autoencoder()
        scheduler = DPMSolverMultistepScheduler(**diffusion.SCHEDULE)
        texts = [claim.PROMPTS["viral"]] * n
        images = diffusion.sample(model, vae, data.tokenizer, scheduler, texts, WALK, 1.0, SEED)
        temporary = path.with_name(f"part-{path.name}")
        np.save(temporary, images)
        temporary.replace(path)
    return np.load(path)


def cell(draw: int, work: Path, steps: dict[str, int]) -> tuple[pd.DataFrame, float]:
    """Class probabilities on dev with the draw's own generated films and with class weights alone; and how near the
    generated films are to the draw's. Read from `DONE` if the draw has been run, with the settings of the record.
    """
    path = DONE / f"{draw}.csv"
    if steps != STEPS or not path.is_file():
        both, near = run(draw, work, steps)
        if steps != STEPS:
            return both, near
        DONE.mkdir(exist_ok=True)
        both.columns = [" ".join(name) for name in both.columns]
        both.assign(near=round(near, 6)).to_csv(path, index=False, lineterminator="\n")
    table = pd.read_csv(path)
    near = float(table.pop("near").iloc[0])
    table.columns = pd.MultiIndex.from_tuples([tuple(name.split(" ")) for name in table.columns])
    return table, near


def run(draw: int, work: Path, steps: dict[str, int]) -> tuple[pd.DataFrame, float]:
    """The same, worked out; what `work` holds is not done again."""
    folder, n = work / str(draw), rebalance.REMOVED
    table, facts, films = folder / "own.csv", folder / "facts.json", left(draw)
    plain = rebalance.cell("weights", draw, work)
    if not table.is_file():
        images = drawn(films, 2 * n, folder, steps)
        best = np.argsort(-rebalance.network(plain).predict(images)[:, rebalance.VIRAL], kind="stable")[:n]
        known = np.stack([likeness.signs(x) for x in films.images])
        near = float(np.median(likeness.nearest(images[best], known)))
        facts.write_text(json.dumps({"near": near}) + "\n", encoding="utf-8", newline="\n")
        kinds = np.concatenate([films.table["subtype"].map(CLASSES.index), np.full(n, rebalance.VIRAL)])
        net = rebalance.train(np.concatenate([films.images, images[best]]), kinds, draw, "weights", rebalance.STEPS)
        common.save_state(folder / "own.pt", net=net.state_dict())
        part = table.with_suffix(".part")
        found = pd.DataFrame(Classifier(net).predict(radiographs.load("dev").images).round(4), columns=CLASSES)
        found.to_csv(part, index=False, lineterminator="\n")
        part.replace(table)
    both = pd.concat({"own": pd.read_csv(table), "weights": pd.read_csv(plain.with_suffix(".csv"))}, axis=1)
    return both, json.loads(facts.read_text(encoding="utf-8"))["near"]


def make_rows(found: list[pd.DataFrame]) -> pd.DataFrame:
    """One row a dev film; for each arm one letter a draw."""
    table = radiographs.load("dev").table
    rows = pd.DataFrame({"kind": table["subtype"], "unit": table["number"].astype(str)})
    for arm in ("own", "weights"):
        rows[arm] = words([both[arm].to_numpy().argmax(1) for both in found], LETTERS)
    return rows


def figures(rows: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Macro F1 of both arms and the gain: patients and draws resampled together, and over draws alone."""
    y, counted = rows["kind"].map(CLASSES.index).to_numpy(), resamples(rows["unit"], draws, seed)
    codes = {arm: np.array([[LETTERS.index(c) for c in text] for text in rows[arm]]) for arm in ("own", "weights")}
    values = {arm: rebalance.f1(rebalance.confusion(y, c, 3), counted).mean(-1) for arm, c in codes.items()}
    gain = values["own"] - values["weights"]
    out = {f"f1_{arm}": both_ways(v, seed) for arm, v in values.items()}
    return out | {"gain": both_ways(gain, seed), "gain_over_draws": over_draws(gain[0])}


def record(work: Path, steps: dict[str, int], path: Path = RESULT) -> dict:
    """Run what is missing, and write the figures with their rows' hash and the run's record. Its `seconds` are those of
    this run: draws that were kept before cost none of them.
    """
    with report.run("owndata", seed=0, parameters={"steps": steps, "draws": len(DRAWS)}, tier="full") as run:
        found = [cell(draw, work, steps) for draw in DRAWS]
        rows = make_rows([both for both, _ in found])
        near = [near for _, near in found]
    table = path.with_suffix(".rows.csv")
    rows.to_csv(table, index=False, lineterminator="\n")
    told = {name: {"estimate": round(v.estimate, 6), "ci95": [round(v.low, 6), round(v.high, 6)]}
            for name, v in figures(rows).items()}  # fmt: skip
    document = {"figures": told, "nearest_film_of_the_draw": near, "films": len(rows)}
    document |= {"rows_sha256": report.file_sha256(table), "run": asdict(run.record)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    report.append(run.record, path.parent / report.RUNS.name)
    return told


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=int, choices=DRAWS, help="one draw")
    parser.add_argument("--steps", type=int, help="at most so many steps a stage (smoke run)")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and films")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    steps = {k: min(v, args.steps or v) for k, v in STEPS.items()}
    if args.only is not None:
        print(cell(args.only, args.work, steps)[1])
    elif args.steps:
        parser.error("a smoke run is not recorded: add --only")
    else:
        print(json.dumps(record(args.work, steps), indent=1))


if __name__ == "__main__":
    main()
