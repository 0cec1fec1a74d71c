"""What would 224 pixels cost, and how far does a short training get? An estimate, not a claim.

    python recipes/larger.py                  # some 50 minutes of one core; stop it and start it again
    python recipes/larger.py --sheet          # afterwards: fig/01-larger.png, both sizes side by side
    python recipes/larger.py --steps 2 --each 8 --work runs/try           # a smoke run; not recorded

The films are stored at 224 x 224, where the autoencoder's latents are 28 x 28 instead of 16 x 16. Autoencoder and
UNet are convolutions and attention, so the weights for 128 pixels run on either grid. Three questions.
cost      seconds an image (four steps and decoding) and a training step, on both grids in turns; peak memory.
code      what the shipped autoencoder keeps of dev films at 224 pixels, untrained there, beside what it keeps at 128.
quality   the many-step teacher goes on from its weights for 128 pixels on latents of donor films at 224, for `STEPS`
          steps. Its images, in 24 steps and reduced to 128, stand on the ruler of quality.py beside the teacher's
          at 128, in as many steps. Both are drawn by the shipped decoder, which learnt grain at 128 pixels; neither
          UNet had the texture stage. The larger teacher has had `STEPS` steps more than the other.
Full data tier, and the work folder of train_generator.py. Not a medical device.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import quality as q
import torch
from diffusers import DPMSolverMultistepScheduler
from generator import autoencoder as stage
from generator import claim, common, diffusion
from generator.features import CLASSES
from generator.judge import Judge, Ruler
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage.transform import resize_local_mean
from train_generator import STEPS as FULL
from train_generator import Recipe

from medimgen import report
from medimgen.data import radiographs
from medimgen.metrics import Interval
from medimgen.paths import ROOT, cache_dir

SIDES, STEPS, BATCH, PEAK, WALK, EACH, SEED = (16, 28), 500, 24, 2e-4, 24, 128, 800_000
WORK, RESULT = cache_dir() / "training" / "larger", report.RESULTS / "larger.json"
SHEET = ROOT / "fig" / "01-larger.png"


def reduced(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 224, 224) to (n, 128, 128), by area, as the ruler's films were reduced."""
    return np.stack([resize_local_mean(x.astype(float), (128, 128)).round().clip(0, 255) for x in images]).astype("u1")


def on_grid(model: diffusion.Model, side: int) -> diffusion.Model:
    """The same weights, told to draw on side x side latents."""
    model.unet.register_to_config(sample_size=side)
    return model


def cost(vae, model: diffusion.Model, rounds: int = 5) -> dict:
    """Median milliseconds of one image in four steps, and of one training step an image, on both grids in turns."""
    words = model.encode(torch.zeros(1, 24, dtype=torch.long)).detach()
    took = {f"{what}_{8 * side}": [] for what in ("image", "training") for side in SIDES}
    for _ in range(rounds + 1):
        for side in SIDES:
            start = time.perf_counter()
            with torch.inference_mode():
                x = torch.randn(1, stage.CHANNELS, side, side)
                for t in (999, 749, 499, 249):
                    x = model.unet(x, t, words).sample
                vae.decode(x)
            took[f"image_{8 * side}"].append(1000 * (time.perf_counter() - start))
            x, start = torch.randn(8, stage.CHANNELS, side, side), time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model.unet(x, 500, words.expand(8, -1, -1)).sample.square().mean()
            loss.backward()
            model.zero_grad(set_to_none=True)
            took[f"training_{8 * side}"].append(1000 / 8 * (time.process_time() - start))
    return {name: round(statistics.median(values[1:]), 1) for name, values in took.items()}


def data(vae, recipe: Recipe, work: Path) -> diffusion.Data:
    """Captions of donor films, as the teacher learnt them, with latents of the films at 224 pixels."""
    path, old = work / "latents.pt", recipe._data()
    if not path.is_file():
        common.save_state(path, latents=diffusion.encode(vae, radiographs.load("donor", 224).images))
    latents = torch.load(path, weights_only=True)["latents"]
    n = len(latents)
    level = {name: values[:n] for name, values in old.level.items()}
    return diffusion.Data(latents, old.subtypes[:n], level, old.tokenizer, seed=12)


def drawn(model, vae, tokenizer, each: int, path: Path) -> np.ndarray:
    """`each` images of every class at guidance 1, kept once made."""
    if not path.is_file():
        texts = [claim.PROMPTS[c] for c in CLASSES for _ in range(each)]
        images = diffusion.sample(
            model, vae, tokenizer, DPMSolverMultistepScheduler(**diffusion.SCHEDULE), texts, WALK, 1.0, SEED
        )
        temporary = path.with_name(f"part-{path.name}")
        np.save(temporary, images)
        temporary.replace(path)
    return np.load(path)


def distances(sets: dict[str, np.ndarray], each: int, draws: int = 1000) -> dict[str, Interval]:
    """Of every set of images (3 x each, 128, 128): its place on the ruler, against dev films."""
    judge, gauge = Judge.load(), Ruler.load()
    dev, donor = (q.real_table(split, judge, gauge) for split in ("dev", "donor"))
    kinds, units = np.repeat(CLASSES, each), np.array([f"s{i}" for i in range(3 * each)])
    tables = {name: q.table(images, kinds, units, judge, gauge) for name, images in sets.items()}
    found = {name: q.distances(made, dev, donor, draws, 0)["overall"] for name, made in tables.items()}
    pair = [tables[f"teacher_{8 * side}"] for side in reversed(SIDES)]
    return found | {"larger_minus_smaller": q.difference(*pair, dev, donor, draws, 0)}


def measure(work: Path, steps: int, each: int) -> dict:
    recipe = Recipe(claim.WORK, claim.WORK / "cxr-mini", FULL)
    work.mkdir(parents=True, exist_ok=True)
    (_, model), vae = recipe.unet(), recipe.texture()[1]
    found = {"cost_ms": cost(vae, model)}
    found["code"] = {str(n): stage.quality(vae, radiographs.load("dev", n).images[::5]) for n in (128, 224)}
    weights, films = {k: v.clone() for k, v in model.state_dict().items()}, data(vae, recipe, work)
    small = drawn(on_grid(model, SIDES[0]), vae, films.tokenizer, each, work / f"teacher-128-{each}.npy")
    begin = time.process_time()
    large = diffusion.train(films, work / "unet.pt", steps, BATCH, PEAK, seed=4, start_from=weights)
    found |= {"steps": steps, "batch": BATCH, "minutes_this_run": round((time.process_time() - begin) / 60, 1)}
    images = drawn(on_grid(large, SIDES[1]), vae, films.tokenizer, each, work / f"teacher-224-{each}-{steps}.npy")
    found["ruler"] = {k: asdict(v) for k, v in distances(
        {"teacher_128": small, "teacher_224": reduced(images)}, each).items()}  # fmt: skip
    return found | {"peak_mb": round(report.peak_mb())}


def sheet(work: Path, steps: int, each: int, file: Path, a_class: int = 5) -> None:
    """Both teachers' first images of every class, at the size they were drawn, marked as synthetic."""
    rows, pad = [], 4
    for name, side in ((f"teacher-128-{each}", 128), (f"teacher-224-{each}-{steps}", 224)):
        images = np.load(work / f"{name}.npy").reshape(len(CLASSES), each, side, side)[:, :a_class]
        # each film in the middle of a 224-pixel square: what a pixel is stays to be seen
        rows.append(np.pad(images, ((0, 0), (0, 0), *[((224 - side) // 2 + pad,) * 2] * 2), constant_values=255))
    tiles = np.stack(rows, 1).reshape(2 * len(CLASSES), a_class, *rows[0].shape[2:])
    picture = np.concatenate([np.concatenate(list(row), 1) for row in tiles])
    about = PngInfo()
    about.add_text("Synthetic", "true")
    about.add_text("Warning", "Synthetic images, not for diagnosis")
    about.add_text("Made-By", f"recipes/larger.py --sheet, seeds from {SEED}, {steps} steps at 224 pixels")
    Image.fromarray(picture).save(file, pnginfo=about, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--each", type=int, default=EACH, help="images a class")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and images")
    parser.add_argument("--sheet", action="store_true", help=f"only write {SHEET.name}, from the images that are there")
    args = parser.parse_args()
    if args.sheet:
        return sheet(args.work, args.steps, args.each, SHEET)
    torch.set_num_threads(1)
    with report.run("larger", seed=SEED, parameters={"steps": args.steps, "each": args.each}, tier="full") as run:
        found = measure(args.work, args.steps, args.each)
    print(json.dumps(found, indent=1))
    if (args.steps, args.each) == (STEPS, EACH):
        RESULT.write_text(
            json.dumps(found | {"run": asdict(run.record)}, indent=1) + "\n", encoding="utf-8", newline="\n"
        )
        report.append(run.record, report.RUNS)


if __name__ == "__main__":
    main()
