"""How unequal a table of films is: counts of every cell, empty ones too.

>>> found = analyse(radiographs.labels(), by=["subtype", "split"], unit="number")
>>> analyse(films("chexpert"), by=["finding", "sex"], unit="patient")      # a real label table, without images
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medimgen.data import tables
from medimgen.errors import CourseError

NONE, UNKNOWN, MOST = "none stated", "unknown", 100_000
COLUMNS = {
    "nih": ["Image Index", "Patient ID", "Patient Gender", "View Position", "Finding Labels"],
    "chexpert": None,
    "padchest": ["ImageID", "PatientID", "PatientSex_DICOM", "Projection", "Labels"],
    "vinbig": ["image_id", "class_name"],
    "rsna": ["patientId", "Target"],
}


@dataclass(frozen=True, eq=False)
class Balance:
    """What `analyse` counts. A film with several labels stands in several cells, so cells may sum to more than `films`.

    `cells`, the largest first: the columns of `by`, films, patients (if a unit was named), effective, weight.
    `imbalance`: largest over smallest cell, infinite if one is empty. `simpson`: 1 / sum of squared shares (Simpson
    1949), the number of equally large cells that would be as diverse. `smallest`: a cell's values. `empty`: cells
    without a film.
    """

    by: tuple[str, ...]
    films: int
    cells: pd.DataFrame
    imbalance: float
    simpson: float
    smallest: tuple[str, ...]
    empty: int

    def counts(self) -> dict[tuple[str, ...], int]:
        """Films of each cell."""
        return dict(zip(map(tuple, self.cells[list(self.by)].to_numpy()), self.cells["films"].tolist(), strict=True))

    def __str__(self) -> str:
        """The figures in one sentence, which also serves as the picture's alternative text."""
        (most, n), *_, (fewest, m) = [*self.counts().items()] * 2
        return (
            f"{self.films:,} films in {len(self.cells)} cells by {' and '.join(self.by)}: most ({', '.join(most)}) "
            f"{n:,}, fewest ({', '.join(fewest)}) {m:,}, {self.empty} empty; imbalance {self.imbalance:.3g}, inverse "
            f"Simpson {self.simpson:.3g}"
        )


def analyse(table: pd.DataFrame, by: Sequence[str] = ("subtype",), unit: str | None = None, beta=0.999) -> Balance:
    """Count films in every combination of the values of `by`, those that never occur included.

    Parameters
    ----------
    table : one row a film. A text column may hold several labels parted by "|". Of a categorical column all
        categories count, so that a class thinned away entirely still shows.
    unit : column that names the patient; adds how many stand behind each cell.
    beta : `effective` = (1 - beta**n) / (1 - beta) is what n films are worth when each new one repeats more of the
        others; `weight` goes with 1 / effective and averages 1 over the cells that have films (class-balanced loss, Cui
        et al. 2019, arXiv 1901.05555). 0 weighs all cells alike, near 1 weighs by 1 / n.

    Raises CourseError for an empty table, a missing column, several rows of one film, or too many combinations.
    """
    by = [by] if isinstance(by, str) else list(by)
    if missing := [c for c in (*by, unit) if c and c not in table]:
        raise CourseError(f"the table has no column {missing[0]!r}", next=f"choose from {', '.join(table.columns)}")
    if not len(table) or not by or not 0 <= beta < 1:
        raise CourseError(f"{len(table)} films, by {by}, beta {beta}", next="give films, a column, and beta below 1")
    if twice := [c for c in ("film", "file") if c in table and table[c].duplicated().any()]:
        raise CourseError(f"several rows have one {twice[0]}", next=f"keep one row each: drop_duplicates({twice[0]!r})")
    rows, codes, names = np.arange(len(table)), [], []
    for name in by:
        rows, codes, values = _cross(table[name], rows, codes)
        names.append(values)
    if (size := int(np.prod([len(v) for v in names]))) > MOST:
        raise CourseError(f"{size:,} combinations of {', '.join(by)}", next="name fewer columns, or group their values")
    flat = np.ravel_multi_index(codes, [len(v) for v in names])
    cells = pd.MultiIndex.from_product(names, names=by).to_frame(index=False)
    cells["films"] = np.bincount(flat, minlength=size)
    if unit:
        patients = _units(table, unit)[rows]
        seen = pd.unique(flat * (patients.max() + 1) + patients) // (patients.max() + 1)
        cells["patients"] = np.bincount(seen, minlength=size)
    cells = cells.sort_values("films", ascending=False, kind="stable", ignore_index=True)
    n = cells["films"].to_numpy(float)
    cells["effective"] = (1 - beta**n) / (1 - beta)
    cells["weight"] = (1 / cells["effective"].where(n > 0)).pipe(lambda w: w / w.mean())
    imbalance, simpson = n[0] / n[-1] if n[-1] else np.inf, n.sum() ** 2 / (n**2).sum()
    return Balance(tuple(by), len(table), cells, imbalance, simpson, tuple(cells[by].iloc[-1]), int((n == 0).sum()))


def _units(table: pd.DataFrame, unit: str) -> np.ndarray:
    """A whole number for each row's patient; CourseError where one is missing, who would count as somebody else."""
    if missing := int(table[unit].isna().sum()):
        raise CourseError(
            f"rows without {unit}: {missing}", next=f"fill the column, or table.dropna(subset=[{unit!r}])"
        )
    return pd.factorize(table[unit])[0]


def _cross(column: pd.Series, rows: np.ndarray, codes: list):
    """Each of `rows` (numbers of films) once for each of its labels in `column`: the rows, the codes so far and the
    label's, and the labels' names. Works on distinct texts, of which there are few.
    """
    known = list(column.cat.categories.astype(str)) if column.dtype == "category" else []
    of, texts = pd.factorize(column.astype("string").fillna(UNKNOWN))
    parts = [list(dict.fromkeys(text.split("|"))) for text in texts]
    names = list(dict.fromkeys([*known, *sorted({p for part in parts for p in part})]))
    place = {name: k for k, name in enumerate(names)}
    labels, sizes = np.array([place[p] for part in parts for p in part]), np.array([len(part) for part in parts])
    u, starts = of[rows], np.cumsum(sizes) - sizes
    ends = np.cumsum(sizes[u])
    new = labels[np.arange(ends[-1]) + np.repeat(starts[u] - (ends - sizes[u]), sizes[u])]
    return np.repeat(rows, sizes[u]), [*(np.repeat(c, sizes[u]) for c in codes), new], names


def films(*names: str) -> pd.DataFrame:
    """Label tables of large public data sets in one form, one row a film: source, film, patient, sex, view, finding.

    names : "nih", "chexpert", "padchest", "vinbig", "rsna" (`medimgen.data.tables`). `finding` holds what was found,
    parted by "|", in each publisher's words. CheXpert's "uncertain" (-1) and what it leaves open (NaN) count as not
    found. VinBig and RSNA have one row a box: a film has what any of VinBig's three readers saw. RSNA's films are part
    of NIH's, so the two together are refused. What a table lacks is "unknown"; where it names no patient, each film
    stands for one. A finding mined from a report is not a diagnosis.
    """
    if not names or not set(names) <= set(COLUMNS):
        raise CourseError(f"no such label tables: {names}", next=f"use some of {', '.join(COLUMNS)}")
    if {"nih", "rsna"} <= set(names) or len(set(names)) < len(names):
        raise CourseError("these tables hold the same films twice (RSNA's are part of NIH's)", next="leave one out")
    return pd.concat([_one_row_a_film(name).assign(source=name) for name in names], ignore_index=True)


def _one_row_a_film(name: str) -> pd.DataFrame:
    wanted, table = COLUMNS[name], tables.load(name, COLUMNS[name])
    if name == "chexpert":
        found = table.columns[list(table.columns).index("AP/PA") + 1 :]
        patterns, of = np.unique((table[found] == 1).to_numpy() @ (1 << np.arange(len(found))), return_inverse=True)
        words = ["|".join(f for k, f in enumerate(found) if p >> k & 1) or NONE for p in patterns]
        path, view = table["Path"], table["AP/PA"].fillna(table["Frontal/Lateral"])
        known = {"film": path, "patient": path.str.split("/").str[2], "sex": table["Sex"].str.lower(), "view": view}
        return pd.DataFrame(known | {"finding": np.array(words, object)[of]})
    if name in ("vinbig", "rsna"):
        table = table.drop_duplicates().replace({"Target": {0: "No finding", 1: "pneumonia"}})
        found = table[table[wanted[1]] != "No finding"].groupby(wanted[0], sort=False)[wanted[1]].agg("|".join)
        all_films = table[wanted[0]].unique()
        found = found.reindex(all_films, fill_value=NONE if name == "rsna" else "No finding").to_numpy()
        return pd.DataFrame(
            {"film": all_films, "patient": all_films, "sex": UNKNOWN, "view": UNKNOWN, "finding": found}
        )
    table = table[wanted].set_axis(["film", "patient", "sex", "view", "finding"], axis=1)
    if name == "padchest":  # a list as Python prints it, with stray blanks and empty names
        of, texts = pd.factorize(table["finding"].fillna(""))
        words = [[w.strip() for w in re.findall("'([^']*)'", text)] for text in texts]
        table["finding"] = np.array(["|".join(w for w in film if w) or NONE for film in words], object)[of]
    return table.assign(patient=table["patient"].astype(str), sex=table["sex"].map({"M": "male", "F": "female"}))


def show_balance(found: Balance, most: int = 24):
    """Draw the cells, numbers written beside the bars; `str(found)` is its alternative text. Returns the figure."""
    import matplotlib.pyplot as plt

    cells = found.cells if len(found.cells) <= most else found.cells.iloc[[*range(most // 2), *range(-most // 2, 0)]]
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.26 * len(cells)), layout="constrained")
    bars = axis.barh([", ".join(v) for v in cells[list(found.by)].to_numpy()], cells["films"])
    axis.bar_label(bars, [f"{n:,}" for n in cells["films"]], padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    left = len(found.cells) - len(cells)
    axis.set_xlabel(f"films ({left} cells between largest and smallest not drawn)" if left else "films")
    return figure
