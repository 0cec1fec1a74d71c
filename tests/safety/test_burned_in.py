"""medimgen.safety.burned_in: names in pixels are found, read and covered; recorded figures follow from their rows."""

import json
import subprocess
import sys

import burned_in_text
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from medimgen import dicom
from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.safety import burned_in
from medimgen.safety.burned_in import Box

RECORDED = json.loads(burned_in_text.RESULT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def film():
    return radiographs.load("pocket", size=224, tier="pocket").images[0]


@pytest.fixture(scope="module")
def planted(film):
    return burned_in_text.plant(film, (8, 12, 16), 0.5, seed=3)


def drawn(shape, place, words, size=20):
    """Light words on a dark ground."""
    picture = Image.new("L", shape[::-1], 30)
    ImageDraw.Draw(picture).text(place, words, fill=220, font=burned_in_text.font(size))
    return np.asarray(picture)


def test_names_are_found_read_covered_and_gone(planted):
    picture, names = planted
    boxes = burned_in.find(picture)
    for _, name, pixels in names:
        assert any(burned_in_text.same(b.text, name) and b.kind == "text" for b in boxes), (name, boxes)
        assert (burned_in.mask(picture, boxes)[pixels] == 0).all()
    assert [b for b in burned_in.find(burned_in.mask(picture, boxes)) if b.kind == "text"] == []


def test_clean_film_holds_no_text(film):
    assert [b for b in burned_in.find(film) if b.kind == "text"] == []


def test_contrast_zero_plants_nothing(film):
    assert (burned_in_text.plant(film, (8, 12, 16), 0.0, seed=3)[0] == film).all()


def test_mask_leaves_the_input_and_the_rest_alone(film):
    before, box = film.copy(), Box(100, 50, 110, 90)
    masked = burned_in.mask(film, [box])
    changed = masked != film
    assert (film == before).all() and not masked[95:115, 45:95].any()
    changed[95:115, 45:95] = False
    assert not changed.any()
    assert burned_in.mask(np.stack([film] * 3, -1), [Box(0, 0, 9, 9)])[:9, :9].max() == 0


def test_a_line_across_two_pieces_is_one_line():
    picture = drawn((1100, 1100), (860, 500), "Okafor, Lena")
    (box,) = burned_in.find(picture)
    assert burned_in_text.same(box.text, "Okafor, Lena") and box.left < burned_in.PIECE - burned_in.OVERLAP < box.right


def test_an_upright_line_is_read():
    picture = np.rot90(drawn((300, 300), (40, 140), "OKAFOR LENA"), -1)
    assert any(burned_in_text.same(b.text, "OKAFOR LENA") for b in burned_in.find(np.ascontiguousarray(picture)))


KINDS = {
    "side": [("R", 0.9), (" l. ", 0.6)],
    "text": [("Ok", 0.5), ("24-7", 0.8)],
    "unread": [("Ok", 0.4), ("", 0.0), ("-.", 0.9), ("7", 0.9)],
}


@pytest.mark.parametrize(("kind", "read"), [(kind, read) for kind, reads in KINDS.items() for read in reads])
def test_kinds(kind, read):
    assert Box(0, 0, 9, 9, *read).kind == kind


@pytest.mark.parametrize("bad", [np.zeros((9, 9)), np.zeros((9, 9, 3), np.uint8), np.zeros((4, 90), np.uint8)])
def test_wrong_pictures_are_named(bad):
    with pytest.raises(CourseError, match=r"(?s)uint8 \(h, w\).*Next: pass one film"):
        burned_in.find(bad)


def test_check_tells_place_but_not_the_name(planted, film, tmp_path):
    path = dicom.write(tmp_path / "named.dcm", planted[0], synthetic=False, description="a test")
    Image.fromarray(planted[0]).save(tmp_path / "named.png")
    for file in (path, tmp_path / "named.png"):
        stops = [f for f in burned_in.check(file) if f.severity == "stop"]
        assert len(stops) == 3 and {f.rule for f in stops} == {"no-identified-data"}
        assert {f.where for f in stops} == {file.name} and all("rows" in f.what for f in stops)
        for _, name, _ in planted[1]:
            assert not any(name[:4] in f.what for f in stops)
    Image.fromarray(film).save(tmp_path / "clean.png")
    assert [f for f in burned_in.check(tmp_path / "clean.png") if f.severity == "stop"] == []


def test_words_outside_the_window_and_in_the_last_frame_are_found(tmp_path):
    """A window can hide what the file holds; so can the frames that nobody opens."""
    words = drawn((256, 256), (30, 100), "Okafor, Lena", 16)
    path = dicom.write(tmp_path / "a.dcm", words, synthetic=False, description="a test")
    ds = pydicom.dcmread(path)
    ds.WindowCenter, ds.WindowWidth = 5, 10
    ds.save_as(path)
    assert not dicom.read(path).window().min() < 255
    assert [f.severity for f in burned_in.check(path)] == ["stop"]
    ds.NumberOfFrames = 3
    ds.PixelData = bytes(2 * words.size) + words.tobytes()
    ds.save_as(path)
    assert [f.severity for f in burned_in.check(path)] == ["stop"]


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(CourseError):
        burned_in.check(tmp_path / "a.png")
    with pytest.raises(CourseError, match="cannot read none.png"):
        burned_in.check(tmp_path / "none.png")


def test_round_blots_that_read_as_nothing_are_not_reported(monkeypatch, film, tmp_path):
    """Bones and clips look like text now and then; a line of text is at least twice as long as high."""
    Image.fromarray(film).save(tmp_path / "a.png")
    for box, severities in ((Box(0, 0, 30, 59), []), (Box(0, 0, 30, 60), ["look"]), (Box(0, 0, 60, 30), ["look"])):
        monkeypatch.setattr(burned_in, "find", lambda *_, box=box: [box])
        assert [f.severity for f in burned_in.check(tmp_path / "a.png")] == severities


def test_import_is_light():
    code = "import sys, medimgen.safety.burned_in; sys.exit('onnxruntime' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arm", RECORDED["arms"])
def test_recorded_figures_follow_from_the_rows(arm):
    kept = RECORDED["arms"][arm]
    made = burned_in_text.table(kept["rows"])
    assert made["cells"] == kept["cells"] and made["all"] == kept["all"]
    sizes = burned_in_text.SMALL if arm.startswith("small") else burned_in_text.LARGE
    contrasts = burned_in_text.CONTRASTS[:1] if arm == "large_zoom_2" else burned_in_text.CONTRASTS
    films = {"large": 16, "large_zoom_2": 8}.get(arm, burned_in_text.FILMS)
    assert len(kept["rows"]) == films * len(sizes) * len(contrasts)


def test_a_recorded_row_comes_out_again():
    """The first large film, its middle contrast: the same names at the same places, found and read as recorded."""
    patient, film = burned_in_text.films("large")[0]
    rows = burned_in_text.look(film, patient, burned_in_text.LARGE, 0.25, 25, "large")
    kept = [row for row in RECORDED["arms"]["large"]["rows"] if row[0] == patient and row[2] == 0.25]
    assert rows == kept


def test_a_picture_of_16_bits_is_not_cut_off_at_255(tmp_path):
    levels = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "film.png")
    (picture,) = burned_in._pictures(tmp_path / "film.png")
    assert picture.dtype == np.uint8 and picture.min() == 0 and picture.max() == 255
    assert abs(picture.mean() - 127.5) < 2
