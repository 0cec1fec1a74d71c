"""The one reader of picture files: what it makes of grey, colour and deep pixels, and of files that are none."""

import io

import numpy as np
import pytest
from PIL import Image

from medimgen import balance, films, likeness, pictures
from medimgen.balance import exporting, reviewing
from medimgen.errors import CourseError

LEVELS = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)


def png(array) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(array).save(memory, "PNG")
    return memory.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, CourseError, "cannot read film.png: No such file"),
        (b"", pictures.NoPicture, "film.png is empty"),
        (b"Dear colleague", pictures.NoPicture, "film.png is no picture"),
        (png(LEVELS)[:300], CourseError, "cannot read film.png: .*truncated"),
        (png(LEVELS)[:20], CourseError, "film.png"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(content, kind, said, tmp_path):
    path = tmp_path / "film.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=said) as caught:
        pictures.read(path)
    assert caught.value.next
    if content is not None:  # whoever reads films hears of it in the same words
        _, _, faults = films.source([path], 64).read()
        assert caught.value.what in faults[0]
        with pytest.raises(CourseError, match=said):
            balance.review(tmp_path, "reader one")
        with pytest.raises(CourseError, match=said):
            exporting._leaving(tmp_path)


def test_grey_is_8_bits_whatever_the_file_holds(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for array in (colour, colour[..., 0], colour[..., 0] > 127):
        picture = Image.fromarray(array)
        assert np.array_equal(pictures.grey(picture), picture.convert("L"))
    (tmp_path / "deep.png").write_bytes(png(LEVELS))
    deep = np.asarray(pictures.grey(pictures.read(tmp_path / "deep.png")))
    assert deep.dtype == np.uint8 and (deep.min(), deep.max()) == (0, 255) and abs(deep.mean() - 127.5) < 2
    broken = LEVELS.astype(np.float32)
    broken[0, :2] = np.nan, np.inf
    assert np.asarray(pictures.grey(Image.fromarray(broken))).max() == 255


def test_a_jpeg_decoded_to_brightness_only_is_the_same_picture(tmp_path):
    film = np.asarray(Image.fromarray((LEVELS >> 8).astype(np.uint8)).convert("RGB"))
    Image.fromarray(film).save(tmp_path / "film.jpg", quality=95)
    drafted = pictures.read(tmp_path / "film.jpg", draft="L")
    assert drafted.mode == "L" and pictures.read(tmp_path / "film.jpg").mode == "RGB"
    assert np.array_equal(drafted, pictures.grey(pictures.read(tmp_path / "film.jpg")))


def test_no_reader_cuts_16_bits_off_at_255(tmp_path):
    (tmp_path / "deep.png").write_bytes(png(LEVELS))
    shallow = (255 * (LEVELS / LEVELS.max())).astype(np.uint8)
    _, shown = reviewing.review(tmp_path, "reader one")._picture(0)
    assert np.array_equal(shown, shallow)
    deep = pictures.read(tmp_path / "deep.png")
    assert np.array_equal(likeness.signs(deep), likeness.signs(shallow))
    assert np.array_equal(exporting.middles(deep), exporting.middles(Image.fromarray(shallow)))
