"""Figures with honest intervals: area under the ROC curve, and a bootstrap that resamples whole patients.

>>> from medimgen.metrics import auc, cluster_bootstrap
>>> estimate, low, high = cluster_bootstrap(auc, patients, is_pneumonia, score, draws=2000, seed=0)

Films of one patient resemble each other, so 30 films of one child are not 30 pieces of evidence. The
cluster bootstrap draws patients with replacement and takes all films of each (Davison and Hinkley 1997,
section 3.8); treating the films as independent would make the interval too narrow.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, rankdata

from medimgen.errors import CourseError

SIDES = {"greater": 1, "less": -1, "different": 0}


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; unpacks as `estimate, low, high = interval`.

    p is the bootstrap p-value against the null value that was asked for, else None. draws counts the
    resamples used, degenerate those set aside because the figure did not exist in them (one class only).
    """

    estimate: float
    low: float
    high: float
    p: float | None = None
    draws: int = 0
    degenerate: int = 0

    def __iter__(self) -> Iterator[float]:
        return iter((self.estimate, self.low, self.high))


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive case scores above a negative one, ties half.

    Parameters
    ----------
    y : (n,) bool or 0/1, True where the case is positive.
    score : (n,) finite numbers, higher meaning "more positive". Below 0.5 the score points the other way.

    Raises CourseError when only one class is present or a score is missing. Computed from ranks (Hanley and
    McNeil 1982): equal to scikit-learn's `roc_auc_score`, eight times faster, which the bootstrap needs.
    """
    y, score = np.asarray(y), np.asarray(score, dtype=float)
    if y.shape != score.shape or y.ndim != 1:
        raise CourseError(f"y has shape {y.shape}, score {score.shape}", next="pass two lists of equal length")
    positive = y.astype(bool)
    if not np.array_equal(y, positive):
        raise CourseError("y holds values other than True/False or 1/0", next="compare: y = labels == 'normal'")
    if not np.isfinite(score).all():
        raise CourseError("a score is NaN or infinite", next="drop those cases first, e.g. table.dropna()")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise CourseError("AUC needs positive and negative cases; one class is missing", next="check y")
    wins = rankdata(score)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def cluster_bootstrap(
    statistic: Callable[..., float],
    clusters: np.ndarray,
    *arrays: np.ndarray,
    draws: int = 2000,
    seed: int,
    null: float | None = None,
    direction: str = "different",
) -> Interval:
    """Percentile 95 % interval of `statistic(*arrays)`, resampling whole clusters (patients).

    Parameters
    ----------
    statistic : function of the arrays that returns a number; raising CourseError or returning NaN marks a
        draw as degenerate: it is left out and counted.
    clusters : (n,) patient of each case, any values that sort.
    arrays : one or more (n, ...) arrays, resampled together.
    null, direction : if null is given, p is the share of draws at the null value or on its wrong side
        ("greater", "less"; "different" doubles the smaller share), with 1 added above and below the line.

    Raises CourseError for unequal lengths, a single cluster, or if half the draws are degenerate.
    """
    arrays = tuple(np.asarray(a) for a in arrays)
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    if any(len(a) != len(codes) for a in arrays) or len(names) < 2:
        raise CourseError("lengths differ, or one patient only", next="pass one patient name for each case")
    estimate = float(statistic(*arrays))
    values = np.full(draws, np.nan)
    for i, chosen in enumerate(_resamples(codes, len(names), draws, seed)):
        with suppress(CourseError):
            values[i] = statistic(*(a[chosen] for a in arrays))
    values = values[~np.isnan(values)]
    if len(values) <= draws / 2:
        raise CourseError(
            f"{draws - len(values)} of {draws} resamples lack a class", next="use more patients of each class"
        )
    low, high = np.quantile(values, [0.025, 0.975])
    p = None if null is None else _p_value(values, null, direction)
    return Interval(estimate, float(low), float(high), p, len(values), draws - len(values))


def _resamples(codes: np.ndarray, k: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each resample: k clusters drawn with replacement, all rows of each, without a loop."""
    rng = np.random.default_rng(seed)
    rows = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=k)
    starts = np.cumsum(counts) - counts
    for _ in range(draws):
        drawn = rng.integers(k, size=k)
        size = counts[drawn]
        ends = np.cumsum(size)
        yield rows[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - size), size)]


def _p_value(values: np.ndarray, null: float, direction: str) -> float:
    if direction not in SIDES:
        raise CourseError(f"unknown direction {direction!r}", next=f"use one of {', '.join(SIDES)}")
    above = (1 + (values <= null).sum()) / (1 + len(values))  # evidence for "greater" when small
    below = (1 + (values >= null).sum()) / (1 + len(values))
    p = {"greater": above, "less": below, "different": 2 * min(above, below)}[direction]
    return float(min(1.0, p))


def proportion(successes: int, trials: int) -> Interval:
    """A share with its Wilson 95 % interval (Wilson 1927); `trials` independent yes-or-no outcomes, at least 1."""
    share = binomtest(successes, trials).proportion_ci(method="wilson")
    return Interval(successes / trials, float(share.low), float(share.high))


def detectable_auc(negatives: int, positives: int, cluster_sizes: np.ndarray | None = None) -> float:
    """Smallest AUC above 0.5 found with 80 % power when the 95 % interval must lie above 0.5.

    Uses the standard error of a useless score (Hanley and McNeil 1982). cluster_sizes (films of each
    patient) widens it by the largest possible design effect, as if a patient's films were all identical.
    """
    variance = (negatives + positives + 1) / (12 * negatives * positives)
    if cluster_sizes is not None:
        sizes = np.asarray(cluster_sizes, dtype=float)
        variance *= (sizes**2).sum() / sizes.sum()
    return float(0.5 + (norm.ppf(0.975) + norm.ppf(0.8)) * np.sqrt(variance))
