"""Claim L0: how far does the shape of the original film, without any pixel, give its class away?

    python recipes/confounder.py             writes results/L0.json and L0.rows.csv, adds a line to runs.jsonl

Reads the label table that ships with the package, so the result is the same in both data tiers. Ten seconds
on one core; a second run writes the same figures.
"""

from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from medimgen import claims, report
from medimgen.data import radiographs
from medimgen.metrics import Interval, auc, cluster_bootstrap

COLUMNS = ["number", "subtype", "width", "height", "mask_match"]


def make_rows() -> pd.DataFrame:
    """One row for each film whose original size is known: patient, subtype, size, how that was inferred."""
    table = radiographs.labels()
    known = table.dropna(subset=["width", "height"])[COLUMNS]
    return known.astype({"width": int, "height": int}).reset_index(drop=True)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure: AUC of width / height, pneumonia against normal, patients resampled."""
    aspect = rows["width"] / rows["height"]
    return _interval(rows["subtype"] != "normal", aspect, rows, draws, seed, null=0.5, direction="greater")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    sick = rows[rows["subtype"] != "normal"]
    sure = rows[rows["mask_match"] == "dims_unique"]
    jobs = {
        "aspect_unique_pairs": (sure, sure["subtype"] != "normal", sure["width"] / sure["height"]),
        "pixels_normal": (rows, rows["subtype"] == "normal", rows["width"] * rows["height"]),
        "aspect_viral": (sick, sick["subtype"] == "viral", sick["width"] / sick["height"]),
        "pixels_viral": (sick, sick["subtype"] == "viral", sick["width"] * sick["height"]),
    }
    progress = tqdm(jobs.items(), desc="exploratory", unit="figure")
    return {name: _interval(y, score, part, draws, seed) for name, (part, y, score) in progress}


def _interval(y: pd.Series, score: pd.Series, rows: pd.DataFrame, draws: int, seed: int, **test) -> Interval:
    return cluster_bootstrap(auc, rows["number"], y, score, draws=draws, seed=seed, **test)


def main(folder: Path = report.RESULTS) -> dict:
    """Measure and record claim L0; returns the result."""
    plan = claims.get("L0")["primary"]
    draws, seed = plan["draws"], plan["seed"]
    inputs = {"kermany_labels.tsv": radiographs.LABELS}
    with report.run("confounder", seed=seed, inputs=inputs, parameters={"draws": draws}, tier="both") as run:
        rows = make_rows()
        interval = measure(rows, draws, seed)
        explored = explore(rows, draws, seed)
    report.append(run.record, folder / report.RUNS.name)
    n = {"films": len(rows), "patients": rows["number"].nunique()}
    return claims.record("L0", interval, n=n, run=run.record, rows=rows, exploratory=explored, folder=folder)


if __name__ == "__main__":
    print(claims.show(main()["id"]))
