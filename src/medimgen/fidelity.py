"""How near a set of generated images is to a set of real ones, in the features of a network: KID on a ruler, and
precision, recall, density and coverage.

>>> values, mirrored = kid(made, real, patients_b=patients, draws=2000, seed=0)
>>> interval(values, mirrored)                       # squared distance with its 95 % interval; 0 = one population

All functions take features (n, d), one row an image, never pixels. What the figures mean depends on the network that
made the features: two sets may be alike to one network and unlike to another. Always show beside them what two sets of
real films of different patients score.
"""

import numpy as np
from scipy.spatial.distance import cdist

from medimgen.errors import CourseError
from medimgen.metrics import SIDES, Interval


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(x . y / d + 1) cubed for every x of `a` (n, d) and y of `b` (m, d): (n, m); Binkowski et al. 2018, section 3."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def weights(units: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each unit (sorted) is drawn, (1 + draws, units): first once each, then bootstrap draws."""
    k = len(np.unique(units))
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=draws)
    return np.vstack([np.ones((1, k)), drawn])


def kid(
    a: np.ndarray,
    b: np.ndarray,
    units_a: np.ndarray | None = None,
    units_b: np.ndarray | None = None,
    *,
    draws: int = 0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel Inception Distance without the Inception: squared maximum mean discrepancy, unbiased (Binkowski et al.
    2018, arXiv 1801.01401; Gretton et al. 2012, lemma 6). 0 in expectation if both sets come from one population;
    it may then fall below 0.

    Parameters
    ----------
    a, b : (n, d) and (m, d) finite features.
    units_a, units_b : (n,) and (m,) patient of each image; by default every image is its own. Pairs within a unit are
        left out: films of one patient are alike, and an image is most like itself.
    draws, seed : bootstrap draws of whole units. A set keeps its draws for a given seed and its own units, so that
        distances to one reference can be compared draw by draw; `a` draws with `seed`, `b` with `seed + 1`.

    Returns
    -------
    values : (1 + draws,), the distance and then its bootstrap draws.
    mirrored : (1 + draws,), the same with weights 2 - w in place of w. `interval` needs both.

    Raises CourseError for sets of fewer than two units, unequal widths, NaN or infinity.
    """
    a, b = _features(a), _features(b)
    if a.shape[1] != b.shape[1]:
        raise CourseError(f"features of {a.shape[1]} and {b.shape[1]} numbers", next="use one network for both")
    units = [np.arange(len(x)) if u is None else np.asarray(u) for x, u in ((a, units_a), (b, units_b))]
    codes = [np.unique(u, return_inverse=True)[1] for u in units]
    drawn, counts = [weights(u, draws, seed + k) for k, u in enumerate(units)], [np.bincount(c) for c in codes]
    if min(w.shape[1] for w in drawn) < 2 or len(codes[0]) != len(a) or len(codes[1]) != len(b):
        raise CourseError("a set of fewer than two units, or units of another length", next="name one unit an image")
    sums = [_by_unit(kernel(x, y), p, q) for x, y, p, q in _pairs((a, b), codes)]
    for k in (0, 1):
        np.fill_diagonal(sums[k], 0.0)
    return tuple(_distance(sums, counts, [side(w) for w in drawn]) for side in (lambda w: w, lambda w: 2 - w))


def _features(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise CourseError(f"features of shape {x.shape}, or not finite", next="pass (images, numbers) without NaN")
    return x


def _pairs(sets, codes):
    """Features and units of a with a, b with b, and a with b."""
    (a, b), (p, q) = sets, codes
    return (a, a, p, p), (b, b, q, q), (a, b, p, q)


def _by_unit(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums of `values` over rows and columns of one unit."""
    for codes in (rows, columns):
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
        values = np.add.reduceat(values[order], starts, axis=0).T
    return values


def _distance(sums, counts, drawn) -> np.ndarray:
    """Weighted mean kernel within a, plus within b, less twice between them, for every row of weights."""
    (w, v), (n, m) = drawn, counts
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of a single unit has no pairs
        within = [((u @ s) * u).sum(1) / ((u @ c) ** 2 - u**2 @ c**2) for u, s, c in ((w, sums[0], n), (v, sums[1], m))]
    between = ((w @ sums[2]) * v).sum(1) / ((w @ n) * (v @ m))
    return within[0] + within[1] - 2 * between


def interval(values: np.ndarray, mirrored: np.ndarray, null: float | None = None, direction: str = "less") -> Interval:
    """95 % interval from bootstrap draws of `kid`, or of anything computed from several of them draw by draw.

    Near 0 the distance has no linear part, and a bootstrap then spreads too far: it counts what is quadratic in the
    weights three times over (Arcones and Gine 1992 say why). The mean of a draw and its mirror image holds the
    quadratic part alone; two of the three are taken off the variance, and the draws are pulled in to match. In
    simulations 0 is covered about 95 % of the time where the two populations are one, and the truth where they differ.
    """
    if direction not in SIDES:
        raise CourseError(f"unknown direction {direction!r}", next=f"use one of {', '.join(SIDES)}")
    estimate, draws = float(values[0]), values[1:]
    if len(draws) < 2 or not np.isfinite([draws, mirrored[1:]]).all() or draws.std() == 0:
        raise CourseError(
            "an interval needs finite draws that differ", next="ask for draws=2000, of more than ten units"
        )
    spread, quadratic = np.var(draws), np.var((draws + mirrored[1:]) / 2)
    draws = estimate + (draws - estimate) * np.sqrt(max(spread - 2 * quadratic, quadratic, 0.0) / spread)
    low, high = np.quantile(draws, [0.025, 0.975])
    p = None
    if null is not None:
        less, greater = ((1 + (s * draws >= s * null).sum()) / (1 + len(draws)) for s in (1, -1))
        p = float({"less": less, "greater": greater}.get(direction, min(1.0, 2 * min(less, greater))))
    return Interval(estimate, float(low), float(high), p, len(draws), 0)


def ruler(value, real_real, normal_pneumonia):
    """A distance on a scale where two sets of real films are 0 apart and normal films 100 from pneumonia.

    Numbers, or arrays of draws of equal length. Below 0: nearer than real films are. Raises CourseError where normal
    and pneumonia are no further apart than real films of one population.
    """
    length = np.asarray(normal_pneumonia) - np.asarray(real_real)
    if (length <= 0).any():
        raise CourseError("normal and pneumonia are not apart in these features", next="use features that tell them")
    return 100 * (np.asarray(value) - real_real) / length


def radii(x: np.ndarray, k: int = 5) -> np.ndarray:
    """Distance of each row of `x` (n, d) to its k-th nearest other row: (n,)."""
    x = _features(x)
    if not 1 <= k < len(x):
        raise CourseError(f"k={k} neighbours among {len(x)} images", next="use more images or a smaller k")
    return np.partition(cdist(x, x), k, axis=1)[:, k]


def manifold(real: np.ndarray, made: np.ndarray, k: int = 5) -> dict[str, np.ndarray]:
    """For each image, what precision, recall, density and coverage are the means of.

    Around every image lies a ball that reaches its k-th nearest neighbour of the same set.
    precision (m,): the made image lies in the ball of some real one. recall (n,): the real image lies in the ball of
    some made one (Kynkaanniemi et al. 2019, arXiv 1904.06991). density (m,): in how many balls of real images the made
    one lies, over k; may exceed 1. coverage (n,): the ball of the real image holds some made one (Naeem et al. 2020,
    arXiv 2002.09797). `real` (n, d), `made` (m, d). With n = m and one population, coverage is 1 - 2**-k on average,
    and more made images raise recall and coverage: compare sets of one size only.
    """
    between = cdist(_features(real), _features(made))
    around_real, around_made = radii(real, k), radii(made, k)
    in_real = between < around_real[:, None]
    return {
        "precision": in_real.any(0).astype(float),
        "recall": (between < around_made).any(1).astype(float),
        "density": in_real.sum(0) / k,
        "coverage": (between.min(1) < around_real).astype(float),
    }
