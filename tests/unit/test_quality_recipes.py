"""The recipes that measure a generator, on tables and nets whose answer is known. No trained weights are used."""

import numpy as np
import pandas as pd
import pytest

from medimgen import claims
from medimgen.data import radiographs
from medimgen.paths import ROOT

COUNTS = {"normal": 25, "bacterial": 45, "viral": 25}


def made_table(seed, counts=None, shift=0.0, apart=2.0, sure=0.8, right=0.8, aspect=True):
    """Images whose classes lie `apart` in the first feature; the judge is right on a share of them, surely."""
    import quality
    from generator.features import CLASSES

    rng, parts = np.random.default_rng(seed), []
    for k, c in enumerate(CLASSES):
        n = (counts or COUNTS)[c]
        f = rng.normal(shift, 1, (n, 6))
        f[:, 0] += apart * (k > 0)
        p = np.full((n, 3), (1 - sure) / 2)
        p[np.arange(n), np.where(rng.random(n) < right, k, (k + 1) % 3)] = sure
        ratio = rng.normal(1.2 if k else 1.5, 0.2, n) if aspect else np.nan
        units, texts = [f"{seed}{c}{i}" for i in range(n)], quality.packed(f)
        head = pd.DataFrame({"kind": c, "unit": units, "aspect": ratio, "features": texts})
        parts.append(pd.concat([head, pd.DataFrame(p, columns=[f"p_{x}" for x in CLASSES])], axis=1))
    return pd.concat(parts, ignore_index=True)


def moved(table, by, rows=slice(None)):
    """The table with the features of some rows moved."""
    import quality

    f = quality.features(table)
    f[rows] += by
    return table.assign(features=quality.packed(f))


DONOR = {c: 4 * n for c, n in COUNTS.items()}


def test_same_population_is_0_on_the_ruler_and_a_shifted_one_is_not():
    import quality

    dev, donor = made_table(0), made_table(1, DONOR)
    found = quality.distances(made_table(2, DONOR), dev, donor, 200, 0)
    assert found["overall"].low <= 0 <= found["overall"].high and abs(found["overall"].estimate) < 15
    assert set(found) >= {"overall_same_shape", "normal", "bacterial", "viral", "bacterial_viral"}
    away = quality.distances(made_table(2, DONOR, shift=0.8), dev, donor, 200, 0, null=10.0)
    assert away["overall"].low > 10 and away["overall"].p > 0.9 and away["normal"].low > 0
    assert abs(found["bacterial_viral"].estimate) < 5  # the fake's bacterial and viral are one


def test_a_missing_class_shows_in_the_classes_not_asked_for_less():
    import quality

    dev, donor = made_table(0), made_table(1, DONOR)
    same = made_table(3, DONOR, apart=0.0)  # every image looks normal
    found = quality.distances(same, dev, donor, 100, 0)
    assert found["bacterial"].low > 20 and found["normal"].low < 10


def test_few_steps_against_many():
    import quality

    dev, donor = made_table(0), made_table(1, DONOR)
    many = made_table(2, DONOR)
    noise = np.random.default_rng(9).normal(0, 0.02, (len(many), 6))
    few, bad = many.copy(), many.copy()
    few, bad = moved(few, noise), moved(bad, 0.8)
    same, worse = (quality.difference(x, many, dev, donor, 100, 0) for x in (few, bad))
    assert abs(same.estimate) < 1 and same.high < 5 < worse.low
    assert same.high - same.low < (worse.high - worse.low)  # paired: what both share falls out


def test_classes_in_proportion_and_films_paired_by_shape():
    import quality

    rows = quality.in_proportion(made_table(0, {"normal": 60, "bacterial": 60, "viral": 60}), made_table(1, DONOR))
    assert rows["kind"].value_counts().to_dict() == {"bacterial": 60, "normal": 33, "viral": 33}
    a, b = made_table(2, DONOR), made_table(3, DONOR)
    a, b = a[a["kind"] == "normal"], b[b["kind"] == "viral"]
    one, two = quality.same_shape(a, b)
    assert len(one) == len(two) > 15 and one["unit"].is_unique
    assert abs(a["aspect"].mean() - b["aspect"].mean()) > 0.2 > 6 * abs(one["aspect"].mean() - two["aspect"].mean())
    known = a.assign(aspect=a["aspect"].where(np.arange(len(a)) % 2 == 0))
    assert quality.same_shape(known, b)[0]["unit"].isin(known.dropna()["unit"]).all()


def test_judge_agreement_and_caricature():
    import quality

    real = made_table(0, DONOR)
    honest = quality.agreement(made_table(1, DONOR, right=0.8), real, 200, 0)
    caricature = quality.agreement(made_table(2, DONOR, right=1.0, sure=0.98), real, 200, 0)
    for c in COUNTS:
        assert honest[c]["difference"].low < 0 < honest[c]["difference"].high and honest[c]["confidence_ks"] < 0.2
        assert caricature[c]["difference"].low > 0.05 and caricature[c]["confidence_ks"] == 1.0
        assert caricature[c]["made"].estimate == 1.0 and 0.6 < caricature[c]["real"].estimate < 0.95


def test_manifolds_compare_sets_of_one_size():
    import quality

    dev, donor = made_table(0), made_table(1, DONOR)
    values, used = quality.neighbours(donor, dev, rounds=4)
    assert values["coverage"].shape == values["recall"].shape == (len(dev),)
    assert values["precision"].shape == values["density"].shape == (used.sum(),)
    assert quality.manifolds(donor, dev, 50, 0, rounds=6)["coverage"].estimate == pytest.approx(1 - 2**-5, abs=0.06)
    once = donor.assign(features=donor["features"].iloc[0])  # one image over and over
    found = quality.manifolds(once, dev, 50, 0, rounds=2)
    assert found["coverage"].high < 0.2 and found["precision"].estimate > 0.9


def test_coverage_claim_says_which_films_nothing_lies_near():
    import covered

    dev, donor = made_table(0), made_table(1, DONOR)
    no_viral = made_table(2, DONOR)
    no_viral = moved(no_viral, 9, no_viral["kind"] == "viral")
    dev, donor = (moved(real, np.array([0, 0, 0, 0, 0, -9]), real["kind"] == "viral") for real in (dev, donor))
    rows = covered.rows_of(no_viral, donor, dev)
    found = covered.explore(rows, 50, 0)
    assert found["coverage_viral"].estimate == 0 and found["coverage_normal"].low > 0.8
    assert found["donor_coverage"].estimate > 0.9 > covered.measure(rows, 50, 0).estimate
    assert covered.measure(rows.assign(made_coverage=0.61), 50, 0).p == pytest.approx(1 / 51)


def test_attributes_follow_a_generator_that_obeys_in_brightness_alone(monkeypatch):
    import quality

    def images(generator, prompt, n, seed):
        level = [word in prompt for word in quality.obedience.WORDS["exposure"]]
        grain = np.random.default_rng(seed).integers(-20, 20, (n, 128, 128))
        return (110 + 30 * (level.index(True) - 1 if any(level) else 0) + grain).astype(np.uint8)

    def masks(net, films):
        return films > np.random.default_rng(int(films.sum()) % 2**32).integers(80, 140, (len(films), 1, 1))

    monkeypatch.setattr(quality.claim, "images", images)
    monkeypatch.setattr(quality.outlines, "outline", masks)
    found = quality.obey(None, None, 6, 20, 0)
    assert found["rho_exposure"].estimate > 0.9 > abs(found["rho_sharpness"].estimate)


def test_claim_recomputes_from_its_recorded_rows(tmp_path):
    import quality

    parts = {"m": made_table(2, DONOR, aspect=False), "v": made_table(0), "o": made_table(1, DONOR)}
    rows = pd.concat([t.assign(source=s) for s, t in parts.items()], ignore_index=True).round(2)
    rows["kind"] = rows["kind"].str[0]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    again = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False, na_values=[""])
    first = quality.measure(rows, 60, 0)
    assert first == quality.measure(again, 60, 0) and first.p is not None
    assert quality.count(again)["generated"] == len(parts["m"])
    assert "overall" not in quality.explore(again, 60, 0)


def test_spoilt_films_differ_as_they_say():
    import quality

    films = np.random.default_rng(0).integers(40, 200, (2, 128, 128)).astype(np.uint8)
    found = quality.spoilt(films)
    rough = {name: np.abs(np.diff(x.astype(float))).mean() for name, x in found.items()}
    assert rough["blurred"] < 0.7 * np.abs(np.diff(films.astype(float))).mean() < rough["grainy"]
    assert found["darker"].mean() == pytest.approx(0.85 * films.mean(), rel=0.02)


def test_judge_and_ruler_share_no_architecture_with_what_they_look_at():
    import torch
    from generator.features import FeatureNet
    from generator.judge import SEEDS, DenseNet

    from medimgen.classify import Net

    shapes = [
        {tuple(p.shape) for p in net().parameters() if p.ndim == 4 and p.shape[-1] == 3}
        for net in (DenseNet, FeatureNet, Net)
    ]
    assert not shapes[0] & (shapes[1] | shapes[2])
    assert not any("skip" in name for name, _ in DenseNet().named_modules())
    assert len(set(SEEDS.values())) == 3 and not set(SEEDS.values()) & {0, 1, 2}
    net = DenseNet().eval()
    assert net(torch.zeros(2, 1, 128, 128)).shape == (2, 3)


class Loaded(Exception):
    """Raised in place of loading films."""


def test_judge_learns_from_clinic_and_never_sees_donor_or_test(monkeypatch, tmp_path):
    from generator import judge

    asked = []

    def stop(*args, **_):
        raise Loaded

    monkeypatch.setattr(radiographs, "load", lambda split, **_: asked.append(split) or blank(split))
    monkeypatch.setattr(judge, "train", stop)
    with pytest.raises(Loaded):
        judge.load("judge-a", tmp_path)
    assert asked == ["clinic", "dev"]


def blank(split, n=6):
    """Six films of random pixels in the place of a split."""
    films = np.random.default_rng(len(split)).integers(0, 256, (n, 128, 128)).astype(np.uint8)
    kinds = (["normal", "bacterial", "viral"] * n)[:n]
    table = pd.DataFrame({"subtype": kinds, "number": np.arange(n), "width": 1200.0, "height": 1000.0})
    return radiographs.Films(films, table)


def test_judge_stopped_and_resumed_is_the_same_judge(tmp_path, monkeypatch):
    import torch
    from generator import judge

    monkeypatch.setattr(judge, "BATCH", 4)
    films, labels = blank("clinic").images, np.array([0, 1, 2] * 2)
    rest = dict(seed=5, texture=True)
    judge.train(films, labels, films, labels, tmp_path / "b.pt", steps=1, **rest)
    judge.train(films, labels, films, labels, tmp_path / "a.pt", steps=2, **rest)
    judge.train(films, labels, films, labels, tmp_path / "b.pt", steps=2, **rest)
    a, b = (torch.load(tmp_path / f"{x}.pt", weights_only=True)["net"] for x in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    changed = judge.train(films, labels, films, labels, tmp_path / "c.pt", steps=2, seed=6)
    assert not torch.equal(dict(changed.named_parameters())["stem.weight"], a["stem.weight"])


def test_ruler_is_centred_scaled_and_blind_to_order():
    import torch
    from generator.judge import DenseNet, Judge, Ruler

    torch.manual_seed(0)
    films = np.random.default_rng(1).integers(0, 256, (48, 128, 128)).astype(np.uint8)
    gauge = Ruler(DenseNet(), films)
    f = gauge.features(films)
    assert f.shape == (48, 24) and np.abs(f.mean(0)).max() < 1e-4
    assert (f**2).mean() == pytest.approx(1, rel=1e-3) and 0.5 < gauge.kept <= 1
    assert np.allclose(gauge.features(films[::-1]), f[::-1], atol=1e-4)
    assert Judge([DenseNet(), DenseNet()]).probabilities(films[:2]).sum(1) == pytest.approx(1, abs=1e-5)


# --- train on synthetic, test on real ---------------------------------------------------------------------------------


def test_draws_keep_the_classes_and_differ():
    import tstr

    kinds = np.repeat([0, 1, 2], [748, 1305, 746])
    for n in tstr.DOSES:
        one, two = tstr.drawn(kinds, n, 0), tstr.drawn(kinds, n, 1)
        assert len(one) == len(set(one)) == n and set(one) != set(two)
        assert np.abs(np.bincount(kinds[one]) / n - np.bincount(kinds) / 2799).max() < 1 / n
    assert np.array_equal(tstr.drawn(kinds, 250, 2), tstr.drawn(kinds, 250, 2))


def fake_scores(seed, good, n=300):
    """A table of two arms of three trainings each: "real" has its AUC, "synthetic" scores `good` times as far apart."""
    import tstr

    rng = np.random.default_rng(seed)
    kind = rng.choice(["normal", "bacterial", "viral"], n)
    rows = {"kind": kind, "unit": rng.integers(0, 200, n).astype(str)}
    base = rng.normal(size=n)
    for arm, far in (("real", 1.0), ("synthetic", good)):
        for dose in tstr.DOSES:
            for draw in tstr.DRAWS:
                for task in ("sick", "viral"):
                    y = kind == "viral" if task == "viral" else kind != "normal"
                    rows[f"{arm}_{dose}_{draw}_{task}"] = 1.2 * far * y + base + 0.3 * rng.normal(size=n)
    return pd.DataFrame(rows)


def test_tstr_figures_point_the_right_way():
    import tstr

    even, worse = (tstr.measure(tstr.packed(fake_scores(0, good)), 100, 0) for good in (1.0, 0.4))
    assert abs(even.estimate) < 0.02 and even.low < 0 < even.high
    assert worse.estimate > 0.1 and worse.low > 0.03 and worse.p > 0.9
    found = tstr.explore(tstr.packed(fake_scores(1, 0.4)), 20, 0)
    assert found["auc_viral_real"].estimate > found["auc_viral_synthetic"].estimate
    singles = [found[f"loss_viral_2000_draw_{d}"].estimate for d in tstr.DRAWS]
    assert np.mean(singles) == pytest.approx(tstr.measure(tstr.packed(fake_scores(1, 0.4)), 20, 0).estimate)


def test_tstr_learns_from_its_arm_only_and_keeps_its_cells(tmp_path, monkeypatch):
    import tstr

    asked = []
    monkeypatch.setattr(radiographs, "load", lambda split, **_: asked.append(split) or blank(split))
    monkeypatch.setattr(tstr, "BATCH", 4)
    first = tstr.cell("real", 4, 0, tmp_path, steps=2)
    assert asked == ["donor", "clinic", "dev"] and list(first) == ["sick", "viral"] and len(first) == 12
    monkeypatch.setattr(tstr, "train", None)  # a second training would fail
    pd.testing.assert_frame_equal(tstr.cell("real", 4, 0, tmp_path, steps=2), first)


def test_tstr_generates_as_many_of_each_class_and_only_once(tmp_path, monkeypatch):
    import tstr

    from medimgen.generate import Generator

    calls = []

    def images(generator, prompt, n, seed):
        calls.append((prompt, n))
        return np.zeros((n, 128, 128), np.uint8)

    fake = type("Fake", (), {"sha256": "0" * 64})()
    monkeypatch.setattr(radiographs, "load", lambda split, **_: blank(split, 7))
    monkeypatch.setattr(Generator, "load", lambda folder=None: fake)
    monkeypatch.setattr(tstr.claim, "images", images)
    for _ in range(2):
        films, kinds = tstr.pool("synthetic", tmp_path)
        assert len(films) == 7 and np.bincount(kinds).tolist() == [3, 2, 2]
    assert [n for _, n in calls] == [3, 2, 2]


def test_rows_say_met_only_where_the_whole_interval_does():
    """The dossier's rows: an interval across the aim is not decided, and the schema accepts what is written."""
    import quality_report

    from medimgen import _schema
    from medimgen.metrics import Interval

    def value(low, high):
        return Interval((low + high) / 2, low, high)

    kinds = {"normal": value(-0.01, 0.03), "bacterial": value(0.02, 0.09), "viral": value(-0.12, -0.06)}
    judge = {k: {"difference": v, "confidence_ks": 0.1} for k, v in kinds.items()}
    manifold = {name: value(0.5, 0.6) for name in ("precision", "recall", "density", "coverage")}
    test = {"films": 624, "ruler": {"overall": value(3, 12)}, "manifold": manifold, "manifold_baseline": manifold}
    found = {"facts": {"each": 4, "dev": 9}, "judge": {"dev": judge}, "manifold": manifold, "test": test}
    found |= {
        "manifold_baseline": manifold,
        "few_steps_minus_many": value(-2, 1),
        "attributes": {"tilt": value(0.1, 0.2)},
    }
    rows = {r["id"]: r for r in quality_report.rows(found)}
    met = {"judge_normal": True, "judge_bacterial": None, "judge_viral": False, "few_steps": True, "ruler_test": None}
    assert {k: rows[k]["met"] for k in met} == met
    assert rows["attribute_tilt"]["met"] is False and rows["coverage_test"]["met"] is False
    document = {"made": "2026-01-01T00:00:00Z", "code_version": "1", "weights_sha256": "a" * 64}
    _schema.validate(document | {"sections": {"quality": list(rows.values())}}, "dossier", "quality.json")


def test_lesson_1_quotes_the_ruler_as_recorded():
    page = " ".join((ROOT / "lessons" / "01-local-generative-ai.md").read_text(encoding="utf-8").split())
    found = claims.result("L1d")
    assert "{:.1f} ({:.1f} to {:.1f}); the normal ones".format(found["estimate"], *found["ci95"]) in page
    normal = found["exploratory"]["normal"]
    assert "still at {:.0f} ({:.0f} to {:.0f})".format(normal["estimate"], *normal["ci95"]) in page
