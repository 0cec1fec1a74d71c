"""No licensed picture and no licensed report is in the repository, whatever size or file it hides in."""

import base64
import io
import json
from pathlib import Path

import make_film_hashes as film
import numpy as np
import pytest
import restricted
from PIL import Image

from medimgen.data import reports
from medimgen.data.fetch import fetch
from medimgen.paths import ROOT


@pytest.fixture(scope="module")
def known():
    return film.load()


@pytest.fixture(scope="module")
def pocket_film():
    """One of the 16 real films that every machine has, at full size."""
    return Image.open(min(fetch("kermany-pocket").glob("*.jpeg"))).convert("L")


@pytest.fixture(scope="module")
def licensed():
    table = reports.load()
    return restricted.report_runs(text for part in reports.PARTS for text in table[part])


@pytest.fixture(scope="module")
def findings():
    return next(text for text in reports.load()["findings"] if len(restricted.words(text)) > 30)


def png(picture, **more):
    memory = io.BytesIO()
    picture.save(memory, "PNG", **more)
    return memory.getvalue()


def look(name, data, known):
    return restricted.film_matches(restricted.pictures(name, data), known)


def read(name, text, licensed):
    return restricted.report_matches(restricted.texts(name, text.encode("utf-8")), licensed)


def figure(*pictures, gap=20, side=150):
    """Pictures beside each other on white paper, with a line of text-like marks above each."""
    paper = np.full((side + 3 * gap, len(pictures) * (side + gap) + gap), 255, np.uint8)
    for place, picture in enumerate(pictures):
        x = gap + place * (side + gap)
        paper[gap // 2 : gap // 2 + 6, x : x + 40 : 4] = 0
        paper[2 * gap : 2 * gap + side, x : x + side] = np.asarray(picture.resize((side, side)))
    return Image.fromarray(paper)


def test_no_film_in_the_repository(known):
    files = restricted.repository_files(ROOT)
    assert Path(__file__) in files
    complaints, seen = [], 0
    for path in files:
        found = list(restricted.pictures(path.relative_to(ROOT).as_posix(), path.read_bytes()))
        seen += len(found)
        complaints += restricted.film_matches(found, known)
    print(f"{len(files)} files, {seen} pictures")
    assert complaints == []


def test_no_report_in_the_repository(licensed):
    assert len(licensed) > 50_000
    names = ((path.relative_to(ROOT).as_posix(), path) for path in restricted.repository_files(ROOT))
    texts = (pair for name, path in names for pair in restricted.texts(name, path.read_bytes()))
    assert restricted.report_matches(texts, licensed) == []


def test_hashes_cover_every_film(known):
    assert known.shape == (len(film.films()), film.BITS) == (5924, 511)


def test_all_sixteen_full_size_films_are_recognised(known):
    for path in fetch("kermany-pocket").glob("*.jpeg"):
        distance = film.distances(film.questions(Image.open(path)), known).min(0)
        assert distance.min() < film.THRESHOLD / 2
        assert film.films()[distance.argmin()].endswith(path.name)


@pytest.mark.parametrize("change", ["64 px", "512 px", "JPEG quality 30", "3 % off each side", "grey to RGB"])
def test_a_changed_copy_turns_it_red(change, pocket_film, known):
    assert len(look("fig/copy.png", png(film.copies(pocket_film)[change]), known)) == 1


def test_a_negative_turns_it_red(pocket_film, known):
    negative = Image.fromarray(255 - np.asarray(pocket_film))
    assert look("fig/copy.png", png(negative.resize((128, 128))), known)


def test_a_film_in_a_notebook_output_turns_it_red(pocket_film, known):
    code = base64.encodebytes(png(pocket_film.resize((128, 128)))).decode("ascii")
    output = {"output_type": "display_data", "data": {"image/png": code}, "metadata": {}}
    book = json.dumps({"cells": [{"cell_type": "code", "source": ["x"], "outputs": [output]}]}, indent=1)
    assert "embedded picture 1" in look("notebooks/a.ipynb", book.encode("utf-8"), known)[0]


@pytest.mark.parametrize("name", ["page.md", "page.html", "drawing.svg", "result.json"])
def test_a_film_inside_a_text_file_turns_it_red(name, pocket_film, known):
    code = base64.b64encode(png(pocket_film.resize((96, 96)))).decode("ascii")
    text = f'<p>words</p> "data:image/png;base64,{code}" more'
    assert look(name, text.encode("utf-8"), known)


def test_a_film_in_one_panel_of_a_figure_turns_it_red(pocket_film, known):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 150), dtype=np.uint8))
    assert look("fig/two.png", png(figure(noise, pocket_film)), known)
    assert look("fig/two.png", png(figure(noise, noise)), known) == []


def test_a_film_in_a_contact_sheet_turns_it_red(pocket_film, known):
    sheet = np.random.default_rng(0).integers(0, 255, (256, 384), dtype=np.uint8)
    assert look("fig/sheet.png", png(Image.fromarray(sheet)), known) == []
    sheet[128:, 256:] = np.asarray(pocket_film.resize((128, 128)))
    assert look("fig/sheet.png", png(Image.fromarray(sheet)), known)


def test_arrays_archives_dicom_and_nameless_pictures_are_opened(pocket_film, known, tmp_path):
    small = np.asarray(pocket_film.resize((64, 64)))
    np.savez_compressed(tmp_path / "a.npz", films=small[None] / 255.0)
    assert look("a.npz", (tmp_path / "a.npz").read_bytes(), known)
    assert look("blob", png(pocket_film.resize((64, 64))), known)
    assert look("a.dcm", dicom(small), known)


def dicom(pixels):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    new = Dataset()
    new.file_meta = FileMetaDataset()
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    new.SOPClassUID, new.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    new.set_pixel_data(pixels, "MONOCHROME2", 8)
    memory = io.BytesIO()
    new.save_as(memory, enforce_file_format=True)
    return memory.getvalue()


def test_a_picture_nobody_can_open_is_an_error(known):
    with pytest.raises(ValueError, match="no readable"):
        look("fig/broken.png", b"\x89PNG broken", known)


def test_different_films_do_not_match(tier, known):
    """Every film against all others: the 16 of the pocket tier, or 150 of all."""
    rows = np.arange(len(film.films()))
    if tier == "full":
        folder, chosen = fetch("kermany-cxr-224"), np.random.default_rng(1).choice(5856, 150, replace=False)
        paths = {int(i): folder / film.films()[i].split("/", 1)[1] for i in chosen}
    else:
        where = {name.rsplit("/", 1)[1]: i for i, name in enumerate(film.films())}
        paths = {where[path.name]: path for path in fetch("kermany-pocket").glob("*.jpeg")}
    for row, path in paths.items():
        distance = film.distances(film.questions(Image.open(path)), known).min(0)
        assert distance[row] < 0.1
        twins = film.distances(known[[row]], known)[0] < 0.02
        assert distance[(rows != row) & ~twins].min() > film.THRESHOLD


def test_a_quoted_sentence_turns_it_red(findings, licensed):
    eight = " ".join(restricted.words(findings)[4:12])
    assert read("lessons/a.md", f"The report said: {eight}, and so on.", licensed)
    seven = eight.rsplit(" ", 1)[0]
    assert read("lessons/a.md", f"The report said: {seven} zebra.", licensed) == []


def test_a_quote_over_line_breaks_and_in_a_notebook_turns_it_red(findings, licensed):
    parts = restricted.words(findings)[3:13]
    assert read("a.py", "# " + "\n# ".join(parts).upper(), licensed)
    cell = {"cell_type": "code", "source": ["x = 1\n"], "outputs": [{"text": [p + "\n" for p in parts]}]}
    assert read("a.ipynb", json.dumps({"cells": [cell]}), licensed)


def test_the_tests_own_words_pass(licensed):
    sentence = "These eight words were invented for this very course and nowhere else."
    assert read("a.md", sentence, licensed) == []
