"""What a whole robustness test costs, beside a grid built from other packages' operators.

    python recipes/benchmarks/robustness.py [job missed workers stream profile] [--record] [--quick]

job      smallest flipping severity of 100 dev films of 224 pixels under all perturbations, classifier included: the
         sweep, and a grid of other packages' operators that misses no larger share of the crossings.
missed   crossings that the sweep finds late or not at all, against a grid of 100 steps refined to 0.001.
workers  two processes against one: cold, warm, and by way of `joblib.parallel_config`.
stream   20,000 files through a cheap model with a resume folder: memory after a tenth and after all.
profile  where the sweep spends its time.

One thread a process. SciPy and Pillow are always there; albumentations takes part where it can be imported (MONAI and
TorchIO are slower at all they have: perturb_peers.py). CPU seconds stand beside those of the clock, for a busy machine.
"""

import argparse
import cProfile
import importlib.metadata
import importlib.util
import json
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from scipy import ndimage

from medimgen import classify, robustness
from medimgen.data import radiographs
from medimgen.metrics import proportion
from medimgen.paths import ROOT
from medimgen.perturb import PERTURBATIONS, apply

RESULT = ROOT / "recipes" / "results" / "robustness_bench.json"
SIZE, TOLERANCE = 224, robustness.Settings().tolerance
NAMES, PACKAGES = tuple(PERTURBATIONS), ("numpy", "scipy", "pillow", "torch", "joblib", "albumentations", "medimgen")
SCALE = ("films", "grid_films", "batched_films", "fine_films", "worker_films", "files", "jobs")
FULL, QUICK = (100, 10, 20, 60, 32, 20_000, 2), (4, 1, 2, 3, 2, 200, 1)


class Reader:
    """The course's classifier for films of 224 pixels: each is averaged down to 128 first."""

    size, name = SIZE, "cxr-classifier at 224"

    def __init__(self):
        self.classifier = classify.Classifier.load()
        self.sha256 = self.classifier.sha256
        fourths = np.kron(np.eye(128), np.full((1, 7), 1 / 7))  # a large pixel is 7 / 4 small ones wide
        self.down = torch.from_numpy(fourths.reshape(128, SIZE, 4).sum(2)).float()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.classifier.predict((self.down @ torch.from_numpy(x) @ self.down.T).clamp_(0, 1).numpy())


def unit(film: np.ndarray) -> np.ndarray:
    return film.astype(np.float32) / 255 if film.dtype == np.uint8 else film.astype(np.float32).clip(0, 1)


# fmt: off
def always_here(at: dict[str, float], s: float) -> dict[str, tuple[str, Callable]]:
    """Operators of SciPy and Pillow, with the name of the package."""
    sigma, bilinear = at["focal_spot"] / 2.3548 * SIZE / 128, Image.Resampling.BILINEAR
    rows = np.repeat(np.arange(SIZE, dtype=np.float32)[:, None], SIZE, 1)
    read = np.stack([apply("inspiration", rows / SIZE, s) * SIZE, rows.T])  # ready before the clock starts
    return {
        "focal_spot": ("scipy", lambda f: ndimage.gaussian_filter(unit(f), sigma, mode="nearest")),
        "inspiration": ("scipy", lambda f: ndimage.map_coordinates(unit(f), read, order=1, mode="nearest")),
        "rotation": ("pillow", lambda f: np.asarray(Image.fromarray(f).rotate(at["rotation"], bilinear))),
    }


def albumentations(at: dict[str, float]) -> dict[str, tuple[str, Callable]]:
    """Operators of albumentations, where it is installed; the noise is only akin to ours."""
    if not importlib.util.find_spec("albumentations"):
        return {}
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    sigma, blur = (x / 2.3548 * SIZE / 128 for x in (at["focal_spot"], 1.5 * (at["scanner"] - 1)))
    wide, more, back = at["aspect_ratio"] ** 0.5, at["contrast"] - 1, 1 / at["resolution"]
    length, noise = 2 * round(at["motion"] * SIZE / 256) + 1, 0.005 * (1 / at["dose"] - 1)
    light, edge = partial(a.RandomBrightnessContrast, p=1), {"border_mode": cv2.BORDER_REPLICATE, "p": 1}
    ways, gaussian = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}, partial(a.GaussianBlur, blur_limit=0)
    gamma = a.RandomGamma(gamma_limit=(100 * at["scanner"],) * 2, p=1)
    operators = {
        "motion": a.MotionBlur(blur_limit=(max(3, length),) * 2, p=1),
        "focal_spot": gaussian(sigma_limit=(sigma, sigma), p=1),
        "dose": a.ShotNoise(scale_range=(noise, noise), p=1),
        "exposure": light(brightness_limit=(at["exposure"] / 20,) * 2, contrast_limit=(0, 0)),
        "contrast": light(brightness_limit=(-more / 2,) * 2, contrast_limit=(more, more)),
        "scanner": a.Compose([gaussian(sigma_limit=(blur, blur), p=1), gamma]),
        "rotation": a.Rotate(limit=(at["rotation"],) * 2, **edge),
        "aspect_ratio": a.Affine(scale={"x": (wide, wide), "y": (1 / wide, 1 / wide)}, **edge),
        "resolution": a.Downscale(scale_range=(back, back), interpolation_pair=ways, p=1),
        "jpeg": a.ImageCompression(quality_range=(at["jpeg"],) * 2, p=1),
    }
    return {name: ("albumentations", lambda f, o=o: o(image=f[:, :, None])["image"].reshape(f.shape))
            for name, o in operators.items()}


@cache
def operators(s: float) -> dict[str, tuple[str, Callable]]:
    """(package, function of one uint8 film) by perturbation: the fastest of another package, ours where there is none.

    Breathing and scatter are ours: what can be put together from SciPy's parts is 10 times slower and more.
    """
    ours = {name: ("medimgen", partial(apply, name, s=s)) for name in PERTURBATIONS}
    at = {name: p.at(s) for name, p in PERTURBATIONS.items()}
    return ours | always_here(at, s) | albumentations(at)


def peer_grid(model: Reader, films: np.ndarray, steps: int, groups: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """First flips (films, perturbations) on equal steps from below, and how many pictures the model was asked about.
    The films of a group go to the model together; a film that has flipped is left alone."""
    flips, asked = np.full((len(films), len(NAMES)), np.inf), 0
    clean = np.concatenate([model(unit(films[group]))[:, 0] for group in groups]) > 0.5
    for group in groups:
        for j, name in enumerate(NAMES):
            for s in np.arange(1, steps + 1) / steps:
                left = group[np.isinf(flips[group, j])]
                if not len(left):
                    break
                changed = np.stack([unit(operators(s)[name][1](films[i])) for i in left])
                flips[left[(model(changed)[:, 0] > 0.5) != clean[left]], j] = s
                asked += len(left)
    return flips, asked


def timed(run: Callable[[], object]) -> tuple[object, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}


def late(found: np.ndarray, crossings: np.ndarray) -> np.ndarray:
    """Of crossings (finite), those found more than the tolerance too late or not at all; bool like crossings."""
    return ~(found <= crossings + TOLERANCE + 1e-6)


def grid_late(crossings: np.ndarray, steps: int) -> float:
    """Share late on a grid without refinement, if each answer stayed flipped (kind to the grid)."""
    return float(late(np.ceil(crossings * steps - 1e-9) / steps, crossings).mean()) if len(crossings) else 0.0


def equal_steps(crossings: np.ndarray, share: float) -> int:
    """The fewest steps of a grid that is late for no larger share of the crossings."""
    return next(n for n in range(1, round(1 / TOLERANCE) + 1) if grid_late(crossings, n) <= share + 1e-9)


def some(films: np.ndarray, n: int) -> np.ndarray:
    return films[np.linspace(0, len(films) - 1, min(n, len(films))).astype(int)]


@cache
def dev(n: int) -> np.ndarray:
    """n films spread over dev; of the pocket tier where the films of dev are not at hand."""
    split = "dev" if radiographs.available_tier() == "full" else "pocket"
    return some(radiographs.load(split, size=SIZE).images, n)


def search(films: np.ndarray, **more) -> robustness.Sweep:
    return robustness.sweep(Reader(), films, seeds=(0,), perturbations=NAMES, **more)


@cache
def swept(n: int) -> tuple:
    """The sweep that is measured, of n films, and its time; after a call that warms up."""
    search(dev(n)[:1])
    return timed(partial(search, dev(n)))


@cache
def crossings(films: int, fine_films: int, jobs: int) -> tuple:
    """Flips (films, perturbations) of the sweep and of the fine one, of some of the films."""
    chosen, ours = some(np.arange(films), fine_films), swept(films)[0]
    fine = robustness.Settings(grid=100, tolerance=0.001)
    return replace(ours, flip=ours.flip[chosen]), search(dev(films)[chosen], settings=fine, n_jobs=jobs)


def job(films: int, grid_films: int, batched_films: int, fine_films: int, jobs: int, **_) -> dict:
    ours, spent = swept(films)
    coarse, fine = crossings(films, fine_films, jobs)
    known, share = fine.flip[np.isfinite(fine.flip)], robustness.missed(coarse, fine)
    steps, model = equal_steps(known, share), Reader()
    for s in np.arange(1, steps + 1) / steps:
        operators(s)  # made ready before the clock starts
    out = {"films": films, "size": SIZE, "ours": spent | {"flips": int(np.isfinite(ours.flip).sum())},
           "crossings": len(known), "ours_late": share, "resolution": TOLERANCE, "grid_steps": steps,
           "grid_late": grid_late(known, steps), "grid_resolution": 1 / steps, "grid_20_late": grid_late(known, 20)}
    for name, n in (("film_by_film", grid_films), ("severity_by_severity", batched_films)):
        chosen = some(dev(films), n)
        groups = [np.array([i]) for i in range(n)] if name == "film_by_film" else [np.arange(n)]
        model(unit(chosen[groups[0]]))
        (flips, asked), took = timed(partial(peer_grid, model, chosen, steps, groups))
        whole = {key: round(x * films / n, 3) for key, x in took.items()}
        ratio, twenty = whole["seconds"] / spent["seconds"], np.minimum(np.ceil(flips * 20 - 1e-9), 20).sum() / asked
        out[name] = {"films_measured": n, "scaled_by": films / n, "asked": asked, **whole, "ratio": ratio,
                     "cpu_ratio": whole["cpu_seconds"] / spent["cpu_seconds"], "grid_20_ratio": twenty * ratio,
                     "flips": int(np.isfinite(flips).sum())}
    return out | {"operators_from": {name: peer for name, (peer, _) in operators(0.5).items() if name in NAMES}}


def missed(films: int, fine_films: int, jobs: int, **_) -> dict:
    coarse, fine = crossings(films, fine_films, jobs)
    real = np.isfinite(fine.flip)
    wrong = real & late(coarse.flip, fine.flip)
    k, n, lost = (int(x.sum()) for x in (wrong, real, wrong & np.isinf(coarse.flip)))
    by = {q.name: [int(wrong[:, j].sum()), int(real[:, j].sum())] for j, q in enumerate(fine.perturbations)}
    return {"films": len(real), "crossings": n, "late": k, "of_those_not_found": lost,
            "share": list(proportion(k, n)) if n else None, "late_and_crossings": by}


def workers(worker_films: int, **_) -> dict:
    from joblib import parallel_config
    from joblib.externals.loky import get_reusable_executor

    chunk, one, out = max(1, min(8, worker_films // 2)), None, {"films": worker_films}
    run = partial(search, dev(worker_films), chunk=chunk)
    get_reusable_executor().shutdown(wait=True)
    for name, jobs in (("one", 1), ("two_cold", 2), ("two_warm", 2), ("two_by_parallel_config", None)):
        with parallel_config(backend="loky", n_jobs=2):
            found, took = timed(partial(run, n_jobs=jobs))
        one = one or (found, took["seconds"])
        out[name] = {"seconds": took["seconds"], "ratio": one[1] / took["seconds"],
                     "same_flips": bool(np.array_equal(found.flip, one[0].flip))}
    return out


def stream(films: int, files: int, **_) -> dict:
    seen, process = [], psutil.Process()
    small = [Image.fromarray(film).resize((64, 64), Image.Resampling.BOX) for film in dev(films)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as kept:
        for i in range(files):
            film = small[i % len(small)]
            film.putdata([i % 251, i // 251])  # two pixels, so that no file is there twice
            film.save(Path(folder) / f"{i:05d}.png")
        run = partial(robustness.sweep, lambda x: (x.mean((1, 2, 3)) > 0.5).astype(float), Path(folder), seeds=(0,),
                      perturbations=["exposure", "contrast"], size=64, resume_folder=kept,
                      progress=lambda *_: seen.append(process.memory_info().rss))
        (found, took), tasks = timed(run), len(seen)
        again = timed(run)[1]["seconds"]
    tenth, whole = (round(max(part) / 1e6, 1) for part in (seen[: max(1, tasks // 10)], seen[:tasks]))
    return {"files": files, "faults": len(found.faults), **took, "films_per_second": files / took["seconds"],
            "peak_mb_after_a_tenth": tenth, "peak_mb": whole, "growth": whole / tenth - 1, "resumed_in_seconds": again}


def profile(worker_films: int, **_) -> dict:
    parts = {("flips.py", "_changed"): "perturbation", ("models.py", "__call__"): "model",
             ("_structural_similarity.py", "structural_similarity"): "likeness", ("films.py", "read"): "reading"}
    watch, films = cProfile.Profile(), dev(worker_films)
    watch.runcall(search, films)
    stats, shares = pstats.Stats(watch), dict.fromkeys(parts.values(), 0.0)
    for (file, _line, function), (*_, cumulative, _callers) in stats.stats.items():
        if part := parts.get((Path(file).name, function)):
            shares[part] += cumulative / stats.total_tt
    return {"films": worker_films, "seconds": stats.total_tt, **shares, "rest": 1 - sum(shares.values())}
# fmt: on


SECTIONS = {"stream": stream, "job": job, "missed": missed, "workers": workers, "profile": profile}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; without any, all")
    parser.add_argument("--record", action="store_true", help=f"write recipes/results/{RESULT.name}")
    parser.add_argument("--quick", action="store_true", help="a few films only, not recorded; says nothing about speed")
    given = parser.parse_args(arguments)
    if wrong := set(given.sections) - set(SECTIONS):
        parser.error(f"{wrong.pop()} is no section")
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers
    known = [d for p in PACKAGES for d in importlib.metadata.distributions(name=p)]
    versions = {d.name: d.version for d in known}
    here = {"cores": os.cpu_count(), "tier": radiographs.available_tier(), "versions": versions}
    record, scale = given.record and not given.quick, dict(zip(SCALE, QUICK if given.quick else FULL, strict=True))
    result = json.loads(RESULT.read_text(encoding="utf-8")) if record and RESULT.is_file() else {}
    for name in [n for n in SECTIONS if n in (given.sections or SECTIONS)]:
        found, took = timed(partial(SECTIONS[name], **scale))
        result[name] = here | {"section_seconds": took["seconds"]} | found
        print(name, json.dumps(result[name], indent=1), flush=True)
        if record:
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    return result


if __name__ == "__main__":
    main()
