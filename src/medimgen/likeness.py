"""How like one film is to another, by 511 signs from which no film can be drawn.

The signs of a film: grey, 64x64, discrete cosine transform, the signs of the 511 lowest frequencies without the
constant. They do not change with brightness or contrast. The distance of two films is the share of signs that
differ: 0 the same film, 0.5 two unrelated pictures; chest films of different children lie near 0.3.

A generator's folder holds the signs of the films that it learnt from (`likeness.npz`) and a threshold, so that an
image too like one of them is refused when somebody wants to save it (`medimgen.generate.save_png`).
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from medimgen import pictures
from medimgen.errors import CourseError

BITS, SIDE, FILE = 511, 64, "likeness.npz"


@cache
def lowest_frequencies() -> np.ndarray:
    """Flat positions of the 511 lowest frequencies of a 64x64 transform, the constant left out."""
    row, column = np.indices((SIDE, SIDE))
    return np.argsort((row + column).ravel(), kind="stable")[1 : BITS + 1]


def signs(picture: Image.Image | np.ndarray) -> np.ndarray:
    """bool (511,) of one picture: an image of any size and mode, or an array uint8 (h, w)."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8:
            raise CourseError(f"a picture of {picture.dtype}", next="pass uint8, e.g. (255 * picture).astype('uint8')")
        picture = Image.fromarray(picture)
    small = picture if picture.mode == "L" else pictures.grey(picture)
    method = Image.Resampling.BOX if min(small.size) >= SIDE else Image.Resampling.BILINEAR
    pixels = np.asarray(small.resize((SIDE, SIDE), method), dtype=np.float32)
    return dctn(pixels, norm="ortho").ravel()[lowest_frequencies()] > 0


def distances(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float (q, n): share of signs that differ, between bool (q, 511) and bool (n, 511); negatives count too."""
    a, b = (np.where(x, np.float32(1), np.float32(-1)) for x in (asked, known))
    return (1 - np.abs(a @ b.T) / BITS) / 2


def nearest(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float (n,): distance of each of `images`, uint8 (n, h, w), to its nearest neighbour in `known`, bool (m, 511)."""
    return distances(np.stack([signs(image) for image in images]), known).min(1)


def save(folder: Path, known: np.ndarray, threshold: float) -> None:
    """Write the signs of the films a model learnt from, bool (n, 511), and the distance that is too near for export."""
    np.savez_compressed(folder / FILE, signs=np.packbits(known, axis=1), threshold=np.float64(threshold))


def too_like(images: np.ndarray, folder: Path) -> np.ndarray:
    """bool (n,): images nearer than the threshold to a film that the model in `folder` learnt from.

    All False when the folder has no `likeness.npz` (a model that was trained elsewhere brings none).
    """
    if not (folder / FILE).is_file():
        return np.zeros(len(images), bool)
    with np.load(folder / FILE) as kept:
        known = np.unpackbits(kept["signs"], axis=1, count=BITS).astype(bool)
        return nearest(images, known) < float(kept["threshold"])
