"""The classifier's folder, its input, its ONNX twin, and the recipe that trains it."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch

from medimgen import classify, robustness
from medimgen.classify import Classifier, Net, save
from medimgen.data.radiographs import Films
from medimgen.errors import CourseError


def random_films(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 128, 128), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("models") / "cxr-try"
    save(Net(), path, {"arm": "none"})
    return path


def test_round_trip(folder):
    classifier = Classifier.load(folder)
    p = classifier.predict(random_films(5))
    assert p.shape == (5, 3) and p.dtype == np.float32 and p.sum(1) == pytest.approx(1, abs=1e-5)
    assert classifier.name == "cxr-try" and classifier.facts["arm"] == "none"
    torch.manual_seed(3)
    np.testing.assert_array_equal(Classifier(Net()).predict(random_films(5)), p)
    assert sum(v.numel() for v in classifier.net.parameters()) < 600_000


def test_every_form_of_input_gives_the_same(folder):
    classifier, films = Classifier.load(folder), random_films(3)
    wanted = classifier.predict(films)
    for same in (films / 255, np.float32(films / 255)[:, None], films[::-1][::-1]):
        np.testing.assert_allclose(classifier.predict(same), wanted, atol=1e-5)
    np.testing.assert_allclose(classifier.predict(films[0]), wanted[:1], atol=1e-5)
    np.testing.assert_allclose(classifier.predict(films, batch=1), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("films", "what"),
    [
        (np.zeros((2, 64, 64), np.uint8), "shape"),
        (np.zeros((2, 3, 128, 128), np.uint8), "shape"),
        (np.zeros((2, 128, 128), np.int64), "int64"),
        (np.full((1, 128, 128), 2.0), "outside 0..1"),
        (np.full((1, 128, 128), np.nan), "NaN"),
    ],
)
def test_bad_films(folder, films, what):
    with pytest.raises(CourseError, match=what):
        Classifier.load(folder).predict(films)


def test_onnx_gives_the_same_probabilities(folder):
    pytest.importorskip("onnxruntime")
    films = random_films(4)
    model = robustness.as_model(folder / "model.onnx")
    assert model.size == 128
    whole = robustness.as_model(Classifier.load(folder))
    x = np.float32(films / 255)
    np.testing.assert_allclose(model(x), whole(x), atol=1e-5)
    np.testing.assert_allclose(whole(x), 1 - Classifier.load(folder).predict(films)[:, 0], atol=1e-5)
    assert whole.size == 128 and whole.sha256 == Classifier.load(folder).sha256


def test_missing_and_changed_files(tmp_path):
    with pytest.raises(CourseError, match="holds no config.json") as error:
        Classifier.load(tmp_path)
    assert "train_classifier.py" in error.value.next
    save(Net(), tmp_path, {})
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CourseError, match="is not the file"):
        Classifier.load(tmp_path)


def small_set(n, seed):
    subtypes = np.array(classify.CLASSES)[np.arange(n) % 3]
    numbers = np.arange(n) // 2
    return Films(random_films(n, seed), pd.DataFrame({"file": [f"{k}.jpeg" for k in range(n)], "subtype": subtypes,
                                                      "number": numbers}))  # fmt: skip


@pytest.fixture
def recipe(monkeypatch):
    import train_classifier

    monkeypatch.setattr(train_classifier, "BATCH", 4)
    monkeypatch.setattr(train_classifier, "EVERY", 2)
    return train_classifier


def test_a_stopped_training_goes_on_as_if_never_stopped(recipe, tmp_path, monkeypatch):
    films, dev = small_set(12, 0), small_set(6, 1)
    whole = recipe.train("twin", films, dev, tmp_path / "whole.pt", steps=4)
    kept = recipe.save_state

    def stop(path, **parts):
        kept(path, **parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        recipe.train("twin", films, dev, tmp_path / "parts.pt", steps=4)
    monkeypatch.setattr(recipe, "save_state", kept)
    again = recipe.train("twin", films, dev, tmp_path / "parts.pt", steps=4)
    assert again["step"] == whole["step"] == 4
    for name, value in whole["net"].items():
        torch.testing.assert_close(again["net"][name], value, rtol=1e-4, atol=1e-5)
    recipe.pack("twin", again, films, tmp_path / "model")
    facts = Classifier.load(tmp_path / "model").facts
    assert facts["films"] == 12 and facts["learnt_from"] == ["donor", "clinic"] and len(facts["films_sha256"]) == 64


def test_both_arms_see_the_same_films_and_only_the_twin_changes_them(recipe):
    films = small_set(12, 0)
    labels, weights = recipe.kinds(films.table), torch.ones(12)
    plain, y = recipe.batch(films.images, labels, weights, 5, 0, False)
    twin, same = recipe.batch(films.images, labels, weights, 5, 0, True)
    assert torch.equal(y, same) and plain.shape == twin.shape and twin.min() >= 0 and twin.max() <= 1
    many = recipe.perturbed(np.repeat(films.images[:1], 40, 0).astype(np.float32) / 255, np.random.default_rng(0))
    changed = (many != films.images[0].astype(np.float32) / 255).any((1, 2)).mean()
    assert 0.25 < changed < 0.75


def test_test_films_are_looked_at_on_the_record(recipe, folder, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(recipe.radiographs, "load", lambda split: {"test": small_set(30, 2)}[split])
    monkeypatch.setattr(recipe.report, "log_test_use", lambda *what: lines.append(what))
    save(Net(), tmp_path / "a", {})
    recipe.look_at_test({"plain": tmp_path / "a", "twin": tmp_path / "none"})
    assert len(lines) == 1 and "AUC of a" in lines[0][1]
    found = json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))["test"]
    assert set(found) == {"auc_pneumonia", "auc_viral"} and found["auc_viral"][1] <= found["auc_viral"][2]


def test_only_donor_and_clinic_are_learnt_from(recipe, monkeypatch):
    asked = []
    monkeypatch.setattr(recipe.radiographs, "load", lambda split: asked.append(split) or small_set(3, 0))
    assert len(recipe.learnt_films().images) == 6 and asked == ["donor", "clinic"]


@pytest.mark.parametrize("folder", ["cxr-classifier", "cxr-classifier-twin"])
def test_shipped_classifier_learnt_from_nobody_it_is_tested_on_and_its_card_is_right(folder):
    from medimgen.data import radiographs
    from medimgen.paths import ROOT

    facts = Classifier.load(ROOT / "models" / folder).facts
    card = (ROOT / "models" / folder / "README.md").read_text("utf-8")
    table = radiographs.labels()
    learnt = table[table["split"].isin(facts["learnt_from"])]
    names = "".join(f"{file}\n" for file in sorted(learnt["file"]))
    assert facts["films_sha256"] == hashlib.sha256(names.encode()).hexdigest() and facts["films_sha256"] in card
    for split in ("dev", "test", "pocket"):
        other = table[table["split"] == split]
        assert not set(learnt["number"]) & set(other["number"]), split
        assert not set(learnt["duplicate_group"].dropna()) & set(other["duplicate_group"].dropna()), split
    for estimate, low, high in facts["test"].values():
        assert f"{estimate:.3f} ({low:.3f} to {high:.3f})" in card


def claim_rows(n=40):
    """Films of n patients, all ill and read surely; every second one flips with noise seed 0 by the first perturbation,
    hardly visibly.
    """
    from medimgen.perturb import PERTURBATIONS

    rows = pd.DataFrame(
        {"set": ["test", "adults"] * n, "number": np.arange(2 * n), "subtype": "viral", "ill": 0.95, "viral": 0.5}
    )
    rows.loc[rows["number"] % 3 == 0, "subtype"] = "bacterial"
    rows.loc[rows["number"] % 5 == 0, ["subtype", "ill"]] = ["normal", 0.05]
    bits = np.zeros((2 * n, len(PERTURBATIONS)), int)
    bits[rows["number"] % 4 < 2, 0] = 0b00010001
    return pd.concat([rows, pd.DataFrame(bits, columns=list(PERTURBATIONS))], axis=1)


def test_the_figures_of_claims_l3a_and_l3b_follow_from_rows():
    import flips
    import twin

    rows = claim_rows()
    assert flips.measure(rows, 50, 0).estimate == pytest.approx(1 / 8)
    found = flips.explore(rows, 50, 0)
    assert found["one_seed_enough"].estimate == found["adults"].estimate * 4 == pytest.approx(0.5)
    assert found["worst_perturbation"].estimate == found["hardly_visible"].estimate == pytest.approx(1 / 8)
    rows.loc[rows["number"] % 4 < 2, "ill"] = 0.7  # no longer sure
    assert flips.measure(rows, 50, 0).estimate == 0
    pair = claim_rows()[["set", "number", "subtype"]].assign(viral_plain=np.arange(80), viral_twin=-np.arange(80))
    ill = claim_rows()["ill"]
    pair = pair.assign(
        ill_plain=ill, ill_twin=ill, hardly_plain=0.0, hardly_twin=0.0, plausible_plain=1.0, plausible_twin=1 / 3
    )
    assert twin.measure(pair, 50, 0).estimate == pytest.approx(-2 / 3) and twin.measure(pair, 50, 0).p < 0.05
    explored = twin.explore(pair, 50, 0)
    assert explored["price"].estimate == explored["sure_share"].estimate == 0 and explored["price_viral"].estimate != 0


def test_a_sweep_becomes_rows(folder, monkeypatch, tmp_path):
    import flips

    monkeypatch.setattr(flips, "child_films", lambda: (random_films(2), ["a", "b"], ["normal", "viral"]))
    monkeypatch.setattr(flips, "adult_films", lambda: (random_films(1), ["c"], ["pneumonia"]))
    monkeypatch.setattr(flips, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(flips.report, "log_test_use", lambda *_: None)
    monkeypatch.setattr(flips, "SEEDS", (0,))
    rows = flips.swept(folder)
    assert list(rows["set"]) == ["test", "test", "adults"] and set(flips.PERTURBATIONS) <= set(rows)
    p = Classifier.load(folder).predict(random_films(2))
    assert list(rows["ill"][:2]) == pytest.approx(list(1 - p[:, 0]), abs=1e-4)
