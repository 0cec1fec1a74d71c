"""Means over training draws: patients and draws resampled together, and rows that hold one letter for each draw.

Shared by rebalance.py, few_masks.py and owndata.py (lesson 2).
"""

from string import ascii_letters

import numpy as np
import pandas as pd
from scipy import stats

from medimgen.metrics import Interval

LETTERS, FINE = "nbv", "".join(sorted(ascii_letters))


def words(columns: list[np.ndarray], alphabet: str) -> list[str]:
    """One text a film, with one letter for each draw; codes (n,) of every draw."""
    return ["".join(alphabet[c] for c in codes) for codes in np.stack(columns, 1)]


def codes(rows: pd.DataFrame, column: str, alphabet: str = LETTERS) -> np.ndarray:
    """int (films, draws) of a column of letters."""
    return np.array([[alphabet.index(c) for c in text] for text in rows[column]])


def resamples(units: pd.Series, draws: int, seed: int) -> np.ndarray:
    """(1 + draws, n): how often each film counts; first as it is, then with whole patients drawn with replacement."""
    names, which = np.unique(units, return_inverse=True)
    k = len(names)
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), draws)
    return np.concatenate([np.ones((1, len(which))), drawn[:, which]])


def over_draws(values: np.ndarray) -> Interval:
    """Mean of one value a draw with the 95 % interval of Student's t, and the one-tailed p of a mean of 0 or less."""
    mean, error, free = values.mean(), values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1
    wide = stats.t.ppf(0.975, free) * error
    p = float(stats.t.sf(mean / error, free)) if error else float(mean <= 0)
    return Interval(float(mean), float(mean - wide), float(mean + wide), p, len(values))


def both_ways(values: np.ndarray, seed: int, test: bool = False) -> Interval:
    """Interval of a mean over draws; `values` (1 + resamples, draws), the first row as measured.

    Patients and draws are resampled together. With `test`, p of a mean of 0 or less: the larger of the bootstrap's and
    of the one-tailed paired t over draws.
    """
    here, boots = values[0], values[1:]
    chosen = np.random.default_rng([seed, 1]).integers(len(here), size=boots.shape)
    means = np.take_along_axis(boots, chosen, 1).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    p = max((1 + (means <= 0).sum()) / (1 + len(means)), over_draws(here).p) if test else None
    return Interval(float(here.mean()), float(low), float(high), p, len(means))
