"""What each perturbation does: name(float32 images (n, h, w) in 0..1, value in its unit, seed) -> images, new ones.

Those in BYTES also take uint8 images and return them rounded: no pass over the films is spent on scaling grey values.
Those in POINTWISE look at one pixel at a time, whatever its place.
"""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.special import ive

LATITUDE = 2 * np.log(10)  # natural logarithm of the exposure between white and black: a factor of 100
PHOTONS, FWHM = 5000, np.sqrt(8 * np.log(2))  # in a pixel of bare beam at width 128; in standard deviations
BYTES = {"motion", "breathing", "focal_spot", "scanner", "aspect_ratio", "resolution", "jpeg"}
POINTWISE = {"exposure", "contrast"}
MARKS = ("R", "L", "AP", "PA", "SUPINE", "ERECT")


def _transmitted(images: np.ndarray) -> np.ndarray:
    """Relative exposure behind a grey value: 1 in black, 0.01 in white."""
    return np.exp(scaled := images * np.float32(-LATITUDE), out=scaled)


def _grey(exposure: np.ndarray) -> np.ndarray:
    out = np.maximum(exposure, np.float32(1e-9))
    return np.multiply(np.log(out, out=out), np.float32(-1 / LATITUDE), out=out)


def _axes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row (h, 1) and column (w,) positions, in pixels from the middle."""
    h, w = images.shape[1:]
    return np.arange(h, dtype=np.float32)[:, None] - (h - 1) / 2, np.arange(w, dtype=np.float32) - (w - 1) / 2


def _reading(positions: np.ndarray, n: int, reach: float | np.ndarray | None = None) -> np.ndarray:
    """Matrix (m, n): reads a line of n pixels at m positions, linearly; with a reach, the mean of 32 spread over it."""
    positions = np.ravel(positions)[:, None]
    if reach is not None:
        positions = positions + np.reshape(reach, (-1, 1)) * ((np.arange(32) + 0.5) / 32 - 0.5)
    positions = np.clip(positions, 0, n - 1)
    (m, k), left = positions.shape, np.minimum(positions.astype(int), n - 2)
    share, cell = (positions - left).ravel() / k, (np.arange(m)[:, None] * n + left).ravel()
    weights = np.bincount(cell, 1 / k - share, m * n) + np.bincount(cell + 1, share, m * n)
    return weights.reshape(m, n).astype(np.float32)


def _gaussian(sigma: float, n: int) -> np.ndarray:
    """Blur as a matrix (n, n). The discrete Gaussian of Lindeberg (1990) has just this variance, however small."""
    offsets = np.arange(-int(np.ceil(4 * sigma)) - 1, int(np.ceil(4 * sigma)) + 2)
    kernel, rows = ive(offsets, sigma**2), np.arange(n)[:, None]
    target = rows * n + np.clip(rows + offsets, 0, n - 1)  # beyond the border its pixels repeat
    weights = np.broadcast_to(kernel / kernel.sum(), target.shape)
    return np.bincount(target.ravel(), weights.ravel(), n * n).reshape(n, n).astype(np.float32)


def _travelled(pixels: float, n: int) -> np.ndarray:
    """Matrix (n, n): the mean over a way that grows from nothing in the first row to `pixels` in the last."""
    return _reading(np.arange(n), n, pixels * np.linspace(0, 1, n))


def _stretched(factor: float, n: int) -> np.ndarray:
    """Matrix (n, n): stretches around the middle, beyond the border its pixels repeat."""
    return _reading((np.arange(n) - (n - 1) / 2) / factor + (n - 1) / 2, n)


def _shrunk(factor: float, n: int) -> np.ndarray:
    """Matrix (m, n): averages over pixels `factor` times as large, one of them on pixel n // 2."""
    half = int(np.ceil(n / factor / 2))
    return _reading(n // 2 + factor * np.arange(-half, half + 1), n, np.sqrt(factor**2 - 1))


def _grown(factor: float, n: int) -> np.ndarray:
    """Matrix (n, m): reads a line back from pixels `factor` times as large."""
    half = int(np.ceil(n / factor / 2))
    return _reading((np.arange(n) - n // 2) / factor + half, 2 * half + 1)


def _coarse(factor: float, n: int) -> np.ndarray:
    return _grown(factor, n) @ _shrunk(factor, n)


def _veiled(factor: float, n: int) -> np.ndarray:
    grown = _grown(factor, n)
    return grown @ _gaussian(3.2, grown.shape[1])


@lru_cache(32)
def _bands(matrix: Callable[..., np.ndarray], *sizes: float) -> list[tuple[slice, slice, np.ndarray]]:
    """matrix(*sizes) in blocks of 32 rows without the zeros at their sides: (rows, columns, weights)."""
    made, blocks = matrix(*sizes), []
    for start in range(0, len(made), 32):
        block = made[start : start + 32]
        used = np.flatnonzero(block.any(axis=0))
        columns = slice(used[0], used[-1] + 1)
        blocks.append((slice(start, start + len(block)), columns, np.ascontiguousarray(block[:, columns])))
    return blocks


def _lines(images: np.ndarray, *passes: tuple, tone: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """Apply each pass, the bands of a matrix for all columns and of one (or None) for all rows, then a tone curve; film
    by film, so that all of it stays in the processor's cache."""
    out = np.empty(images.shape, images.dtype)
    for film, result in zip(images, out, strict=True):
        film = film.astype(np.float32, copy=False)
        for down, across in passes:
            source, film = film, np.empty((down[-1][0].stop, film.shape[1]), np.float32)
            for rows, used, weights in down:
                np.matmul(weights, source[used], out=film[rows])
            if across:
                source, film = film, np.empty((len(film), across[-1][0].stop), np.float32)
                for rows, used, weights in across:
                    np.matmul(source[:, used], weights.T, out=film[:, rows])
        _store(result, film if tone is None else tone(film))
    return out


def _store(out: np.ndarray, film: np.ndarray) -> None:
    out[...] = np.rint(film, out=film) if out.dtype == np.uint8 else film


def _blur(sigma: float, h: int, w: int) -> tuple:
    return _bands(_gaussian, sigma, h), _bands(_gaussian, sigma, w)


def _warp(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read images at the positions x, y (h, w), in pixels, bilinearly; beyond the border its pixels repeat."""
    import torch

    grid = np.empty((1, *images.shape[1:], 2), np.float32)
    for i, (positions, n) in enumerate(((x, images.shape[2]), (y, images.shape[1]))):
        grid[0, ..., i] = positions * np.float32(2 / (n - 1)) - np.float32(1)
    films, grid = torch.from_numpy(images)[None], torch.from_numpy(grid)
    return torch.nn.functional.grid_sample(films, grid, padding_mode="border", align_corners=True)[0].numpy()


@lru_cache(8)
def _path(seed: int, k: int = 96) -> np.ndarray:
    """A gently bending path (k, 2) of length 1 around its mean: constant speed, the bend a slow random wave."""
    rng, t = np.random.default_rng(seed), np.arange(k) / k
    bend = sum(rng.uniform(-0.6, 0.6) * np.sin(np.pi * m * t + rng.uniform(0, 2 * np.pi)) for m in (1, 2))
    angle = rng.uniform(0, 2 * np.pi) + bend
    points = np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1), axis=0) / k
    return points - points.mean(axis=0)


def motion(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    """The weighted sum of the film in all places it was in, a pixel apart: rows lie one behind the other, so that a
    place is one offset into them."""
    from scipy.linalg.blas import saxpy

    h, w = images.shape[1:]
    points, edge = _path(seed) * pixels * w / 128, int(pixels * w / 256) + 2
    low, spread = np.floor(points).astype(int), np.zeros((2 * edge + 1, 2 * edge + 1), np.float32)
    for corner in np.ndindex(2, 2):
        share = np.abs(1 - np.array(corner) - (points - low)).prod(axis=1) / len(points)
        np.add.at(spread, tuple((edge - low - corner).T), share)
    places, out = np.argwhere(spread), np.empty(images.shape, images.dtype)
    for film, result in zip(np.pad(images, [(0, 0), (edge, edge), (edge, edge)], "edge"), out, strict=True):
        line, wide = film.astype(np.float32).ravel(), w + 2 * edge
        total = np.zeros(h * wide, np.float32)
        for y, x in places:
            total = saxpy(line, total, n=h * wide - 2 * edge, a=spread[y, x], offx=y * wide + x)
        _store(result, total.reshape(h, wide)[:, :w])
    return out


def breathing(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    return _lines(images, (_bands(_travelled, pixels * images.shape[2] / 128, images.shape[1]), None))


def focal_spot(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    return _lines(images, _blur(pixels / FWHM * images.shape[2] / 128, *images.shape[1:]))


@lru_cache(8)
def _noise(seed: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((h, w), dtype=np.float32)


def dose(images: np.ndarray, relative: float, seed: int) -> np.ndarray:
    """The film already holds the noise of the full dose: only the difference is added. Quantum noise is Poisson's:
    the root of a count spreads by 1/2 (Anscombe 1948), which keeps counts positive and skewed when they are few."""
    h, w = images.shape[1:]
    spread = np.float32(np.sqrt((1 / relative - 1) / PHOTONS) * w / 128)  # of a count, relative to it, in black
    root = np.exp(scaled := images * np.float32(LATITUDE / 2), out=scaled)
    root *= spread / 2 * _noise(seed, h, w)
    return images + 2 * _grey(root + 1)


def exposure(images: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    return images + np.float32(np.log(10) * deviation / 10 / LATITUDE * (-1) ** seed)


def contrast(images: np.ndarray, width: float, seed: int) -> np.ndarray:
    return (images - np.float32(0.5)) * np.float32(width ** (-1.0) ** seed) + np.float32(0.5)


def scatter(images: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Quanta scatter where tissue stops them, in proportion to p log(1 / p) for a primary p, so none in air, and
    spread over a tenth of the film; scaled to `ratio` on an even mid-grey, which keeps its grey (exposure control)."""
    primary, (h, w) = _transmitted(images), images.shape[1:]
    shrunk, veiled = (tuple(_bands(m, w / 32, n) for n in (h, w)) for m in (_shrunk, _veiled))
    veil = _lines(2 * images * primary, shrunk, veiled)
    return _grey((primary + np.float32(ratio) * veil) * np.float32(1 / (1 + ratio)))


def scanner(images: np.ndarray, gamma: float, seed: int) -> np.ndarray:
    """The blur grows with the tone curve: 1.5 (gamma - 1) pixels at 128, full width at half maximum."""
    h, w = images.shape[1:]
    exponent, white = gamma ** (-1.0) ** seed, 255 if images.dtype == np.uint8 else 1

    def tone(film: np.ndarray) -> np.ndarray:  # the logarithm is faster than a power
        np.log(np.maximum(film, np.float32(1e-9), out=film), out=film)
        film *= np.float32(exponent)
        film += np.float32(np.log(white) * (1 - exponent))
        return np.exp(film, out=film)

    return _lines(images, _blur(1.5 * (gamma - 1) / FWHM * w / 128, h, w), tone=tone)


def grid_lines(images: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Upright lines with a period of 3 to 7 pixels at 128, by the seed."""
    w, rng = images.shape[2], np.random.default_rng(seed)
    turns = np.arange(w) / (rng.uniform(3, 7) * w / 128) + rng.uniform()
    return images + _grey(1 + percent / 100 * np.cos(2 * np.pi * turns)).astype(np.float32)


def dead_columns(images: np.ndarray, columns: float, seed: int) -> np.ndarray:
    """No exposure is read in them: they are white. Only whole columns die."""
    out, w = images.copy(), images.shape[2]
    out[:, :, np.random.default_rng(seed).permutation(w)[: round(columns * w / 128)]] = 1
    return out


def rotation(images: np.ndarray, degrees: float, seed: int) -> np.ndarray:
    angle, (y, x) = np.deg2rad(degrees * (-1) ** seed), _axes(images)
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    return _warp(images, cosine * x - sine * y - x[0], sine * x + cosine * y - y[0])


def collimation(images: np.ndarray, percent: float, seed: int) -> np.ndarray:
    (y, x), (h, w), share = _axes(images), images.shape[1:], 0.5 - percent / 100
    return images * np.clip(h * share + 0.5 - np.abs(y), 0, 1) * np.clip(w * share + 0.5 - np.abs(x), 0, 1)


def aspect_ratio(images: np.ndarray, factor: float, seed: int) -> np.ndarray:
    stretch, (h, w) = float(np.sqrt(factor ** (-1.0) ** seed)), images.shape[1:]
    return _lines(images, (_bands(_stretched, 1 / stretch, h), _bands(_stretched, stretch, w)))


def inspiration(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    """Every row is read from below itself, most (by `pixels`) three quarters down, not at all at both ends; the
    seed makes the sides differ by up to a tenth either way."""
    y, x = _axes(images)
    t, tilt = (y - y[0]) / (2 * y[-1]), np.random.default_rng(seed).uniform(-0.1, 0.1)
    rise = pixels * len(x) / 128 * (256 / 27) * t**3 * (1 - t)
    return _warp(images, x - x[0], y - y[0] + rise * (1 + tilt * np.sin(np.pi / 2 * x / x[-1])))


def resolution(images: np.ndarray, factor: float, seed: int) -> np.ndarray:
    return _lines(images, tuple(_bands(_coarse, factor, n) for n in images.shape[1:]))


def jpeg(images: np.ndarray, quality: float, seed: int) -> np.ndarray:
    """Moved by 4 pixels first: a film that was a JPEG before would not change at its old quality and blocks."""
    h, w = images.shape[1:]
    levels = images if images.dtype == np.uint8 else np.rint(images * np.float32(255)).astype(np.uint8)
    levels = np.pad(levels, [(0, 0), (4, 4 + -h % 8), (4, 4 + -w % 8)], "edge")
    file, page = BytesIO(), levels.reshape(-1, levels.shape[2])  # films of whole blocks make one page: less to set up
    Image.fromarray(page).save(file, "jpeg", quality=int(quality))
    out = np.asarray(Image.open(file)).reshape(levels.shape)[:, 4 : 4 + h, 4 : 4 + w]
    return out if images.dtype == np.uint8 else out / np.float32(255)


@lru_cache(8)
def _mark(seed: int) -> np.ndarray:
    """A word of MARKS in letters 64 pixels high, 0..1, in a margin of 1."""
    font, page = ImageFont.load_default(size=90), Image.new("L", (900, 200))
    ImageDraw.Draw(page).text((20, 20), MARKS[np.random.default_rng(seed).integers(len(MARKS))], 255, font)
    word = page.crop(page.getbbox())
    word = word.resize((round(word.width * 64 / word.height), 64))
    return np.pad(np.asarray(word, dtype=np.float32) / 255, 1)


def text(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    """Burned in white, 4 % away from the borders; a word that is too long is cut off."""
    h, w = images.shape[1:]
    word, scale, ink = _mark(seed), pixels * w / 128 / 64, []
    left = max(0.96 * w - scale * (word.shape[1] - 2), 0) if seed % 2 else 0.04 * w
    for n, first, m in zip((h, w), (0.04 * h, left), word.shape, strict=True):
        where = np.arange(int(first), min(n, int(first + scale * m) + 1))
        ink.append((slice(where[0], where[-1] + 1), _reading((where + 0.5 - first) / scale + 0.5, m, 1 / scale)))
    (y, rows), (x, columns) = ink
    out = images.copy()
    out[:, y, x] += (1 - out[:, y, x]) * (rows @ word @ columns.T)
    return out


@lru_cache(2)
def _shadows(seed: int, h: int, w: int) -> np.ndarray:
    """(6, h, w): six electrodes on shoulders and ribs, about 5 pixels at 128 wide, each with a wire leading down."""
    rng, scale, t, shadows = np.random.default_rng(seed), 4 if h * w < 2**19 else 1, np.linspace(0, 1, 40)[:, None], []
    places = np.array([[0.2, 0.15], [0.2, 0.85], [0.55, 0.12], [0.62, 0.88], [0.8, 0.3], [0.78, 0.68]])
    for start in rng.permutation(places) + rng.uniform(-0.05, 0.05, (6, 2)):
        middle, end = rng.uniform(0.3, 0.8, 2), np.array([1.05, rng.uniform(0.1, 0.9)])
        wire = ((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end) * (h * scale, w * scale)
        page = Image.new("L", (w * scale, h * scale))
        draw, (y, x), r = ImageDraw.Draw(page), wire[0], 2.5 * scale * w / 128
        draw.line([(x, y) for y, x in wire], fill=140, width=round(0.9 * scale * w / 128), joint="curve")
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        shadows.append(np.asarray(page.reduce(scale), dtype=np.float32) / 255)
    return np.stack(shadows)


def leads(images: np.ndarray, number: float, seed: int) -> np.ndarray:
    """Each adds its attenuation, 0.3 of the grey scale in an electrode; the last may be there in part."""
    present = np.clip(number - np.arange(6), 0, 1).astype(np.float32)
    return images + np.float32(0.3) * np.tensordot(present, _shadows(seed, *images.shape[1:]), 1)
