"""Films to be tested, read a few at a time: arrays, picture files, DICOM files or a folder of either."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medimgen import pictures
from medimgen.errors import CourseError

PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Source:
    """Films not read yet: an array (n, h, w), or a list of arrays or paths; `size` squashes them to a square."""

    films: np.ndarray | list
    size: int | None

    def name(self, i: int) -> str:
        """File name of a film, else its number."""
        return self.films[i].as_posix() if isinstance(self.films[i], Path) else str(i)

    def part(self, start: int, stop: int) -> "Source":
        """Some of the films, to hand to a worker."""
        return Source(self.films[start:stop], self.size)

    def key(self) -> str:
        """Hash of the films: of the pixels of arrays; of name, size and time of files."""
        known = [f"{f} {f.stat().st_size} {f.stat().st_mtime_ns}".encode() if isinstance(f, Path) else _bytes(f)
                 for f in self.films]  # fmt: skip
        return hashlib.sha256(str(self.size).encode() + b"".join(known)).hexdigest()

    def read(self) -> tuple[np.ndarray, list[str], dict[int, str]]:
        """Pictures float32 (n, h, w) in 0..1, the sha256 of each, and what kept a film from being read."""
        found, hashes, faults = {}, [], {}
        for i, film in enumerate(self.films):
            hashes.append(hashlib.sha256(_bytes(film)).hexdigest())
            try:
                found[i] = _squash(_grey(film), self.size)
            except (CourseError, OSError, ValueError) as error:
                faults[i] = f"not read: {getattr(error, 'what', error)}"
        blank = np.zeros_like(next(iter(found.values()), np.zeros((8, 8), np.float32)))
        return np.stack([found.get(i, blank) for i in range(len(self.films))]), hashes, faults


def source(images, size: int | None = None) -> Source:
    """The films of `images`: an array (n, h, w) or (n, 1, h, w) of uint8 or of floats in 0..1, a list of pictures,
    a file, a folder (searched to the bottom), or a list of files. Raises CourseError for what cannot be films.
    """
    if isinstance(images, str | Path):
        root = Path(images)
        images = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file() and _is_film(p))
        if not images:
            raise CourseError(f"{root} holds no PNG, JPEG or DICOM file", next="check the folder's name")
    if isinstance(images, list | tuple) and len(images):
        images = [Path(film) if isinstance(film, str) else film for film in images]
        sides = {None if isinstance(film, Path) else np.shape(film) for film in images}
        if size is None and (len(sides) > 1 or None in sides):
            raise CourseError("the films may differ in size", next="pass the size the model wants, e.g. size=224")
        return Source(images, size)
    if isinstance(images, np.ndarray) and images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if not isinstance(images, np.ndarray) or images.ndim != 3 or not images.size:
        shape = getattr(images, "shape", type(images).__name__)
        raise CourseError(f"films must be grey pictures (n, h, w), not {shape}", next="pass one grey channel")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise CourseError(f"films of type {images.dtype}", next="divide by the largest value the detector can give")
    return Source(images, size)


def _bytes(film) -> bytes:
    return film.read_bytes() if isinstance(film, Path) else np.ascontiguousarray(film).tobytes()


def _is_film(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() in PICTURES or file.read(132)[128:] == b"DICM"


def _grey(film) -> np.ndarray:
    """One picture float32 (h, w) in 0..1. 16-bit files are read by the smallest of 10, 12, 14, 16 bits that fits."""
    if isinstance(film, Path) and film.suffix.lower() not in PICTURES:
        from medimgen import dicom

        return dicom.read(film).window() / np.float32(255)
    if isinstance(film, Path):
        film = pictures.read(film)
        film = np.asarray(film.convert("RGB") if film.mode == "P" else film)
        if film.ndim == 3 and (film == film[..., :1]).all():
            film = film[..., 0]
    film = np.asarray(film)
    if film.ndim != 2 or not film.size or film.dtype.kind not in "uif":
        raise CourseError(f"{film.dtype} of shape {film.shape} is no grey picture", next="turn colour into grey first")
    if film.dtype.kind in "ui":
        bits = 8 if film.dtype == np.uint8 else next((b for b in (10, 12, 14) if film.max() < 2**b), 16)
        film = film / np.float32(2**bits - 1)
    if not (film.min() >= 0 and film.max() <= 1):
        raise CourseError("pixels are NaN or outside 0..1", next="scale the film to 0..1")
    return film.astype(np.float32)


def _squash(picture: np.ndarray, size: int | None) -> np.ndarray:
    if size is None or picture.shape == (size, size):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.HAMMING)).clip(0, 1)
