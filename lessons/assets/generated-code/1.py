"""Save every film of a folder as PNG, and keep a log of what was done."""

import logging
from pathlib import Path

import pydicom
from PIL import Image

log = logging.getLogger("conversion")


def convert(source, target):
    """Write each DICOM film below `source` to `target` as 0001.png, 0002.png, ...; return how many."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(Path(source).rglob("*.dcm"))
    for number, path in enumerate(files, start=1):
        film = pydicom.dcmread(path)
        pixels = film.pixel_array.astype(float)
        pixels = 255 * (pixels - pixels.min()) / max(pixels.max() - pixels.min(), 1)
        Image.fromarray(pixels.astype("uint8")).save(target / f"{number:04}.png")
        log.info("%s: %s, taken on %s, saved as %04d.png", path.name, film.PatientName, film.StudyDate, number)
    return len(files)
