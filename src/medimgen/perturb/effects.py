"""What each perturbation does: name(float32 images (n, h, w) in 0..1, value in its unit, seed) -> images, new ones."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.special import ive

LATITUDE = 2 * np.log(10)  # natural logarithm of the exposure between white and black: a factor of 100
PHOTONS, FWHM = 5000, np.sqrt(8 * np.log(2))  # in a pixel of bare beam at width 128; in standard deviations
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


@lru_cache(16)
def _gaussian(sigma: float, n: int) -> np.ndarray:
    """Blur as a matrix (n, n). The discrete Gaussian of Lindeberg (1990) has just this variance, however small."""
    offsets = np.arange(-int(np.ceil(4 * sigma)) - 1, int(np.ceil(4 * sigma)) + 2)
    kernel, rows = ive(offsets, sigma**2), np.arange(n)[:, None]
    target = rows * n + np.clip(rows + offsets, 0, n - 1)  # beyond the border its pixels repeat
    weights = np.broadcast_to(kernel / kernel.sum(), target.shape)
    return np.bincount(target.ravel(), weights.ravel(), n * n).reshape(n, n).astype(np.float32)


def _coarse(n: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that average a line of n over pixels `factor` times as large, one on pixel n // 2, and read it back."""
    half = int(np.ceil(n / factor / 2))
    shrink = _reading(n // 2 + factor * np.arange(-half, half + 1), n, np.sqrt(factor**2 - 1))
    return shrink, _reading((np.arange(n) - n // 2) / factor + half, 2 * half + 1)


def _lines(images: np.ndarray, down: tuple[np.ndarray, ...], across: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """Apply matrices to all columns of the images, then to all rows, a block at a time to skip a matrix's zeros."""
    import torch

    films = torch.tensor(images)
    for matrix, axis in [(m, 1) for m in down] + [(m, 2) for m in across]:
        out = []
        for block in np.array_split(matrix, max(1, len(matrix) // 56)):
            used = np.flatnonzero(block.any(axis=0))
            part = slice(used[0], used[-1] + 1)
            weights = torch.tensor(block[:, part])
            out.append(weights @ films[:, part] if axis == 1 else films[:, :, part] @ weights.T)
        films = torch.cat(out, axis)
    return films.numpy()


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    return _lines(images, *((_gaussian(sigma, n),) for n in images.shape[1:]))


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
    import torch

    h, w = images.shape[1:]
    points = _path(seed) * pixels * w / 128
    low, edge = np.floor(points).astype(int), int(pixels * w / 256) + 2
    size = [32 * -(-(n + 2 * edge) // 32) for n in (h, w)]  # whole 32s are quick to transform
    spread = np.zeros(size, np.float32)
    for corner in np.ndindex(2, 2):
        share = np.abs(1 - np.array(corner) - (points - low)).prod(axis=1) / len(points)
        np.add.at(spread, tuple(((low + corner) % size).T), share)
    padded = np.pad(images, [(0, 0)] + [(edge, n - old - edge) for n, old in zip(size, (h, w), strict=True)], "edge")
    transfer, inside = torch.fft.rfft2(torch.tensor(spread)), (slice(edge, edge + h), slice(edge, edge + w))
    blurred = [torch.fft.irfft2(torch.fft.rfft2(torch.tensor(film)) * transfer, s=size)[inside] for film in padded]
    return torch.stack(blurred).numpy()


def breathing(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    h, w = images.shape[1:]
    return _lines(images, (_reading(np.arange(h), h, pixels * w / 128 * np.linspace(0, 1, h)),))


def focal_spot(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    return _blur(images, pixels / FWHM * images.shape[2] / 128)


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
    primary, axes = _transmitted(images), (_coarse(n, images.shape[2] / 32) for n in images.shape[1:])
    veil = _lines(2 * images * primary, *((shrink, back @ _gaussian(3.2, len(shrink))) for shrink, back in axes))
    return _grey((primary + np.float32(ratio) * veil) * np.float32(1 / (1 + ratio)))


def scanner(images: np.ndarray, gamma: float, seed: int) -> np.ndarray:
    """The blur grows with the tone curve: 1.5 (gamma - 1) pixels at 128, full width at half maximum."""
    blurred = _blur(images, 1.5 * (gamma - 1) / FWHM * images.shape[2] / 128)
    return np.maximum(blurred, 0) ** np.float32(gamma ** (-1.0) ** seed)


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
    stretch, (y, x) = float(np.sqrt(factor ** (-1.0) ** seed)), _axes(images)
    return _lines(images, (_reading(y * stretch - y[0], len(y)),), (_reading(x / stretch - x[0], len(x)),))


def inspiration(images: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    """Every row is read from below itself, most (by `pixels`) three quarters down, not at all at both ends; the
    seed makes the sides differ by up to a tenth either way."""
    y, x = _axes(images)
    t, tilt = (y - y[0]) / (2 * y[-1]), np.random.default_rng(seed).uniform(-0.1, 0.1)
    rise = pixels * len(x) / 128 * (256 / 27) * t**3 * (1 - t)
    return _warp(images, x - x[0], y - y[0] + rise * (1 + tilt * np.sin(np.pi / 2 * x / x[-1])))


def resolution(images: np.ndarray, factor: float, seed: int) -> np.ndarray:
    return _lines(images, *(_coarse(n, factor) for n in images.shape[1:]))


def jpeg(images: np.ndarray, quality: float, seed: int) -> np.ndarray:
    """Moved by 4 pixels first: a film that was a JPEG before would not change at its old quality and blocks."""
    out = images * np.float32(255)
    for film in out:
        file, levels = BytesIO(), np.rint(film).astype(np.uint8)
        Image.fromarray(np.pad(levels, 4, "edge")).save(file, "jpeg", quality=int(quality))
        np.divide(np.asarray(Image.open(file))[4:-4, 4:-4], np.float32(255), out=film)
    return out


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
