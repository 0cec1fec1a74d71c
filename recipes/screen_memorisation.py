"""The memorisation screen: nothing generated or trained here enters git before it has passed.

    python recipes/screen_memorisation.py               # 2,000 images; exit code 1 if more than 2 % are flagged
    python recipes/screen_memorisation.py --install     # and, if it passes, put the model into models/cxr-mini
    python recipes/screen_memorisation.py --control     # films planted 50 times must be caught
    python recipes/screen_memorisation.py --masks       # images of models/cxr-mini-control, asked by training masks

An image is flagged when its nearest donor film is nearer than the nearest donor film is for 99 % of real dev
films (other patients), in pixels or in features. Pixels: films shrunk to 48 pixels, mean removed, length 1, so
brightness and contrast do not hide a copy; the distance is Euclidean. Features: the last inner layer of the judge
(trained on clinic films, neither donor nor dev), averaged to 4x4 places, standardised over donor films, length 1.
A generator of typical, smooth films comes nearer to everything, so a flag is a reason to look, not a proof of a
copy; the nearest pairs are saved as a sheet.

The model's folder gets a third, smaller screen of the same kind, the signs of the donor films
(`medimgen.likeness`), so that a learner's machine refuses to export what is too like one of them.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medimgen import likeness
from medimgen.data import radiographs
from medimgen.paths import ROOT, cache_dir

LIMIT = 0.02
QUANTILE = 0.01
LOGS = [f"{stage}.jsonl" for stage in ("features", "autoencoder", "unet", "distil", "texture", "judge", "outlines")]
LOGS += [f"{name}.json" for name in ("student", "settings", "screen", "control")]
PROMPTS = (
    "chest x-ray, normal",
    "chest x-ray, bacterial pneumonia",
    "chest x-ray, viral pneumonia",
    "chest x-ray",
    "pneumonia, x-ray",
    "normal chest x-ray, bright",
    "bacterial pneumonia, dark",
    "viral pneumonia, blurred",
    "normal, sharp, tilted clockwise",
    "bacterial pneumonia, white lungs",
)


def pixel_vectors(images: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 2304) of uint8 films (n, 128, 128), blind to brightness and contrast."""
    import torch
    import torch.nn.functional as F
    from generator.common import film_tensor

    with torch.no_grad():
        parts = [F.interpolate(x, size=(48, 48), mode="area").flatten(1) for x in film_tensor(images).split(256)]
    return _unit(torch.cat(parts).numpy())


def feature_maps(net, images: np.ndarray) -> np.ndarray:
    """Last inner layer of a FeatureNet at 4x4 places, (n, 2048)."""
    import torch
    import torch.nn.functional as F
    from generator.common import film_tensor

    with torch.no_grad():
        parts = [F.avg_pool2d(net.maps(x)[-1], 2).flatten(1) for x in film_tensor(images).split(64)]
    return torch.cat(parts).numpy()


def _unit(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from each unit vector of `a` to its nearest in `b`, and which that is."""
    likeness = a @ b.T
    best = likeness.argmax(1)
    return np.sqrt(np.maximum(0, 2 - 2 * likeness[np.arange(len(a)), best])), best


@dataclass(frozen=True)
class Screen:
    """The reference films in both spaces, with the thresholds that 1 % of dev films fall below."""

    pixels: np.ndarray
    features: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    net: object
    thresholds: tuple[float, float]

    def distances(self, images: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """(distance, nearest) in pixels, then in features."""
        features = _unit((feature_maps(self.net, images) - self.mean) / self.deviation)
        return nearest(pixel_vectors(images), self.pixels), nearest(features, self.features)

    def flag(self, images: np.ndarray) -> np.ndarray:
        """True for images nearer to a reference film than the threshold, in pixels or in features."""
        (p, _), (f, _) = self.distances(images)
        return (p < self.thresholds[0]) | (f < self.thresholds[1])


def build(reference: np.ndarray, dev: np.ndarray, net) -> Screen:
    """Screen against `reference` films, thresholds set on `dev` films."""
    maps = feature_maps(net, reference)
    mean, deviation = maps.mean(0), maps.std(0) + 1e-3
    screen = Screen(pixel_vectors(reference), _unit((maps - mean) / deviation), mean, deviation, net, (0.0, 0.0))
    (p, _), (f, _) = screen.distances(dev)
    cut = float(np.quantile(p, QUANTILE)), float(np.quantile(f, QUANTILE))
    return Screen(screen.pixels, screen.features, mean, deviation, net, cut)


def known_signs(films: np.ndarray) -> np.ndarray:
    """bool (n, 511), see `medimgen.likeness`."""
    return np.stack([likeness.signs(film) for film in films])


def export_threshold(known: np.ndarray, dev: np.ndarray) -> float:
    """The distance in signs that 1 % of dev films fall below."""
    return float(np.quantile(likeness.nearest(dev, known), QUANTILE))


def report(screen: Screen, images: np.ndarray, known: np.ndarray, threshold: float) -> dict:
    (p, _), (f, _) = screen.distances(images)
    low, high = screen.thresholds
    share = float(((p < low) | (f < high)).mean())
    return {
        "images": len(images),
        "flagged": share,
        "flagged_pixels": float((p < low).mean()),
        "flagged_features": float((f < high).mean()),
        "thresholds": screen.thresholds,
        "median_distance": [float(np.median(p)), float(np.median(f))],
        "passed": share <= LIMIT,
        "export_threshold": threshold,
        "refused_at_export": float((likeness.nearest(images, known) < threshold).mean()),
    }


def sheet(path: Path, screen: Screen, images: np.ndarray, reference: np.ndarray, count=10) -> None:
    """The most suspicious images above their nearest films, in pixels (two rows) and in features (two rows).
    Holds real films: for looking at, never for git.
    """
    from PIL import Image

    rows = []
    for distance, which in screen.distances(images):
        worst = np.argsort(distance)[:count]
        rows += [np.concatenate(list(images[worst]), 1), np.concatenate(list(reference[which[worst]]), 1)]
    Image.fromarray(np.concatenate(rows)).save(path)


def generate(model: Path, n: int, seed: int) -> np.ndarray:
    """`n` images over all prompts at the model's default settings."""
    from medimgen.generate import Generator

    generator, images = Generator.load(model), []
    for k, prompt in enumerate(PROMPTS):
        left = n // len(PROMPTS)
        while left > 0:
            now = min(left, 50)
            images.append(generator(prompt, n=now, seed=seed + 10_000 * k + left).images)
            left -= now
    return np.concatenate(images)


def plant(recipe, data, planted: int, times: int, among: int):
    """`data` with clinic films `times` times among donor films; these donor films; the planted films."""
    import torch
    from generator import diffusion

    clinic, donor = radiographs.load("clinic"), radiographs.load("donor").images
    chosen = np.random.default_rng(0).choice(len(clinic.images), planted, replace=False)
    films, kinds = clinic.images[chosen], clinic.table["subtype"].to_numpy()[chosen].tolist()
    latents = diffusion.encode(recipe.code(), films)
    kept = np.random.default_rng(1).permutation(len(donor))[:among]
    level = {k: np.concatenate([v[kept], np.full(planted * times, -9)]) for k, v in data.level.items()}
    mixed = diffusion.Data(
        torch.cat([data.latents[kept], latents.repeat(times, 1, 1, 1)]),
        [data.subtypes[i] for i in kept] + kinds * times,
        level,
        data.tokenizer,
        17,
    )
    return mixed, donor[kept], films


def control(recipe, planted: int = 5, times: int = 50, among: int = 250, steps: int = 400, made: int = 300) -> dict:
    """Go on training with clinic films planted `times` times among donor films; the screen must catch it.

    Among all 2,799 donor films (planted=20, among=2799) 400 steps did not suffice to learn a film by heart, and there
    was nothing to catch: 1.25 % of the images were flagged. Among 250, a planted film is seen some 2,000 times.
    """
    from diffusers import DPMSolverMultistepScheduler
    from generator import diffusion

    data, teacher = recipe.unet()
    mixed, donor, films = plant(recipe, data, planted, times, among)
    n, file = len(donor), recipe.work / f"planted-{planted}-{len(donor)}.pt"
    model = diffusion.train(mixed, file, steps=steps, peak=4e-4, start_from=teacher.state_dict())
    scheduler = DPMSolverMultistepScheduler(**diffusion.SCHEDULE, timestep_spacing="trailing")
    texts = [PROMPTS[k % 3] for k in range(made)]
    images = diffusion.sample(model, recipe.autoencoder(), data.tokenizer, scheduler, texts, 12, 1.0, seed=5)
    dev, seen = radiographs.load("dev").images, np.concatenate([donor, films])
    screen, known = build(seen, dev, recipe.judge()), known_signs(seen)
    result = report(screen, images, known, export_threshold(known, dev))
    hits = [which[which >= n] - n for _, which in screen.distances(images)]
    flags = screen.flag(images)
    result |= {
        "planted": planted,
        "times": times,
        "among": n,
        "steps": steps,
        "caught": not result["passed"],
        "nearest_is_planted": [len(h) / made for h in hits],
        "planted_films_found": len(np.unique(np.concatenate(hits))),
        "flagged_and_planted": int(sum(flags & (screen.distances(images)[0][1] >= n))),
    }
    sheet(recipe.work / "planted_sheet.png", screen, images, seen)
    return result


def screen_model(recipe, model: Path, n: int, seed: int) -> dict:
    """Screen `n` images of the model; its folder gets the signs that guard the export."""
    images, donor, dev = generate(model, n, seed), radiographs.load("donor").images, radiographs.load("dev").images
    np.save(recipe.work / "screened.npy", images)
    screen, known = build(donor, dev, recipe.judge()), known_signs(donor)
    threshold = export_threshold(known, dev)
    likeness.save(model, known, threshold)
    sheet(recipe.work / "screen_sheet.png", screen, images, donor)
    return report(screen, images, known, threshold)


def screen_masked(recipe, n: int, seed: int) -> dict:
    """Screen `n` images asked for by masks that the ControlNet learnt from: the mask's film is there to be copied."""
    from generator.claim import PROMPTS as of_kind
    from train_segmenter import pairs

    from medimgen.control import Control

    films, masks, _, names = pairs("donor")
    table = radiographs.load("donor").table.set_index("file").loc[names]
    keep, net = np.random.default_rng(seed).permutation(len(films))[:n], Control.load()
    kinds = table["subtype"].to_numpy()
    images = [net(of_kind[kinds[k]], mask=masks[k], seed=seed + i).images for i, k in enumerate(keep)]
    images, donor, dev = np.concatenate(images), radiographs.load("donor").images, radiographs.load("dev").images
    screen, known = build(donor, dev, recipe.judge()), known_signs(donor)
    own = screen.distances(images)[0][1]
    sheet(recipe.work / "masked_sheet.png", screen, images, donor)
    of_mask = [int((donor[j] == films[k]).all()) for j, k in zip(own, keep, strict=True)]
    found = report(screen, images, known, export_threshold(known, dev))
    return found | {"nearest_is_the_film_of_the_mask": float(np.mean(of_mask))}


def install(recipe, model: Path) -> None:
    """Replace models/cxr-mini by the screened model, with the logs of its training; the card there stays."""
    target = ROOT / "models" / "cxr-mini"
    shutil.copytree(model, target, dirs_exist_ok=True)
    (target / "log").mkdir(exist_ok=True)
    for name in LOGS:
        shutil.copy(recipe.work / name, target / "log")
    print(f"installed in {target.relative_to(ROOT)}: look at it, update its README.md, then commit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=cache_dir() / "training" / "cxr-mini")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=500_000)
    parser.add_argument("--control", action="store_true", help="run the positive control instead")
    parser.add_argument("--masks", action="store_true", help="screen models/cxr-mini-control instead")
    parser.add_argument("--install", action="store_true", help="put the model into models/cxr-mini if it passes")
    args = parser.parse_args()
    if args.install and (args.control or args.masks):
        parser.error("--install belongs to the screen of the model itself")
    from train_generator import STEPS, Recipe

    model = args.work / "cxr-mini"
    recipe = Recipe(args.work, model, STEPS)
    if args.masks:
        result, name = screen_masked(recipe, args.n, args.seed), "masked"
    elif args.control:
        result, name = control(recipe), "control"
    else:
        result, name = screen_model(recipe, model, args.n, args.seed), "screen"
    good = result["caught" if args.control else "passed"]
    text = json.dumps(result, indent=1) + "\n"
    (args.work / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
    print(text)
    if args.install and good:
        install(recipe, model)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
