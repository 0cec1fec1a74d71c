"""Claim L1b: do 200 images of one prompt differ among themselves as much as real films of the class?

python recipes/variety.py           needs the full data tier
"""

import numpy as np
import pandas as pd
from generator import claim
from generator.features import CLASSES

from medimgen import claims
from medimgen.data import radiographs
from medimgen.metrics import Interval

EACH, SEED, ROUNDS = 200, 110_000, 5


def excess(rows: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Mean SSIM of generated pairs minus that of real pairs, for each class; `weights` one a row."""
    out, ssim = [], rows["ssim"].to_numpy()
    for c in CLASSES:
        means = []
        for made in (1, 0):
            here = ((rows["kind"] == c) & (rows["made"] == made)).to_numpy()
            means.append(np.average(ssim[here], weights=weights[here]) if weights[here].sum() else np.nan)
        out.append(means[0] - means[1])
    return np.array(out)


def _draws(rows: pd.DataFrame, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The three excesses, and their bootstrap draws (draws, 3): images and patients are drawn, a pair counts as
    often as both.
    """
    names, codes = np.unique(rows[["a", "b"]].to_numpy().ravel(), return_inverse=True)
    codes, rng = codes.reshape(-1, 2), np.random.default_rng(seed)
    values = np.empty((draws, len(CLASSES)))
    for i in range(draws):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        values[i] = excess(rows, times[codes[:, 0]] * times[codes[:, 1]])
    return excess(rows, np.ones(len(rows))), values[~np.isnan(values).any(1)]


def _interval(estimate: float, values: np.ndarray, null: float | None = None) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    p = None if null is None else (1 + int((values >= null).sum())) / (1 + len(values))
    return Interval(float(estimate), float(low), float(high), p, len(values), 0)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Largest excess over the three classes, against 0.05."""
    estimate, values = _draws(rows, draws, seed)
    return _interval(estimate.max(), values.max(1), 0.05)


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    estimate, values = _draws(rows, draws, seed)
    return {f"excess_{c}": _interval(estimate[k], values[:, k]) for k, c in enumerate(CLASSES)}


def pairs(images: np.ndarray, units: np.ndarray, kind: str, made: int, seed: int) -> list[tuple]:
    """`ROUNDS` random pairings of all images; two films of one patient never meet."""
    from skimage.metrics import structural_similarity

    rng, out = np.random.default_rng(seed), []
    for _ in range(ROUNDS):
        order = rng.permutation(len(images))
        for a, b in zip(order[::2], order[1::2], strict=False):
            if units[a] != units[b]:
                out.append(
                    (kind, made, units[a], units[b], round(float(structural_similarity(images[a], images[b])), 4))
                )
    return out


def make_rows() -> pd.DataFrame:
    """One row a pair: class, generated or real, the two seeds or patients, SSIM."""
    from medimgen.generate import Generator

    generator, dev, rows = Generator.load(), radiographs.load("dev"), []
    for k, (kind, prompt) in enumerate(claim.PROMPTS.items()):
        seed = SEED + 1000 * k
        images = claim.images(generator, prompt, EACH, seed)
        rows += pairs(images, np.array([f"seed-{seed + i}" for i in range(EACH)]), kind, 1, 0)
        here = (dev.table["subtype"] == kind).to_numpy()
        rows += pairs(dev.images[here], dev.table["number"].to_numpy()[here], kind, 0, 0)
    return pd.DataFrame(rows, columns=["kind", "made", "a", "b", "ssim"])


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"pairs": len(rows), "pairs_of_generated": int(rows["made"].sum())}


if __name__ == "__main__":
    claim.record("L1b", make_rows, measure, explore, count)
    print(claims.show("L1b"))
