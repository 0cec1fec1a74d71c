"""Eighteen things that happen to a radiograph before anyone reads it, each with a dial in a physical unit.

>>> from medimgen.perturb import PERTURBATIONS, apply
>>> apply("motion", film, s=0.25), PERTURBATIONS["motion"].at(0.25), PERTURBATIONS["motion"].unit
(the blurred film, 2.0, 'pixels at 128')

A severity s runs from 0 (the film as it is) to 1; `at` turns it into the unit, `plausible` says up to which s a film
could leave a department, and `source` why. What is random (a path, a noise field, which columns die) follows from the
seed alone, so raising s moves along one path. Where a change has two directions, even and odd seeds take one each.

The films are processed 8-bit pictures without pixel spacing or raw signal. Lengths are therefore pixels of a film
128 pixels wide, never mm (but see `millimetres` for DICOM files); where a plausible one comes from mm, 128 pixels are
taken to span 30 cm. Exposure is relative: grey falls with its logarithm, white to black is taken to be a factor of 100,
and a pixel of bare beam at width 128 to have collected 5,000 quanta, about as a detector pixel does. Not a test bench
for medical devices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medimgen.errors import CourseError
from medimgen.perturb import effects
from medimgen.perturb.votes import Limit, plausible_from

__all__ = ["PERTURBATIONS", "Limit", "Perturbation", "apply", "millimetres", "plausible_from", "show_gallery"]

BLOCK = 2**18  # pixels worked on at once
CHOICE = "authors' choice, to be replaced by readers' votes"


@dataclass(frozen=True)
class Perturbation:
    """One row of PERTURBATIONS.

    cause : what happens in the room. at : the value in `unit` for s in 0..1; at(0) is that of the film as it is.
    plausible, source : the s up to which a film could leave a department, and where that comes from.
    run : (images (n, h, w), severities (n,), seed) -> images of the same type: float32 in 0..1, which may leave that
        range, or uint8. It checks nothing; use `apply`.
    """

    name: str
    cause: str
    unit: str
    at: Callable[[float], float]
    plausible: float
    source: str
    run: Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def apply(name: str, images: np.ndarray, s: float | np.ndarray, seed: int = 0) -> np.ndarray:
    """Perturb grey images; the result has the dtype and shape of `images`, which stay as they were.

    Parameters
    ----------
    name : a key of PERTURBATIONS.
    images : (h, w) or (n, h, w), at least 16 x 16; uint8, or floating point in 0..1.
    s : severity in 0..1, one number or one for each image. An image with s = 0 is returned bit for bit.
    seed : 0 or more. Same image, s and seed: same result, whatever else is in the batch.

    Raises CourseError for an unknown name, s or seed out of range, and images other than those above.
    """
    images, severity = np.asarray(images), np.asarray(s, dtype=float)
    perturbation = _known(name)
    _check(images)
    stack = images if images.ndim == 3 else images[None]
    if severity.shape not in ((), stack.shape[:1]) or not ((severity >= 0) & (severity <= 1)).all():
        raise CourseError("s is not within 0..1, or not one for each image", next="pass one number, e.g. s=0.25")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise CourseError(f"the seed is {seed!r}", next="pass a whole number from 0 upwards")
    severity = np.broadcast_to(severity, stack.shape[:1])
    if not (touched := severity > 0).any():
        return images.copy()
    films, which = (stack, slice(None)) if touched.all() else (stack[touched], touched)
    films = films if images.dtype == np.uint8 else films.astype(np.float32, copy=False)
    changed, out = perturbation.run(films, severity[touched], int(seed)), stack.copy()
    out[which] = changed if images.dtype == np.uint8 else np.clip(changed, 0, 1, out=changed)
    return out.reshape(images.shape)


def _check(images: np.ndarray) -> None:
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise CourseError(f"images are {images.dtype}", next="use uint8, or floating point in 0..1")
    if images.ndim not in (2, 3) or (images.ndim == 3 and images.shape[-1] in (3, 4)):
        raise CourseError(f"images have shape {images.shape}", next="pass grey images (h, w) or (n, h, w), no colours")
    if not images.size or min(images.shape[-2:]) < 16:
        raise CourseError(f"images of shape {images.shape} are empty or too small", next="use 16 x 16 pixels or more")
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):  # a NaN fails both
        raise CourseError("images hold NaN or values outside 0..1", next="scale them first, e.g. images / 255")


def _perturbation(name: str, cause: str, unit: str, at: Callable, plausible: float, source: str) -> Perturbation:
    change = getattr(effects, name)

    def few(films: np.ndarray, value: float, seed: int) -> np.ndarray:
        if films.dtype != np.uint8 or name in effects.BYTES:
            return change(films, value, seed)
        table = name in effects.POINTWISE  # then 256 greys answer for all
        grey = (np.arange(256, dtype=np.float32).reshape(1, 16, 16) if table else films) / np.float32(255)
        grey = np.clip(change(grey, value, seed), 0, 1, dtype=np.float32)
        grey = np.rint(np.multiply(grey, np.float32(255), out=grey), out=grey).astype(np.uint8)
        if not table:
            return grey
        return np.frombuffer(films.tobytes().translate(grey.tobytes()), np.uint8).reshape(films.shape)

    def run(images: np.ndarray, s: np.ndarray, seed: int) -> np.ndarray:
        values, out = np.unique(s), np.empty(images.shape, images.dtype)
        some = max(1, BLOCK // (images.shape[1] * images.shape[2]))  # so many stay in the processor's cache
        if len(values) == 1 and len(images) <= some:
            return few(images, at(float(values[0])), seed)
        for value in values:  # films of equal severity go together
            rows = np.flatnonzero(s == value)
            for k in range(0, len(rows), some):
                part = slice(k, k + some) if len(values) == 1 else rows[k : k + some]
                out[part] = few(images[part], at(float(value)), seed)
        return out

    return Perturbation(name, cause, unit, at, plausible, source, run)


# fmt: off
_ROWS = (  # name, cause, unit, severity to unit, plausible up to, source of that
    ("motion", "The patient moves while the beam is on.", "pixels at 128", lambda s: 8 * s, 0.25, CHOICE),
    ("breathing", "The child breathes during the exposure: the lower on the film, the further it travels.",
     "pixels at 128, lower edge", lambda s: 8 * s, 0.15,
     "peak speed of the right diaphragm, breathing deeply, 27 mm/s (Hida 2019) for 100 ms: 2.7 mm"),
    ("focal_spot", "A large focal spot, or a patient far from the detector, casts half-shadows.",
     "pixels at 128, FWHM", lambda s: 4 * s, 0.03, "geometry, F (M - 1): spot 1.2 mm, magnification 1.25, so 0.3 mm"),
    ("dose", "Fewer X-ray quanta reach the detector: the film is grainy, most where it is white.", "relative dose",
     lambda s: 0.05**s, 0.23, "0.5: 3 in 10 exposures are off by a factor of 2 or more (Guðjónsdóttir 2020)"),
    ("exposure", "Too little (even seeds) or too much (odd) exposure, which the processing does not put right.",
     "deviation index (dB)", lambda s: 10 * s, 0.3, "3: exceeded by 3 in 10 exposures (Guðjónsdóttir 2020); "
     "the index: Seibert and Morin 2011"),
    ("contrast", "The window is narrower (even seeds) or wider.", "factor of width", lambda s: 1 + s, 0.3, CHOICE),
    ("scatter", "No grid, a thick chest or a wide field: scattered rays veil the film.", "scatter to primary, added",
     lambda s: 3 * s, 0.33, "1: half of what arrives is scatter; in the mediastinum it is more even behind a 12:1 "
     "grid, and 9 without (Niklason 1981)"),
    ("scanner", "Another system: its tone curve bends down (even seeds) or up (odd), and it is less sharp.",
     "exponent of the tone curve", lambda s: 1 + 0.8 * s, 0.25,
     f"{CHOICE}; no model carried over to another kind of response (Menéndez 2024)"),
    ("grid_lines", "A stationary grid leaves its lines, or their moiré.", "% of exposure", lambda s: 30 * s, 0.2,
     f"{CHOICE}; how they form: Lin 2006"),
    ("dead_columns", "Columns of the detector fail, and its correction misses them.", "columns in 128",
     lambda s: 12 * s, 0.17, f"{CHOICE}; quality control counts defective lines (Teramoto 2011)"),
    ("rotation", "The patient leans to one side (even seeds) or the other.", "degrees", lambda s: 20 * s, 0.25, CHOICE),
    ("collimation", "The collimator is closed further, on all four sides.", "% of the film, each side",
     lambda s: 25 * s, 0.34, "8.5 undoes a field 45 % too large, the mean over children (Tschauner 2016)"),
    ("aspect_ratio", "A film of another shape is squashed to a square: the chest is wider (even seeds) or narrower.",
     "factor", lambda s: 1 + 0.6 * s, 0.55, "1.33: 95 % of these films' originals are 1.03 to 2.04 times as wide as "
     "high, the median 1.39 (Kermany 2018)"),
    ("inspiration", "The breath is shallower: the diaphragm stands higher.", "pixels at 128", lambda s: 10 * s, 0.5,
     "11 mm, the mean travel of an adult's right diaphragm in quiet breathing (Yamada 2017)"),
    ("resolution", "The film is made smaller on its way, and larger again.", "factor of pixel size",
     lambda s: 1 + 5 * s, 0.2, f"{CHOICE}; models get smaller films (Haque 2023)"),
    ("jpeg", "The film is stored or sent as JPEG.", "quality, in steps of 5", lambda s: 100 - 5 * round(18 * s), 0.5,
     "55: about tenfold, at which JPEG 2000 shows no loss (Kim and Kim 2010)"),
    ("text", "A marker or label is burned into an upper corner, left (even seeds) or right (odd).",
     "letter height, pixels at 128", lambda s: 16 * s, 0.4, f"{CHOICE}; models learn whose films they are (Zech 2018)"),
    ("leads", "Electrodes and their wires lie on the chest.", "leads", lambda s: 6 * s, 5 / 6,
     f"{CHOICE}: 5, as in five-lead monitoring"),
)
# fmt: on
PERTURBATIONS = {row[0]: _perturbation(*row) for row in _ROWS}


def millimetres(name: str, s: float, film_width_mm: float | None) -> float | None:
    """The length that severity s of a perturbation has on a film of known width.

    film_width_mm : columns times their distance, e.g. `film.pixels.shape[1] * film.spacing_mm[1]` of a
        `dicom.DicomImage`; None where the file has no usable spacing (`dicom.read` leaves a spacing of 0 aside).
        With spacing from "ImagerPixelSpacing" the length is that at the detector, larger than at the patient.

    None where nothing can be said: without a width, and for perturbations whose unit is not a length in pixels.
    Raises CourseError for an unknown name, s outside 0..1, and a width that is not above 0.
    """
    p = _known(name)
    if not 0 <= s <= 1:
        raise CourseError(f"s is {s}, not within 0..1", next="pass one number, e.g. s=0.25")
    if film_width_mm is None or "pixels at 128" not in p.unit:
        return None
    if not 0 < film_width_mm < np.inf:
        raise CourseError(f"the film is {film_width_mm} mm wide", next="pass columns times their distance, or None")
    return p.at(s) * film_width_mm / 128


def _known(name: str) -> Perturbation:
    if name not in PERTURBATIONS:
        raise CourseError(f"there is no perturbation {name!r}", next=f"choose from {', '.join(PERTURBATIONS)}")
    return PERTURBATIONS[name]


def show_gallery(image: np.ndarray, s: float | None = None, seed: int = 0):
    """Draw the grey film (h, w) and its eighteen perturbations, at s or each at its plausible limit; the figure."""
    import matplotlib.pyplot as plt

    bare = {"frame_on": False, "xticks": [], "yticks": []}
    figure, axes = plt.subplots(4, 5, figsize=(12, 10.5), layout="constrained", subplot_kw=bare)
    pictures = [("the film", np.asarray(image))]
    for p in PERTURBATIONS.values():
        severity = p.plausible if s is None else s
        pictures.append((f"{p.name} {p.at(severity):.3g}\n{p.unit}", apply(p.name, image, severity, seed)))
    for axis, (title, film) in zip(axes.flat, pictures, strict=False):
        axis.imshow(film, cmap="gray", vmin=0, vmax=255 if film.dtype == np.uint8 else 1)
        axis.set_title(title, fontsize=9)
    return figure
