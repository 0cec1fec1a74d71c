"""The perturbations: what holds for all of them, and each one's unit measured back from its picture of a phantom."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import fft, ndimage

from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.perturb import (
    CHOICE,
    PERTURBATIONS,
    _perturbation,
    apply,
    effects,
    millimetres,
    plausible_from,
    show_gallery,
)

UNSEEDED = {"breathing", "focal_spot", "collimation", "resolution", "jpeg", "scatter"}  # nothing in them is random
IDENTITY = {"dose": 1, "contrast": 1, "scanner": 1, "aspect_ratio": 1, "resolution": 1, "jpeg": 100}  # others 0


def phantoms(n=3, size=128, seed=0):
    """Chest-like films: two dark lungs with ribs, a bright heart and spine, texture, a black rim; (n, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    films = []
    for _ in range(n):
        film = 0.62 - 0.1 * (x**2 + y**2)
        for side in (-1, 1):
            lung = ((x - side * 0.42) / 0.3) ** 2 + ((y + 0.1) / rng.uniform(0.55, 0.65)) ** 2
            film -= 0.4 / (1 + np.exp(12 * (lung - 1)))
        film += 0.25 * np.exp(-(((x - 0.12) / 0.25) ** 2) - ((y - 0.2) / 0.3) ** 2) + 0.15 * np.exp(-((x / 0.06) ** 2))
        film += 0.05 * np.maximum(np.sin(rng.uniform(24, 30) * (y + 0.4 * x**2)), 0)
        film += 0.3 * ndimage.gaussian_filter(rng.standard_normal(film.shape), 1.5 * size / 128)
        film[np.abs(x) > rng.uniform(0.92, 0.97)] = 0.02
        films.append(np.clip(film, 0, 1))
    return np.array(films, dtype=np.float32)


def exposed(grey):
    """Relative exposure: black 1, white a hundredth, as the module documents."""
    return 10 ** (-2 * np.asarray(grey, dtype=float))


def width(profile, positions):
    """Standard deviation of a profile."""
    weights = profile / profile.sum()
    middle = (weights * positions).sum()
    return np.sqrt((weights * (positions - middle) ** 2).sum())


def half_maximum(profile):
    """Full width at half maximum, linear between samples."""
    above = np.flatnonzero(profile >= profile.max() / 2)
    a, b, half = above[0], above[-1], profile.max() / 2
    left = a - (profile[a] - half) / (profile[a] - profile[a - 1])
    return b + (profile[b] - half) / (profile[b] - profile[b + 1]) - left


# Measuring each unit back: name(s, seed) -> value in the unit of the perturbation.


def motion(s, seed):
    """Length of the trace of a point, moving at constant speed: the reciprocal of the brightness along it."""
    point = np.zeros((1024, 1024), np.float32)
    point[512, 512] = 1
    trace = apply("motion", point, s, seed).astype(float)
    trace[trace < 1e-4] = 0
    where = np.argwhere(trace) - 512.0
    mass = trace[trace > 0]
    main = np.linalg.eigh(np.cov(where.T, aweights=mass))[1]
    along, aside = where @ main[:, 1], where @ main[:, 0]
    bins = np.round(along / 4).astype(int)
    inner = [b for b in np.unique(bins) if np.abs(4 * b) < 0.3 * np.ptp(along)]
    centres = np.array(
        [np.average(np.stack([along, aside])[:, bins == b], axis=1, weights=mass[bins == b]) for b in inner]
    )
    length = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    between = np.isin(bins, inner[1:-1])
    passed = mass[between].sum() + mass[bins == inner[0]].sum() / 2 + mass[bins == inner[-1]].sum() / 2
    return length / passed * trace.sum() / 8


def breathing(s, seed):
    """Edge spread at three quarters of the height, where the travel is three quarters of that at the lower edge."""
    edge = np.zeros((512, 512), np.float32)
    edge[384:] = 1
    rise = np.gradient(apply("breathing", edge, s, seed)[:, 200].astype(float))
    return 1 / rise[382:386].mean() / 0.75 / 4


def focal_spot(s, seed):
    edge = np.zeros((64, 512), np.float32)
    edge[:, 256:] = 1
    return half_maximum(np.diff(apply("focal_spot", edge, s, seed)[30].astype(float))) / 4


def dose(s, seed):
    """Relative variance of the exposure: 1 / quanta, which is (1 / dose - 1) / quanta more than before."""
    spread = exposed(apply("dose", np.full((128, 128), 0.5), s, seed))
    return 1 / (1 + 500 * spread.var() / spread.mean() ** 2)


def exposure(s, seed):
    change = 10 * np.log10(exposed(apply("exposure", np.full((32, 32), 0.5), s, seed)).mean() / exposed(0.5))
    return change * (-1 if seed % 2 == 0 else 1)


def contrast(s, seed):
    ramp = np.tile(np.linspace(0.3, 0.7, 64), (64, 1))
    slope = np.ptp(apply("contrast", ramp, s, seed)[0, 16:48]) / np.ptp(ramp[0, 16:48])
    return slope if seed % 2 == 0 else 1 / slope


def scatter(s, seed):
    """Contrast of a small detail in exposure falls to 1 / (1 + scatter to primary)."""
    film = np.full((128, 128), 0.5)
    film[62:66, 62:66] = 0.52
    out = exposed(apply("scatter", film, s, seed))
    return (exposed(0.52) - exposed(0.5)) / (out[63, 63] - out[63, 50]) * out[63, 20] / exposed(0.5) - 1


def scanner(s, seed):
    """Slope of the tone curve in logarithms, from a ramp, which a symmetric blur leaves as it is."""
    ramp = np.tile(np.linspace(0.1, 0.9, 256), (64, 1))
    out = apply("scanner", ramp, s, seed)[30, 40:-40]
    gamma = np.polyfit(np.log(ramp[30, 40:-40]), np.log(out), 1)[0]
    return gamma if seed % 2 == 0 else 1 / gamma


def lines(s, seed):
    """Frequency and amplitude of the grid's shadow in exposure."""
    wave = exposed(apply("grid_lines", np.full((32, 512), 0.5), s, seed)[9]) / exposed(0.5) - 1
    turns = np.linspace(0.01, 0.5, 5000)
    strength = np.abs(np.exp(-2j * np.pi * np.outer(turns, np.arange(512))) @ wave) * 2 / 512
    return turns[strength.argmax()], strength.max()


def grid_lines(s, seed):
    return 100 * lines(s, seed)[1]


def dead_columns(s, seed):
    return (apply("dead_columns", np.full((40, 1024), 0.5), s, seed) == 1).all(axis=0).sum() / 8


def rotation(s, seed):
    """Direction of the long axis of an upright bar."""
    y, x = np.mgrid[-128:128, -128:128] + 0.5
    bar = apply("rotation", np.exp(-((x / 6) ** 2) - (y / 45) ** 2), s, seed)
    (yy, xy), (_, xx) = np.cov(np.stack([y.ravel(), x.ravel()]), aweights=bar.ravel())
    return np.rad2deg(np.arctan2(2 * xy, yy - xx) / 2) * (1 if seed % 2 == 0 else -1)


def collimation(s, seed):
    film = apply("collimation", np.ones((200, 300)), s, seed)
    top, side = (1 - film[:, 150].mean()) * 50, (1 - film[100].mean()) * 50
    assert film[0].max() == film[:, -1].max() == 0 and top == pytest.approx(side, abs=0.1)
    return side


def aspect_ratio(s, seed):
    y, x = np.mgrid[-128:128, -128:128] + 0.5
    spot = apply("aspect_ratio", np.exp(-(x**2 + y**2) / 800), s, seed)
    ratio = width(spot.sum(0), x[0]) / width(spot.sum(1), y[:, 0])
    return ratio if seed % 2 == 0 else 1 / ratio


def inspiration(s, seed):
    """How far a line three quarters down stands higher, in the middle of the film."""
    rows = np.arange(256)
    film = np.tile(np.exp(-(((rows - 191) / 3) ** 2))[:, None], (1, 257))
    return (191 - np.average(rows, weights=apply("inspiration", film, s, seed)[:, 128])) / 2


def resolution(s, seed):
    """Edges at all places within a pixel: box (f^2 / 12) and linear interpolation (f^2 / 6) spread them by f^2 / 4."""
    edges = np.zeros((12, 32, 300), np.float32)
    for i, edge in enumerate(edges):
        edge[:, 140 + i :] = 1
    spreads = np.diff(apply("resolution", edges, s, seed)[:, 16].astype(float))
    aligned = np.mean([spread[100 + i : 180 + i] for i, spread in enumerate(spreads)], axis=0)
    return 2 * width(aligned, np.arange(80))


def jpeg(s, seed):
    """The quality whose quantisation table the coefficients of the picture are multiples of."""
    film = (phantoms(1, 256)[0] * 120 + 60).astype(np.uint8)
    out = apply("jpeg", film, s, seed).astype(float) - 128
    blocks = out[4:-4, 4:-4].reshape(31, 8, 31, 8).swapaxes(1, 2)
    coefficients = fft.dctn(blocks, axes=(2, 3), norm="ortho")
    misfit = {}
    for quality in range(5, 101, 5):
        file = BytesIO()
        Image.fromarray(film).save(file, "jpeg", quality=quality)
        table = np.reshape(Image.open(file).quantization[0], (8, 8))
        steps = coefficients / table
        misfit[quality] = np.abs(steps - np.rint(steps))[:, :, :3, :3].mean()
    return min(misfit, key=misfit.get)


def text(s, seed):
    letters = apply("text", np.zeros((512, 512)), s, seed)
    across = np.flatnonzero(letters.max(axis=0) > 0.5)
    assert (across.max() > 480) if seed % 2 else (across.min() < 30)
    return letters.max(axis=1).sum() / 4


def leads(s, seed):
    electrodes = apply("leads", np.zeros((512, 512)), s, seed) > 0.28
    return ndimage.label(ndimage.binary_erosion(electrodes, iterations=4))[1]


WHOLE = {"leads": (1 / 6, 0.5, 1.0)}  # electrodes that are there in part do not count


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_unit_is_found_again_in_the_picture(name, seed):
    """Within 10 % of the value, and of its distance from that of the film as it is."""
    for s in WHOLE.get(name, (0.4, 0.8)):
        value = PERTURBATIONS[name].at(s)
        allowed = 0.1 * min(value, abs(value - IDENTITY.get(name, 0)))
        assert globals()[name](s, seed) == pytest.approx(value, abs=allowed), (name, s)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_wrong_unit_would_be_noticed(name, monkeypatch):
    right = PERTURBATIONS[name]
    stronger = _perturbation(name, "", "", lambda s: right.at(min(1.25 * s, 1)), 1, "")
    weaker = _perturbation(name, "", "", lambda s: right.at(0.75 * s), 1, "")
    for wrong in (stronger, weaker) if name not in WHOLE else (weaker,):
        monkeypatch.setitem(PERTURBATIONS, name, replace(right, run=wrong.run))
        with pytest.raises(AssertionError):
            test_the_unit_is_found_again_in_the_picture(name, 0)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_breath_of_s_changes_next_to_nothing(name):
    films = phantoms(2, 100)
    assert np.abs(apply(name, films, 1e-6) - films).max() < 0.01


def test_the_patterns_are_as_described():
    for seed in range(6):
        assert 3 <= 1 / lines(0.5, seed)[0] / 4 <= 7
    edge = np.zeros((64, 512))
    edge[:, 256:] = 1
    spread = np.diff(apply("scanner", edge, 0.5)[30] ** (1 / PERTURBATIONS["scanner"].at(0.5)))
    assert width(spread, np.arange(511)) * 2.355 / 4 == pytest.approx(1.5 * 0.4, rel=0.1)
    small, large = (
        ndimage.uniform_filter(exposed(apply("dose", np.full((n, n), 0.5), 0.5)), n // 64) for n in (64, 256)
    )
    assert small.std() == pytest.approx(large[2::4, 2::4].std(), rel=0.1), (
        "a film of more pixels has fewer quanta in each"
    )
    assert apply("scatter", np.zeros((64, 64)), 1.0).max() < 0.4, "air scatters nothing: only exposure control acts"


def test_the_same_pictures_as_other_packages_make():
    from benchmarks import perturb_peers

    film = (phantoms(1, 224, seed=2)[0] * 255).astype(np.uint8)
    akin = {("scikit-image", "dose"), ("scikit-image", "resolution"), ("pillow", "resolution")}
    for peer, build in (("scipy", "scipy_peers"), ("scikit-image", "scikit_image_peers"), ("pillow", "pillow_peers")):
        for name, operator in getattr(perturb_peers, build)().items():
            apart = perturb_peers.difference(name, operator, film)
            assert apart < 0.05 or (peer, name) in akin, (peer, name, apart)
    assert perturb_peers.difference("contrast", lambda f: f, film) == 1, "who changes nothing differs by all of it"
    assert perturb_peers.quanta() == pytest.approx(1, abs=0.03)


def test_eighteen_rows_are_complete():
    assert len(PERTURBATIONS) == 18
    for name, p in PERTURBATIONS.items():
        values = np.array([p.at(s) for s in np.linspace(0, 1, 21)])
        assert name == p.name and p.cause.endswith(".") and p.unit and 0 < p.plausible <= 1
        assert CHOICE in p.source or any(c.isdigit() for c in p.source)
        assert values[0] == IDENTITY.get(name, 0) and (np.diff(values) * np.sign(values[-1] - values[0]) >= 0).all()


def test_plausible_aspect_ratios_are_those_of_the_originals():
    table = radiographs.labels()
    low, middle, high = (table["width"] / table["height"]).quantile([0.025, 0.5, 0.975])
    assert (low, middle, high) == pytest.approx((1.03, 1.39, 2.04), abs=0.01)
    p = PERTURBATIONS["aspect_ratio"]
    assert p.at(p.plausible) <= min(middle / low, high / middle) < p.at(p.plausible + 0.05)


def test_plausible_jpeg_is_about_tenfold(tier):
    sizes, quality = [], PERTURBATIONS["jpeg"].at(PERTURBATIONS["jpeg"].plausible)
    for film in radiographs.load("pocket", size=224, tier=tier).images:
        file = BytesIO()
        Image.fromarray(film).save(file, "jpeg", quality=quality)
        sizes.append(film.size / file.tell())
    assert 8 < np.median(sizes) < 12.5


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_s_0_is_the_film_bit_for_bit(name):
    for dtype in (np.uint8, np.float16, np.float32, np.float64):
        films = phantoms(2, 64).astype(dtype) if dtype != np.uint8 else (phantoms(2, 64) * 255).astype(dtype)
        out = apply(name, films, [0, 0.7])
        assert out.dtype == dtype and out[0].tobytes() == films[0].tobytes() and (out[1] != films[1]).any()
        assert apply(name, films[0], 0.0).tobytes() == films[0].tobytes()
        assert out.min() >= 0 and out.max() <= (255 if dtype == np.uint8 else 1)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_pure_seeded_and_the_same_in_any_batch(name):
    films = phantoms(4, 80)[:, :, :70]
    before, s = films.copy(), [0.2, 0.9, 0.2, 0.5]
    together = apply(name, films, s, seed=5)
    assert (films == before).all() and not np.shares_memory(films, together) and together.shape == films.shape
    for i in range(4):
        assert (apply(name, films[i], s[i], seed=5) == together[i]).all()
    assert (apply(name, films[::-1], s[::-1], seed=5)[::-1] == together).all()
    run = PERTURBATIONS[name].run
    assert (run(films, np.float32(s), 5).clip(0, 1) == apply(name, films, np.float32(s), 5)).all()
    assert (films == before).all() and run(films[:0], np.float32([]), 5).shape == (0, 80, 70)
    other = np.concatenate([apply(name, films, 0.5, seed=6), apply(name, films, 0.5, seed=7)])
    changed = (other != np.tile(apply(name, films, 0.5, seed=5), (2, 1, 1))).any()
    assert changed == (name not in UNSEEDED)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_bytes_and_floats_give_the_same_film(name, monkeypatch):
    """Also with sides that are no multiple of a block, and with more films than are worked on at once."""
    monkeypatch.setattr("medimgen.perturb.BLOCK", 2 * 100 * 75)
    films = (phantoms(5, 100)[:, :, :75] * 255).astype(np.uint8)
    for seed in (0, 1):
        for s in (0.05, 0.5, 1.0):
            grey = apply(name, films / np.float32(255), s, seed) * 255
            assert np.abs(apply(name, films, s, seed) - grey).max() <= 0.51, (s, seed)
    assert set(PERTURBATIONS) >= effects.BYTES | effects.POINTWISE


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_film_changes_more_as_s_grows(name):
    films = phantoms(4)
    for seed in (0, 3):
        change = [np.abs(apply(name, films, s, seed) - films).mean(axis=(1, 2)) for s in np.linspace(0, 1, 11)]
        assert (np.diff(change, axis=0) >= -1e-6).all()
        assert (change[-1] > change[5]).all() and (change[5] > 1e-3).all()


def test_jpeg_changes_more_even_for_a_film_that_was_a_jpeg():
    file = BytesIO()
    Image.fromarray((phantoms(1, 224)[0] * 255).astype(np.uint8)).save(file, "jpeg", quality=75)
    film = np.asarray(Image.open(file))
    change = [np.abs(apply("jpeg", film, s).astype(float) - film).mean() for s in np.linspace(0, 1, 11)]
    assert (np.diff(change) >= 0).all() and change[3] > 0.3, (
        "quality 75 once more, on the same blocks, would change nothing"
    )


def test_raising_s_moves_along_one_path():
    film = np.full((64, 64), 0.5)
    for name in ("dose", "grid_lines", "leads", "exposure"):
        a, b = (apply(name, film, s, 3) - film for s in (0.3, 0.6))
        assert ((a * b >= 0) & (np.abs(b) >= np.abs(a) - 1e-7)).all(), name
    few, many = (apply("dead_columns", film, s, 3)[0] == 1 for s in (0.3, 0.6))
    assert (many[few]).all() and few.sum() < many.sum()
    dots = np.zeros((2, 256, 256))
    dots[:, 128, 128] = 1
    small, large = apply("motion", dots, [0.3, 0.6], 3)
    axes = [np.linalg.eigh(np.cov(np.argwhere(t > 1e-3).T, aweights=t[t > 1e-3]))[1][:, 1] for t in (small, large)]
    assert abs(axes[0] @ axes[1]) > 0.99


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "blur"}, "no perturbation 'blur'.*\n.*motion, breathing"),
        ({"s": 1.01}, "s is not within"),
        ({"s": -0.1}, "s is not within"),
        ({"s": np.nan}, "s is not within"),
        ({"s": [0.1, 0.2, 0.3]}, "one for each image"),
        ({"s": [[0.1, 0.2]]}, "one for each image"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"images": np.zeros((2, 32, 32), np.int16)}, "int16"),
        ({"images": np.zeros((2, 32, 32), bool)}, "bool"),
        ({"images": np.zeros((32, 32, 3))}, "colours"),
        ({"images": np.zeros((2, 1, 32, 32))}, "shape"),
        ({"images": np.zeros((0, 32, 32))}, "empty"),
        ({"images": np.zeros((2, 15, 32))}, "too small"),
        ({"images": np.full((2, 32, 32), np.nan)}, "NaN"),
        ({"images": np.full((2, 32, 32), 1.5)}, "outside 0..1"),
        ({"images": np.full((2, 32, 32), -0.5)}, "outside 0..1"),
    ],
)
def test_what_apply_refuses(change, told):
    good = {"name": "motion", "images": phantoms(2, 32), "s": [0.1, 0.2], "seed": 0}
    assert apply(**good).shape == (2, 32, 32)
    with pytest.raises(CourseError, match=told):
        apply(**(good | change))


def test_millimetres_need_a_width_and_a_length():
    """On a phantom: half the shadow of an edge is as wide as told, at 0.2 mm a pixel."""
    edge = np.zeros((64, 512), np.float32)
    edge[:, 256:] = 1
    measured = 0.2 * half_maximum(np.diff(apply("focal_spot", edge, 0.5)[30].astype(float)))
    assert millimetres("focal_spot", 0.5, 512 * 0.2) == pytest.approx(measured, rel=0.1)
    assert millimetres("motion", 0.25, 300) == pytest.approx(2 * 300 / 128) and millimetres("motion", 0, 300) == 0
    lengths = {name for name in PERTURBATIONS if millimetres(name, 0.5, 300) is not None}
    assert lengths == {"motion", "breathing", "focal_spot", "inspiration", "text"}
    assert all(millimetres(name, 0.5, None) is None for name in PERTURBATIONS), "no spacing, no millimetres"
    for wrong in (0, -300, np.nan, np.inf):
        with pytest.raises(CourseError, match="mm wide"):
            millimetres("motion", 0.5, wrong)
    with pytest.raises(CourseError, match="no perturbation 'blur'"):
        millimetres("blur", 0.5, 300)
    with pytest.raises(CourseError, match="not within"):
        millimetres("motion", 1.5, 300)


def ballots(limits, each=40, name="motion"):
    """Votes of readers who send back what lies above their limit, now and then by mistake."""
    rng, rows = np.random.default_rng(0), []
    for reader, limit in enumerate(limits):
        for s in rng.uniform(0, 1, each).round(2):
            leaves = bool((s <= limit) ^ (rng.random() < 0.05))
            rows.append({"reader": f"r{reader}", "perturbation": name, "severity": s, "leaves": leaves})
    return pd.DataFrame(rows)


def test_votes_give_the_severity_at_which_half_send_back(tmp_path):
    limit = plausible_from(ballots([0.2, 0.4, 0.6], 200))["motion"]
    assert limit.severity == pytest.approx(0.4, abs=0.05) and limit[1:] == (600, 3)
    many_of_one = pd.concat([ballots([0.2], 400), ballots([0.6, 0.6], 40).replace({"r0": "a", "r1": "b"})])
    assert plausible_from(many_of_one)["motion"].severity > 0.45, "each reader weighs the same: 0.2 if votes did"
    by_hand = pd.DataFrame({"perturbation": "dose", "severity": [0.2, 0.4] * 5, "leaves": [True, False] * 5})
    assert plausible_from(by_hand)["dose"].severity == pytest.approx(0.3)
    files = [tmp_path / f"{k}.csv" for k in range(2)]
    for k, file in enumerate(files):
        ballots([0.3 + 0.4 * k], 100).drop(columns="reader").to_csv(file, index=False)
    assert plausible_from(files)["motion"].readers == 2, "without a name each file is a reader"
    (tmp_path / "all.csv").write_text("".join(f.read_text(encoding="utf-8") for f in files), encoding="utf-8")
    below = plausible_from(tmp_path / "all.csv")["motion"]
    assert below.votes == 200 and below.readers == 1


@pytest.mark.parametrize(
    ("votes", "told"),
    [
        (ballots([0.5], 9), "motion has 9 votes.*\n.*collect 10"),
        (ballots([0.5], 30).assign(severity=0.3), "at 1 severities"),
        (ballots([0.5], 30).assign(leaves=True), "most readers would let.*\n.*changed more"),
        (ballots([0.5], 30).assign(leaves=False), "send back even.*\n.*changed less"),
        (ballots([0.5], 30).drop(columns="leaves"), "lack leaves"),
        (ballots([0.5], 30, "blur"), "'blur'"),
        (ballots([0.5], 30).assign(severity=1.5), "outside 0..1"),
        (ballots([0.5], 30).assign(leaves="perhaps"), "neither True nor False"),
        ([], "no votes"),
    ],
)
def test_votes_that_set_no_limit_say_what_to_do(votes, told):
    with pytest.raises(CourseError, match=told):
        plausible_from(votes)


def test_votes_move_the_figures_of_a_sweep():
    from medimgen import robustness

    films = np.linspace(0.5, 0.7, 8, dtype=np.float32)[:, None, None] * np.ones((1, 32, 32), np.float32)
    p, shares = PERTURBATIONS["collimation"], []
    for limit in (0.15, 0.75):
        votes = ballots([limit], 400, "collimation")
        ours = replace(p, plausible=plausible_from(votes)["collimation"].severity, source="votes")
        found = robustness.sweep(lambda x: x.reshape(len(x), -1).mean(1), films, perturbations=[ours],
                                 settings=robustness.Settings(confident=0.5))  # fmt: skip
        shares.append(robustness.figures(found, draws=20)["plausible_flips"].estimate)
    assert shares[0] < shares[1], "whoever lets more films leave finds more flips among them"


def test_gallery_shows_all_with_value_and_unit():
    import matplotlib.pyplot as plt

    film = (phantoms(1, 64)[0] * 255).astype(np.uint8)
    figure = show_gallery(film)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 19 and shown[1].get_title() == "motion 2\npixels at 128"
    again = show_gallery(film, s=1.0, seed=1)
    assert (again.axes[2].images[0].get_array() == apply("breathing", film, 1.0, 1)).all()
    plt.close("all")
