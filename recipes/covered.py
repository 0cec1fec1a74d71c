"""Claim L1e: are there generated images near most real films of children that the generator has not seen?

python recipes/covered.py           needs the full data tier; trains the ruler if there is none yet
"""

import numpy as np
import pandas as pd
import quality
from generator import claim
from generator.features import CLASSES
from generator.judge import Judge, Ruler

from medimgen import claims
from medimgen.metrics import Interval, cluster_bootstrap

FIGURES = ("coverage", "recall")


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Mean coverage of dev films by generated images, patients resampled, against 0.6."""
    return cluster_bootstrap(
        np.mean, rows["unit"], rows["made_coverage"], draws=draws, seed=seed, null=0.6, direction="greater"
    )


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """Coverage of each class, recall, and both with donor films in place of generated ones."""

    def mean(here, column):
        return cluster_bootstrap(np.mean, here["unit"], here[column], draws=draws, seed=seed)

    out = {f"coverage_{c}": mean(rows[rows["kind"] == c], "made_coverage") for c in CLASSES}
    return out | {"recall": mean(rows, "made_recall")} | {f"donor_{x}": mean(rows, f"donor_{x}") for x in FIGURES}


def rows_of(made: pd.DataFrame, donor: pd.DataFrame, dev: pd.DataFrame) -> pd.DataFrame:
    """One row a dev film: in what share of the rounds it is covered, and recalled, by generated and by donor films."""
    found = {name: quality.neighbours(x, dev)[0] for name, x in (("made", made), ("donor", donor))}
    columns = {f"{name}_{figure}": found[name][figure].round(4) for name in found for figure in FIGURES}
    return pd.DataFrame({"kind": dev["kind"], "unit": dev["unit"], **columns})


def make_rows() -> pd.DataFrame:
    from medimgen.generate import Generator

    judge, gauge = Judge.load(), Ruler.load()
    made = quality.table(*quality.prompted(Generator.load(), quality.EACH), judge, gauge)
    return rows_of(made, *(quality.real_table(split, judge, gauge) for split in ("donor", "dev")))


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"films": len(rows), "patients": int(rows["unit"].nunique())}


if __name__ == "__main__":
    claim.record("L1e", make_rows, measure, explore, count)
    print(claims.show("L1e"))
