"""Write a picture as a DICOM Secondary Capture."""

import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.valuerep import format_number_as_ds

from medimgen import __version__
from medimgen.dicom.film import DicomImage
from medimgen.dicom.reading import read
from medimgen.errors import CourseError


def write(path, pixels, *, synthetic: bool, description: str, like=None, spacing_mm=None, overwrite=False) -> Path:
    """Write one grey picture as DICOM and return its path; `read` gives whole numbers back exactly.

    The SOP class is Secondary Capture (PS3.3 A.8.1), not Digital X-Ray: the latter must describe a detector,
    a tube and the anatomy in the beam, which a picture made or changed by a programme cannot honestly do.

    pixels : (h, w) uint8, uint16, or float in 0 .. 1 (stored as 16 bits, so exact to 1/131070). MONOCHROME2.
    synthetic : True writes SyntheticData = YES and a made-up patient, for what a generator drew; False writes
        NO and leaves the patient empty, for a real film that was changed. Text in the picture is your affair.
    description : what was done, 1 to 1024 characters, for DerivationDescription: never put a name in it.
    like : DicomImage or path, whose pixel spacing and patient orientation are copied, and nothing else.
    spacing_mm : (row, column) in millimetres; goes before `like`.

    The file is made under a temporary name beside `path`, then renamed: a full disk leaves nothing behind.
    Raises CourseError for colour, NaN, values or types out of range, an existing file (unless `overwrite`), a
    missing folder, or a disk that refuses.
    """
    path = Path(path)
    if not isinstance(synthetic, (bool, np.bool_)):
        raise CourseError(f"synthetic={synthetic!r} does not say what this is", next="pass synthetic=True or False")
    if not isinstance(description, str) or not description.strip() or len(description) > 1024:
        raise CourseError(
            "description must say in 1 to 1024 characters how the picture came about",
            next="pass e.g. description=\"drawn by cxr-mini from the prompt 'normal chest', seed 7\"",
        )
    check_target(path, overwrite)
    stored = _as_stored(pixels)
    ds = _instance(stored, bool(synthetic), description.strip())
    _add_geometry(ds, like, spacing_mm, stored.shape)
    save(ds, path, overwrite)
    return path


def check_target(path: Path, overwrite: bool) -> None:
    """Raise CourseError unless a file may be written at `path`."""
    if path.is_dir():
        raise CourseError(f"{path} is a folder", next=f"name a file in it, e.g. {path / 'film.dcm'}")
    if not path.parent.is_dir():
        raise CourseError(f"there is no folder {path.parent}", next="make it: Path(...).mkdir(parents=True)")
    if path.exists() and not overwrite:
        raise CourseError(f"{path} exists already", next="choose another name, or pass overwrite=True")


def _as_stored(pixels) -> np.ndarray:
    x = np.asarray(pixels)
    if x.ndim != 2 or not x.size or max(x.shape) > 65535:
        raise CourseError(
            f"write takes one grey picture of shape (h, w), 1 to 65535 a side, not {x.shape}",
            next="pass one frame; turn colour into grey first, e.g. skimage.color.rgb2gray(pixels)",
        )
    if x.dtype.kind == "u" and x.dtype.itemsize <= 2:
        return np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
    if x.dtype.kind != "f":
        raise CourseError(
            f"write takes uint8, uint16 or float, not {x.dtype}",
            next="convert on purpose: mask.astype('uint8') * 255, or (values - low).astype('uint16')",
        )
    if not np.isfinite(x).all():
        raise CourseError(
            f"{int((~np.isfinite(x)).sum())} pixels are NaN or infinite",
            next="fill them first, e.g. np.nan_to_num(pixels, nan=0.0)",
        )
    if x.min() < 0 or x.max() > 1:
        raise CourseError(
            f"float pixels must lie in 0 .. 1; these run from {x.min():.4g} to {x.max():.4g}",
            next="scale them, or write window(image), which is uint8",
        )
    return np.floor(x.astype(np.float64) * 65535 + 0.5).astype("<u2")


def _instance(stored, synthetic, description) -> Dataset:
    """A Secondary Capture instance with new UIDs (2.25., PS3.5 B.2); type 1 and 2 attributes filled."""
    bits, word = 8 * stored.dtype.itemsize, "YES" if synthetic else "NO"
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, uid.generate_uid(prefix=None)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid.generate_uid(prefix=None), uid.generate_uid(prefix=None)
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = None
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ds.PatientOrientation = None
    if synthetic:
        ds.PatientName, ds.PatientID = "Synthetic^Not a person", "SYNTHETIC"
    ds.SyntheticData = word
    ds.Modality, ds.ConversionType = "OT", "SYN" if synthetic else "WSD"
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "medimgen", 1, 1
    ds.DerivationDescription = description
    ds.ContributingEquipmentSequence = [_equipment(synthetic)]
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits  # the identity, PS3.3 C.11.2.1.2.1 note 4
    data = stored.tobytes()
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))
    return ds


def _equipment(synthetic) -> Dataset:
    purpose = Dataset()  # PS3.16 CID 7005, Contributing Equipment Purpose of Reference
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = "medimgen", "medimgen, a course; not a medical device"
    item.SoftwareVersions = __version__
    item.ContributionDescription = "Drew the picture" if synthetic else "Changed or re-encoded the picture"
    return item


def _add_geometry(ds, like, spacing_mm, shape) -> None:
    keyword = "PixelSpacing"
    if like is not None:
        like = like if isinstance(like, DicomImage) else read(like)
        orientation = like.header.get("PatientOrientation")
        if orientation:
            ds.PatientOrientation = list(orientation)
        if spacing_mm is None and like.spacing_mm:
            if like.pixels.shape != shape:
                raise CourseError(
                    f"the picture is {shape}, `like` is {like.pixels.shape}: its pixel spacing does not hold",
                    next="pass spacing_mm=(row, column) of the new pixels, in millimetres",
                )
            spacing_mm, keyword = like.spacing_mm, like.spacing_from
    if spacing_mm is None:
        return
    try:
        row, column = (float(v) for v in spacing_mm)
    except (TypeError, ValueError):
        row = column = float("nan")
    if not (np.isfinite([row, column]).all() and min(row, column) > 0):
        raise CourseError(
            f"spacing_mm={spacing_mm!r} is not two positive numbers",
            next="pass (row, column) in millimetres, e.g. spacing_mm=(0.143, 0.143)",
        )
    setattr(ds, keyword, [format_number_as_ds(row), format_number_as_ds(column)])


def save(ds: Dataset, path: Path, overwrite: bool) -> None:
    """Write a data set under a temporary name beside `path`, then rename it; CourseError if the disk refuses."""
    temporary = path.with_name(f".medimgen-{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            ds.save_as(file, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        check_target(path, overwrite)
        temporary.replace(path)
    except OSError as error:
        raise CourseError(
            f"{path} could not be written: {error.strerror or error}",
            next="free some space or choose a folder you may write to; no half file was left",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
