"""Picture files that are no DICOM (PNG, JPEG, TIFF ...), read in one place, so that bad ones are refused alike."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from medimgen.errors import CourseError

BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for a bad file


class NoPicture(CourseError):
    """A file that does not begin like any picture: it may still be a DICOM file."""


def read(path: str | Path, draft: str | None = None) -> Image.Image:
    """The first picture of a file, decoded whole and as it is stored; what else the file says is in `.info`.

    `draft="L"` lets a colour JPEG be decoded to its brightness only, in half the time. Raises NoPicture for an empty
    file and one that is no picture, CourseError for a file that is missing, cut short or damaged.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            picture.draft(draft, picture.size)
            picture.load()
            return picture
    except UnidentifiedImageError as error:
        what = "no picture that can be opened" if path.stat().st_size else "empty"
        raise NoPicture(f"{path.name} is {what}", next="give a whole PNG or JPEG file") from error
    except BROKEN as error:
        what = f"cannot read {path.name}: {getattr(error, 'strerror', None) or error}"
        raise CourseError(what, next="check the path, and that the file is whole") from error


def grey(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits of grey (mode L). Colour becomes its luminance.

    Deeper pixels (16 bits, float) are stretched from the darkest to the brightest, over 1 unit or more; Pillow would
    cut them off at 255. NaN and infinite ones become 0 first.
    """
    if picture.mode[0] not in "IF":
        return picture.convert("L")
    x = np.nan_to_num(np.asarray(picture, float), posinf=0, neginf=0)
    return Image.fromarray((255 * (x - x.min()) / max(1, np.ptp(x))).astype(np.uint8))
