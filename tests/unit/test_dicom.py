"""medimgen.dicom on every file of pydicom-data, and on files made here to be awkward."""

import errno
import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from medimgen import dicom
from medimgen.data.fetch import fetch
from medimgen.errors import CourseError

pytestmark = pytest.mark.filterwarnings("error")

# One line a file: name | frames | shape | photometric | what to compare with | why.
#   "= other"  the same pixels as another file, which holds them plainly
#   "~n other" within n grey levels of it
#   "raw"      the bytes of the file, cut out without pydicom's decoder
#   "lo..hi"   range, measured once with another decoder (imagecodecs: OpenJPEG, jpegsof3) where compressed
EXPECTED = """
693_J2KR|1|512x512|MONOCHROME2|= 693_UNCR|JPEG 2000 lossless, signed 16 bit, padding, Rescale
693_UNCI|1|512x512|MONOCHROME2|raw|lossy source stored plainly, 14 of 16 bits, signed
693_UNCR|1|512x512|MONOCHROME2|raw|signed 14 of 16 bits
JPEG-LL|1|1024x256|MONOCHROME2|0..278|JPEG lossless, signed container; checked with jpegsof3
JPEG2000_UNC|1|1024x256|MONOCHROME2|raw|signed, negative values
JPGLosslessP14SV1_1s_1f_8b|1|768x1024|MONOCHROME2|0..255|JPEG lossless, 8 bit; checked with jpegsof3
MR-SIEMENS-DICOM-WithOverlays|1|484x484|MONOCHROME2|raw|overlay planes are not burned in
MR2_J2KI|1|1024x1024|MONOCHROME2|= MR2_UNCI|UNCI is the decompressed J2KI
MR2_J2KR|1|1024x1024|MONOCHROME2|= MR2_UNCR|lossless
MR2_UNCI|1|1024x1024|MONOCHROME2|raw|Rescale with fractions
MR2_UNCR|1|1024x1024|MONOCHROME2|raw|Rescale with fractions
OBXXXX1A|1|600x800|PALETTE COLOR|0..65535|16-bit palette
OBXXXX1A_2frame|2|600x800|PALETTE COLOR|= OBXXXX1A|first of two frames
OBXXXX1A_expb|1|600x800|PALETTE COLOR|= OBXXXX1A|big endian: the palette's words are swapped too
OBXXXX1A_expb_2frame|2|600x800|PALETTE COLOR|= OBXXXX1A|big endian, two frames
OBXXXX1A_rle|1|600x800|PALETTE COLOR|= OBXXXX1A|RLE
OBXXXX1A_rle_2frame|2|600x800|PALETTE COLOR|= OBXXXX1A|RLE, two frames
OT-PAL-8-face|1|480x640|PALETTE COLOR|0..65535|no DICM mark, no transfer syntax, 200-entry palette
RG1_J2KI|1|1955x1841|MONOCHROME1|= RG1_UNCI|UNCI is the decompressed J2KI
RG1_J2KR|1|1955x1841|MONOCHROME1|= RG1_UNCR|lossless
RG1_UNCI|1|1955x1841|MONOCHROME1|raw|15 of 16 bits
RG1_UNCR|1|1955x1841|MONOCHROME1|raw|the course's chest film
RG3_J2KI|1|1760x1760|MONOCHROME1|= RG3_UNCI|UNCI is the decompressed J2KI
RG3_J2KR|1|1760x1760|MONOCHROME1|= RG3_UNCR|lossless
RG3_UNCI|1|1760x1760|MONOCHROME1|raw|10 of 16 bits
RG3_UNCR|1|1760x1760|MONOCHROME1|raw|10 of 16 bits
SC_rgb|1|100x100|RGB|raw|plain colour
SC_rgb_16bit|1|100x100|RGB|raw|16 bit colour
SC_rgb_16bit_2frame|2|100x100|RGB|= SC_rgb_16bit|first of two frames
SC_rgb_2frame|2|100x100|RGB|= SC_rgb|first of two frames
SC_rgb_32bit|1|100x100|RGB|raw|32 bit colour, beyond float32's whole numbers
SC_rgb_32bit_2frame|2|100x100|RGB|= SC_rgb_32bit|first of two frames
SC_rgb_dcmtk_ebcr_dcmd|1|100x100|RGB|raw|lossy JPEG, RGB, since stored plainly
SC_rgb_dcmtk_ebcyn1_dcmd|1|100x100|RGB|raw|lossy JPEG, YBR 4:1:1, since stored plainly
SC_rgb_dcmtk_ebcyn2_dcmd|1|100x100|RGB|raw|lossy JPEG, YBR 4:2:2, since stored plainly
SC_rgb_dcmtk_ebcynp_dcmd|1|100x100|RGB|raw|lossy JPEG, YBR 4:4:4, since stored plainly
SC_rgb_dcmtk_ebcys2_dcmd|1|100x100|RGB|raw|lossy JPEG, YBR 4:2:2, since stored plainly
SC_rgb_dcmtk_ebcys4_dcmd|1|100x100|RGB|raw|lossy JPEG, YBR 4:1:1, since stored plainly
SC_rgb_expb|1|100x100|RGB|= SC_rgb|big endian
SC_rgb_expb_16bit|1|100x100|RGB|= SC_rgb_16bit|big endian, 16 bit
SC_rgb_expb_16bit_2frame|2|100x100|RGB|= SC_rgb_16bit|big endian, 16 bit, two frames
SC_rgb_expb_2frame|2|100x100|RGB|= SC_rgb|big endian, two frames
SC_rgb_expb_32bit|1|100x100|RGB|= SC_rgb_32bit|big endian, 32 bit
SC_rgb_expb_32bit_2frame|2|100x100|RGB|= SC_rgb_32bit|big endian, 32 bit, two frames
SC_rgb_gdcm2k_uncompressed|1|100x100|RGB|= SC_rgb|was lossless JPEG 2000
SC_ybr_full_uncompressed|1|100x100|YBR_FULL|~2 SC_rgb|three rounded channels; an unconverted one is 100 off
US1_J2KI|1|480x640|YBR_ICT|= US1_UNCI|UNCI is the decompressed J2KI: the colour transform is undone once
US1_J2KR|1|480x640|YBR_RCT|= US1_UNCR|colour JPEG 2000, lossless
US1_UNCI|1|480x640|RGB|raw|plain colour
US1_UNCR|1|480x640|RGB|raw|plain colour
bad_sequence|1|512x512|MONOCHROME2|-1011..1243|breaks off; jpegsof3 gives 13..2267, less 1024
color-pl|1|120x256|RGB|= color-px|colour by plane
color-px|1|120x256|RGB|raw|colour by pixel
color3d_jpeg_baseline|120|480x640|YBR_FULL_422|0..211|lossy JPEG, subsampled colour, many frames
eCT_Supplemental|2|512x512|MONOCHROME2|raw|enhanced CT: spacing and window lie in its functional groups
emri_small|10|64x64|MONOCHROME2|raw|enhanced MR
emri_small_RLE|10|64x64|MONOCHROME2|= emri_small|RLE, 12 of 16 bits
emri_small_big_endian|10|64x64|MONOCHROME2|= emri_small|big endian
emri_small_jpeg_2k_lossless|10|64x64|MONOCHROME2|= emri_small|JPEG 2000 lossless
emri_small_jpeg_2k_lossless_too_short|0|0x0||error cut short|cut inside the first sequence: nothing left
emri_small_jpeg_ls_lossless|10|64x64|MONOCHROME2|= emri_small|JPEG-LS
explicit_VR-UN|1|512x512|MONOCHROME2|-1024..1186|attributes of unknown type; OpenJPEG gives the same range
gdcm-US-ALOKA-16|1|480x640|PALETTE COLOR|0..65535|16-bit indices, segmented palette
gdcm-US-ALOKA-16_big|1|480x640|PALETTE COLOR|= gdcm-US-ALOKA-16|big endian
liver|3|512x512|MONOCHROME2|0..1|segmentation, one bit a pixel
liver_expb|3|512x512|MONOCHROME2|= liver|one bit a pixel, big endian
mlut_18|1|512x512|MONOCHROME2|0..65535|Modality LUT, signed input
vlut_04|1|512x512|MONOCHROME2|raw|VOI LUT
"""
TABLE = {row[0]: row[1:] for row in (line.split("|") for line in EXPECTED.strip().splitlines())}


@pytest.fixture(scope="session")
def samples():
    """Folder with the 68 files; MEDIMGEN_TEST_DICOM names another copy."""
    return Path(os.environ.get("MEDIMGEN_TEST_DICOM") or fetch("dicom-samples"))


@functools.cache
def grey(samples, name, frame=0):
    colour = "refuse" if TABLE[name][2].startswith("MONOCHROME") else "grey"
    return dicom.read(samples / f"{name}.dcm", frame, colour=colour)


def raw_frame(path):
    """First frame of an uncompressed little-endian file from its bytes alone, as modality values."""
    ds = pydicom.dcmread(path)
    assert not ds.file_meta.TransferSyntaxUID.is_compressed
    bits, sign = ds.BitsStored, "ui"[ds.PixelRepresentation]
    shape = (ds.Rows, ds.Columns, ds.SamplesPerPixel)
    x = np.frombuffer(ds.PixelData, f"<{sign}{ds.BitsAllocated // 8}", np.prod(shape)).reshape(shape)
    x = x.astype(np.int64)
    if shape[2] == 3:
        return 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    assert x.max() < 2**bits
    if "SharedFunctionalGroupsSequence" in ds:
        groups = [ds.PerFrameFunctionalGroupsSequence[0], ds.SharedFunctionalGroupsSequence[0]]
        ds = next(g for g in groups if "PixelValueTransformationSequence" in g).PixelValueTransformationSequence[0]
    x = x[..., 0] * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    if "PixelPaddingValue" in ds:
        pad = ds.PixelPaddingValue * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        x[x == pad] = np.nan
    return x


def test_the_table_names_all_files(samples):
    assert sorted(TABLE) == sorted(path.stem for path in samples.rglob("*.dcm"))
    assert len(TABLE) == 68


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_sample(samples, name, capfd):
    frames, shape, photometric, reference, _ = TABLE[name]
    path = samples / f"{name}.dcm"
    if reference.startswith("error"):
        with pytest.raises(CourseError, match=reference.removeprefix("error ")):
            dicom.read(path)
        return
    is_grey = photometric.startswith("MONOCHROME")
    if int(frames) > 1:
        with pytest.raises(CourseError, match=rf"holds {frames} frames\n  Next: .*frame=0\.\.{int(frames) - 1}"):
            dicom.read(path)
    if not is_grey:
        with pytest.raises(CourseError, match=r'colour image .*\n  Next: read\(path, colour="grey"\)'):
            dicom.read(path, 0)
    image = grey(samples, name)
    assert image.pixels.dtype == np.float32
    assert "x".join(map(str, image.pixels.shape)) == shape
    assert (image.photometric, image.frames, image.frame) == (photometric, int(frames), 0)
    assert not any(keyword in image.header for keyword in dicom.PIXELS)
    compare(samples, path, image.pixels, reference)
    shown = image.window()
    assert shown.dtype == np.uint8
    assert shown.shape == image.pixels.shape
    assert np.ptp(shown) > 100  # a picture, not a flat field
    str(image.header)
    assert capfd.readouterr() == ("", "")


def compare(samples, path, pixels, reference):
    if reference == "raw":
        np.testing.assert_allclose(pixels, raw_frame(path), rtol=1e-6, atol=1e-4)
    elif reference.startswith("="):
        np.testing.assert_array_equal(pixels, grey(samples, reference[2:]).pixels)
    elif reference.startswith("~"):
        limit, other = reference[1:].split()
        assert np.abs(pixels - grey(samples, other).pixels).max() <= float(limit)
    else:
        low, high = map(float, reference.split(".."))
        assert low <= np.nanmin(pixels) <= low + 0.01 * (high - low)
        assert high - 0.1 * (high - low) <= np.nanmax(pixels) <= high


@pytest.mark.parametrize("name", ["emri_small_RLE", "emri_small_jpeg_2k_lossless", "emri_small_jpeg_ls_lossless"])
def test_each_frame_is_its_own(samples, name):
    for frame in (1, 9):
        same = grey(samples, "emri_small", frame).pixels
        np.testing.assert_array_equal(grey(samples, name, frame).pixels, same)
        assert (same != grey(samples, "emri_small", 0).pixels).any()


@pytest.mark.parametrize("frame", [-1, 10, 1.0, "0"])
def test_a_frame_that_is_not_there(samples, frame):
    with pytest.raises(CourseError, match=r"no frame .*\n  Next: pass frame=0\.\.9"):
        dicom.read(samples / "emri_small.dcm", frame)


def test_tables_agree_with_pydicom(samples):
    ds = pydicom.dcmread(samples / "mlut_18.dcm")
    np.testing.assert_array_equal(grey(samples, "mlut_18").pixels, apply_modality_lut(ds.pixel_array, ds))
    ds = pydicom.dcmread(samples / "vlut_04.dcm")
    image = grey(samples, "vlut_04")
    top = 2 ** image.tables[0].bits - 1
    want = np.floor(apply_voi(ds.pixel_array, ds).astype(np.float64) * 255 / top + 0.5)
    np.testing.assert_array_equal(image.window(), want)
    assert (image.window(128, 20) != want).any()


@pytest.mark.parametrize("name", ["RG1_UNCR", "MR2_UNCR", "MR-SIEMENS-DICOM-WithOverlays"])
def test_default_window_agrees_with_pydicom(samples, name):
    image = grey(samples, name)
    ds = pydicom.dcmread(samples / f"{name}.dcm")
    y = apply_windowing(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float64)
    slope = float(ds.get("RescaleSlope", 1))
    low, high = 0, (2**ds.BitsStored - 1) * slope + float(ds.get("RescaleIntercept", 0))
    shown = image.window().astype(int)
    y = 255 * (y - low) / (high - low)
    y = 255 - y if image.photometric == "MONOCHROME1" else y
    assert np.abs(shown - y).max() <= 1


def test_spacing_windows_and_bits(samples):
    image = grey(samples, "693_UNCR")
    assert (image.spacing_mm, image.spacing_from) == ((0.478516, 0.478516), "PixelSpacing")
    assert (image.windows, image.modality, image.bits) == (((40.0, 100.0),), "CT", 14)
    assert np.isnan(image.pixels).mean() == pytest.approx(0.213, abs=0.001)
    assert (image.window()[np.isnan(image.pixels)] == 0).all()
    assert any("padding" in note for note in image.notes)
    assert len(grey(samples, "MR-SIEMENS-DICOM-WithOverlays").windows) == 2
    chest = grey(samples, "RG1_UNCR")
    assert chest.spacing_mm is None
    assert any("PixelSpacing" in note for note in chest.notes)
    inner = grey(samples, "eCT_Supplemental", 1)
    assert inner.spacing_mm == (0.388672, 0.388672)
    assert inner.windows
    assert any("palette" in note for note in inner.notes)


def test_notes_say_what_is_odd(samples):
    assert any("DICM" in note for note in grey(samples, "OT-PAL-8-face").notes)
    assert any("lossy" in note for note in grey(samples, "RG1_J2KI").notes)
    assert grey(samples, "RG1_J2KR").notes == grey(samples, "RG1_UNCR").notes
    assert any("breaks the standard" in note for note in grey(samples, "bad_sequence").notes)


def test_stored_values_on_request(samples):
    plain = dicom.read(samples / "MR2_UNCR.dcm", rescale=False)
    ds = pydicom.dcmread(samples / "MR2_UNCR.dcm")
    np.testing.assert_array_equal(plain.pixels, ds.pixel_array)
    assert plain.windows == ()
    with pytest.raises(CourseError, match="colour='yes'"):
        dicom.read(samples / "SC_rgb.dcm", colour="yes")


# ---- files made here


def make(path, pixels=None, syntax=uid.ExplicitVRLittleEndian, preamble=True, **attributes):
    """A small grey instance; attributes by keyword, None leaves one out."""
    pixels = np.arange(16, dtype="<u2").reshape(4, 4) if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    values = dict(
        SOPClassUID=uid.SecondaryCaptureImageStorage,
        SOPInstanceUID="1.2.3",
        Modality="OT",
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=8 * pixels.itemsize,
        BitsStored=8 * pixels.itemsize,
        HighBit=8 * pixels.itemsize - 1,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
    )
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(ds, keyword, value)
    if attributes.get("PixelData", 0) is not None and "FloatPixelData" not in ds:
        ds.add_new("PixelData", "OW", attributes.get("PixelData") or pixels.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(path, enforce_file_format=preamble)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "film.dcm"


def test_monochrome1_is_the_negative(file):
    light = dicom.read(make(file, PhotometricInterpretation="MONOCHROME1"))
    dark = dicom.read(make(file))
    np.testing.assert_array_equal(light.pixels, dark.pixels)
    np.testing.assert_array_equal(light.window(8, 16), 255 - dark.window(8, 16).astype(int))


def test_window_is_the_formula_of_the_standard():
    x = np.arange(-1100, 1200, 0.5).reshape(50, -1)
    for c, w in ((40, 400), (0.5, 2), (-600, 1500), (0, 1)):  # written out from PS3.3 C.11.2.1.2.1
        want = [0 if v <= c - 0.5 - (w - 1) / 2 else 255 if v > c - 0.5 + (w - 1) / 2
                else ((v - (c - 0.5)) / (w - 1) + 0.5) * 255 for v in x.ravel()]  # fmt: skip
        assert np.abs(dicom.window(x, c, w).ravel() - np.array(want)).max() <= 0.5
    ramp = np.arange(256.0).reshape(16, 16)
    np.testing.assert_array_equal(dicom.window(ramp, 128, 256), ramp)  # note 4: the identity


def test_default_window_of_an_array_is_the_1st_to_99th_percentile():
    x = np.arange(10001.0).reshape(1, -1)
    shown = dicom.window(x)[0]
    assert (shown[:101] == 0).all()
    assert (shown[9900:] == 255).all()
    assert 126 <= shown[5000] <= 129
    assert (dicom.window(np.full((3, 3), 7.0)) == 128).all()
    assert set(np.unique(dicom.window(np.eye(200)))) == {0, 255}
    x[0, :500] = np.nan
    assert (dicom.window(x)[0, :500] == 0).all()
    assert (dicom.window(np.full((2, 2), np.nan)) == 0).all()


def test_window_functions(file):
    both = dict(WindowCenter=8, WindowWidth=4)
    exact = dicom.read(make(file, VOILUTFunction="LINEAR_EXACT", **both)).window().ravel()
    assert exact[[6, 7, 8, 9, 10]].tolist() == [0, 64, 128, 191, 255]
    bent = dicom.read(make(file, VOILUTFunction="SIGMOID", **both)).window().ravel()
    want = 255 / (1 + np.exp(-4 * (np.arange(16) - 8) / 4))
    assert np.abs(bent - want).max() <= 0.5
    image = dicom.read(make(file, VOILUTFunction="CURVY", **both))
    assert image.voi_function == "LINEAR"
    assert any("CURVY" in note for note in image.notes)
    assert (image.window(centre=3) == image.window(3, 4)).all()


@pytest.mark.parametrize("c, w", [(0, 0), (0, 0.5), (0, -3), (np.nan, 4), (0, np.inf)])
def test_a_window_that_is_none(c, w):
    with pytest.raises(CourseError, match="no window has"):
        dicom.window(np.eye(3), c, w)


@pytest.mark.parametrize("x", [np.zeros((2, 2, 3)), np.zeros((0, 3)), np.array([["a"]]), 5])
def test_a_window_needs_one_grey_picture(x):
    with pytest.raises(CourseError, match="numbers of shape"):
        dicom.window(x)


def test_windows_in_the_file_that_are_no_use(file):
    image = dicom.read(make(file, WindowCenter=[8, 9, 10], WindowWidth=[0, 4]))
    assert image.windows == ((9.0, 4.0),)
    assert any("only 1 can be used" in note for note in image.notes)


@pytest.mark.parametrize("slope", ["nan", "inf", "0", "abc", "1\\2"])
def test_a_rescale_that_is_no_number(file, slope):
    make(file, RescaleSlope="1.25", RescaleIntercept="0")
    data = file.read_bytes()
    if len(slope) % 2:
        slope += " "
    at = data.index(b"\x28\x00\x53\x10DS")
    file.write_bytes(data[: at + 6] + len(slope).to_bytes(2, "little") + slope.encode() + data[at + 12 :])
    with pytest.raises(CourseError, match=r"Rescale .*\n  Next: read\(path, rescale=False\)"):
        dicom.read(file)
    np.testing.assert_array_equal(dicom.read(file, rescale=False).pixels.ravel(), np.arange(16))


def test_rescale_signed_padding_range_and_imager_spacing(file):
    x = np.array([[-2000, -1999, -5], [0, 7, 30000]], "<i2")
    make(file, x, RescaleSlope=2, RescaleIntercept=-10, ImagerPixelSpacing=[0.2, 0.1])
    ds = pydicom.dcmread(file)
    ds.add_new("PixelPaddingValue", "SS", -2000)
    ds.add_new("PixelPaddingRangeLimit", "SS", -1990)
    ds.save_as(file)
    image = dicom.read(file)
    np.testing.assert_array_equal(image.pixels, [[np.nan, np.nan, -20], [-10, 4, 59990]])
    assert (image.spacing_mm, image.spacing_from) == ((0.2, 0.1), "ImagerPixelSpacing")


def test_32_bit_and_float_pixels(file):
    x = np.array([[2**31, 5], [0, 2**24 + 1]], "<u4")
    image = dicom.read(make(file, x))
    np.testing.assert_array_equal(image.pixels, x.astype(np.float32))
    assert any("24 bits" in note for note in image.notes)
    make(file, x, FloatPixelData=np.array([1.5, -2, 0, 3], "<f4").tobytes(), BitsStored=None, HighBit=None,
         PixelRepresentation=None)  # fmt: skip
    np.testing.assert_array_equal(dicom.read(file).pixels, [[1.5, -2], [0, 3]])


def test_ybr_to_luminance(file):
    make(file, np.array([[50, 128, 128, 81, 90, 240]], "u1"), PhotometricInterpretation="YBR_FULL", Columns=2,
         SamplesPerPixel=3, PlanarConfiguration=0)  # fmt: skip
    np.testing.assert_allclose(dicom.read(file, colour="grey").pixels, [[50, 81]], atol=1.5)


def error(path, what, then):
    with pytest.raises(CourseError) as caught:
        dicom.read(path)
    assert what in caught.value.what
    assert then in caught.value.next
    with pytest.raises(CourseError):
        dicom.describe(path) if "pixels" not in what else dicom.read(path, 0)


def test_files_that_are_none(tmp_path, file):
    error(tmp_path / "nothing.dcm", "there is no file", "medimgen fetch dicom-samples")
    error(tmp_path, "is a folder", "name one file")
    for content, what in (
        (b"", "empty"),
        (b"hello" * 100, "not a DICOM"),
        (b"\x89PNG\r\n" + b"x" * 300, "a PNG"),
    ):
        file.write_bytes(content)
        error(file, what, "PIL.Image.open" if what == "a PNG" else "pass a DICOM file")


def test_no_pixels_no_decoder_missing_attributes(file):
    make(file, PixelData=None, SOPClassUID=uid.BasicTextSRStorage, Rows=None, Columns=None)
    error(file, "holds no pixels (Basic Text SR", "describe(path)")
    assert "Pixel Data" not in set(dicom.describe(file).attribute)
    make(file)
    ds = pydicom.dcmread(file)
    for syntax, what in (
        (uid.HTJ2KLossless, "no decoder here reads"),
        (uid.JPEGExtended12Bit, "no decoder here reads"),
        (uid.JPEG2000, "cannot be decoded"),
    ):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.save_as(file)
        with pytest.raises(CourseError, match=what):
            dicom.read(file)
    make(file, Rows=None)
    with pytest.raises(CourseError, match="missing"):
        dicom.read(file)


def test_cut_files_never_give_half_an_image(samples, file):
    for name in ("RG3_UNCR", "emri_small_RLE", "RG3_J2KR", "bad_sequence", "emri_small_jpeg_ls_lossless"):
        whole = (samples / f"{name}.dcm").read_bytes()
        last = 9 if name.startswith("emri") else 0
        for part in (0.01, 0.5, 0.9):
            file.write_bytes(whole[: int(len(whole) * part)])
            with pytest.raises(CourseError):
                dicom.read(file, last)


def test_without_preamble_and_without_meta(file):
    make(file, syntax=uid.ImplicitVRLittleEndian)
    data = file.read_bytes()
    file.write_bytes(data[data.index(b"\x08\x00\x16\x00") :])
    image = dicom.read(file)
    np.testing.assert_array_equal(image.pixels.ravel(), np.arange(16))
    assert any("DICM" in note for note in image.notes)


# ---- describe


def test_describe_reads_the_chest_film(samples):
    table = dicom.describe(samples / "RG1_UNCR.dcm")
    assert list(table.columns) == ["group", "attribute", "tag", "value", "identifies", "why"]
    row = table.set_index("attribute").loc
    assert row["Patient's Name"].tolist()[1:4] == ["(0010,0010)", "CompressedSamples^RG1", "yes"]
    assert row["Patient's Birth Date", "identifies"] == "with other data"
    assert row["Modality", "identifies"] == "no"
    assert row["Pixel Data", "value"] == "1955 x 1841"
    assert set(table.identifies) == {"yes", "with other data", "no"}
    assert set(table.group) == {"patient", "examination", "machine"}
    assert not table.isna().any(axis=None)


def test_describe_runs_on_every_sample_but_the_cut_one(samples):
    for name in TABLE:
        if "too_short" not in name:
            table = dicom.describe(samples / f"{name}.dcm")
            assert (table.value.str.len() <= 60).all()


def test_describe_knows_real_attributes_and_lists_private_ones_and_names(file):
    for line in dicom.ATTRIBUTES.strip().splitlines():
        keyword, group, identifies, why = line.split("|")
        assert pydicom.datadict.tag_for_keyword(keyword), keyword
        assert group in ("patient", "examination", "machine")
        assert (identifies == "no") == why.startswith("not listed"), keyword
    make(file, PatientMotherBirthName="Secret^Name", PatientName="")
    ds = pydicom.dcmread(file)
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "x")
    ds.save_as(file)
    rows = dicom.describe(file).set_index("attribute").loc
    assert rows["Patient's Mother's Birth Name", "identifies"] == "yes"
    assert rows["Private attributes", "value"] == "2 of them"
    assert rows["Patient's Name", "value"] == "(empty)"


# ---- write

GOOD = dict(synthetic=True, description="drawn by a test")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 48)])
def test_round_trip_is_exact(file, dtype, shape):
    x = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    assert dicom.write(file, x, **GOOD) == file
    image = dicom.read(file)
    np.testing.assert_array_equal(image.pixels, x)
    assert image.notes == ()
    assert image.bits == 8 * np.dtype(dtype).itemsize
    if dtype == "uint8":
        np.testing.assert_array_equal(image.window(), x)


def test_floats_and_views(file):
    x = np.random.default_rng(3).random((9, 9))
    x[0, 0], x[2, 2] = 0, 1
    dicom.write(file, x.T[::2], **GOOD)
    pixels = dicom.read(file).pixels
    assert np.abs(pixels / 65535 - x.T[::2]).max() <= 1 / 131070 + 1e-7
    assert (pixels.min(), pixels.max()) == (0, 65535)


@pytest.mark.parametrize("synthetic", [True, False])
def test_what_the_written_file_says(file, synthetic):
    dicom.write(
        file,
        np.zeros((3, 5), "u1"),
        synthetic=synthetic,
        description="é, tiré au sort",
        spacing_mm=(0.2, 0.1),
    )
    ds = pydicom.dcmread(file)
    assert ds.SyntheticData == ("YES" if synthetic else "NO")
    assert ds["SyntheticData"].tag == 0x0008001C
    assert ds.ImageType == ["DERIVED", "SECONDARY"]
    assert ds.DerivationDescription == "é, tiré au sort"
    assert ds.ConversionType == ("SYN" if synthetic else "WSD")
    assert (ds.SOPClassUID, ds.PhotometricInterpretation) == (uid.SecondaryCaptureImageStorage, "MONOCHROME2")
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "medimgen"
    assert ds.PixelSpacing == [0.2, 0.1]
    assert (ds.WindowCenter, ds.WindowWidth) == (128, 256)
    assert ds["PatientName"].is_empty != synthetic
    assert len(ds.PixelData) % 2 == 0
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        assert keyword in ds, f"type 2 attribute {keyword}"
    for keyword in ("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber"):
        assert keyword in ds, f"type 2 attribute {keyword}"
    dicom.write(file, np.zeros((3, 5), "u1"), overwrite=True, **GOOD)
    again = pydicom.dcmread(file)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert again[keyword].value != ds[keyword].value
        assert again[keyword].value.is_valid


def test_like_copies_geometry_and_no_person(samples, file):
    like = samples / "693_UNCR.dcm"
    dicom.write(file, np.zeros((512, 512), "u1"), like=like, **GOOD)
    image = dicom.read(file)
    assert image.spacing_mm == (0.478516, 0.478516)
    source = pydicom.dcmread(like)
    private = {str(e.value) for e in source if e.tag.group in (0x0008, 0x0010, 0x0020) and len(str(e.value)) > 5}
    written = {str(e.value) for e in image.header}
    assert not (private & written) - {str(source.get("SpecificCharacterSet")), "['DERIVED', 'SECONDARY']"}
    with pytest.raises(CourseError, match="spacing does not hold"):
        dicom.write(file, np.zeros((256, 256), "u1"), like=dicom.read(like), overwrite=True, **GOOD)
    dicom.write(file, np.zeros((256, 256), "u1"), like=like, spacing_mm=(1, 1), overwrite=True, **GOOD)
    assert dicom.read(file).spacing_mm == (1, 1)


def test_like_keeps_detector_spacing_under_its_name(tmp_path, file):
    source = make(tmp_path / "source.dcm", ImagerPixelSpacing=[0.2, 0.1], PatientOrientation=["L", "F"])
    dicom.write(file, np.zeros((4, 4), "u1"), like=source, **GOOD)
    image = dicom.read(file)
    assert image.spacing_from == "ImagerPixelSpacing"
    assert image.header.PatientOrientation == ["L", "F"]


BAD_PIXELS = {
    "colour": (np.zeros((4, 4, 3), "u1"), "one grey picture"),
    "empty": (np.zeros((0, 4), "u1"), "one grey picture"),
    "signed": (np.zeros((4, 4), "i2"), "not int16"),
    "bool": (np.zeros((4, 4), bool), "not bool"),
    "wide": (np.zeros((4, 4), "u4"), "not uint32"),
    "nan": (np.full((4, 4), np.nan), "16 pixels are NaN"),
    "infinite": (np.array([[np.inf, 0.0]]), "1 pixels are NaN or infinite"),
    "above": (np.array([[0.0, 1.01]]), "must lie in 0 .. 1"),
    "below": (np.array([[0.0, -1e-3]]), "must lie in 0 .. 1"),
}


@pytest.mark.parametrize("case", BAD_PIXELS)
def test_refused_pixels(file, case):
    pixels, what = BAD_PIXELS[case]
    with pytest.raises(CourseError, match=what):
        dicom.write(file, pixels, **GOOD)
    assert list(file.parent.iterdir()) == []


BAD_WORDS = [
    (dict(synthetic="yes"), "does not say"),
    (dict(synthetic=None), "does not say"),
    (dict(description=" "), "description"),
    (dict(description="x" * 1025), "description"),
    (dict(description=None), "description"),
    (dict(spacing_mm=(0, 1)), "two positive numbers"),
    (dict(spacing_mm=0.5), "two positive numbers"),
    (dict(spacing_mm=(1, np.nan)), "two positive numbers"),
    (dict(spacing_mm=("a", 1)), "two positive numbers"),
    (dict(like="no-such.dcm"), "there is no file"),
]


@pytest.mark.parametrize("change, what", BAD_WORDS)
def test_refused_words(file, change, what):
    with pytest.raises(CourseError, match=what):
        dicom.write(file, np.eye(3), **(GOOD | change))
    assert list(file.parent.iterdir()) == []


def test_synthetic_must_be_said(file):
    with pytest.raises(TypeError, match="synthetic"):
        dicom.write(file, np.eye(3), description="x")


def test_nothing_is_overwritten_unasked(file):
    dicom.write(file, np.zeros((2, 2)), **GOOD)
    before = file.read_bytes()
    with pytest.raises(CourseError, match=r"exists already\n  Next: .*overwrite=True"):
        dicom.write(file, np.ones((2, 2)), **GOOD)
    assert file.read_bytes() == before
    dicom.write(file, np.ones((2, 2)), overwrite=True, **GOOD)
    assert dicom.read(file).pixels.min() == 65535
    with pytest.raises(CourseError, match="is a folder"):
        dicom.write(file.parent, np.ones((2, 2)), overwrite=True, **GOOD)
    with pytest.raises(CourseError, match="there is no folder"):
        dicom.write(file.parent / "gone" / "film.dcm", np.ones((2, 2)), **GOOD)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(file, monkeypatch, failure, call):
    dicom.write(file, np.zeros((2, 2)), **GOOD)
    before = file.read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(CourseError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        dicom.write(file, np.ones((2, 2)), overwrite=True, **GOOD)
    if isinstance(failure, OSError):
        assert "No space left" in caught.value.what
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
