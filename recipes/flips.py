"""Claim L3a: how many surely read films does a change flip that could leave a department?

    python recipes/flips.py         needs the full data tier and models/cxr-classifier; goes on where it was stopped

What a sweep finds is kept as one number a film and perturbation: bit k is set if noise seed k flips the film
plausibly, bit 4 + k if it does so hardly visibly.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import claims, report, robustness
from medimgen.classify import FOLDER, SIZE, Classifier
from medimgen.data import radiographs
from medimgen.data.fetch import fetch
from medimgen.films import source
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.paths import cache_dir
from medimgen.perturb import PERTURBATIONS

SEEDS = (0, 1, 2, 3)  # even seeds push in one direction, odd ones in the other
SURE = robustness.Settings().confident


def child_films() -> tuple:
    """Test films, their numbers and subtypes."""
    films = radiographs.load("test", SIZE)
    return films.images, films.table["number"], films.table["subtype"]


def adult_films() -> tuple:
    """The adults' films; the number before the underscore in a file's name is the patient."""
    files = sorted(fetch("nih-cxr8-subset").rglob("*.png"))
    subtypes = ["normal" if f.parent.name == "No_findings" else "pneumonia" for f in files]
    return files, [f"adult-{f.name.split('_')[0]}" for f in files], subtypes


def swept(folder: Path) -> pd.DataFrame:
    """One row a film, of children (test) and adults: what the classifier in `folder` says, and its flips as bits."""
    classifier, parts = Classifier.load(folder), []
    report.log_test_use("recipes/flips.py", f"sweep of {folder.name}", "claims L3a and L3b")
    for name, (images, numbers, subtypes) in (("test", child_films()), ("adults", adult_films())):
        kept = cache_dir() / "training" / "cxr-classifier" / "sweeps"
        found = robustness.sweep(classifier, images, seeds=SEEDS, size=SIZE, progress=True, resume_folder=kept)
        p = classifier.predict(source(images, SIZE).read()[0]).round(4)
        bits = (found.plausible << np.arange(len(SEEDS))).sum(2)
        bits = bits + (found.hardly_visible << np.arange(len(SEEDS), 2 * len(SEEDS))).sum(2)
        rows = pd.DataFrame({"set": name, "number": list(numbers), "subtype": list(subtypes)})
        rows = rows.assign(ill=1 - p[:, 0], viral=p[:, 2] / (p[:, 1] + p[:, 2] + 1e-9))
        parts.append(pd.concat([rows.round(4), pd.DataFrame(bits, columns=list(PERTURBATIONS))], axis=1))
    return pd.concat(parts, ignore_index=True)


def sure(rows: pd.DataFrame, ill: str = "ill") -> np.ndarray:
    """Films read rightly and surely; (n,) bool."""
    p = np.where(rows["subtype"] != "normal", rows[ill], 1 - rows[ill])
    return p >= SURE


def seeds_of(bits: np.ndarray, shift: int = 0) -> np.ndarray:
    """Share of the noise seeds whose bit is set in any of the columns; (n,)."""
    found = np.bitwise_or.reduce(bits, axis=1) >> shift
    return ((found[:, None] >> np.arange(len(SEEDS))) & 1).mean(1)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure: share of surely read test films with a plausible flip."""
    test = rows[(rows["set"] == "test") & sure(rows)]
    flips = seeds_of(test[list(PERTURBATIONS)].to_numpy())
    return cluster_bootstrap(np.mean, test["number"], flips, draws=draws, seed=seed, null=0.25, direction="greater")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    rows = rows[sure(rows)]
    test, names = rows[rows["set"] == "test"], list(PERTURBATIONS)
    bits = test[names].to_numpy()
    one_by_one = ((bits[:, :, None] >> np.arange(len(SEEDS))) & 1).mean(2)

    def mean(values, chosen=slice(None), table=test):
        return cluster_bootstrap(np.mean, table["number"].to_numpy()[chosen], values[chosen], draws=draws, seed=seed)

    flips = seeds_of(bits)
    adults = rows[rows["set"] == "adults"]
    return {
        "hardly_visible": mean(seeds_of(bits, len(SEEDS))),
        "one_seed_enough": mean((flips > 0).astype(float)),
        **{kind: mean(flips, (test["subtype"] == kind).to_numpy()) for kind in ("normal", "bacterial", "viral")},
        "worst_perturbation": cluster_bootstrap(
            lambda x: x.mean(0).max(), test["number"], one_by_one, draws=draws, seed=seed
        ),
        "without_aspect_ratio": mean(seeds_of(test[[n for n in names if n != "aspect_ratio"]].to_numpy())),
        "adults": mean(seeds_of(adults[names].to_numpy()), table=adults),
    }


def record(id: str, folders: list[Path], make_rows: Callable, measure: Callable, explore: Callable) -> dict:
    """Run a claim about classifiers as claims.yml states it, and record it; returns the result."""
    plan = claims.get(id)["primary"]
    inputs = {f.name: f / "model.safetensors" for f in folders}
    with report.run(id, seed=plan["seed"], inputs=inputs, parameters={"draws": plan["draws"]}, tier="full") as run:
        rows = make_rows()
        interval = measure(rows, plan["draws"], plan["seed"])
        explored = explore(rows, plan["draws"], plan["seed"])
    report.append(run.record, report.RUNS)
    n = {"films": len(rows), "patients": rows["number"].nunique()}
    return claims.record(id, interval, n=n, run=run.record, rows=rows, exploratory=explored)


if __name__ == "__main__":
    record("L3a", [FOLDER], lambda: swept(FOLDER), measure, explore)
    print(claims.show("L3a"))
