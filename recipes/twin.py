"""Claim L3b: does the twin that was trained with perturbations flip less, and at what price?

python recipes/twin.py          needs the full data tier, models/cxr-classifier and models/cxr-classifier-twin
"""

import numpy as np
import pandas as pd
from flips import FOLDER, PERTURBATIONS, SEEDS, record, seeds_of, sure, swept

from medimgen import claims
from medimgen.metrics import Interval, auc, cluster_bootstrap

FOLDERS = {"plain": FOLDER, "twin": FOLDER.with_name("cxr-classifier-twin")}


def make_rows() -> pd.DataFrame:
    """One row a film; for each model its answer, and the share of noise seeds with either kind of flip."""
    rows = None
    for arm, folder in FOLDERS.items():
        found = swept(folder)
        bits = found[list(PERTURBATIONS)].to_numpy()
        flips = {"plausible": seeds_of(bits).round(4), "hardly": seeds_of(bits, len(SEEDS)).round(4)}
        rows = found[["set", "number", "subtype"]] if rows is None else rows
        rows = rows.assign(**{f"{name}_{arm}": found[name] for name in ("ill", "viral")})
        rows = rows.assign(**{f"{name}_{arm}": values for name, values in flips.items()})
    return rows


def _difference(rows: pd.DataFrame, name: str, part: str, draws: int, seed: int, **test) -> Interval:
    """Twin minus classifier on the films of `part` that both read rightly and surely."""
    rows = rows[(rows["set"] == part) & sure(rows, "ill_plain") & sure(rows, "ill_twin")]
    change = (rows[f"{name}_twin"] - rows[f"{name}_plain"]).to_numpy()
    return cluster_bootstrap(np.mean, rows["number"], change, draws=draws, seed=seed, **test)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure: difference in the share of films with a plausible flip."""
    return _difference(rows, "plausible", "test", draws, seed, null=0.0, direction="less")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    test = rows[rows["set"] == "test"]
    sick = test[test["subtype"] != "normal"]
    change = sure(test, "ill_twin").astype(float) - sure(test, "ill_plain")

    def price(table, y, name):
        columns = (y, table[f"{name}_twin"], table[f"{name}_plain"])
        return cluster_bootstrap(
            lambda y, a, b: auc(y, a) - auc(y, b), table["number"], *columns, draws=draws, seed=seed
        )

    return {
        "hardly_visible": _difference(rows, "hardly", "test", draws, seed),
        "price": price(test, test["subtype"] != "normal", "ill"),
        "price_viral": price(sick, sick["subtype"] == "viral", "viral"),
        "sure_share": cluster_bootstrap(np.mean, test["number"], change, draws=draws, seed=seed),
        "adults": _difference(rows, "plausible", "adults", draws, seed),
    }


if __name__ == "__main__":
    record("L3b", list(FOLDERS.values()), make_rows, measure, explore)
    print(claims.show("L3b"))
