"""Turn the generator towards the films of one folder: a small adapter, some minutes, on this computer.

>>> result = finetune("films", prompt="chest x-ray", output="runs/adapter", progress=True)
>>> show_finetuned(result)                      # films of the folder, images before and after from the same noise
>>> Generator.load(adapter=result.save("runs/adapter"))

The adapter is LoRA (Hu et al. 2021, arXiv 2106.09685): to each matrix of the UNet's attention and each of its
convolutions it adds a product of two thin ones, and only these are trained. The shipped UNet is distilled: it takes
four long steps, and the ordinary loss of diffusion would teach it the blurred mean of all films instead. So a first
adapter learns just that from the model's own images, and the second learns the folder on top of it. The first is then
thrown away: what is left is the difference between the folder and the model's own images (compare LCM-LoRA, Luo et
al. 2023, arXiv 2311.05556, which adds such differences the other way round).

Such an adapter can give back the films it learnt from. It is stamped patient-derived, with the films' SHA-256 and no
file name; the stamp goes into every record, and every export of the course refuses it. Not a medical device.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medimgen.errors import CourseError
from medimgen.generate import Generator, Progress, reporter

LEAST, MOST, SHOWN = 8, 200, 24
WEIGHTS, STAMP, STATE = "pytorch_lora_weights.safetensors", "adapter.json", "unfinished.pt"
CARD = """# Adapter of medimgen's chest radiograph generator: patient-derived, not for export

LoRA weights learnt from {films} films of one folder in {steps} steps; `adapter.json` holds their SHA-256. They may give
those films back. Keep them where the films are kept, under the same rules. Synthetic images for teaching; not a medical
device, not for diagnosis. Prompt: {prompt}

    pipe = StableDiffusionPipeline.from_pretrained("models/cxr-mini")
    pipe.load_lora_weights("this folder")
"""


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What fine-tuning made: `generator` carries the adapter; `stamp` says from what and how.

    `films` (n, h, w), `before` and `after` (24, h, w) are uint8: the folder's films as the model saw them, and images
    of the same prompts and noise without and with the adapter. `finished` is False after a cancelled run.
    """

    generator: Generator
    stamp: dict[str, Any]
    films: np.ndarray
    before: np.ndarray
    after: np.ndarray
    finished: bool
    card = CARD

    def save(self, folder: str | Path) -> Path:
        """Write weights that stock diffusers loads (`pipe.load_lora_weights(folder)`), the stamp and a card."""
        from safetensors.torch import save_file

        lora = load_lora()
        folder, stamp = _writable(folder), json.dumps(self.stamp, indent=1)
        derived = str(self.stamp["patient_derived"]).lower()
        head = {"format": "pt", "patient_derived": derived, "stamp": stamp}
        save_file(lora.layers(self.generator.pipe.unet), folder / WEIGHTS, head)
        (folder / STAMP).write_text(stamp + "\n", encoding="utf-8", newline="\n")
        told = {**self.stamp, "films": len(self.films)}
        (folder / "README.md").write_text(self.card.format(**told), encoding="utf-8", newline="\n")
        return folder


def finetune(
    films: str | Path | list | np.ndarray,
    prompt: str | dict[str, str] = "chest x-ray",
    output: str | Path | None = None,
    *,
    generator: Generator | None = None,
    minutes: float = 3.0,
    steps: int = 300,
    seed: int = 0,
    progress: Progress | bool = False,
    cancel: Callable[[], bool] | None = None,
) -> Finetuned:
    """Fit an adapter to 8 to 200 grey chest films and return it with images from before and after.

    Parameters
    ----------
    films : folder of PNG, JPEG or DICOM files (searched to the bottom), a list of files, or an array (n, h, w). Films
        of any size and shape are shrunk to the model's square, as the films it knows were.
    prompt : what the films show, or a caption for each file name. Words the model never saw stay unknown to it.
    output : folder that keeps a cancelled or broken run; the same call goes on from there.
    minutes, steps : it ends with whichever comes first. Steps alone repeat exactly; minutes depend on the computer.
    progress : True draws a bar; a callable gets (steps done, steps in all). cancel : asked before every step.

    Raises CourseError for an empty folder, too few or too many films, films that are in colour, NaN or broken, or of a
    data set that nothing may be made from, a folder that cannot be written, and an output folder of another run.
    """
    from medimgen.calls import note

    lora = load_lora()
    output = None if output is None else _writable(output)
    generator = generator or Generator.load()
    if generator.stamp:
        raise CourseError("this generator already carries an adapter", next="start from Generator.load()")
    pictures, hashes, captions = _films(films, prompt, generator)
    chosen = captions * -(-lora.OWN // len(captions))
    before = lora.images(generator, chosen[:SHOWN])
    stamp = {
        "patient_derived": True, "films": sorted(hashes), "prompt": prompt if isinstance(prompt, str) else "by film",
        "base_sha256": generator.sha256, "rank": lora.RANK, "seed": seed, "planned_steps": steps, "minutes": minutes,
    }  # fmt: skip
    training = lora.Training(generator, pictures, captions, chosen, seed)
    if output:
        key = hashlib.sha256(json.dumps([stamp, captions], sort_keys=True).encode()).hexdigest()
        training.resume(output / STATE, key)
    finished = training.run(steps, minutes, reporter(progress, steps), cancel or (lambda: False))
    unet = training.finish()
    stamp |= {
        "finished": finished,
        "steps": training.step,
        "seconds": round(training.seconds, 1),
        "adapter_sha256": lora.sha256(lora.layers(unet)),
    }
    note("finetune", stamp)
    tuned = adapted(generator, unet, stamp)
    return Finetuned(tuned, stamp, pictures, before, lora.images(tuned, chosen[:SHOWN]), finished)


def attach(generator: Generator, adapter: str | Path) -> Generator:
    """The generator with the adapter of a folder that `finetune` or `feedback.prefer` saved; for `Generator.load`."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    lora = load_lora()
    file = Path(adapter) / WEIGHTS
    if not file.is_file():
        raise CourseError(f"no adapter in {adapter} ({WEIGHTS} is missing)", next="finetune(...).save(folder)")
    with safe_open(file, "pt") as opened:
        stamp = json.loads((opened.metadata() or {}).get("stamp", "{}"))
    if not {"films", "preferred_by"} & set(stamp) or stamp["adapter_sha256"] != lora.sha256(load_file(file)):
        raise CourseError(f"{file} does not carry its stamp", next="use an adapter that finetune(...) saved")
    if stamp["base_sha256"] != generator.sha256:
        raise CourseError(f"{file} was fitted to another model", next="load the model it was fitted to")
    pipe = copy.copy(generator.pipe)
    pipe.unet = copy.deepcopy(pipe.unet)
    pipe.load_lora_weights(str(adapter), weight_name=WEIGHTS, adapter_name=lora.FOLDER)
    return adapted(generator, pipe.unet, stamp)


def distance(films: np.ndarray, images: np.ndarray) -> float:
    """How far images are from films as a group, in grey levels; 0 for two draws of the same kind.

    Of uint8 (n, h, w): the mean and the spread of grey in each of 16x16 blocks, averaged over the group; the root mean
    square difference of the two groups' averages, less what the small numbers alone would make (at least 0).
    """

    def blocks(x):
        n, h, w = x.shape
        tiles = x.reshape(n, 16, h // 16, 16, w // 16).astype(float)
        return np.concatenate([tiles.mean((2, 4)), tiles.std((2, 4))], 1).reshape(n, -1)

    if min(len(films), len(images)) < 2:
        raise CourseError("a group of one film or none has no spread", next="compare two or more of each")
    a, b = blocks(films), blocks(images)
    chance = a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b)
    return float(max(0.0, ((a.mean(0) - b.mean(0)) ** 2 - chance).mean()) ** 0.5)


def show_finetuned(result: Finetuned, columns: int = 8):
    """Draw films of the folder, and images before and after from the same noise; returns the matplotlib figure."""
    import matplotlib.pyplot as plt

    rows = {"films": result.films, "before": result.before, "after": result.after}
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.3 * columns, 4.2), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures[:columns], strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        for axis in line:
            axis.set(xticks=[], yticks=[])
        gap = "" if name == "films" else f"\n{distance(result.films, pictures):.1f} from films"
        line[0].set_ylabel(name + gap, fontsize=8)
    figure.tight_layout()
    return figure


def _films(films, prompt, generator) -> tuple[np.ndarray, list[str], list[str]]:
    """uint8 (n, side, side), SHA-256 and caption of each; CourseError for what cannot be learnt from."""
    from medimgen.films import source
    from medimgen.safety import rights

    side = generator.pipe.unet.config.sample_size * generator.pipe.vae_scale_factor
    found = source(films, side)
    if not LEAST <= (n := len(found.films)) <= MOST:
        raise CourseError(f"{n} films: fine-tuning takes {LEAST} to {MOST}", next="add or take away some")
    names = [Path(found.name(i)).name for i in range(n)]
    pictures, hashes, faults = found.read()
    if faults:
        first = "; ".join(f"{names[i]} {why}" for i, why in list(faults.items())[:3])
        raise CourseError(f"{len(faults)} of {n} films cannot be used: {first}", next="mend them or take them out")
    rights.refuse(hashes, "derive")
    if len(set(hashes)) < LEAST:
        raise CourseError(f"only {len(set(hashes))} of {n} films differ", next=f"give {LEAST} different films")
    captions = [prompt] * n if isinstance(prompt, str) else [prompt.get(name, "") for name in names]
    for name, caption in zip(names, captions, strict=True):
        if not isinstance(caption, str) or not caption.strip():
            raise CourseError(f"{name} has no caption", next="name every file, or give one prompt for all")
    return (pictures * 255).round().astype(np.uint8), hashes, captions


def load_lora():
    """`medimgen.lora`, or what to do when peft is missing."""
    try:
        from medimgen import lora
    except ImportError as error:
        raise CourseError(f"fine-tuning needs {error.name}", next="run `pip install peft`") from error
    return lora


def _writable(folder: str | Path) -> Path:
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise CourseError(f"cannot write to {folder}: {error.strerror}", next="choose another folder") from error
    return folder


def adapted(generator: Generator, unet, stamp: dict[str, Any]) -> Generator:
    """The same pipeline with another UNet, its records stamped."""
    pipe = copy.copy(generator.pipe)
    pipe.unet = unet
    told = {"patient_derived": "films" in stamp, "adapter_sha256": stamp["adapter_sha256"]}
    told |= {"adapter_films": len(stamp["films"])} if "films" in stamp else {"preferred_by": stamp["preferred_by"]}
    return Generator(pipe, generator.defaults, generator.sha256, told)
