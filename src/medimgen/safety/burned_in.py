"""Text drawn into the pixels: find it, read it, cover it. No header tells, and no header cleaner removes it.

Two small networks of PaddleOCR (PP-OCRv4: one marks where text is, one reads a line) come out of the wheel
rapidocr-onnxruntime 1.4.4, by their hashes, and run in onnxruntime. The wheel's own code is not used: it needs OpenCV
and with it a graphics library that a bare Linux machine or Binder lacks. What stands around the networks here follows
Liao et al. 2020 (doi 10.1609/aaai.v34i07.6812) for finding and greedy CTC decoding for reading, lying text only.

It misses text, the more the fainter and smaller it is: recipes/results/burned_in.json says how often. A person looks
last.
"""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from medimgen.errors import CourseError
from medimgen.safety.rules import Finding

MODELS = "rapidocr-models"
SIDE, PIECE, OVERLAP = 736, 1024, 128  # pixels: smaller films are enlarged to SIDE, larger ones looked at in pieces
LIKELY, CERTAIN, GROW = 0.3, 0.5, 1.6  # chance of a text pixel, its mean over a region, growth: the wheel's settings


@dataclass(frozen=True)
class Box:
    """A line of text: rows `top` to `bottom`, columns `left` to `right` (ends excluded), what was read, how surely.

    `score` is the mean probability of the letters read, 0 to 1; `text` is "" where none was.
    """

    top: int
    left: int
    bottom: int
    right: int
    text: str = ""
    score: float = 0.0

    @property
    def kind(self) -> str:
        """ "side" for a lone L or R, "text" for two or more letters or digits read with 0.5 or more, else "unread"."""
        if self.text.strip(" .").upper() in ("L", "R"):
            return "side"
        return "text" if self.score >= 0.5 and sum(c.isalnum() for c in self.text) >= 2 else "unread"


def find(image: np.ndarray, zoom: float | None = None) -> list[Box]:
    """What looks like lying text in a picture, uint8 (h, w), from top to bottom; about 0.4 s for 224 x 224 pixels.

    `zoom` enlarges the picture before it is looked at; by default a shorter side below 736 pixels to 736, and larger
    ones not at all (2 s for 1400 x 1700). At zoom=2 letters of 8 pixels are found in films of that size too, in 7 s.
    Raises CourseError for anything but a grey uint8 picture, and where the networks cannot be fetched.
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype != np.uint8 or min(image.shape) < 8:
        raise CourseError(
            f"find needs a grey picture, uint8 (h, w), not {image.dtype} of shape {image.shape}",
            next="pass one film, e.g. medimgen.dicom.read(path).window()",
        )
    places = _places(image, max(1.0, SIDE / min(image.shape)) if zoom is None else zoom)
    return [Box(*place, *_read(image[place[0] : place[2], place[1] : place[3]])) for place in sorted(places)]


def mask(image: np.ndarray, boxes: Iterable[Box], margin: float = 0.5) -> np.ndarray:
    """A copy of a picture (h, w) or (h, w, c) with the boxes, grown by `margin` of their height all round, set to 0.

    Boxes of kind "unread" are anatomy more often than text: pass those of kind "text", and look at the others.
    """
    masked = np.array(image)
    for box in boxes:
        grow = math.ceil(margin * min(box.bottom - box.top, box.right - box.left))
        rows = slice(max(0, box.top - grow), box.bottom + grow)
        masked[rows, max(0, box.left - grow) : box.right + grow] = 0
    return masked


def check(path: str | Path, zoom: float | None = None) -> list[Finding]:
    """What is written in the pixels of a DICOM, PNG or JPEG file.

    A "stop" for each line read, of which no more than two letters are told, and one "look" for places that may be text;
    a side marker (a lone L or R) is neither. DICOM is looked at in its own window and over its full range, in its first
    and last frame. Raises CourseError if the file cannot be read or the networks cannot be had.
    """
    path, unread, lines = Path(path), 0, []
    for image in _pictures(path):
        boxes = find(image, zoom)
        unread = max(unread, sum(b.kind == "unread" and _is_long(b) for b in boxes))
        lines += [b for b in boxes if b.kind == "text" and not any(_overlap(a, b) for a in lines)]
    cover = "cover it (medimgen.safety.burned_in.mask), save it as a new file and look at that yourself"
    findings = []
    for b in lines:
        what = f"rows {b.top} to {b.bottom}, columns {b.left} to {b.right}: {len(b.text)} letters are drawn in"
        findings.append(Finding("no-identified-data", path.name, f"{what}, beginning with {b.text[:2]!a}", cover))
    if unread:
        what = f"{unread} place{'s' * (unread > 1)} in the picture may be text and could not be read"
        findings.append(Finding("no-identified-data", path.name, what, "look at the film at full size", "look"))
    return findings


def _is_long(b: Box) -> bool:
    """Whether a box has the shape of a line; rounder ones that read as nothing are anatomy, as a rule."""
    high, wide = b.bottom - b.top, b.right - b.left
    return max(high, wide) >= 2 * min(high, wide)


def _overlap(a: Box, b: Box) -> bool:
    return a.top < b.bottom and b.top < a.bottom and a.left < b.right and b.left < a.right


def _pictures(path: Path) -> Iterator[np.ndarray]:
    from medimgen import dicom, pictures

    try:
        yield np.asarray(pictures.grey(pictures.read(path)))
        return
    except pictures.NoPicture:
        first = dicom.read(path, frame=0, colour="grey")
    for film in [first] + [dicom.read(path, frame=first.frames - 1, colour="grey")] * (first.frames > 1):
        low, high = float(np.nanmin(film.pixels)), float(np.nanmax(film.pixels))
        yield film.window()
        yield film.window((low + high) / 2, high - low + 1)


@cache
def _network(name: str):
    import onnxruntime

    from medimgen.data.fetch import fetch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: its own choice
    path = fetch(MODELS) / f"ch_PP-OCRv4_{name}_infer.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@cache
def _letters() -> tuple[str, ...]:
    """What the reader's outputs stand for: CTC's blank, its letters, a space."""
    return "", *_network("rec").get_modelmeta().custom_metadata_map["character"].splitlines(), " "


def _run(name: str, grey: np.ndarray) -> np.ndarray:
    """Output of a network for one float picture (h, w) in -1 to 1, given to its three channels alike."""
    network = _network(name)
    return network.run(None, {network.get_inputs()[0].name: np.broadcast_to(grey, (1, 3, *grey.shape))})[0][0]


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 127.5 - 1


def _places(image: np.ndarray, zoom: float) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of what looks like a line of text in the picture enlarged `zoom` times."""
    from scipy import ndimage

    size = [max(32, round(side * zoom / 32) * 32) for side in image.shape]
    large, likely = _resized(image, *size), np.zeros(size, np.float32)
    for top in range(0, max(size[0] - OVERLAP, 1), PIECE - OVERLAP):
        for left in range(0, max(size[1] - OVERLAP, 1), PIECE - OVERLAP):
            piece = np.s_[top : top + PIECE, left : left + PIECE]
            likely[piece] = np.maximum(likely[piece], _run("det", large[piece])[0])
    labels, count = ndimage.label(likely > LIKELY, np.ones((3, 3)))
    found = []
    for spot, mean in zip(
        ndimage.find_objects(labels), ndimage.mean(likely, labels, np.arange(1, count + 1)), strict=True
    ):
        high, wide = (s.stop - s.start for s in spot)
        if min(high, wide) < 3 or mean < CERTAIN:
            continue
        grow = high * wide * GROW / (2 * (high + wide))  # the network marks the middle of a line only
        (top, bottom), (left, right) = (
            (max(0, math.floor((s.start - grow) * side / n)), min(side, math.ceil((s.stop + grow) * side / n)))
            for s, side, n in zip(spot, image.shape, size, strict=True)
        )
        found.append((top, left, bottom, right))
    return found


def _read(line: np.ndarray) -> tuple[str, float]:
    """The text of one line, uint8 (h, w), and the mean probability of its letters; an upright strip is turned."""
    line = np.rot90(line) if line.shape[0] >= 1.5 * line.shape[1] else line
    width = math.ceil(48 * line.shape[1] / line.shape[0])
    padded = np.zeros((48, max(320, width)), np.float32)
    padded[:, :width] = _resized(line, 48, width)
    chances = _run("rec", padded)
    best = chances.argmax(1)
    keep = (best != 0) & np.r_[True, best[1:] != best[:-1]]
    return "".join(_letters()[k] for k in best[keep]), float(chances.max(1)[keep].mean()) if keep.any() else 0.0
