"""Three ways to say where a picture is from, and what removes each: measured, not told."""

import builtins
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medimgen import dicom
from medimgen.errors import CourseError
from medimgen.generate import save_png
from medimgen.safety import provenance

RECORD = {"prompt": "chest x-ray, normal", "seed": 7, "weights_sha256": "a" * 64}
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    return provenance.sign(save_png(folder / "plain.png", PIXELS, RECORD), folder / "signed.png")


def chunks(data):
    """(kind, bytes) of each chunk of a PNG file."""
    at = 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        yield data[at + 4 : at + 8], data[at : at + 12 + size]
        at += 12 + size


def only(data, kinds):
    return data[:8] + b"".join(part for kind, part in chunks(data) if kind in kinds)


def screenshot(source, target):
    """What a screenshot does: the pixels stand in a new picture that another programme wrote."""
    screen = Image.new("RGB", (200, 120), "white")
    screen.paste(Image.open(source), (20, 20))
    screen.save(target)


STRIPPERS = {
    "saved again as PNG": lambda a, b: Image.fromarray(np.asarray(Image.open(a))).save(b),
    "saved as JPEG": lambda a, b: Image.open(a).convert("L").save(b, "JPEG"),
    "cut": lambda a, b: Image.fromarray(np.asarray(Image.open(a))[4:, 4:]).save(b),
    "screenshot": screenshot,
    "metadata removed": lambda a, b: b.write_bytes(only(a.read_bytes(), (b"IHDR", b"IDAT", b"IEND"))),
}


def test_text_and_signature_say_the_same(signed):
    found = provenance.of(signed)
    assert found.synthetic is True and found.by == ("PNG text", "C2PA")
    assert found.said["PNG text: Prompt"] == found.said["C2PA: Prompt"] == RECORD["prompt"]
    assert found.said["C2PA: Weights-SHA256"] == "a" * 64
    assert found.said["C2PA: state"] == "Valid"
    assert found.said["C2PA: faults"] == "signingCredential.untrusted"  # made at run time: nobody vouches for it


def test_signing_leaves_the_pixels_alone_and_no_key_behind(signed):
    assert (np.asarray(Image.open(signed)) == PIXELS).all()
    assert sorted(p.name for p in signed.parent.iterdir()) == ["plain.png", "signed.png"]
    assert b"PRIVATE KEY" not in signed.read_bytes()
    assert b"thumbnail" not in signed.read_bytes(), "a second copy of the picture"


def test_a_copy_keeps_everything(signed, tmp_path):
    (tmp_path / "copy.png").write_bytes(signed.read_bytes())
    assert provenance.of(tmp_path / "copy.png") == provenance.of(signed)


@pytest.mark.parametrize("how", STRIPPERS)
def test_what_strips_all_of_it(how, signed, tmp_path):
    target = tmp_path / "after.png"
    STRIPPERS[how](signed, target)
    found = provenance.of(target)
    assert found.synthetic is None and "C2PA" not in found.by and "PNG text: Synthetic" not in found.said


def test_a_changed_pixel_breaks_the_signature_but_not_the_text(signed, tmp_path):
    rows = np.pad(PIXELS // 2, ((0, 0), (1, 0)))
    packed = zlib.compress(rows.tobytes())
    forged = b"IDAT" + packed
    forged = struct.pack(">I", len(packed)) + forged + struct.pack(">I", zlib.crc32(forged))
    data, done = b"", False
    for kind, part in chunks(signed.read_bytes()):
        data += (b"" if done else forged) if kind == b"IDAT" else part
        done = done or kind == b"IDAT"
    (tmp_path / "forged.png").write_bytes(signed.read_bytes()[:8] + data)
    found = provenance.of(tmp_path / "forged.png")
    assert found.said["C2PA: state"] == "Invalid" and "dataHash.mismatch" in found.said["C2PA: faults"]
    assert found.said["PNG text: Synthetic"] == "true"


@pytest.mark.parametrize("synthetic", [True, False])
def test_dicom_says_yes_or_no(synthetic, tmp_path):
    path = dicom.write(tmp_path / "a.dcm", PIXELS, synthetic=synthetic, description="drawn for a test")
    found = provenance.of(path)
    assert found.synthetic is synthetic and found.by == ("DICOM",)
    assert found.said["DICOM: DerivationDescription"] == "drawn for a test"


def test_dicom_turned_into_a_picture_says_nothing(tmp_path):
    path = dicom.write(tmp_path / "a.dcm", PIXELS, synthetic=True, description="drawn for a test")
    Image.fromarray(dicom.window(dicom.read(path))).save(tmp_path / "a.png")
    assert provenance.of(tmp_path / "a.png") == provenance.Provenance(None)


def test_what_cannot_be_signed(signed, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "unmarked.png")
    with pytest.raises(CourseError, match="not marked synthetic"):
        provenance.sign(tmp_path / "unmarked.png", tmp_path / "out.png")
    with pytest.raises(CourseError, match="exists already"):
        provenance.sign(signed.with_name("plain.png"), signed)
    assert not (tmp_path / "out.png").exists()


def test_without_the_library_the_text_is_read_and_the_error_says_what_to_install(signed, monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = provenance.of(signed)
    assert found.synthetic is True and "not installed" in found.said["C2PA: not read"]
    with pytest.raises(CourseError, match="safety"):
        provenance.sign(signed, tmp_path / "again.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n cut off"])
def test_no_picture_is_an_error(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(CourseError, match=r"a\.png"):
        provenance.of(tmp_path / "a.png")
    with pytest.raises(CourseError, match="missing"):
        provenance.of(tmp_path / "missing.png")
