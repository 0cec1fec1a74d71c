"""Claim L1g: does the ControlNet make the lungs it is asked for?

    python recipes/shape.py                 # needs the full data tier, models/cxr-mini-control and models/cxr-segmenter
    python recipes/shape.py --donor 32      # the same on masks of held-out donor patients, for choices; not recorded

Three images for every film with a mask: that mask, the mask turned by 20 degrees, and the mask with one lung cut in
half.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from generator import claim
from generator.control import halved, lungs, turned
from train_segmenter import held_out, pairs

from medimgen import claims
from medimgen.data import radiographs
from medimgen.metrics import Interval, cluster_bootstrap

SEED, DEGREES = 130_000, 20.0
TARGETS = {"asked": 0.90, "tilted": 0.85, "half_lung": 0.85}
COLUMNS = [*TARGETS, "shuffled", "real", "halved", "tilted_if_ignored", "half_lung_if_ignored", "left_over"]


def margin(*columns: np.ndarray) -> float:
    """Smallest of the three mean overlaps less their targets."""
    return min(float(c.mean()) - t for c, t in zip(columns, TARGETS.values(), strict=True))


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    how = dict(draws=draws, seed=seed, null=0.0, direction="greater")
    return cluster_bootstrap(margin, rows["number"], *(rows[c] for c in TARGETS), **how)


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """Mean of every column, patients resampled."""
    return {
        name: cluster_bootstrap(lambda v: float(v.mean()), rows["number"], rows[name], draws=draws, seed=seed)
        for name in COLUMNS
    }


def half_picture(mask: np.ndarray, side: int) -> np.ndarray:
    """bool (h, w): the columns on one lung's side of the middle between the two lungs."""
    middle = np.mean([np.nonzero(part)[1].mean() for part in lungs(mask)])
    before = np.arange(mask.shape[1]) < middle
    return np.broadcast_to(before if side == 0 else ~before, mask.shape)


def shuffle(numbers: np.ndarray, seed: int) -> np.ndarray:
    """For every film another one, of another patient."""
    order = np.random.default_rng(seed).permutation(len(numbers))
    for step in range(1, len(order)):
        other = np.empty_like(order)
        other[order] = np.roll(order, step)
        if (numbers[other] != numbers).all():
            return other
    raise ValueError("one patient has too many films")


def draw(control, table: pd.DataFrame, masks: np.ndarray, batch: int = 16) -> np.ndarray:
    """One image a mask, of the film's own class, seeds from SEED on."""
    out = np.empty(masks.shape, np.uint8)
    for kind, prompt in claim.PROMPTS.items():
        rows = np.flatnonzero(table["subtype"] == kind)
        for part in (rows[k : k + batch] for k in range(0, len(rows), batch)):
            out[part] = control(prompt, n=len(part), seed=SEED + 1000 * int(part[0]), mask=masks[part]).images
    return out


def make_rows(split: str = "dev", keep=None, control=None, segmenter=None) -> pd.DataFrame:
    """One row a film: overlaps of the mask asked for with the one found.

    real: found on the film itself. half_lung: on the cut lung's side of the picture alone, because a generator that
    ignored the cut would overlap by 0.86 with the whole; halved: the whole. *_if_ignored: with what is found in the
    image made from the unchanged mask. left_over: share of the part cut away that is found as lung all the same.
    """
    from medimgen.control import Control
    from medimgen.segment import Segmenter, dice

    control, segmenter = control or Control.load(), segmenter or Segmenter.load()
    films, masks, numbers, files = pairs(split)
    table = radiographs.labels().set_index("file").loc[files].reset_index()
    if keep is not None:
        films, masks, numbers, table = films[keep], masks[keep], numbers[keep], table.iloc[keep].reset_index(drop=True)
    sides = np.random.default_rng(0).integers(0, 2, len(masks))
    tilted, cut = turned(masks, DEGREES), np.stack([halved(m, s) for m, s in zip(masks, sides, strict=True)])
    near = np.stack([half_picture(m, s) for m, s in zip(masks, sides, strict=True)])
    whole, leaning, short = (segmenter(draw(control, table, m)) for m in (masks, tilted, cut))
    gone = masks & ~cut
    values = {
        "asked": dice(masks, whole),
        "tilted": dice(tilted, leaning),
        "half_lung": dice(cut & near, short & near),
        "shuffled": dice(masks[shuffle(numbers, 0)], whole),
        "real": dice(masks, segmenter(films)),
        "halved": dice(cut, short),
        "tilted_if_ignored": dice(tilted, whole),
        "half_lung_if_ignored": dice(cut & near, whole & near),
        "left_over": (gone & short).sum((1, 2)) / gone.sum((1, 2)),
    }
    facts = {"file": table["file"], "number": numbers, "subtype": table["subtype"]}
    return pd.DataFrame(facts | {name: values[name].round(4) for name in COLUMNS})


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"masks": len(rows), "patients": int(rows["number"].nunique())}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--donor", type=int, help="measure so many masks of held-out donor patients; record nothing")
    parser.add_argument("--net", type=Path, help="another ControlNet's folder; with --donor only")
    args = parser.parse_args(argv)
    if args.donor:
        from medimgen.control import Control

        aside = np.flatnonzero(held_out(pairs("donor")[2]))
        keep = np.random.default_rng(1).permutation(aside)[: args.donor]
        print(make_rows("donor", keep, Control.load(net=args.net)).mean(numeric_only=True).round(3).to_string())
        return
    from medimgen import control, segment

    weights = [p for folder in (control.FOLDER, segment.FOLDER) for p in folder.glob("*.safetensors")]
    claim.record("L1g", make_rows, measure, explore, count, more=tuple(weights))
    print(claims.show("L1g"))


if __name__ == "__main__":
    main()
