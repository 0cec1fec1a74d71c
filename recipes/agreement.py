"""Claim L1a: does a judge trained on real films agree with the prompts as often as with real labels?

python recipes/agreement.py         needs the full data tier; trains the judges if there are none yet

The judge is the mean of two densely connected nets (generator/judge.py). The judge of the first weights, a small
residual net of 300 steps, has the shape of the net behind the critics of generator/texture.py, so it could no longer be
called independent; what it says is recorded beside.
"""

import numpy as np
import pandas as pd
from generator import claim
from generator.features import CLASSES, probabilities
from generator.judge import Judge

from medimgen import claims
from medimgen.data import radiographs
from medimgen.metrics import Interval, cluster_bootstrap

EACH, SEED = 600, 100_000


def differences(made: np.ndarray, wanted: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Agreement on generated minus accuracy on real films, for each class; NaN where one is missing."""
    out = []
    for c in CLASSES:
        parts = [right[(made == flag) & (wanted == c)] for flag in (True, False)]
        out.append(parts[0].mean() - parts[1].mean() if all(len(p) for p in parts) else np.nan)
    return np.array(out)


def _columns(rows: pd.DataFrame) -> tuple[np.ndarray, ...]:
    wanted = rows["wanted"].to_numpy()
    return rows["made"].astype(bool).to_numpy(), wanted, rows["judged"].to_numpy() == wanted


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Largest absolute difference over the three classes; patients and generated images resampled."""

    def largest(made, wanted, right):
        return float(np.abs(differences(made, wanted, right)).max())

    return cluster_bootstrap(
        largest, rows["unit"], *_columns(rows), draws=draws, seed=seed, null=0.10, direction="less"
    )


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """Signed difference of each class, and of normal against any pneumonia."""

    def interval(statistic, *columns):
        return cluster_bootstrap(statistic, rows["unit"], *columns, draws=draws, seed=seed)

    def two(made, right):
        return float(right[made].mean() - right[~made].mean()) if made.any() and not made.all() else np.nan

    made, wanted, _ = columns = _columns(rows)
    sides = (rows["judged"] != "normal").to_numpy() == (wanted != "normal")
    out = {
        f"difference_{c}": interval(lambda *a, k=k: float(differences(*a)[k]), *columns) for k, c in enumerate(CLASSES)
    }
    near = rows[(rows["made"] == 1) | (rows["split"] == "dev")].reset_index(drop=True)
    first = rows.assign(judged=np.array(CLASSES)[rows["first"]])
    return out | {
        "difference_normal_or_not": interval(two, made, sides),
        "largest_dev_only": measure(near, draws, seed),
        "largest_first_judge": measure(first, draws, seed),
    }


def make_rows() -> pd.DataFrame:
    """One row an image: generated (1) or real (0), class wanted, class judged, number of the class that the first judge
    found, patient number or seed.
    """
    from medimgen.generate import Generator

    judge, old, generator, rows = Judge.load(), claim.instrument("judge"), Generator.load(), []

    def judged(images):
        found = [CLASSES[k] for k in judge.probabilities(images).argmax(1)]
        return zip(found, probabilities(old, images).argmax(1), strict=True)

    for split in ("dev", "donor"):
        films = radiographs.load(split)
        units = films.table["number"].astype(str)
        found = zip(films.table["subtype"], judged(films.images), units, strict=True)
        rows += [(0, split, kind, *both, unit) for kind, both, unit in found]
    for k, (kind, prompt) in enumerate(claim.PROMPTS.items()):
        seed = SEED + 1000 * k
        seen = judged(claim.images(generator, prompt, EACH, seed))
        rows += [(1, "", kind, *both, f"s{seed + i}") for i, both in enumerate(seen)]
    return pd.DataFrame(rows, columns=["made", "split", "wanted", "judged", "first", "unit"])


def count(rows: pd.DataFrame) -> dict[str, int]:
    real = rows[rows["made"] == 0]
    return {"images": len(rows), "generated": len(rows) - len(real), "patients": int(real["unit"].nunique())}


if __name__ == "__main__":
    claim.record("L1a", make_rows, measure, explore, count)
    print(claims.show("L1a"))
