"""From readers' votes to plausible ranges.

>>> limits = plausible_from(["anna.csv", "ben.csv"])              # what `widgets.vote.export` wrote
>>> limits["motion"]
Limit(severity=0.31, votes=48, readers=2)
>>> p = PERTURBATIONS["motion"]
>>> ours = dataclasses.replace(p, plausible=limits["motion"].severity, source="48 votes of 2 readers")
>>> robustness.sweep(model, films, perturbations=[ours])          # its figures now rest on these votes
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medimgen.errors import CourseError

COLUMNS = ["perturbation", "severity", "leaves"]


class Limit(NamedTuple):
    """The severity at which half of the readers send the film back, and how many votes and readers say so."""

    severity: float
    votes: int
    readers: int


def plausible_from(votes, least: int = 10) -> dict[str, Limit]:
    """The limit that readers' votes set for each perturbation they saw.

    Parameters
    ----------
    votes : DataFrame, CSV file, or several files. Columns perturbation, severity (0..1) and leaves (True: the film
        could leave the department); `reader` may tell whose vote it is, else each file is one reader.
    least : votes below which a perturbation gets no limit.

    A film that is changed more never counts as better: the share of "could leave" is made to fall with severity by
    isotonic regression (Barlow et al. 1972), in which each reader weighs the same, and is read off at one half,
    linearly between the severities shown. Raises CourseError when columns or values are not those above, and when
    votes are too few, all yes, or mostly no at the mildest severity, so that no limit lies between what was shown.
    """
    from sklearn.isotonic import IsotonicRegression

    limits = {}
    for name, rows in _table(votes).groupby("perturbation", sort=False):
        shown = np.unique(rows["severity"])
        if len(rows) < least or len(shown) < 2:
            said = f"{name} has {len(rows)} votes at {len(shown)} severities"
            raise CourseError(said, next=f"collect {least} votes or more, at two severities or more, or leave it out")
        weight = 1 / rows.groupby("reader")["leaves"].transform("size")
        fit = IsotonicRegression(increasing=False).fit(rows["severity"], rows["leaves"], sample_weight=weight)
        share = fit.predict(shown)
        if not (below := share <= 0.5).any():
            said = f"{name}: most readers would let even severity {shown[-1]:g} leave"
            raise CourseError(said, next="show films that are changed more, or leave it out")
        if (i := int(below.argmax())) == 0:
            said = f"{name}: half of the readers send back even severity {shown[0]:g}"
            raise CourseError(said, next="show films that are changed less, or leave it out")
        part = (share[i - 1] - 0.5) / (share[i - 1] - share[i])
        limits[str(name)] = Limit(
            float(shown[i - 1] + part * (shown[i] - shown[i - 1])), len(rows), rows["reader"].nunique()
        )
    return limits


def _table(votes):
    """The votes as one DataFrame with columns reader, perturbation, severity and leaves, checked."""
    import pandas as pd

    from medimgen.perturb import PERTURBATIONS

    files = votes if isinstance(votes, Iterable) and not isinstance(votes, str | pd.DataFrame) else [votes]
    parts = [f.copy() if isinstance(f, pd.DataFrame) else pd.read_csv(Path(f)) for f in files]
    if not parts or any(missing := [c for c in COLUMNS if c not in part] for part in parts):
        said = f"the votes lack {', '.join(missing)}" if parts else "there are no votes"
        raise CourseError(said, next="pass what widgets.vote exported, with its line of column names")
    table = pd.concat([part if "reader" in part else part.assign(reader=f"file {k}") for k, part in enumerate(parts)])
    table = table[table["perturbation"] != "perturbation"]  # names of columns, where files were put one below the other
    if unknown := set(table["perturbation"]) - set(PERTURBATIONS):
        raise CourseError(f"no perturbation is called {min(map(str, unknown))!r}", next="mend that name in the votes")
    severity = pd.to_numeric(table["severity"], errors="coerce")
    leaves = table["leaves"].astype(str).map({"True": 1.0, "False": 0.0})
    if not severity.between(0, 1).all() or leaves.isna().any():
        raise CourseError("a vote has a severity outside 0..1, or is neither True nor False", next="mend that row")
    return table.assign(severity=severity, leaves=leaves)
