"""Find licensed pictures and texts in the repository's own files. The test beside this file uses it.

Pictures: every image file, image embedded as base64 in a notebook, page or drawing, array file, DICOM file
and member of a zip or tar; whole, cut along plain borders into panels, and cut into regular tiles.
Text: every other file, read as words; notebooks cell by cell.
"""

import base64
import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import make_film_hashes as film
import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".ico", ".ppm", ".pgm"}
TILES = (28, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
WORDS_IN_A_ROW = 8
SMALLEST = 24
EMBEDDED = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/=\s]{200,}")


def repository_files(root: Path) -> list[Path]:
    """Files that git tracks or would add; a file listed but deleted is left out. Fails where git does."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode("utf-8")
    return sorted({path for name in listed.split("\0") if name and (path := root / name).is_file()})


def grey_frames(data: bytes) -> Iterator[Image.Image]:
    """The frames of an encoded image in grey; transparent parts become white."""
    with Image.open(io.BytesIO(data)) as picture:
        for frame in ImageSequence.Iterator(picture):
            if frame.mode in ("I", "F") or frame.mode.startswith("I;16"):
                yield from grey_slices(np.asarray(frame))
            elif frame.has_transparency_data:
                paper = Image.new("RGBA", frame.size, "white")
                yield Image.alpha_composite(paper, frame.convert("RGBA")).convert("L")
            else:
                yield frame.convert("L")


def grey_slices(array: np.ndarray) -> Iterator[Image.Image]:
    """Every plane (last two axes; or the last three for colour) of a numeric array, stretched to 0..255."""
    if array.ndim >= 3 and array.shape[-1] in (3, 4):
        array = array[..., :3].mean(-1)
    if array.ndim < 2 or array.dtype.kind not in "uif" or min(array.shape[-2:]) < SMALLEST:
        return
    for plane in array.reshape(-1, *array.shape[-2:]).astype(np.float32):
        low, high = np.nanmin(plane), np.nanmax(plane)
        if np.isfinite(high - low) and high > low:
            yield Image.fromarray(np.nan_to_num((plane - low) / (high - low) * 255).astype(np.uint8))


def dicom_frames(data: bytes) -> Iterator[Image.Image]:
    """The planes of a DICOM file, where it has pixels."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" in dataset:
        yield from grey_slices(dataset.pixel_array)


def array_frames(data: bytes) -> Iterator[Image.Image]:
    """The planes of a .npy file."""
    yield from grey_slices(np.load(io.BytesIO(data), allow_pickle=False))


def members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a zip (npz and whl too) or tar archive."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from ((f"{name}!{m}", archive.read(m)) for m in archive.namelist() if not m.endswith("/"))
    else:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile():
                    yield f"{name}!{member.name}", archive.extractfile(member).read()


def pictures(name: str, data: bytes) -> Iterator[tuple[str, Image.Image]]:
    """(where, grey picture) for every picture that a file holds, however deep.

    Raises ValueError for a file that calls itself a picture and cannot be opened: nobody could check it.
    """
    suffix = Path(name.split("!")[-1]).suffix.lower()
    readers = {".npy": array_frames, ".dcm": dicom_frames} | dict.fromkeys(PICTURES, grey_frames)
    if suffix in readers:
        try:
            yield from ((name, frame) for frame in readers[suffix](data))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{name} is no readable {suffix} file: {error}") from error
    elif suffix in (".zip", ".npz", ".whl", ".tar", ".tgz", ".gz"):
        for inner, content in members(name, data):
            yield from pictures(inner, content)
    elif data[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"GIF8"):
        yield from ((name, frame) for frame in grey_frames(data))
    elif (text := readable(data)) is not None:
        for number, match in enumerate(EMBEDDED.finditer(text.replace("\\n", "")), start=1):
            yield from embedded(f"{name}, embedded picture {number}", match.group())


def embedded(where: str, code: str) -> Iterator[tuple[str, Image.Image]]:
    """The frames of a picture written as base64; text that only looks like one gives nothing."""
    code = re.sub(r"\s", "", code).rstrip("=")
    try:
        decoded = base64.b64decode(code[: len(code) // 4 * 4 + (len(code) % 4 > 1) * (len(code) % 4)] + "==")
        yield from ((where, frame) for frame in grey_frames(decoded))
    except (ValueError, OSError, SyntaxError):
        return


def readable(data: bytes) -> str | None:
    """The file as text, or None for a binary file."""
    try:
        return None if b"\0" in data[:4096] else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def plain_runs(plain: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each stretch that is not plain border."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], plain, [True]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def panels(pixels: np.ndarray, depth: int = 5) -> Iterator[np.ndarray]:
    """The picture and every panel that plain lines of its border's colour cut out of it, panels in panels too."""
    if min(pixels.shape) < SMALLEST:
        return
    if 0.3 < pixels.shape[0] / pixels.shape[1] < 3.3:
        yield pixels
    paper = np.bincount(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])).argmax()
    same = np.abs(pixels.astype(np.int16) - paper) <= 3
    rows, columns = plain_runs(same.all(1)), plain_runs(same.all(0))
    if depth and (rows, columns) != ([(0, pixels.shape[0])], [(0, pixels.shape[1])]):
        for top, bottom in rows:
            for left, right in columns:
                yield from panels(pixels[top:bottom, left:right], depth - 1)


def tiles(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The squares of a contact sheet without borders, for every usual size that divides the picture."""
    for side in TILES:
        rows, columns = (n // side for n in pixels.shape)
        if (rows * side, columns * side) == pixels.shape and 1 < rows * columns <= 400:
            yield from pixels.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def film_matches(found: Iterable[tuple[str, Image.Image]], known: np.ndarray) -> list[str]:
    """One sentence for each picture that is, or contains, a film of the manifest."""
    complaints = []
    for where, picture in found:
        pixels = np.asarray(picture)
        asked = [film.questions(Image.fromarray(panel)) for panel in panels(pixels)]
        small = [film.signs(Image.fromarray(tile))[None] for tile in tiles(pixels)]
        for hashes, limit in ((asked, film.THRESHOLD), (small, film.EXACT)):
            distance = film.distances(np.concatenate(hashes), known).min(0) if hashes else np.ones(1)
            if distance.min() < limit:
                which = film.films()[distance.argmin()]
                complaints.append(f"{where} shows the film {which} (distance {distance.min():.3f})")
                break
    return complaints


def words(text: str) -> list[str]:
    """The words and numbers of a text, in small letters."""
    return re.findall(r"[a-z0-9]+", text.lower())


def runs(text: str) -> Iterator[str]:
    """Every eight consecutive words of a text, joined by spaces."""
    found = words(text)
    return (" ".join(found[i : i + WORDS_IN_A_ROW]) for i in range(len(found) - WORDS_IN_A_ROW + 1))


def texts(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(where, text): a notebook cell by cell with its outputs, any other text file as one piece."""
    text = readable(data)
    if text is None:
        return
    if name.endswith(".ipynb"):
        for number, cell in enumerate(json.loads(text).get("cells", []), start=1):
            yield from ((f"{name}, cell {number}", piece) for piece in strings(cell))
    else:
        yield name, text


def strings(thing: object) -> Iterator[str]:
    """Every string in a JSON document; a list of strings is one text, as notebooks write it."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from strings(value)
    elif isinstance(thing, list) and thing and all(isinstance(part, str) for part in thing):
        yield "".join(thing)
    elif isinstance(thing, list):
        for part in thing:
            yield from strings(part)


def report_runs(reports: Iterable[str]) -> set[str]:
    """Every eight consecutive words of the licensed reports."""
    return {run for report in reports for run in runs(report)}


def report_matches(found: Iterable[tuple[str, str]], licensed: set[str]) -> list[str]:
    """One sentence for each text that holds eight consecutive words of a licensed report."""
    hits = ((where, next((run for run in runs(text) if run in licensed), None)) for where, text in found)
    return [f"{where} quotes a licensed report: “{run}”" for where, run in hits if run]
