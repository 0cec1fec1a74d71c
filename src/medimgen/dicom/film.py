"""One frame of a DICOM file, and how it is shown."""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medimgen.errors import CourseError


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table of PS3.3 C.11.1 or C.11.2: `values[x - first]`, entries of `bits` bits, ends held."""

    first: int
    bits: int
    values: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Look up `x` (any shape, rounded to whole numbers; NaN counts as 0); float64 of the same shape."""
        place = np.rint(np.nan_to_num(np.asarray(x, np.float64))) - self.first
        return self.values[np.clip(place, 0, len(self.values) - 1).astype(np.int64)].astype(np.float64)


@dataclass(frozen=True, eq=False)
class DicomImage:
    """One frame of a DICOM file.

    pixels : (h, w) float32 in modality units (Hounsfield units for CT); NaN where the file says "padding".
    photometric : as written, e.g. MONOCHROME2 (low values dark) or MONOCHROME1 (low values light).
    spacing_mm, spacing_from : (row, column) millimetres, and "PixelSpacing" (at the patient, or calibrated),
        else "ImagerPixelSpacing" (at the detector: anatomy looks larger than it is); None, None if neither.
    windows : ((centre, width), ...) as written, in the units of `pixels`.
    voi_function, tables : LINEAR, LINEAR_EXACT or SIGMOID; the VOI lookup tables of the file.
    modality, bits : e.g. "CR"; bits stored in a sample (of the palette's entries for palette colour).
    frames, frame : how many frames the file holds, and which one this is.
    header : pydicom Dataset without pixel data. notes : what the reader should know about this file.
    """

    pixels: np.ndarray
    photometric: str
    spacing_mm: tuple[float, float] | None
    spacing_from: str | None
    windows: tuple[tuple[float, float], ...]
    voi_function: str
    tables: tuple[Table, ...]
    modality: str
    bits: int
    frames: int
    frame: int
    header: Dataset
    notes: tuple[str, ...] = ()

    def window(self, centre: float | None = None, width: float | None = None) -> np.ndarray:
        """The displayed picture, see `window`."""
        return window(self, centre, width)


def window(image, centre: float | None = None, width: float | None = None) -> np.ndarray:
    """The picture as it is shown: uint8 (h, w), 0 black .. 255 white, bone light.

    image : a `DicomImage` (MONOCHROME1 is inverted), or an array (h, w), as MONOCHROME2. NaN is black.
    centre, width : in the units of the pixels; what is left out comes from the default: the first window in
    the file, else its first VOI lookup table, else the range from the 1st to the 99th percentile, or for
    colour turned grey all of 0 .. 2**bits - 1.

    The linear window is PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w-1)/2, white above c - 0.5 + (w-1)/2. A
    file may ask for LINEAR_EXACT or SIGMOID instead (C.11.2.1.3). Raises CourseError for a width below 1, a
    centre that is not finite, or an array that is not one grey picture.
    """
    film = image if isinstance(image, DicomImage) else None
    x = np.asarray(film.pixels if film else image)
    if x.ndim != 2 or not x.size or x.dtype.kind not in "biuf":
        raise CourseError(
            f"window needs numbers of shape (h, w), not {x.dtype} of shape {x.shape}",
            next="pass one grey frame, e.g. window(read(path).pixels)",
        )
    x = x.astype(np.float64)
    if film and film.tables and not film.windows and centre is None and width is None:
        y = film.tables[0](x) / (2 ** film.tables[0].bits - 1)
    else:
        usual = _default_window(x, film)
        y = _voi(
            x,
            usual[0] if centre is None else centre,
            usual[1] if width is None else width,
            film.voi_function if film else "LINEAR",
        )
    if film and film.photometric == "MONOCHROME1":
        y = 1 - y
    return np.where(np.isnan(x), 0, np.floor(255 * np.clip(np.nan_to_num(y), 0, 1) + 0.5)).astype(np.uint8)


def _voi(x, centre, width, function):
    if not (np.isfinite(centre) and np.isfinite(width) and (width >= 1 or (width > 0 and function != "LINEAR"))):
        raise CourseError(
            f"no window has centre {centre} and width {width}",
            next="pass a finite centre and a width of 1 or more, e.g. window(image, 40, 400)",
        )
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (x - centre) / width + 0.5
    if width == 1:
        return (x > centre - 0.5).astype(np.float64)
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def _default_window(x, film) -> tuple[float, float]:
    if film and film.windows:
        return film.windows[0]
    real = x[np.isfinite(x)]
    low, high = np.percentile(real, (1, 99)) if real.size else (0, 1)
    if low == high and real.size:
        low, high = real.min(), real.max()
    if film and not film.photometric.startswith("MONOCHROME"):
        low, high = 0, 2**film.bits - 1
    exact = bool(film) and film.voi_function == "LINEAR_EXACT"
    if low == high:  # one value only: shown as mid-grey
        return low + (0 if exact else 0.5), 2.0
    return ((low + high) / 2, high - low) if exact else ((low + high + 1) / 2, high - low + 1)
