"""Claim L1a: does a judge trained on real films agree with the prompts as often as with real labels?

python recipes/generator/claim_agreement.py # needs the full data tier and the judge (train_generator.py --until
judge)
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import claims, report
from medimgen.data import radiographs
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.paths import cache_dir

CLASSES = ("normal", "bacterial", "viral")
PROMPTS = {
    "normal": "chest x-ray, normal",
    "bacterial": "chest x-ray, bacterial pneumonia",
    "viral": "chest x-ray, viral pneumonia",
}
EACH, SEED = 200, 100_000


def differences(made: np.ndarray, wanted: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Agreement on generated minus accuracy on real films, for each class; NaN where one is missing."""
    out = []
    for c in CLASSES:
        parts = [right[(made == flag) & (wanted == c)] for flag in (True, False)]
        out.append(parts[0].mean() - parts[1].mean() if all(len(p) for p in parts) else np.nan)
    return np.array(out)


def _columns(rows: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return (
        rows["made"].astype(bool).to_numpy(),
        rows["wanted"].to_numpy(),
        rows["judged"].to_numpy() == rows["wanted"].to_numpy(),
    )


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Largest absolute difference over the three classes; patients and generated images resampled."""
    made, wanted, right = _columns(rows)
    return cluster_bootstrap(
        lambda m, w, r: float(np.abs(differences(m, w, r)).max()),
        rows["unit"],
        made,
        wanted,
        right,
        draws=draws,
        seed=seed,
        null=0.10,
        direction="less",
    )


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """Signed difference of each class, and of normal against any pneumonia."""
    made, wanted, right = _columns(rows)
    out = {
        f"difference_{c}": cluster_bootstrap(
            lambda m, w, r, k=k: float(differences(m, w, r)[k]),
            rows["unit"],
            made,
            wanted,
            right,
            draws=draws,
            seed=seed,
        )
        for k, c in enumerate(CLASSES)
    }
    sick = (rows["judged"] != "normal").to_numpy() == (wanted != "normal")
    two = lambda m, r: float(r[m].mean() - r[~m].mean()) if m.any() and (~m).any() else np.nan  # noqa: E731
    return out | {"difference_normal_or_not": cluster_bootstrap(two, rows["unit"], made, sick, draws=draws, seed=seed)}


def make_rows(work: Path) -> pd.DataFrame:
    """One row an image: generated or real, class wanted, class judged, patient number or seed."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from train_generator import STEPS, Recipe

    from generator import features
    from medimgen.generate import Generator

    judge, generator = Recipe(work, work / "cxr-mini", STEPS).judge(), Generator.load()
    dev = radiographs.load("dev")
    judged = features.probabilities(judge, dev.images).argmax(1)
    rows = [
        (False, w, CLASSES[j], n) for w, j, n in zip(dev.table["subtype"], judged, dev.table["number"], strict=True)
    ]
    for k, (kind, prompt) in enumerate(PROMPTS.items()):
        for start in range(0, EACH, 50):
            seed = SEED + 1000 * k + start
            judged = features.probabilities(judge, generator(prompt, n=50, seed=seed).images).argmax(1)
            rows += [(True, kind, CLASSES[j], f"seed-{seed + i}") for i, j in enumerate(judged)]
    return pd.DataFrame(rows, columns=["made", "wanted", "judged", "unit"]).astype({"made": int})


def main(folder: Path = report.RESULTS, work: Path | None = None) -> dict:
    """Measure and record claim L1a; returns the result."""
    from medimgen.generate import FOLDER

    plan = claims.get("L1a")["primary"]
    inputs = {
        f"cxr-mini/{part}": next((FOLDER / part).glob("*.safetensors")) for part in ("unet", "vae", "text_encoder")
    }
    with report.run(
        "L1a", seed=plan["seed"], inputs=inputs, parameters={"draws": plan["draws"], "each": EACH}, tier="full"
    ) as run:
        rows = make_rows(work or cache_dir() / "training" / "cxr-mini")
        interval = measure(rows, plan["draws"], plan["seed"])
        explored = explore(rows, plan["draws"], plan["seed"])
    report.append(run.record, folder / report.RUNS.name)
    n = {
        "images": len(rows),
        "generated": int(rows["made"].sum()),
        "patients": int(rows.loc[rows["made"] == 0, "unit"].nunique()),
    }
    return claims.record("L1a", interval, n=n, run=run.record, rows=rows, exploratory=explored, folder=folder)


if __name__ == "__main__":
    print(claims.show(main()["id"]))
