"""The figures against known answers: scikit-learn, textbook formulae, and simulations whose truth is known."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medimgen.errors import CourseError
from medimgen.metrics import auc, cluster_bootstrap, detectable_auc


def test_auc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    for _ in range(20):
        y, score = rng.random(60) < 0.4, rng.integers(0, 8, 60)
        assert auc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1.0
    assert auc([0, 0, 1, 1], [4, 3, 2, 1]) == 0.0


@pytest.mark.parametrize(
    ("y", "score", "told"),
    [
        ([1, 1], [1, 2], "one class"),
        ([0, 1], [1, np.nan], "NaN"),
        ([0, 1], [1, 2, 3], "shape"),
        ([1, 2], [1, 2], "other than"),
    ],
)
def test_auc_refuses_what_has_no_auc(y, score, told):
    with pytest.raises(CourseError, match=told):
        auc(y, score)


def test_single_cases_give_the_textbook_interval():
    x = np.random.default_rng(2).normal(3, 2, 400)
    estimate, low, high = cluster_bootstrap(np.mean, np.arange(400), x, seed=0)
    half = 1.96 * x.std(ddof=1) / 20
    assert estimate == pytest.approx(x.mean())
    assert (low, high) == pytest.approx((estimate - half, estimate + half), abs=0.1 * half)


def test_auc_interval_is_close_to_hanley_and_mcneil():
    rng = np.random.default_rng(3)
    y = np.repeat([False, True], 300)
    a, low, high = cluster_bootstrap(auc, np.arange(600), y, rng.normal(y * 1.0), draws=1000, seed=0)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 299 * (q1 - a * a) + 299 * (q2 - a * a)) / 300**2)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.12)


def simulated(rng, patients=40, films=5, spread=1.0):
    """Films of one patient share a mean; the true overall mean is 0."""
    means = np.repeat(rng.normal(0, spread, patients), films)
    return np.repeat(np.arange(patients), films), means + rng.normal(0, 0.5, patients * films)


def test_patients_give_a_wider_interval_than_films():
    patients, x = simulated(np.random.default_rng(4))
    _, low, high = cluster_bootstrap(np.mean, patients, x, draws=500, seed=0)
    _, low_films, high_films = cluster_bootstrap(np.mean, np.arange(len(x)), x, draws=500, seed=0)
    assert (high - low) > 1.5 * (high_films - low_films)


def test_coverage_is_near_95_percent_by_patient_and_poor_by_film():
    rng, hit, hit_films = np.random.default_rng(5), 0, 0
    for seed in range(100):
        patients, x = simulated(rng)
        _, low, high = cluster_bootstrap(np.mean, patients, x, draws=200, seed=seed)
        hit += low <= 0 <= high
        _, low, high = cluster_bootstrap(np.mean, np.arange(len(x)), x, draws=200, seed=seed)
        hit_films += low <= 0 <= high
    assert 0.88 <= hit / 100 <= 1
    assert hit_films / 100 < 0.8


def test_resample_takes_whole_patients():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    seen = []

    def keep(names):
        seen.append(list(names))
        return 0.0

    cluster_bootstrap(keep, patients, patients, draws=50, seed=0)
    for names in seen[1:]:
        assert names.count("b") % 3 == 0 and names.count("a") % 2 == 0
        assert names.count("b") / 3 + names.count("a") / 2 + names.count("c") == 3


def test_degenerate_draws_are_counted_or_refused():
    y, score = np.array([1, 0, 0, 0, 0]), np.array([3, 1, 2, 5, 0])
    interval = cluster_bootstrap(auc, np.arange(5), y, score, draws=400, seed=0)
    assert interval.draws + interval.degenerate == 400
    assert interval.degenerate / 400 == pytest.approx((4 / 5) ** 5, abs=0.07)  # the positive case is never drawn
    with pytest.raises(CourseError, match="lack a class"):
        cluster_bootstrap(lambda x: np.nan if len(set(x)) < 5 else 1.0, np.arange(5), np.arange(5), draws=50, seed=0)


def test_same_seed_same_interval_and_wrong_input():
    patients, x = simulated(np.random.default_rng(6))
    first = cluster_bootstrap(np.mean, patients, x, draws=100, seed=7)
    assert first == cluster_bootstrap(np.mean, patients, x, draws=100, seed=7)
    assert first != cluster_bootstrap(np.mean, patients, x, draws=100, seed=8)
    with pytest.raises(CourseError, match="differ"):
        cluster_bootstrap(np.mean, patients[:-1], x, seed=0)
    with pytest.raises(CourseError, match="one patient"):
        cluster_bootstrap(np.mean, np.zeros(5), np.arange(5), seed=0)


def test_p_points_the_claimed_way():
    x = np.random.default_rng(8).normal(0.5, 1, 200)
    p = {
        d: cluster_bootstrap(np.mean, np.arange(200), x, draws=500, seed=0, null=0, direction=d).p
        for d in ("greater", "less", "different")
    }
    assert p["greater"] == pytest.approx(1 / 501) and p["less"] == 1.0 and p["different"] == pytest.approx(2 / 501)
    with pytest.raises(CourseError, match="direction"):
        cluster_bootstrap(np.mean, np.arange(200), x, draws=10, seed=0, null=0, direction="up")


def test_p_is_uniform_when_the_null_is_true():
    rng = np.random.default_rng(9)
    ps = []
    for seed in range(120):
        patients, x = simulated(rng)
        ps.append(cluster_bootstrap(np.mean, patients, x, draws=200, seed=seed, null=0, direction="greater").p)
    assert 0.35 < np.mean(ps) < 0.65 and 0.01 <= np.mean(np.array(ps) < 0.1) <= 0.2


def test_detectable_effect_has_80_percent_power():
    rng, n, found = np.random.default_rng(10), 100, 0
    effect = detectable_auc(n, n)
    shift = 2**0.5 * 0.2808  # normal scores with AUC 0.6106 differ by sqrt(2) * z(AUC)
    assert effect == pytest.approx(0.6147, abs=0.001)
    y = np.repeat([0, 1], n)
    for seed in range(60):
        _, low, _ = cluster_bootstrap(auc, np.arange(2 * n), y, rng.normal(y * shift * 1.03), draws=200, seed=seed)
        found += low > 0.5
    assert 0.65 <= found / 60 <= 0.95
    assert detectable_auc(n, n, [2] * n) == pytest.approx(0.5 + 2**0.5 * (effect - 0.5))


def test_full_size_is_fast():
    rng = np.random.default_rng(11)
    y, patients = rng.random(3530) < 0.7, rng.integers(0, 2100, 3530)
    start = time.process_time()
    cluster_bootstrap(auc, patients, y, rng.random(3530), draws=500, seed=0)
    assert time.process_time() - start < 15 / 4
