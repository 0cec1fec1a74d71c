"""Make recipes/splits.tsv, once: who may learn from which film.

    python recipes/make_splits.py            writes the file again (same bytes)

donor   60 %   the generator, its autoencoder and every caption model learn here and nowhere else
clinic  30 %   what the learner "owns": thinning, classifiers
dev     10 %   every choice, threshold and early stop
pocket         the 16 official val films, never trained on
test           the official test films
none           train films whose bare number also occurs in test (a sensitivity run may put them back)

A bare number is (normal or person, number): it never crosses a line here, and neither does an exact
duplicate group. Fractions are counted in films and hold for each subtype.
"""

import numpy as np
import pandas as pd

from medimgen.data.radiographs import LABELS, SPLITS

FRACTIONS = {"donor": 0.6, "clinic": 0.3, "dev": 0.1}
SEED = 20261122


def groups(table: pd.DataFrame) -> pd.Series:
    """A group name for each film: its bare number, merged with others that share a duplicate group."""
    name = dict(zip(table["number"], table["number"], strict=True))
    for _, twins in table.dropna(subset="duplicate_group").groupby("duplicate_group"):
        first, *others = sorted({name[n] for n in twins["number"]})
        name = {key: first if value in others else value for key, value in name.items()}
    return table["number"].map(name)


def assign(films: pd.DataFrame, seed: int) -> pd.Series:
    """Split name for each film of `films`.

    Groups go one by one, large ones first, each to the split that it brings closest to its share of all
    films given out so far, counted for each subtype (least chi-square).
    """
    rng = np.random.default_rng(seed)
    group = groups(films)
    counts = pd.crosstab(group, films["subtype"])
    counts = counts.iloc[rng.permutation(len(counts))]
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    share = np.array(list(FRACTIONS.values()))
    have, split = np.zeros((len(share), counts.shape[1])), {}
    for name, row in zip(counts.index, counts.to_numpy(), strict=True):
        after = have + np.eye(len(share))[:, :, None] * row  # (choice, split, subtype)
        wanted = share[:, None] * (have.sum(axis=0) + row)
        chi2 = ((after - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum(axis=(1, 2))
        best = int(np.argmin(chi2))
        have, split[name] = after[best], list(FRACTIONS)[best]
    return group.map(split)


def make() -> pd.DataFrame:
    """The table file, split for all 5,856 films."""
    films = pd.read_csv(LABELS, sep="\t", dtype=str)
    official = films["file"].str.split("/").str[0]
    split = official.map({"train": "none", "val": "pocket", "test": "test"})
    crossing = films["number"].isin(set(films.loc[official == "test", "number"]))
    free = (official == "train") & ~crossing
    split[free] = assign(films[free], SEED)
    return pd.DataFrame({"file": films["file"], "split": split})


if __name__ == "__main__":
    table = make()
    table.to_csv(SPLITS, sep="\t", index=False, lineterminator="\n")
    print(table["split"].value_counts().to_string())
