"""Claim L1c: does each attribute of the image follow the words that name it?

python recipes/obedience.py         needs the full data tier; trains the outlines if there are none yet
"""

import numpy as np
import pandas as pd
from generator import attributes, claim, outlines

from medimgen import claims
from medimgen.metrics import Interval, cluster_bootstrap

WORDS = {
    "exposure": ("dark", "medium brightness", "bright"),
    "sharpness": ("blurred", "medium sharpness", "sharp"),
    "tilt": ("tilted anticlockwise", "straight", "tilted clockwise"),
    "lung_size": ("small lungs", "medium lungs", "large lungs"),
    "opacity": ("low opacity", "medium opacity", "high opacity"),
}
KINDS = ("normal", "bacterial pneumonia", "viral pneumonia")
EACH, SEED = 60, 120_000


def spearman(name: np.ndarray, level: np.ndarray, value: np.ndarray, which: str) -> float:
    from scipy.stats import spearmanr

    here = (name == which) & ~np.isnan(value)
    return float(spearmanr(level[here], value[here]).statistic)


def _arrays(rows: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return (
        rows["seed"].to_numpy(),
        rows["attribute"].to_numpy(),
        rows["level"].to_numpy(),
        rows["value"].to_numpy(float),
    )


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Smallest of the five correlations, against 0; the three images of one seed are drawn together."""
    clusters, *arrays = _arrays(rows)
    return cluster_bootstrap(
        lambda *a: min(spearman(*a, which) for which in WORDS),
        clusters,
        *arrays,
        draws=draws,
        seed=seed,
        null=0.0,
        direction="greater",
    )


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    clusters, *arrays = _arrays(rows)
    return {
        f"rho_{which}": cluster_bootstrap(
            lambda *a, which=which: spearman(*a, which), clusters, *arrays, draws=draws, seed=seed
        )
        for which in WORDS
    }


def make_rows() -> pd.DataFrame:
    """One row an image: attribute, level asked for (-1, 0, 1), seed, value measured again."""
    from medimgen.generate import Generator

    generator, net, rows = Generator.load(), claim.instrument("outlines"), []
    for name, words in WORDS.items():
        for level, word in zip((-1, 0, 1), words, strict=True):
            for k, kind in enumerate(KINDS):
                seed, n = SEED + 100 * k, EACH // len(KINDS)
                images = generator(f"chest x-ray, {kind}, {word}", n=n, seed=seed).images
                values = attributes.measure(images, outlines.outline(net, images))[name]
                rows += [(name, level, seed + i, round(float(v), 5)) for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["attribute", "level", "seed", "value"])


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"images": len(rows), "seeds": int(rows["seed"].nunique())}


if __name__ == "__main__":
    claim.record("L1c", make_rows, measure, explore, count)
    print(claims.show("L1c"))
