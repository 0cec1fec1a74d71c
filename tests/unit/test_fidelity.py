"""KID, the ruler and the manifold figures against loops, closed forms, the authors' package, and simulations."""

from math import comb

import numpy as np
import pytest

from medimgen.errors import CourseError
from medimgen.fidelity import interval, kernel, kid, manifold, radii, ruler, weights


def by_hand(a, b, units_a, units_b, w=None, v=None):
    """The definition, pair by pair; w and v say how often each image counts."""
    w, v = np.ones(len(a)) if w is None else w, np.ones(len(b)) if v is None else v

    def mean(x, y, p, q, s, t, same):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and p[i] == q[j])]
        k = [(x[i] @ y[j] / x.shape[1] + 1) ** 3 for i, j in pairs]
        return np.average(k, weights=[s[i] * t[j] for i, j in pairs])

    within = mean(a, a, units_a, units_a, w, w, True) + mean(b, b, units_b, units_b, v, v, True)
    return within - 2 * mean(a, b, units_a, units_b, w, v, False)


def two_sets(seed=0):
    rng = np.random.default_rng(seed)
    units = np.array(list("aabbcdeefghi")), np.arange(14) // 2
    return rng.normal(size=(12, 4)), rng.normal(0.3, 1, (14, 4)), *units


def test_kid_is_its_definition_with_and_without_patients():
    a, b, units_a, units_b = two_sets()
    assert kid(a, b)[0][0] == pytest.approx(by_hand(a, b, range(12), range(14)), rel=1e-10)
    assert kid(a, b, units_a, units_b)[0][0] == pytest.approx(by_hand(a, b, units_a, units_b), rel=1e-10)
    assert kid(a, b, units_a, units_b)[0][0] != pytest.approx(kid(a, b)[0][0], rel=1e-3)


def test_a_draw_counts_every_image_as_often_as_its_patient_is_drawn():
    a, b, units_a, units_b = two_sets(1)
    values, mirrored = kid(a, b, units_a, units_b, draws=3, seed=5)
    w, v = weights(units_a, 3, 5)[2], weights(units_b, 3, 6)[2]
    w, v = w[np.unique(units_a, return_inverse=True)[1]], v[units_b]
    assert values[2] == pytest.approx(by_hand(a, b, units_a, units_b, w, v), rel=1e-9)
    assert mirrored[2] == pytest.approx(by_hand(a, b, units_a, units_b, 2 - w, 2 - v), rel=1e-9)
    assert values[0] == mirrored[0]


def uniform(rng, patients, shift=0.0):
    """Films of one patient are alike: one number each patient, up to three films, spread evenly over 0..1 + shift."""
    units = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    return rng.uniform(0, 1, (patients, 1))[units] + shift, units


def truth(shift):
    """Squared distance of the uniform distributions on 0..1 and shift..1 + shift under the cubic kernel."""
    moment = [[((1 + s) ** (j + 1) - s ** (j + 1)) / (j + 1) for j in range(4)] for s in (0.0, shift)]
    return sum(comb(3, j) * (moment[0][j] - moment[1][j]) ** 2 for j in range(4))


def test_kid_is_unbiased_although_films_of_a_patient_are_alike():
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.2):
        found, naive = [], []
        for _ in range(120):
            (a, p), (b, q) = uniform(rng, 20), uniform(rng, 20, shift)
            found.append(kid(a, b, p, q)[0][0])
            naive.append(kid(a, b)[0][0])
        assert np.mean(found) == pytest.approx(truth(shift), abs=3 * np.std(found) / np.sqrt(120))
        assert np.mean(naive) > np.mean(found) + 0.02


def many(rng, n, d=8):
    units = np.repeat(np.arange(n), rng.integers(1, 4, n))
    return rng.uniform(-1.4, 1.4, (n, d))[units] + rng.uniform(-1, 1, (len(units), d)), units


def test_interval_covers_0_for_one_population_and_the_bare_bootstrap_is_too_wide():
    rng, hit, widths = np.random.default_rng(3), 0, []
    for seed in range(80):
        (a, p), (b, q) = many(rng, 50), many(rng, 40)
        values, mirrored = kid(a, b, p, q, draws=200, seed=seed)
        _, low, high = interval(values, mirrored)
        hit += low <= 0 <= high
        widths.append((high - low) / np.subtract(*np.quantile(values[1:], [0.975, 0.025])))
        assert abs(values[1:].mean() - values[0]) < 0.5 * values[1:].std()  # drawing a film twice adds nothing
    assert 0.88 <= hit / 80 <= 1
    assert np.mean(widths) < 0.8


def test_interval_covers_the_truth_where_two_populations_differ():
    rng, hit = np.random.default_rng(4), 0
    for seed in range(80):
        (a, p), (b, q) = uniform(rng, 60), uniform(rng, 60, 0.2)
        _, low, high = interval(*kid(a, b, p, q, draws=200, seed=seed))
        hit += low <= truth(0.2) <= high
    assert 0.87 <= hit / 80 <= 0.99


def test_p_and_direction():
    values = np.r_[5.0, np.linspace(3, 7, 99)]
    mirrored = np.r_[5.0, 10 - values[1:]]  # no quadratic part: nothing is pulled in
    assert interval(values, mirrored, 10.0).p == pytest.approx(0.01)
    assert interval(values, mirrored, 0.0).p == 1.0
    assert interval(values, mirrored, 0.0, "greater").p == pytest.approx(0.01)
    assert tuple(interval(values, mirrored)) == pytest.approx((5, 3.1, 6.9), abs=0.05)
    with pytest.raises(CourseError, match="direction"):
        interval(values, mirrored, 0.0, "up")
    with pytest.raises(CourseError, match="draws"):
        interval(values[:1], mirrored[:1])


def test_one_set_keeps_its_draws_so_that_distances_can_be_subtracted():
    a, b, units_a, units_b = two_sets(5)
    one, two = (kid(x, b, units_a, units_b, draws=50, seed=1)[0] for x in (a, a + 1e-9))
    assert np.abs(one - two).max() < 1e-6
    assert kid(a, b, units_a, units_b, draws=50, seed=2)[0][1] != one[1]


def test_ruler():
    assert ruler(3.0, 1.0, 5.0) == 50
    assert ruler(np.array([1.0, 5.0]), 1.0, 5.0).tolist() == [0, 100]
    assert ruler(0.5, 1.0, 2.0) < 0
    with pytest.raises(CourseError, match="not apart"):
        ruler(1.0, 2.0, np.array([3.0, 2.0]))


def test_kernel_of_orthogonal_and_equal():
    assert kernel(np.eye(2), np.eye(2)).tolist() == [[1.5**3, 1], [1, 1.5**3]]


@pytest.mark.parametrize("k", [1, 5])
def test_manifold_figures_equal_the_package_of_their_authors(k, capsys):
    from prdc import compute_prdc

    rng = np.random.default_rng(6)
    real, made = rng.normal(size=(70, 6)), rng.normal(0.4, 0.8, (50, 6))
    theirs = compute_prdc(real_features=real, fake_features=made, nearest_k=k)
    ours = {name: values.mean() for name, values in manifold(real, made, k).items()}
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert len(set(ours.values())) == 4 and min(ours.values()) > 0


def test_what_the_manifold_figures_say():
    rng = np.random.default_rng(7)
    real, k = rng.normal(size=(400, 8)), 5
    same = manifold(real, rng.normal(size=(400, 8)), k)
    assert same["coverage"].mean() == pytest.approx(1 - 2**-k, abs=0.04)
    one_mode = manifold(real, real[:1] + rng.normal(0, 0.01, (400, 8)), k)
    assert one_mode["precision"].mean() > 0.95 and one_mode["coverage"].mean() < 0.1 > one_mode["recall"].mean()
    far = manifold(real, rng.normal(size=(400, 8)) + 30, k)
    assert all(values.max() == 0 for values in far.values())


def test_refusals():
    a, b, units, _ = two_sets(8)
    with pytest.raises(CourseError, match="one network"):
        kid(a, b[:, :3])
    with pytest.raises(CourseError, match="two units"):
        kid(a, b, np.zeros(12))
    with pytest.raises(CourseError, match="another length"):
        kid(a, b, units[:-1])
    with pytest.raises(CourseError, match="finite"):
        kid(np.where(a > 1, np.nan, a), b)
    with pytest.raises(CourseError, match="k=12"):
        radii(a, 12)
