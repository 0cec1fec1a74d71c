"""The sweep finds known crossings, survives broken models, films and workers, and says how sure it is."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from PIL import Image

from medimgen import dicom, robustness
from medimgen.errors import CourseError
from medimgen.robustness import Settings, as_model, sweep


def dimmed(x, s, seed):
    return x * (1 - s[:, None, None])


def grainy(x, s, seed):
    return x * (1 - s[:, None, None] * np.float32([0.55, 0.75, 1][seed % 3]))


def kind(run=dimmed, name="dim", plausible=0.5):
    return SimpleNamespace(name=name, cause="c", unit="share", at=float, plausible=plausible, source="s", run=run)


DIM = (kind(),)
FILMS = np.ones((10, 16, 16), np.float32)


def by_severity(rule, x):
    """A model of white films: `rule` gets how much each was dimmed, 0..1."""
    return rule(np.round(1 - x.reshape(len(x), -1).mean(1, dtype=np.float64), 5))


def flips_in(*ranges):
    """Sure positive, except sure negative in the ranges [from, to)."""
    return partial(by_severity, partial(_flips_in, ranges))


def _flips_in(ranges, s):
    return np.where(np.any([(s >= a) & (s < b) for a, b in ranges], axis=0), 0.02, 0.97)


def fading(x):
    """P(positive) is the film's mean brightness."""
    return x.reshape(len(x), -1).mean(1)


def run(model, films=FILMS, labels=None, **more):
    return sweep(model, films, labels, **{"perturbations": DIM, **more})


@pytest.mark.parametrize(
    ("ranges", "first"),
    [(((0.2, 0.3), (0.8, 2)), 0.2), (((0.437, 2),), 0.437), (((0.001, 2),), 0.001), (((0.999, 2),), 0.999)],
)
def test_known_first_crossing(ranges, first):
    found = run(flips_in(*ranges))
    assert np.all(found.flip >= first - 1e-9) and np.all(found.flip <= first + 0.01)
    np.testing.assert_array_equal(found.flip, found.reversal)


@pytest.mark.parametrize("limit", [0.5, 0.03, 0.17])
def test_the_plausible_limit_itself_is_tried(limit):
    at, after = (run(flips_in((x, 2)), perturbations=[kind(plausible=limit)]) for x in (limit, limit + 0.002))
    assert at.plausible.all() and not after.plausible.any()


def test_a_perturbation_that_leaves_the_range_is_clipped():
    found = run(fading, FILMS * np.float32(0.2), perturbations=[kind(lambda x, s, seed: x + 3 * s[:, None, None])])
    assert not found.faults and found.flip == pytest.approx(0.1, abs=0.011) and found.picture(0, 0, 1, 0).max() == 1


def test_no_crossing_is_infinite_and_early_stop_saves_work():
    assert np.isposinf(run(flips_in((3, 4))).flip).all()
    asked = []

    def counting(x):
        asked.append(len(x))
        return flips_in((0.1, 2))(x)

    run(counting, seeds=(0,))
    assert sum(asked) == 10 * (1 + 4 + 3 + 3) + 10  # untouched, one block, twice three halvings; then latency


def test_reversal_comes_later_than_the_flip():
    found = run(fading, FILMS * np.float32(0.95))
    assert found.flip == pytest.approx(1 - 0.5 / 0.95, abs=0.011)
    assert found.reversal == pytest.approx(1 - 0.1 / 0.95, abs=0.011)
    assert np.isposinf(run(fading, FILMS * np.float32(0.85)).reversal).all()  # not sure to begin with
    negative = run(lambda x: 1 - fading(x), FILMS * np.float32(0.95))
    assert np.isfinite(negative.flip).all() and np.isposinf(negative.reversal).all()


def test_missed_crossings_are_measured_against_a_fine_grid():
    fine = Settings(grid=100)
    hidden = flips_in((0.21, 0.24), (0.6, 2))  # lies between two coarse steps
    coarse = run(hidden)
    assert coarse.flip == pytest.approx(0.6, abs=0.01)
    assert robustness.missed(coarse, run(hidden, settings=fine)) == 1
    plain = flips_in((0.33, 2))
    assert robustness.missed(run(plain), run(plain, settings=fine)) == 0
    assert robustness.missed(run(flips_in((3, 4))), run(flips_in((3, 4)), settings=fine)) == 0


def test_seeds_are_tried_where_they_matter_only():
    calls = []

    def logged(function, x, s, seed):
        calls.append(seed)
        return function(x, s, seed)

    found = run(fading, perturbations=[kind(partial(logged, grainy))])
    assert found.flip[0, 0] == pytest.approx([0.909, 0.667, 0.5], abs=0.011)
    calls.clear()
    same = run(fading, perturbations=[kind(partial(logged, dimmed))], seeds=(7, 8, 9))
    assert {8, 9}.isdisjoint(calls) and np.ptp(same.flip, axis=2).max() == 0


def test_chunks_do_not_matter():
    films = np.random.default_rng(0).uniform(0.5, 1, (7, 1, 1)).astype(np.float32) * FILMS[:7]
    a, b = (run(fading, films, chunk=c, perturbations=[kind(grainy)]) for c in (1, 7))
    np.testing.assert_array_equal(a.flip, b.flip)
    np.testing.assert_array_equal(a.ssim, b.ssim)
    assert a.films.equals(b.films)


def broken(how, x):
    """Fails on films whose first pixel is below 0.95 and above 0.85, whatever the company."""
    p = fading(x)
    bad = (x.reshape(len(x), -1)[:, 0] > 0.85) & (x.reshape(len(x), -1)[:, 0] < 0.95)
    if not bad.any():
        return p
    if how == "raises":
        raise ValueError("out of memory")
    return {"nan": np.where(bad, np.nan, p), "shape": p[:-1], "range": np.where(bad, 7, p)}[how]


@pytest.mark.parametrize(("how", "told"), [("nan", "NaN"), ("shape", "shape"), ("range", "0..1"), ("raises", "memory")])
def test_a_model_that_fails_on_one_film(how, told):
    films = FILMS.copy()
    films[3] *= np.float32(0.9)
    found = run(partial(broken, how), films, perturbations=[kind(lambda x, s, seed: dimmed(x, 0.6 * s + 0.2, seed))])
    (fault,) = found.faults
    assert fault["film"] == "3" and fault["perturbation"] is None and told in fault["what"]
    assert np.isnan(found.films["p"][3]) and np.isnan(found.flip[3]).all()
    assert np.isfinite(np.delete(found.flip, 3, 0)).all()


def test_a_model_that_fails_on_the_way():
    found = run(partial(broken, "raises"), seeds=(0,))
    assert len(found.faults) == 10 and found.faults[0]["perturbation"] == "dim"
    assert "severity 0.1" in found.faults[0]["what"] and found.flip == pytest.approx(0.5, abs=0.011)
    never = run(partial(broken, "nan"), seeds=(0,), perturbations=[kind(lambda x, s, seed: dimmed(x, 0.3 * s, seed))])
    assert np.isnan(never.flip).all() and not never.plausible.any()
    with pytest.raises(CourseError, match="read no film"):
        run(partial(broken, "nan"), FILMS * np.float32(0.9))


def dies_once(flag, x):
    if not Path(flag).exists() and x.mean() < 0.9:
        Path(flag).touch()
        os._exit(1)
    return fading(x)


def dies(x):
    os._exit(1)


def test_a_killed_worker(tmp_path, monkeypatch):
    whole = run(fading, chunk=2)
    found = run(partial(dies_once, str(tmp_path / "flag")), chunk=2, n_jobs=2, resume_folder=tmp_path)
    assert (tmp_path / "flag").exists()
    np.testing.assert_array_equal(found.flip, whole.flip)
    monkeypatch.setattr("medimgen.robustness.flips.ATTEMPTS", 1)
    with pytest.raises(CourseError, match="worker died 1 times"):
        run(dies, chunk=5, n_jobs=2)


def counted(path, x):
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x" * len(x))
    return fading(x)


def test_cancel_then_resume(tmp_path):
    log, films = tmp_path / "log", FILMS * np.linspace(0.9, 1, 10, dtype=np.float32)[:, None, None]
    model, folder = partial(counted, str(log)), tmp_path / "kept"
    stops = iter([False, True])
    part = run(model, films, chunk=2, resume_folder=folder, cancel=lambda: next(stops))
    assert (len(part.films), part.total, len(list(folder.iterdir()))) == (4, 10, 2)
    (folder / "torn.part").write_text("half", encoding="utf-8")
    log.unlink()
    steps = []
    whole = run(model, films, chunk=2, resume_folder=folder, progress=lambda done, total: steps.append((done, total)))
    rest = log.stat().st_size
    assert steps == [(k, 5) for k in range(1, 6)]
    log.unlink()
    again = run(model, films, chunk=2, resume_folder=folder)
    assert rest > log.stat().st_size == 10  # latency only
    np.testing.assert_array_equal(whole.flip, again.flip)
    np.testing.assert_array_equal(whole.flip, run(fading, films, chunk=2).flip)
    assert whole.films.equals(again.films)
    for other in ({"seeds": (5,)}, {"settings": Settings(threshold=0.4)}, {"perturbations": [kind(grainy)]}):
        log.unlink()
        run(model, films, chunk=2, resume_folder=folder, **other)
        assert log.stat().st_size > 10
    log.unlink()
    run(model, films * np.float32(0.99), chunk=2, resume_folder=folder)
    assert log.stat().st_size > 10


def test_ctrl_c_keeps_what_is_done(tmp_path):
    calls = []

    def stop(x):
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return fading(x)

    stop.sha256 = "0" * 64
    with pytest.raises(KeyboardInterrupt):
        run(stop, chunk=2, resume_folder=tmp_path)
    assert list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (np.ones((4, 8, 8, 3), np.uint8), "grey pictures"),
        (np.ones((4, 8, 8), np.uint16), "uint16"),
        (np.ones((0, 8, 8), np.uint8), "grey pictures"),
        ([], "grey pictures"),
        ([np.ones((8, 8)), np.ones((9, 9))], "may differ in size"),
        (np.full((2, 8, 8), 3.0), "read no film; the first: not read: pixels"),
        (np.full((2, 8, 8), np.nan), "read no film"),
    ],
)
def test_bad_films(images, what):
    with pytest.raises(CourseError, match=what):
        run(fading, images)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"labels": [1, 0]}, "positive has 2 entries for 10"),
        ({"labels": np.arange(10)}, "other than True/False"),
        ({"slices": {"site": ["a"]}}, "site has 1"),
        ({"perturbations": ["no such"]}, "no perturbation is called 'no such'"),
        ({"perturbations": []}, "no perturbation was chosen"),
        ({"perturbations": [kind(lambda x, s, seed: x[0])]}, "returns no picture"),
        ({"perturbations": [kind(lambda x, s: x)]}, "dim fails"),
    ],
)
def test_bad_arguments(more, what):
    with pytest.raises(CourseError, match=what):
        run(fading, **more)


def picture(path, array):
    Image.fromarray(array).save(path)


def test_a_folder_of_everything(tmp_path):
    (tmp_path / "deep").mkdir()
    ramp = np.tile(np.arange(0, 240, 12, dtype=np.uint8), (20, 1))
    picture(tmp_path / "a.png", ramp)
    picture(tmp_path / "b.jpg", ramp)
    picture(tmp_path / "c.png", np.repeat(ramp[..., None], 3, 2))  # grey, saved as colour
    picture(tmp_path / "d.png", ramp.astype(np.uint16) * 16)  # 12 bits in 16
    picture(tmp_path / "e.png", np.stack([ramp, ramp, 255 - ramp], 2))
    dicom.write(tmp_path / "deep" / "f.dcm", ramp, synthetic=False, description="a ramp")
    broken = pydicom.dcmread(tmp_path / "deep" / "f.dcm")
    del broken.PixelData
    broken.save_as(tmp_path / "deep" / "g")
    (tmp_path / "h.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    found = run(fading, tmp_path, size=16, chunk=3)
    names = [Path(name).name for name in found.films["film"]]
    assert sorted(names) == ["a.png", "b.jpg", "c.png", "d.png", "e.png", "f.dcm", "g", "h.png"]
    p = dict(zip(names, found.films["p"], strict=True))
    for name in ("a.png", "b.jpg", "c.png", "d.png", "f.dcm"):
        assert p[name] == pytest.approx(114 / 255, abs=0.01)
    told = {Path(f["film"]).name: f["what"] for f in found.faults}
    assert set(told) == {"e.png", "g", "h.png"} and "grey" in told["e.png"] and "pixel" in told["g"].lower()
    with pytest.raises(CourseError, match="may differ in size"):
        run(fading, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="holds no PNG"):
        run(fading, tmp_path / "empty", size=16)
    with pytest.raises(CourseError, match="no pixel"):
        run(fading, tmp_path / "deep" / "g", size=16)
    assert len(run(fading, [np.ones((8, 8)), np.ones((9, 9))], size=8).films) == 2


def test_every_kind_of_model_gives_the_same_answer(tmp_path):
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(1).random((20, 4, 4), np.float32)
    fitted = LogisticRegression().fit(x.reshape(20, -1), x[:, 0, 0] > 0.5)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1))
    with torch.no_grad():
        net[1].weight[:] = torch.from_numpy(fitted.coef_)
        net[1].bias[:] = torch.from_numpy(fitted.intercept_)
    file = tmp_path / "net.onnx"
    torch.onnx.export(
        net, (torch.zeros(1, 1, 4, 4),), str(file), dynamo=False, input_names=["x"], dynamic_axes={"x": [0]}
    )
    wanted = fitted.predict_proba(x.reshape(20, -1))[:, 1]
    models = [
        as_model(fitted),
        as_model(net, logits=True),
        as_model(file, logits=True),
        as_model(onnxruntime.InferenceSession(str(file)), logits=True),
        as_model(lambda z: fitted.predict_proba(z.reshape(len(z), -1))),
        as_model(lambda z: fitted.predict_proba(z.reshape(len(z), -1))[:, ::-1], channels=0, negative=1),
    ]
    for model in models:
        np.testing.assert_allclose(model(x), wanted, atol=1e-5)
    assert models[0].size == models[2].size == 4 and models[2].sha256 == models[3].sha256
    with torch.no_grad():
        net[1].bias += 1
    assert as_model(net, logits=True).sha256 != models[1].sha256
    assert as_model(lambda z: z[:, :, 0, 0].mean(1), channels=3)(x) == pytest.approx(x[:, 0, 0])


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (lambda x: np.tile([0.5, 0.4, 0.9], (len(x), 1)), "sum to 1"),
        (lambda x: np.full(len(x), -3.2), "logits=True"),
        (lambda x: np.ones((1, 2, 3)), "shape"),
        (lambda x: 0.5, "shape"),
    ],
)
def test_answers_that_are_none(model, what):
    with pytest.raises(CourseError, match=what) as error:
        as_model(model)(FILMS)
    assert error.value.next


def test_a_function_is_known_by_its_code(tmp_path, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for level in (0.5, 0.5, 0.6):
        (tmp_path / "a_model.py").write_text(f"def f(x):\n    return 0 * x + {level}\n", encoding="utf-8")
        importlib.invalidate_caches()
        hashes.append(as_model(importlib.import_module("a_model").f).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_things_that_are_no_models(tmp_path):
    with pytest.raises(CourseError, match="no model"):
        as_model(3)
    with pytest.raises(CourseError, match="no ONNX file"):
        as_model(tmp_path / "none.onnx")


def test_hardly_visible_follows_the_thresholds():
    found = run(flips_in((0.05, 2)))
    assert found.psnr[0, 0, 0] == pytest.approx(-20 * np.log10(found.flip[0, 0, 0]), abs=1e-4)
    assert not found.hardly_visible.any()  # 26 dB
    assert run(flips_in((0.05, 2)), settings=Settings(psnr=25)).hardly_visible.all()
    assert not run(flips_in((0.05, 2)), settings=Settings(psnr=25, ssim=0.9999)).hardly_visible.any()
    assert not run(flips_in((3, 4)), settings=Settings(psnr=0, ssim=0)).hardly_visible.any()


def test_picture_at_the_flip_flips():
    found = run(flips_in((0.437, 2)), perturbations=[kind(grainy)], seeds=(1,))
    changed = found.picture(2, 0, found.flip[2, 0, 0], 1)
    assert found.model(changed[None])[0] < 0.5 < found.model(found.picture(2, 0, 0, 1)[None])[0]


def graded(n=60):
    """Films of brightness 0.9 (odd) and 0.1 (even)."""
    return np.where(np.arange(n) % 2, 0.9, 0.1).astype(np.float32)[:, None, None] * np.ones((n, 16, 16), np.float32)


def test_figures_and_what_requirements_read():
    films = graded()
    films[1] = 0.45  # one positive is missed
    ill = np.arange(60) % 2
    found = run(
        fading, films, ill, settings=Settings(confident=0.85), perturbations=[kind(), kind(grainy, "grain", 0.4)]
    )
    figures = robustness.figures(found, draws=200)
    assert figures["sensitivity"].estimate == pytest.approx(29 / 30) and figures["specificity"].estimate == 1
    assert 0.8 < figures["specificity"].low < 0.9  # never 1: 30 patients are few
    assert figures["plausible_flips"].estimate == pytest.approx(29 / 59)
    assert figures["flips[grain]"].estimate == 0 and figures["flips[dim]"].estimate == pytest.approx(29 / 59)
    assert figures["perturbed_sensitivity"].estimate == 0 and figures["perturbed_specificity"].estimate == 1
    assert figures["failures"].estimate == pytest.approx(29 / 59) and figures["plausible_reversals"].estimate == 0
    values = robustness.measured(found, figures)
    assert values["sensitivity_low95"] == figures["sensitivity"].low and values["faults"] == 0
    assert values["latency_ms"] > 0 and values["films"] == values["patients"] == 60
    assert "auc" not in robustness.figures(run(fading, films), draws=200)


def test_whole_patients_are_resampled():
    films, ill = graded(), np.ones(60)
    alone = robustness.figures(run(fading, films, ill), draws=300)["sensitivity"]
    grouped = run(fading, films, ill, patients=np.where(np.arange(60) % 2, 0, 1) + 2 * (np.arange(60) // 20))
    together = robustness.figures(grouped, draws=300)["sensitivity"]
    assert together.estimate == alone.estimate and together.high - together.low > 2 * (alone.high - alone.low)


def test_slices_with_holm():
    films, site = graded(), np.where(np.arange(60) % 2, "b", "a")  # only the bright films flip
    other = np.random.default_rng(0).integers(0, 2, 60)
    found = run(
        fading, films, settings=Settings(confident=0.85), slices={"site": site, "coin": other, "x": np.arange(60)}
    )
    table = robustness.slices(found, draws=400).set_index("slice")
    assert table.loc["site=b", "difference"] == 1 and table.loc["site=b", "p_holm"] < 0.05
    assert table.loc["coin=1", "p_holm"] > 0.05 and (table["p_holm"] >= table["p"]).all()
    assert {"x=low", "x=middle", "x=high"} <= set(table.index) and table["films"]["x=low"] == 20
    ties = run(fading, films, slices={"z": np.maximum(0, np.arange(60) - 50), "few": np.arange(60) % 20 == 1})
    few = robustness.slices(ties, draws=20).set_index("slice")
    assert {"z=high", "z=middle", "few=True", "few=False"} == set(few.index) and few["p"]["few=True"] == 1
    assert table["p_holm"].min() == pytest.approx(7 * table["p"].min())


def test_exposure_is_measured_and_sliced_in_thirds():
    films = np.linspace(0.1, 0.9, 60, dtype=np.float32)[:, None, None] * np.ones((60, 16, 16), np.float32)
    films[:, :8] = 0  # no ray reached this half
    found = robustness.with_exposure(run(fading, films, perturbations=[kind(plausible=0.05)]))
    assert found.films["exposure"].to_numpy() == pytest.approx(np.linspace(0.1, 0.9, 60), abs=1e-6)
    assert robustness.with_exposure(found) is found
    groups = robustness.slices(found, draws=20).set_index("slice")["films"]
    assert set(groups.index) == {"exposure=dark", "exposure=middle", "exposure=light"}
    sure = found.films["p"] <= 0.1  # half of each film is black
    assert groups["exposure=dark"] == (sure & (found.films["exposure"] < 0.36)).sum() > 0
    same = robustness.with_exposure(run(fading, FILMS))
    assert robustness.slices(same).empty  # one exposure is no slice


def test_aspect_is_cut_however_few_its_values():
    aspect = np.where(np.arange(60) < 30, 1.0, 1.4)
    aspect[:6] = np.nan  # not known of every film
    found = run(fading, graded(), slices={"aspect": aspect}, settings=Settings(confident=0.85))
    assert set(robustness.slices(found, draws=20)["slice"]) == {"aspect=tall", "aspect=wide"}


def test_collection_lists_what_flips_surely_and_how_many_to_fetch():
    films, subtype = graded(), np.where(np.arange(60) % 2, "viral", "normal")  # only the bright films flip
    kinds = [kind(name="exposure"), kind(grainy, "grain", 0.35)]
    settings = Settings(confident=0.85)
    found = run(fading, films, slices={"subtype": subtype}, perturbations=kinds, settings=settings)
    listed = robustness.collection(found, draws=200)
    assert list(zip(listed["label"], listed["perturbation"], strict=True)) == [("viral", "exposure")]
    row = listed.loc[0]
    assert row["share"] == row["high"] == 1 and row["low"] > 0.8 and row["films"] == row["patients"] == 30
    assert row["how_many"] == np.ceil(1.96**2 * row["low"] * (1 - row["low"]) / 0.01)
    assert len(row["flipped"]) == 5 and all(int(name) % 2 for name in row["flipped"])
    assert row["words"] == "bright"  # all seeds alike: the first wording
    finer = robustness.collection(found, margin=0.05, draws=200)["how_many"][0]
    assert finer == pytest.approx(4 * row["how_many"], abs=4)
    assert robustness.collection(found, tolerated=row["low"], draws=200).empty
    assert set(robustness.collection(run(fading, films, settings=settings))["label"]) == {"any"}
    ill = robustness.collection(run(fading, films, np.arange(60) % 2, settings=settings), draws=200)
    assert set(ill["label"]) == {"positive"} and ill["words"][0] == "c"  # a change without words of its own: its cause


def test_words_follow_the_side_that_flips():
    def darker_or_not(x, s, seed):
        return dimmed(x, s * (seed % 2), seed)

    found = run(fading, FILMS * np.float32(0.95), perturbations=[kind(darker_or_not, "exposure")])
    assert robustness.collection(found)["words"][0] == "dark"


def test_curves_and_film():
    found = run(fading, FILMS * np.float32(0.95), perturbations=[kind(), kind(grainy, "grain", 0.9)])
    curve = robustness.curves(found).set_index(["perturbation", "severity"])["share"]
    assert curve["dim", 0.45] == 0 and curve["dim", 0.5] == 1 and curve["grain", 0.8] == pytest.approx(2 / 3)
    table = robustness.film(found, 0)
    assert list(table["perturbation"]) == ["grain", "dim"]  # 0.47 of 0.9 lies deeper than 0.47 of 0.5
    assert table["seed"][0] == 2 and table["plausible"].all() and table["value"][0] == table["severity"][0]


def test_large_sets_stream(tmp_path):
    """A memory-mapped file is read part by part: what is kept in memory does not grow with the films' pixels."""
    import tracemalloc

    films = np.lib.format.open_memmap(tmp_path / "films.npy", "w+", np.uint8, (600, 64, 64))
    films[:] = 255
    peaks = []
    for n in (150, 600):
        tracemalloc.start()
        run(fading, films[:n], seeds=(0,))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 450 * 64 * 64 / 2


def test_settings_travel():
    assert replace(Settings(), grid=50).grid == 50 and run(fading, settings=Settings(grid=50)).settings.grid == 50
