"""A data set's flags stop what they should stop: export, dossier and fine-tuning too."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import restricted

from medimgen import balance, dossier, finetune
from medimgen.data import manifest, radiographs
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.safety import rights


def flags(id):
    entry = manifest.entry(id)
    return entry.redistribute, entry.derive


@pytest.fixture
def changed(monkeypatch):
    """Set flags of one data set for this test."""

    def change(id, **new):
        entries = manifest.entries() | {id: replace(manifest.entry(id), **new)}
        monkeypatch.setattr(manifest, "entries", lambda: entries)
        rights._known.cache_clear()

    yield change
    monkeypatch.undo()
    rights._known.cache_clear()


@pytest.fixture
def report(changed, monkeypatch, tmp_path):
    """A file, and its SHA-256, of a data set that may be neither passed on nor built on."""
    text = b"An invented report. No patient stands behind it.\n"
    digest, folder = hashlib.sha256(text).hexdigest(), tmp_path / "registry"
    folder.mkdir()
    (folder / "nlm-reports.tsv").write_text(f"path\tbytes\tsha256\nr.txt\t{len(text)}\t{digest}\n", encoding="utf-8")
    monkeypatch.setattr(manifest, "REGISTRY", folder)
    manifest.registry.cache_clear()
    changed("nlm-reports", redistribute="no", derive=False)
    file = tmp_path / "films" / "innocent-name.txt"
    file.parent.mkdir()
    file.write_bytes(text)
    yield file, digest
    monkeypatch.undo()
    manifest.registry.cache_clear()


@pytest.mark.parametrize("id", list(manifest.entries()))
def test_every_data_set_follows_its_flags(id):
    redistribute, derive = flags(id)
    for use, allowed in (("redistribute", redistribute != "no"), ("derive", derive)):
        if allowed:
            assert manifest.entry(id).source in rights.require(id, use)
        else:
            with pytest.raises(CourseError, match=f"{use}: no"):
                rights.require(id, use)


def test_the_manifest_forbids_something_and_allows_something():
    assert {flags(id)[0] for id in manifest.entries()} >= {"no", "attribution", "share-alike"}
    assert {flags(id)[1] for id in manifest.entries()} == {True, False}


def test_share_alike_goes_on_with_the_credit_and_mistakes_are_named():
    assert "keeps this licence" in rights.require("msd-hippocampus", "derive")
    assert "keeps this licence" not in rights.require("nih-cxr8-subset", "redistribute")
    with pytest.raises(CourseError, match="no use that the manifest"):
        rights.require("nih-cxr8-subset", "sell")
    with pytest.raises(CourseError, match="no data set"):
        rights.require("nih", "derive")


def test_a_file_is_known_by_its_bytes_whatever_its_name(report, tmp_path):
    file, digest = report
    assert rights.owner(file) == rights.owner(digest) == "nlm-reports"
    other = tmp_path / "other.txt"
    other.write_bytes(file.read_bytes() + b" ")
    assert rights.owner(other) is None and rights.refuse([other]) == []
    with pytest.raises(CourseError, match="nlm-reports"):
        rights.refuse([other, file])
    assert [(f.rule, f.severity) for f in rights.check(file)] == [("rights", "stop")]


@pytest.mark.parametrize("other", ["kermany-pocket", "smollm2-135m"])
def test_a_file_of_two_data_sets_follows_the_stricter_one(other, report):
    table = manifest.registry_file("nlm-reports").read_text(encoding="utf-8")
    manifest.registry_file(other).write_text(table, encoding="utf-8")
    assert manifest.entry(other).redistribute == "attribution" and rights.owner(report[0]) == "nlm-reports"


def test_attribution_is_a_look(changed, report):
    changed("nlm-reports", redistribute="attribution", derive=True)
    found = list(rights.check(report[0]))
    assert [f.severity for f in found] == ["look"] and manifest.entry("nlm-reports").source in found[0].next
    assert rights.refuse([report[0]]) == [rights.require("nlm-reports", "redistribute")]


def test_no_file_of_any_data_set_is_in_the_repository():
    assert rights.refuse(restricted.repository_files(ROOT)) == []


def test_export_stops_at_a_file_that_may_not_be_passed_on(report, tmp_path):
    with pytest.raises(CourseError, match="nlm-reports"):
        balance.export(report[0].parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_stops_where_nothing_may_be_made_from_the_training_films(changed, tmp_path):
    (tmp_path / "films").mkdir()
    with pytest.raises(CourseError, match="no film to export"):
        balance.export(tmp_path / "films", tmp_path / "out")
    changed(radiographs.FULL, derive=False)
    with pytest.raises(CourseError, match="built on"):
        balance.export(tmp_path / "films", tmp_path / "out")


def test_a_dossier_with_real_films_asks_first(changed, tmp_path):
    changed(radiographs.FULL, redistribute="no")
    with pytest.raises(CourseError, match="passed on"):
        dossier.write(tmp_path / "out", tmp_path / "no-such-model", real=True)
    with pytest.raises(CourseError, match="no pipeline"):
        dossier.write(tmp_path / "out", tmp_path / "no-such-model", real=False)


def test_fine_tuning_refuses_films_that_nothing_may_be_made_from(changed, monkeypatch):
    from types import SimpleNamespace as Some

    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 16), dtype=np.uint8)
    digest = hashlib.sha256(pixels[3].tobytes()).hexdigest()
    generator = Some(pipe=Some(unet=Some(config=Some(sample_size=16)), vae_scale_factor=1))
    monkeypatch.setattr(finetune, "load_lora", lambda: None)
    assert len(finetune._films(pixels, "chest x-ray", generator)[0]) == 8
    monkeypatch.setattr(rights, "_known", lambda: (frozenset(), {digest: "nlm-reports"}))
    with pytest.raises(CourseError, match="derive: no"):
        finetune._films(pixels, "chest x-ray", generator)


def test_a_path_given_as_text_is_not_taken_for_a_hash():
    with pytest.raises(CourseError, match="no SHA-256"):
        rights.refuse(["film.png"])
