"""The perturbations beside other packages' operators: do the numbers agree, and who is faster?

    python recipes/benchmarks/perturb_peers.py [--only NAME ...] [--record]

SciPy, scikit-image and Pillow are always there; albumentations, MONAI, TorchIO and nrtk take part where they can be
imported (an environment of their own: `pip install albumentations monai torchio nrtk`). Each row is at severity 0.5,
seed 0, on real films of 224 pixels, one thread, in turns with ours. Difference: mean |ours - peer| inside the outer
tenth, as a share of mean |ours - film|; 0 is the same picture. Where an operator is only akin, it may be anything.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from PIL import Image
from scipy import ndimage
from threadpoolctl import threadpool_limits

from medimgen.data import radiographs
from medimgen.paths import ROOT
from medimgen.perturb import PERTURBATIONS, apply

RESULT = ROOT / "recipes" / "results" / "perturb_peers.json"
PEERS = ("scipy", "scikit-image", "pillow", "albumentations", "monai", "torchio", "nrtk")
S, SIZE, BATCH, ROUNDS = 0.5, 224, 16, 5
AT = {name: p.at(S) for name, p in PERTURBATIONS.items()}
SIGMA = AT["focal_spot"] / 2.3548 * SIZE / 128
BLUR = 1.5 * (AT["scanner"] - 1) / 2.3548 * SIZE / 128
OFFSET = AT["exposure"] / 20
LOW, HIGH = 0.5 - 0.5 / AT["contrast"], 0.5 + 0.5 / AT["contrast"]


def unit(film: np.ndarray) -> np.ndarray:
    return film.astype(np.float32) / 255


@cache
def impulse() -> np.ndarray:
    """What the motion does to one point: its kernel."""
    point = np.zeros((SIZE, SIZE), np.float32)
    point[112, 112] = 1
    return apply("motion", point, S)[96:129, 96:129]


@cache
def rise() -> np.ndarray:
    """Where each pixel is read from after shallow inspiration, from a ramp."""
    rows = np.broadcast_to(np.arange(SIZE, dtype=np.float32)[:, None], (SIZE, SIZE))
    return apply("inspiration", rows / SIZE, S) * SIZE


def scipy_breathing(film: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    travel = AT["breathing"] * SIZE / 128 * y / (SIZE - 1)
    steps = (np.arange(32) + 0.5) / 32 - 0.5
    moved = [ndimage.map_coordinates(unit(film), [y + t * travel, x], order=1, mode="nearest") for t in steps]
    return np.mean(moved, axis=0)


def scipy_scatter(film: np.ndarray) -> np.ndarray:
    grey = unit(film)
    primary = 10 ** (-2 * grey)
    veil = ndimage.gaussian_filter(2 * grey * primary, 0.1 * SIZE, mode="nearest")
    return -np.log10((primary + AT["scatter"] * veil) / (1 + AT["scatter"])) / 2


def scipy_aspect(film: np.ndarray) -> np.ndarray:
    step, middle = np.array([AT["aspect_ratio"] ** 0.5, AT["aspect_ratio"] ** -0.5]), (SIZE - 1) / 2
    return ndimage.affine_transform(unit(film), step, middle * (1 - step), order=1, mode="nearest")


def scipy_peers() -> dict[str, Callable]:
    return {
        "motion": lambda f: ndimage.convolve(unit(f), impulse(), mode="nearest"),
        "breathing": scipy_breathing,
        "focal_spot": lambda f: ndimage.gaussian_filter(unit(f), SIGMA, mode="nearest"),
        "scatter": scipy_scatter,
        "scanner": lambda f: ndimage.gaussian_filter(unit(f), BLUR, mode="nearest") ** AT["scanner"],
        "rotation": lambda f: ndimage.rotate(unit(f), AT["rotation"], reshape=False, order=1, mode="nearest"),
        "aspect_ratio": scipy_aspect,
        "inspiration": lambda f: ndimage.map_coordinates(
            unit(f), [rise(), np.arange(SIZE)[None] + 0 * rise()], order=1, mode="nearest"
        ),
    }


def scikit_image_peers() -> dict[str, Callable]:
    from skimage import exposure, filters, transform, util

    less = round(SIZE / AT["resolution"])
    return {
        "focal_spot": lambda f: filters.gaussian(unit(f), SIGMA, mode="nearest"),
        "dose": lambda f: util.random_noise(unit(f), "poisson", rng=0),
        "contrast": lambda f: exposure.rescale_intensity(unit(f), in_range=(LOW, HIGH), out_range=(0.0, 1.0)),
        "scanner": lambda f: exposure.adjust_gamma(filters.gaussian(unit(f), BLUR, mode="nearest"), AT["scanner"]),
        "rotation": lambda f: transform.rotate(unit(f), AT["rotation"], order=1, mode="edge"),
        "resolution": lambda f: transform.resize(
            transform.resize(unit(f), (less, less), order=1, anti_aliasing=True), (SIZE, SIZE), order=1
        ),
    }


def pillow_jpeg(film: np.ndarray) -> np.ndarray:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(film).save(file, "jpeg", quality=AT["jpeg"])
    return np.asarray(Image.open(file))


def pillow_peers() -> dict[str, Callable]:
    less = round(SIZE / AT["resolution"])
    smaller = partial(Image.Image.resize, size=(less, less), resample=Image.Resampling.BOX)
    larger = partial(Image.Image.resize, size=(SIZE, SIZE), resample=Image.Resampling.BILINEAR)
    return {
        "jpeg": pillow_jpeg,
        "resolution": lambda f: np.asarray(larger(smaller(Image.fromarray(f)))),
        "rotation": lambda f: np.asarray(Image.fromarray(f).rotate(AT["rotation"], Image.Resampling.BILINEAR)),
    }


def albumentations_peers() -> dict[str, Callable]:
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    quality, back, wide = AT["jpeg"], 1 / AT["resolution"], AT["aspect_ratio"] ** 0.5
    ways = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    blur = a.GaussianBlur(blur_limit=0, sigma_limit=(BLUR, BLUR), p=1)
    edge = {"border_mode": cv2.BORDER_REPLICATE, "p": 1}
    operators = {
        "motion": a.MotionBlur(blur_limit=(7, 7), p=1),
        "focal_spot": a.GaussianBlur(blur_limit=0, sigma_limit=(SIGMA, SIGMA), p=1),
        "dose": a.ShotNoise(scale_range=(0.1, 0.1), p=1),
        "exposure": a.RandomBrightnessContrast(brightness_limit=(OFFSET, OFFSET), contrast_limit=(0, 0), p=1),
        "scanner": a.Compose([blur, a.RandomGamma(gamma_limit=(100 * AT["scanner"],) * 2, p=1)]),
        "rotation": a.Rotate(limit=(AT["rotation"],) * 2, **edge),
        "aspect_ratio": a.Affine(scale={"x": (wide, wide), "y": (1 / wide, 1 / wide)}, **edge),
        "inspiration": a.ElasticTransform(alpha=50, sigma=10, **edge),
        "resolution": a.Downscale(scale_range=(back, back), interpolation_pair=ways, p=1),
        "jpeg": a.ImageCompression(quality_range=(quality, quality), p=1),
    }
    return {name: lambda f, o=o: o(image=f[:, :, None])["image"][:, :, 0] for name, o in operators.items()}


def monai_peers() -> dict[str, Callable]:
    import monai.transforms as m

    blur, gamma = m.GaussianSmooth(BLUR, approx="scalespace"), m.AdjustContrast(AT["scanner"])
    wide, angle = AT["aspect_ratio"] ** 0.5, -np.deg2rad(AT["rotation"])
    operators = {
        "focal_spot": m.GaussianSmooth(SIGMA, approx="scalespace"),
        "exposure": m.ShiftIntensity(OFFSET),
        "contrast": m.ScaleIntensityRange(LOW, HIGH, 0, 1, clip=True),
        "scanner": lambda f: gamma(blur(f)),
        "rotation": m.Rotate(angle, padding_mode="border", align_corners=True),
        "aspect_ratio": m.Affine(scale_params=(wide, 1 / wide), padding_mode="border", image_only=True),
        "inspiration": m.Rand2DElastic(spacing=(30, 30), magnitude_range=(5, 5), prob=1, padding_mode="border"),
    }
    return {name: lambda f, o=o: np.asarray(o(unit(f)[None]))[0] for name, o in operators.items()}


def torchio_peers() -> dict[str, Callable]:
    import torch
    import torchio as t

    wide = AT["aspect_ratio"] ** 0.5
    operators = {
        "focal_spot": t.Blur((SIGMA, SIGMA, 0)),
        "scanner": t.Compose([t.Blur((BLUR, BLUR, 0)), t.Gamma(AT["scanner"])]),
        "contrast": t.RescaleIntensity((0, 1), in_min_max=(LOW, HIGH)),
        "rotation": t.Affine((1, 1, 1), (0, 0, AT["rotation"]), (0, 0, 0)),
        "aspect_ratio": t.Affine((1 / wide, wide, 1), (0, 0, 0), (0, 0, 0)),
        "inspiration": t.RandomElasticDeformation(max_displacement=(5, 5, 0), locked_borders=2),
    }
    return {
        name: lambda f, o=o: o(torch.from_numpy(unit(f))[None, :, :, None]).numpy()[0, :, :, 0]
        for name, o in operators.items()
    }


def nrtk_peers() -> dict[str, Callable]:
    from nrtk.impls.perturb_image.photometric.blur import GaussianBlurPerturber
    from nrtk.impls.perturb_image.photometric.enhance import BrightnessPerturber, ContrastPerturber

    operators = {  # its kernel size sets sigma: 0.3 ((size - 1) / 2 - 1) + 0.8
        "focal_spot": GaussianBlurPerturber(ksize=2 * round((SIGMA - 0.8) / 0.3 + 1) + 1),
        "exposure": BrightnessPerturber(factor=1.5),
        "contrast": ContrastPerturber(factor=AT["contrast"]),
    }
    return {name: lambda f, o=o: o.perturb(image=f)[0] for name, o in operators.items()}


BUILD = (
    scipy_peers,
    scikit_image_peers,
    pillow_peers,
    albumentations_peers,
    monai_peers,
    torchio_peers,
    nrtk_peers,
)


def available() -> dict[str, dict[str, Callable]]:
    """The peers' operators that can be imported here, by package and perturbation."""
    found = {}
    for peer, build in zip(PEERS, BUILD, strict=True):
        try:
            found[peer] = build()
        except ImportError as missing:
            print(f"{peer}: not here ({missing})")
    return found


def difference(name: str, operator: Callable, film: np.ndarray) -> float:
    """Mean |ours - peer| inside the outer tenth, as a share of mean |ours - film|."""
    given = np.pad(film, 4, "edge") if name == "jpeg" else film  # ours moves the blocks by 4
    theirs = np.asarray(operator(given))
    theirs = unit(theirs) if theirs.dtype == np.uint8 else np.clip(theirs, 0, 1)
    theirs = theirs[4:-4, 4:-4] if name == "jpeg" else theirs
    inner, ours = np.s_[22:-22, 22:-22], apply(name, unit(film), S)
    return float(np.abs(ours - theirs)[inner].mean() / np.abs(ours - unit(film))[inner].mean())


def quanta() -> float:
    """Spread of our dose on a grey wedge over that of NumPy's exact Poisson counts, mean over the greys."""
    wedge = np.repeat(np.linspace(0.05, 0.7, 8), 28)[:, None] * np.ones(SIZE)
    quanta = 5000 * (128 / SIZE) ** 2 * 10 ** (-2 * wedge) * AT["dose"] / (1 - AT["dose"])  # the added noise alone
    exact = np.random.default_rng(1).poisson(quanta) / quanta
    ours = 10 ** (-2 * (apply("dose", wedge, S) - wedge))
    return float(np.mean([ours[i : i + 28].std() / exact[i : i + 28].std() for i in range(0, SIZE, 28)]))


def rate(run: Callable[[], object], films: int) -> float:
    start, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < 0.04:
        run()
        done += films
    return done / spent


def compare(name: str, operator: Callable, films: np.ndarray) -> dict[str, float]:
    runs = {
        "ours_per_s": (lambda: apply(name, films, S), len(films)),
        "ours_one_by_one_per_s": (lambda: apply(name, films[0], S), 1),
        "peer_per_s": (lambda: operator(films[0]), 1),
    }
    for run, _ in runs.values():
        run()
    rounds = [{key: rate(*run) for key, run in runs.items()} for _ in range(ROUNDS)]
    return {key: statistics.median(r[key] for r in rounds) for key in runs}


def main() -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.relative_to(ROOT).as_posix()}")
    parser.add_argument("--only", nargs="+", choices=PERTURBATIONS, default=[*PERTURBATIONS], metavar="NAME")
    arguments = parser.parse_args()
    if arguments.record and len(arguments.only) < len(PERTURBATIONS):
        parser.error("--record wants all perturbations, so not --only")
    with threadpool_limits(1):
        return measure(arguments)


def measure(arguments: argparse.Namespace) -> list[dict]:
    import torch

    torch.set_num_threads(1)
    films, rows = radiographs.load("pocket", size=SIZE).images[:BATCH], []
    peers = available()
    versions = {p: importlib.metadata.version(p) for p in [*peers, "numpy", "torch", "medimgen"]}
    print(versions, f"\n{'perturbation':13} {'peer':15} difference   ours/s  ours, one by one/s   peer/s   ratio")
    for name in arguments.only:
        for peer in [p for p in peers if name in peers[p]]:
            row = {"perturbation": name, "peer": peer, "difference": difference(name, peers[peer][name], films[0])}
            row |= compare(name, peers[peer][name], films)
            rows.append(row)
            print(
                f"{name:13} {peer:15} {row['difference']:10.3f} {row['ours_per_s']:8.0f} "
                f"{row['ours_one_by_one_per_s']:19.0f} "
                f"{row['peer_per_s']:8.0f} {row['ours_per_s'] / row['peer_per_s']:7.2f}",
                flush=True,
            )
    spread = quanta()
    print(f"dose: spread over that of exact Poisson counts {spread:.3f}")
    if arguments.record:
        result = {
            "s": S,
            "size": SIZE,
            "films": len(films),
            "cores": os.cpu_count(),
            "threads": 1,
            "versions": versions,
        }
        result |= {"rows": rows, "dose_spread_over_poisson": spread}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    return rows


if __name__ == "__main__":
    main()
