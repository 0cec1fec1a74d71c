"""Read one frame of a DICOM file as modality values."""

import operator
import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders import gdcm
from pydicom.pixels.utils import get_nr_frames

from medimgen.dicom.film import DicomImage, Table
from medimgen.errors import CourseError

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
KINDS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
}


def read(path, frame: int | None = None, *, colour: str = "refuse", rescale: bool = True) -> DicomImage:
    """Read one frame as grey modality values.

    Parameters
    ----------
    path : the file. frame : 0 .. n-1, needed when the file holds n > 1 frames.
    colour : "refuse", or "grey" to turn RGB, YBR and palette colour into luminance
        0.299 R + 0.587 G + 0.114 B, the Y of YBR_FULL (PS3.3 C.7.6.3.1.2), in 0 .. 2**bits - 1.
    rescale : False leaves the stored values as they are (no Rescale Slope, no Modality LUT: PS3.3 C.11.1).

    Raises
    ------
    CourseError : no such file, not DICOM, no pixels, cut short, a codec nobody here reads, colour or several
        frames without being told what to do, a Rescale that is not a number.
    """
    if colour not in ("refuse", "grey"):
        raise CourseError(f"colour={colour!r} is not known", next='pass colour="grey" or leave it out')
    notes = []
    with noting(notes):
        ds, broken = open_dataset(path, notes)
        _check_pixels(ds, path)
        frames = get_nr_frames(ds, warn=False)
        index = _pick(frame, frames, path)
        stored, bits = _stored(ds, index, path, colour)
        photometric = str(ds.PhotometricInterpretation)
        layers = _layers(ds, index)
        values, padded = stored.astype(np.float64), None
        if photometric.startswith("MONOCHROME"):
            padded = _padding(stored, ds, notes)
            if rescale:
                values = _modality_values(stored, ds, layers, broken, path)
            else:
                notes.append("rescale=False: these are stored values; the file's windows do not apply to them")
        values = _as_float32(values, padded, notes)
        image = _with_header(values, photometric, bits, frames, index, ds, layers, notes)
    image = replace(image, notes=tuple(dict.fromkeys(notes)))
    return image if rescale else replace(image, windows=(), tables=())


def _as_float32(values, padded, notes) -> np.ndarray:
    if np.abs(values).max() > 2**24:
        notes.append("values above 16,777,216 are rounded: float32 holds 24 bits")
    values = values.astype(np.float32)
    if padded is not None:
        values[padded] = np.nan
    return values


def _with_header(values, photometric, bits, frames, index, ds, layers, notes) -> DicomImage:
    spacing, source = _spacing(layers, notes)
    if str(ds.get("LossyImageCompression", "")) == "01":
        notes.append("the image has been through lossy compression: fine detail is not the machine's own")
    if photometric.startswith("MONOCHROME") and "RedPaletteColorLookupTableDescriptor" in ds:
        notes.append("the file adds a colour palette for part of the values; it is not applied")
    tables = tuple(_table(item, ds) for item in _first(layers, "VOILUTSequence") or ())
    header = pydicom.dataset.Dataset({e.tag: e for e in ds if e.keyword not in PIXELS})
    header.file_meta = ds.file_meta
    function = str(_first(layers, "VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append(f"VOI LUT Function {function} is not known: its windows are read as LINEAR")
        function = "LINEAR"
    return DicomImage(
        values,
        photometric,
        spacing,
        source,
        _windows(layers, function, notes),
        function,
        tables,
        str(ds.get("Modality", "")),
        bits,
        frames,
        index,
        header,
    )


@contextmanager
def noting(notes: list):
    """Keep pydicom's warnings from the reader: they end as one note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [w for w in caught if not issubclass(w.category, DeprecationWarning)]
    if said:
        first = str(said[0].message).splitlines()[0]
        notes.append(f"the file breaks the standard in {len(said)} place(s), the first: {first}")


def open_dataset(path, notes) -> tuple[Dataset, set]:
    """The data set and the keywords of its unreadable attributes (which it no longer holds)."""
    path = Path(path)
    if path.is_dir():
        raise CourseError(f"{path} is a folder", next="name one file in it: sorted(Path(folder).glob('*.dcm'))[0]")
    try:
        ds = pydicom.dcmread(path)
    except FileNotFoundError:
        raise CourseError(
            f"there is no file {path}",
            next="check the spelling and the folder; the course's own samples come with: medimgen fetch dicom-samples",
        ) from None
    except PermissionError:
        raise CourseError(f"{path} may not be read", next="ask for read permission, or copy the file") from None
    except InvalidDicomError:
        ds = _without_preamble(path, notes)
    except Exception as error:
        raise _damaged(path, error) from error
    if not len(ds):
        raise _damaged(path, "it holds no data set, only its opening")
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            uid.ExplicitVRBigEndian
            if not little
            else uid.ImplicitVRLittleEndian
            if implicit
            else uid.ExplicitVRLittleEndian
        )
        notes.append(f"the file does not say how it is encoded; read as {ds.file_meta.TransferSyntaxUID.name}")
    broken = set(_settle(ds))
    if broken:
        notes.append("attributes that cannot be read were left out: " + ", ".join(sorted(broken)))
    return ds, broken


def _damaged(path, why) -> CourseError:
    return CourseError(
        f"{Path(path).name} is cut short or damaged: {why}",
        next="compare its size with the original and copy or download the file again",
    )


def _without_preamble(path, notes) -> Dataset:
    """Old files lack the 128 bytes and "DICM" of PS3.10 7.1; accept one that names a DICOM SOP class."""
    with path.open("rb") as file:
        start = file.read(8)
    kind = next((name for magic, name in KINDS.items() if start.startswith(magic)), None)
    with suppress(Exception):
        ds = pydicom.dcmread(path, force=True)
        if not kind and str(ds.get("SOPClassUID", "")).startswith("1.2.840.10008."):
            notes.append("the file lacks the DICM mark of PS3.10; read as an old plain data set")
            return ds
    what = f"a {kind} file" if kind else "not a DICOM file" if start else "an empty file"
    action = "open it with PIL.Image.open" if kind in ("PNG", "JPEG") else "pass a DICOM file (often named .dcm)"
    raise CourseError(f"{path.name} is {what}", next=action)


def _settle(ds) -> list[str]:
    """Convert every attribute now, so that nothing warns or fails later; drop those that cannot be read."""
    broken = []
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
            for item in element.value if element.VR == "SQ" else ():
                broken += _settle(item)
        except Exception:
            broken.append(pydicom.datadict.keyword_for_tag(tag) or str(tag))
            del ds[tag]
    return broken


def _check_pixels(ds, path) -> None:
    if any(name in ds for name in PIXELS):
        return
    kind = uid.UID(str(ds.get("SOPClassUID") or "")).name or "DICOM file"
    raise CourseError(
        f"{Path(path).name} holds no pixels ({kind})",
        next="read its header with medimgen.dicom.describe(path), or pass an image file",
    )


def _pick(frame, frames, path) -> int:
    span = f"frame=0..{frames - 1}"
    if frame is None and frames > 1:
        raise CourseError(f"{Path(path).name} holds {frames} frames", next=f"pass one of {span}, e.g. read(path, 0)")
    try:
        index = operator.index(0 if frame is None else frame)
    except TypeError:
        index = -1
    if not 0 <= index < frames:
        raise CourseError(f"{Path(path).name} has no frame {frame!r}: it holds {frames}", next=f"pass {span}")
    return index


def _stored(ds, index, path, colour) -> tuple[np.ndarray, int]:
    """Decoded samples (h, w) in native byte order; colour as luminance, float64. And their bits."""
    array, info = _decode(ds, index, path)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    bits, kind = (
        int(ds.get("BitsStored") or 8 * array.dtype.itemsize),
        str(info["photometric_interpretation"]),
    )
    if kind.startswith("MONOCHROME") and array.ndim == 2:
        return array, bits
    if colour != "grey":
        raise CourseError(
            f"{Path(path).name} is a colour image ({ds.PhotometricInterpretation}); the course works on grey ones",
            next='read(path, colour="grey") gives its luminance',
        )
    if kind == "PALETTE COLOR":
        try:
            array = apply_color_lut(array, _native_palette(ds))
        except Exception as error:
            raise _damaged(path, f"its colour palette cannot be read ({error})") from error
        bits = 8 * array.dtype.itemsize
    elif kind != "RGB" or array.ndim != 3:
        raise CourseError(
            f"{Path(path).name} has the colour model {kind}, which is not supported",
            next="save it as RGB or grey in the programme that made it, then read that",
        )
    return array[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114]), bits


def _native_palette(ds) -> Dataset:
    """A data set whose palette has little-endian words: pydicom 3.0.2 takes them for that in any file."""
    if uid.UID(ds.file_meta.TransferSyntaxUID).is_little_endian or "RedPaletteColorLookupTableData" not in ds:
        return ds
    copy = Dataset({e.tag: e for e in ds if e.tag.group == 0x0028})
    for name in (f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")):
        words = np.frombuffer(copy[name].value, ">u2").astype("<u2")
        copy[name] = pydicom.DataElement(copy[name].tag, "OW", words.tobytes())
    return copy


def _decode(ds, index, path):
    syntax = uid.UID(ds.file_meta.TransferSyntaxUID)
    plugin = "gdcm" if gdcm.is_available(syntax) else ""
    try:
        if syntax.is_encapsulated and not plugin and syntax != uid.RLELossless:
            raise NotImplementedError
        if syntax == uid.JPEGExtended12Bit and ds.BitsStored != 8:  # GDCM reads 8 bits only
            raise NotImplementedError
        return get_decoder(syntax).as_array(ds, index=index, decoding_plugin=plugin)
    except NotImplementedError:
        raise CourseError(
            f"{Path(path).name} is compressed as {syntax.name}, which no decoder here reads",
            next="convert it to Explicit VR Little Endian where it was exported",
        ) from None
    except AttributeError as error:
        raise _damaged(path, f"an attribute of the image is missing ({error})") from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _damaged(path, f"its pixels ({syntax.name}) cannot be decoded: {reason[-1].strip()}") from error


def _layers(ds, index) -> list[Dataset]:
    """Where to look for an attribute: the frame's functional groups, the shared ones, the top level."""
    own = list(ds.get("PerFrameFunctionalGroupsSequence") or ())[index : index + 1]
    names = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
    groups = own + list(ds.get("SharedFunctionalGroupsSequence") or ())[:1]
    return [item for group in groups for name in names for item in list(group.get(name) or ())[:1]] + [ds]


def _first(layers, keyword):
    found = (layer.get(keyword) for layer in layers)
    return next((value for value in found if value not in (None, "") and value != []), None)


def _floats(value) -> list[float]:
    """Every number of an attribute; NaN for what is none."""
    if value is None:
        return []
    several = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    numbers = []
    for v in several:
        try:
            numbers.append(float(v))
        except (TypeError, ValueError):
            numbers.append(float("nan"))
    return numbers


def _padding(stored, ds, notes):
    """Mask of PS3.3 C.7.5.1.1.2: pixels put there to fill the rectangle, measured by nobody."""
    ends = _floats(ds.get("PixelPaddingValue")) + _floats(ds.get("PixelPaddingRangeLimit"))
    if not ends or not np.isfinite(ends).all():
        return None
    mask = (stored >= min(ends)) & (stored <= max(ends))
    if not mask.any() or mask.all():
        return None
    notes.append(f"{mask.mean():.1%} of the pixels are padding ({ends[0]:g} as stored): NaN in pixels, shown black")
    return mask


def _modality_values(stored, ds, layers, broken, path) -> np.ndarray:
    if tables := _first(layers, "ModalityLUTSequence"):
        return _table(tables[0], ds)(stored)
    slope, intercept = (_floats(_first(layers, name)) for name in ("RescaleSlope", "RescaleIntercept"))
    bad = broken & {"RescaleSlope", "RescaleIntercept"} or len(slope) > 1 or len(intercept) > 1
    if bad or not np.isfinite(slope + intercept).all() or 0 in slope:
        raise CourseError(
            f"{Path(path).name} has an unusable Rescale Slope {slope} or Intercept {intercept}",
            next="read(path, rescale=False) gives the stored values, without units",
        )
    return stored.astype(np.float64) * (slope or [1.0])[0] + (intercept or [0.0])[0]


def _table(item, ds) -> Table:
    try:
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        data = item["LUTData"].value
        if isinstance(data, bytes):
            entries = entries or 2**16
            wide = ("<" if uid.UID(ds.file_meta.TransferSyntaxUID).is_little_endian else ">") + "u2"
            data = np.frombuffer(data, "u1" if bits <= 8 and len(data) < 2 * entries else wide)
        values = np.atleast_1d(np.asarray(data, np.int64))[: entries or 2**16]
        if not values.size:
            raise ValueError("it is empty")
    except Exception as error:
        raise CourseError(
            f"a lookup table in the header cannot be read: {error}",
            next="read(path, rescale=False) leaves tables aside; ask for the file again",
        ) from error
    signed = ds.get("PixelRepresentation") == 1 and first > 2**15 - 1
    return Table(first - 2**16 if signed else first, bits, values)


def _spacing(layers, notes):
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        sizes = _floats(_first(layers, keyword))
        if len(sizes) == 2 and np.isfinite(sizes).all() and min(sizes) > 0:
            return tuple(sizes), keyword
        if sizes:
            notes.append(f"{keyword} is {sizes}: no size of a pixel, left aside")
    return None, None


def _windows(layers, function, notes):
    centres, widths = (_floats(_first(layers, name)) for name in ("WindowCenter", "WindowWidth"))
    least = 1 if function == "LINEAR" else 1e-9
    pairs = zip(centres, widths, strict=False)
    good = tuple((c, w) for c, w in pairs if np.isfinite([c, w]).all() and w >= least)
    if len(good) < max(len(centres), len(widths)):
        notes.append(f"of the windows {centres} and {widths} only {len(good)} can be used")
    return good
