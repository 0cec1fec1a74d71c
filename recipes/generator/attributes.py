"""Attributes measured on films, as pure functions of arrays: the captions are written from them, and the same
functions measure the generated images again.

All take uint8 films (n, h, w), 0 black to 255 white, and return float arrays (n,). Nothing here is a clinical
measurement.
"""

import numpy as np
from scipy import ndimage

NAMES = ("exposure", "sharpness", "tilt", "lung_size", "opacity")


def exposure(images: np.ndarray) -> np.ndarray:
    """Mean brightness of the central three quarters, 0 to 1 (1 = white)."""
    _, h, w = images.shape
    inner = images[:, h // 8 : h - h // 8, w // 8 : w - w // 8]
    return inner.mean((1, 2)) / 255


def sharpness(images: np.ndarray) -> np.ndarray:
    """Share of fine detail: log10 of the standard deviation of what a Gaussian blur (sigma 1 pixel at 128)
    removes, over that of the whole film. Burned-in letters count too, so the middle 90 % of the removed values
    is used.
    """
    values = []
    for film in images.astype(np.float32):
        fine = film - ndimage.gaussian_filter(film, film.shape[0] / 128)
        low, high = np.quantile(fine, [0.05, 0.95])
        values.append(np.log10((high - low) / max(film.std(), 1e-3) + 1e-6))
    return np.array(values)


def tilt(images: np.ndarray, limit: float = 12.0, step: float = 1.0) -> np.ndarray:
    """Degrees by which the chest leans clockwise, from mirror symmetry.

    Each film, shrunk to 64 pixels and smoothed, is turned by -limit .. limit; at each angle it is compared with
    its mirror image at seven sideways shifts. The best angle is refined with a parabola through its neighbours.
    """
    import torch
    import torch.nn.functional as F

    angles = np.arange(-limit, limit + step / 2, step)
    x = torch.from_numpy(np.array(images)).float().unsqueeze(1)
    x = F.avg_pool2d(F.interpolate(x, size=(64, 64), mode="area"), 5, 1, 2)
    scores = torch.stack([_symmetry(_turn(x, a)) for a in angles], 1).numpy()
    best = scores.argmax(1).clip(1, len(angles) - 2)
    rows = np.arange(len(best))
    left, mid, right = scores[rows, best - 1], scores[rows, best], scores[rows, best + 1]
    bend = left - 2 * mid + right
    offset = np.where(np.abs(bend) > 1e-9, 0.5 * (left - right) / np.where(bend == 0, 1, bend), 0).clip(-1, 1)
    return -(angles[best] + offset * step)


def _turn(x, degrees: float):
    """Films turned clockwise by `degrees` about their middle."""
    import torch
    import torch.nn.functional as F

    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    theta = torch.tensor([[c, s, 0.0], [-s, c, 0.0]], dtype=torch.float32).repeat(len(x), 1, 1)
    return F.grid_sample(
        x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False, padding_mode="border"
    )


def _symmetry(x):
    """Highest correlation of the middle of each film with its mirror image, over small sideways shifts."""
    import torch

    scores = []
    for shift in range(-6, 7, 2):
        part = x[:, 0, 8:-8, 8 + shift : 56 + shift]
        a = part - part.mean((1, 2), keepdim=True)
        b = a.flip(-1)
        scores.append((a * b).sum((1, 2)) / (a.square().sum((1, 2)) + 1e-6))
    return torch.stack(scores, 1).max(1).values


def lung_size(masks: np.ndarray) -> np.ndarray:
    """Share of the film covered by the lung mask, 0 to 1; masks bool or 0 to 1, (n, h, w)."""
    return masks.astype(np.float32).mean((1, 2))


def opacity(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How white the inner lung is against the film's own dark (5 %) and bright (95 %) ends, 0 to 1; median over
    the mask.
    """
    values = []
    for film, mask in zip(images, masks > 0.5, strict=True):
        low, high = np.percentile(film, [5, 95])
        inside = film[mask]
        values.append((np.median(inside) - low) / max(high - low, 1) if inside.size > 50 else np.nan)
    return np.array(values)


def measure(
    images: np.ndarray, masks: np.ndarray | None = None, known: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """All attributes, by name; without a mask (or where `known` is False) lung size and opacity are NaN."""
    out = dict(exposure=exposure(images), sharpness=sharpness(images), tilt=tilt(images))
    none = np.full(len(images), np.nan)
    if masks is None:
        return out | dict(lung_size=none, opacity=none.copy())
    known = np.ones(len(images), bool) if known is None else known
    return out | dict(
        lung_size=np.where(known, lung_size(masks), np.nan), opacity=np.where(known, opacity(images, masks), np.nan)
    )


def cuts(values: dict[str, np.ndarray], low=0.25, high=0.75) -> dict[str, tuple[float, float]]:
    """The two values of each attribute that separate low, middle and high (quantiles over films)."""
    return {k: tuple(float(q) for q in np.nanquantile(v, [low, high])) for k, v in values.items()}


def levels(values: dict[str, np.ndarray], edges: dict[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    """-1 low, 0 middle, 1 high; -9 where not measured."""
    out = {}
    for k, v in values.items():
        level = (v > edges[k][1]).astype(int) - (v < edges[k][0]).astype(int)
        out[k] = np.where(np.isnan(v), -9, level)
    return out
