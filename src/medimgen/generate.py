"""A small text-to-image model of chest radiographs that runs on this computer's processor, offline.

>>> generator = Generator.load()
>>> result = generator("chest x-ray, bacterial pneumonia", n=4, seed=7)
>>> result.images.shape                     # uint8 (4, 128, 128)
>>> result.record["unseen"]                 # words the model was never shown

The folder `models/cxr-mini` is an ordinary diffusers pipeline, which
`StableDiffusionPipeline.from_pretrained("models/cxr-mini")` runs too. This module adds repeatable noise, a run
record and marked PNG files. The images are synthetic and not for diagnosis; this is not a medical device.

Noise. Every random number comes from `noise(seed, stream, count)`: the 32-bit integer hash pcg3d of (counter,
seed, stream), then Box-Muller (Jarzynski and Olano, "Hash functions for GPU rendering", JCGT 9(3), 2020, listing
16). Stream 0 is the starting noise, stream k the noise added after step k. Image k of a call uses seed + k, so it
can be made alone. The hash needs only 32-bit multiplication (`Math.imul` in JavaScript), addition, xor and shift.
Test vectors stand at `noise`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medimgen.errors import CourseError
from medimgen.likeness import too_like
from medimgen.paths import ROOT
from medimgen.prompts import refuse_identifiers, unseen_words

FOLDER = ROOT / "models" / "cxr-mini"
DEFAULTS = "defaults.json"
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib"}
PARTS = ("unet", "vae", "text_encoder")
LIMIT = 64
Progress = Callable[[int, int], None]


def hash_pcg3d(x: np.ndarray, y: int, z: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hash pcg3d: three well-mixed uint32 arrays from counters `x` and two numbers, all modulo 2**32."""
    with np.errstate(over="ignore"):
        x, y, z = (
            np.asarray(v, np.uint32) * np.uint32(1664525) + np.uint32(1013904223) for v in np.broadcast_arrays(x, y, z)
        )
        for turn in range(2):
            x = x + y * z
            y = y + z * x
            z = z + x * y
            if turn == 0:
                x, y, z = (v ^ (v >> np.uint32(16)) for v in (x, y, z))
    return x, y, z


def noise(seed: int, stream: int, count: int) -> np.ndarray:
    """Standard normal numbers, float32 (count,), the same on every computer.

    Numbers 2i and 2i+1 are r cos(a) and r sin(a) with r = sqrt(-2 ln((p + 1) / 2**32)) and a = 2 pi q / 2**32, where
    p, q are the first two words of pcg3d(i, seed, stream), worked out in double precision.

    Test vectors: pcg3d(0, 0, 0) = (2611992518, 2833812075, 1058359340); noise(0, 0, 4) = -0.53546137,
    -0.8413931, -0.46937746, 0.8336103; noise(7, 2, 4) = -1.4143867, -0.11090274, 0.3569368, 0.22263154.
    """
    p, q, _ = hash_pcg3d(np.arange((count + 1) // 2, dtype=np.uint32), seed % 2**32, stream)
    radius = np.sqrt(-2 * np.log((p.astype(np.float64) + 1) / 2**32))
    angle = q.astype(np.float64) * (2 * np.pi / 2**32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count].astype(np.float32)


@dataclass(frozen=True)
class Result:
    """What a call makes.

    `images` uint8 (n, 128, 128). `record` says how they were made. `trajectory`, if asked for, is uint8
    (steps + 1, n, 128, 128): the decoded state before the first step and after each one, the last being `images`.
    """

    images: np.ndarray
    record: dict[str, Any]
    trajectory: np.ndarray | None = field(default=None, repr=False)


def weights_sha256(folder: Path) -> str:
    """One SHA-256 for all weights of a pipeline folder: of the names and hashes of its .safetensors files, sorted."""
    lines = [
        f"{p.relative_to(folder).as_posix()} {hashlib.sha256(p.read_bytes()).hexdigest()}\n"
        for p in sorted(folder.rglob("*.safetensors"), key=lambda p: p.relative_to(folder).as_posix())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_folder(folder: Path) -> None:
    """Raise CourseError unless `folder` holds a whole pipeline in safetensors files and no pickled weights."""
    again = "run `make models`, or get the folder again with `git checkout -- models/cxr-mini`"
    if not (folder / "model_index.json").is_file():
        raise CourseError(f"no pipeline in {folder} (model_index.json is missing)", next=again)
    pickled = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in PICKLES]
    if pickled:
        raise CourseError(
            f"{folder.name} holds {pickled[0]}: a pickle can run any program when it is opened",
            next="delete that file, and keep weights as .safetensors only",
        )
    missing = [part for part in PARTS if not any((folder / part).glob("*.safetensors"))]
    if missing:
        raise CourseError(f"{folder.name} has no weights for {', '.join(missing)}", next=again)


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no advice to install torchvision (which the course does without) while the libraries load."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    before = [(lib, lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    for lib in libraries:
        lib.set_verbosity_error()
        lib.disable_progress_bar()
    try:
        yield
    finally:
        for lib, level, bars in before:
            lib.set_verbosity(level)
            if bars:
                lib.enable_progress_bar()


class Generator:
    """Text to radiographs. Make one with `Generator.load`, then call it.

    `stamp` is {} or what the records say of an adapter learnt from somebody's films (`medimgen.finetune`) or taste
    (`medimgen.feedback`).
    """

    def __init__(self, pipe: Any, defaults: dict[str, Any], sha256: str, stamp: dict[str, Any] | None = None):
        self.pipe, self.defaults, self.sha256, self.stamp = pipe, defaults, sha256, stamp or {}

    @classmethod
    def load(cls, path: str | Path | None = None, adapter: str | Path | None = None) -> "Generator":
        """Load the pipeline in folder `path` (models/cxr-mini if not given). Reads no network.

        `adapter` is a folder written by `finetune` or `feedback`; records then carry its stamp, and exports refuse the
        images if it learnt from films.
        Raises CourseError when weights are missing, the folder holds pickled weights, or the adapter is not its own.
        """
        folder = Path(path or FOLDER).expanduser().resolve()
        check_folder(folder)
        print("Loading PyTorch and diffusers: some seconds, once per kernel ...", flush=True)
        start = time.perf_counter()
        import torch

        with quietly():
            from diffusers import StableDiffusionPipeline

            pipe = StableDiffusionPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        own = folder / DEFAULTS
        defaults = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
        print(f"Ready after {time.perf_counter() - start:.1f} s.", flush=True)
        generator = cls(pipe, {"steps": 4, "guidance": 1.0} | defaults, weights_sha256(folder))
        if adapter is None:
            return generator
        from medimgen.finetune import attach

        return attach(generator, adapter)

    def __call__(
        self,
        prompt: str,
        n: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        *,
        trajectory: bool = False,
        progress: Progress | bool = False,
    ) -> Result:
        """Make `n` images of `prompt`.

        Parameters
        ----------
        prompt : str
            Words the model never saw are reported in the record; it goes on without them (`medimgen.prompts`).
        n : int
            1 to 64. Image k uses seed + k: it is the image that n=1 makes from that seed.
        steps : int, optional
            Denoising steps, 1 to 50; the model's own default (4 or fewer) if not given.
        guidance : float, optional
            How far to exaggerate the prompt against `negative`: 1 = the model's own belief (Ho and Salimans 2022).
        negative : str
            What to steer away from; it has an effect only when guidance differs from 1.
        trajectory : bool
            Also decode the state after every step.
        progress : bool or callable
            True draws a bar; a callable gets (steps done, steps in all).

        Raises CourseError for an empty prompt, for one that holds what looks like a person's identifier (nothing is run
        or recorded then), and for n, steps, seed or guidance out of range.
        """
        settings = self.settings(prompt, n, seed, steps, guidance, negative)
        result = self.make(settings, trajectory, reporter(progress, settings["steps"]))
        if unseen := result.record["unseen"]:
            print(f"The model never saw: {', '.join(unseen)}. It goes on without.", flush=True)
        return result

    def stream(self, jobs, batch: int = 8, **options) -> Iterator[Result]:
        """Make any number of images, `batch` at a time, from pairs (prompt, seed): see `medimgen.stream.stream`."""
        from medimgen.stream import stream

        return stream(self, jobs, batch, **options)

    def make(self, settings: dict[str, Any], trajectory: bool = False, report: Progress | None = None) -> Result:
        """The images of checked settings, in which "prompt" is one text or a list of as many as there are "seeds"."""
        import torch

        start = time.perf_counter()
        with torch.inference_mode():
            states = self.denoise(settings, trajectory, report or reporter(False, 0))
            decoded = [self.decode(state) for state in states]
        record = self._record(settings, time.perf_counter() - start)
        return Result(decoded[-1], record, np.stack(decoded) if trajectory else None)

    def settings(self, prompt, n, seed, steps, guidance, negative) -> dict[str, Any]:
        """The call's settings with defaults filled in; CourseError for what cannot be drawn."""
        steps = self.defaults["steps"] if steps is None else steps
        guidance = self.defaults["guidance"] if guidance is None else guidance
        if not isinstance(prompt, str) or not prompt.strip():
            raise CourseError("the prompt is empty", next='write what the image should show, e.g. "normal chest x-ray"')
        if not isinstance(negative, str):
            raise CourseError("the negative prompt is not text", next='write words, or leave it out: negative=""')
        refuse_identifiers(prompt)
        refuse_identifiers(negative)
        for name, value, low, high in (("n", n, 1, LIMIT), ("steps", steps, 1, 50), ("seed", seed, 0, 2**32 - 1)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise CourseError(
                    f"{name}={value!r} is not a whole number from {low} to {high}", next=f"choose another {name}"
                )
        if not isinstance(guidance, (int, float)) or not 0 <= guidance <= 20:
            raise CourseError(f"guidance={guidance!r} is not a number from 0 to 20", next="try 1 (none) to 4 (strong)")
        return {
            "prompt": prompt,
            "negative": negative,
            "n": int(n),
            "seed": int(seed),
            "steps": int(steps),
            "guidance": float(guidance),
            "seeds": [(int(seed) + k) % 2**32 for k in range(n)],
        }

    def _record(self, settings: dict[str, Any], seconds: float, more: dict[str, Any] | None = None) -> dict[str, Any]:
        from medimgen.calls import note

        prompts = [settings["prompt"]] if isinstance(settings["prompt"], str) else dict.fromkeys(settings["prompt"])
        made = {
            "unseen": unseen_words(self.pipe.tokenizer, " ".join([*prompts, settings["negative"]])),
            "scheduler": type(self.pipe.scheduler).__name__,
            "weights_sha256": self.sha256,
            "seconds": round(seconds, 3),
            "synthetic": True,
        }
        record = settings | made | self.stamp | (more or {})
        note("generate", record)
        return record

    def words(self, text: str | list[str]):
        """What the UNet is told: the text encoder's states, float tensor (texts, 24, 128)."""
        tokenizer = self.pipe.tokenizer
        ids = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.pipe.text_encoder(ids)[0]

    def _noise(self, settings: dict[str, Any], stream: int):
        import torch

        unet = self.pipe.unet.config
        shape = (unet.in_channels, unet.sample_size, unet.sample_size)
        rows = [noise(seed, stream, int(np.prod(shape))).reshape(shape) for seed in settings["seeds"]]
        return torch.from_numpy(np.stack(rows))

    def denoise(self, settings: dict[str, Any], keep: bool = False, report: Progress = lambda *_: None) -> list:
        """Latents (n, 12, 16, 16) after the last step; with `keep` also the start and every state between."""
        scheduler, n, guidance = self.pipe.scheduler, settings["n"], settings["guidance"]
        wanted = self.words(settings["prompt"]).expand(n, -1, -1)
        other = self.words(settings["negative"]).expand(n, -1, -1) if guidance != 1 else None
        scheduler.set_timesteps(settings["steps"])
        x = self._noise(settings, 0) * scheduler.init_noise_sigma
        states, times = [x], scheduler.timesteps
        for k, t in enumerate(times):
            scaled = scheduler.scale_model_input(x, t)
            guess = self.pipe.unet(scaled, t, wanted).sample
            if other is not None:
                free = self.pipe.unet(scaled, t, other).sample
                guess = free + guidance * (guess - free)
            x = self._advance(guess, x, k, settings)
            states.append(x)
            report(k + 1, len(times))
        return states if keep else states[-1:]

    def _advance(self, guess, x, k: int, settings: dict[str, Any]):
        """One step of the scheduler, with this module's noise in place of the scheduler's own."""
        import torch

        scheduler = self.pipe.scheduler
        times = scheduler.timesteps
        if type(scheduler).__name__ != "LCMScheduler":
            return scheduler.step(guess, times[k], x).prev_sample
        unused = torch.Generator().manual_seed(0)  # keeps the scheduler's own draw away from PyTorch's global numbers
        clean = scheduler.step(guess, times[k], x, generator=unused).denoised
        if k + 1 == len(times):
            return clean
        return scheduler.add_noise(clean, self._noise(settings, k + 1), times[k + 1].expand(len(x)))

    def decode(self, latents) -> np.ndarray:
        """uint8 (n, 128, 128) of latents, eight at a time to bound memory."""
        vae, made = self.pipe.vae, []
        for part in latents.split(8):
            image = vae.decode(part / vae.config.scaling_factor).sample[:, 0]
            made.append(((image.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
        return np.concatenate(made)


def reporter(progress: Progress | bool, steps: int | None, unit: str = "step") -> Progress:
    """`progress` itself if it is a function, else one that draws a bar (True) or does nothing (False)."""
    if callable(progress):
        return progress
    if not progress:
        return lambda done, total: None
    from tqdm.auto import tqdm

    bar = tqdm(total=steps, unit=unit)

    def report(done: int, total: int | None) -> None:
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


def refuse_patient_derived(record: dict[str, Any], local_only: bool = False) -> None:
    """Raise CourseError if a record (or stamp) says that its model learnt from a reader's own films.

    Every export of the course calls this first. `local_only=True` lets pass what stays on this computer.
    """
    if record.get("patient_derived") and not local_only:
        raise CourseError(
            "this starts from somebody's film, or comes from a model fine-tuned on films: it is patient-derived and "
            "not for export",
            next="start from words alone, without an adapter; for a copy that stays here pass local_only=True",
        )


def __getattr__(name: str) -> Any:
    """`generate.finetune`, without loading that module before it is wanted (PEP 562)."""
    if name == "finetune":
        from medimgen.finetune import finetune

        return finetune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def save_png(
    path: str | Path, image: np.ndarray, record: dict[str, Any], model: Path = FOLDER, *, local_only: bool = False
) -> Path:
    """Write one synthetic image (uint8 (h, w)) as PNG that says what it is in its text chunks.

    Chunks: Synthetic = true, Warning = not for diagnosis, Prompt, Seed, Weights-SHA256, Record (all of it, JSON);
    Patient-Derived if `local_only` let such an image pass. Raises CourseError, and writes nothing, when the record is
    patient-derived, or when the image is too like a film that `model` learnt from (`medimgen.likeness`): it may be a
    patient's.
    """
    refuse_patient_derived(record, local_only)
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 2:
        raise CourseError(
            f"save_png got an array {image.dtype} {image.shape}",
            next="give one image, e.g. result.images[0] (uint8, two axes)",
        )
    if too_like(image[None], model)[0]:
        raise CourseError(
            "this image is more like a film of the training data than films of different children are",
            next="do not pass it on: make another with a different seed",
        )
    text = PngInfo()
    text.add_text("Synthetic", "true")
    text.add_text("Warning", "Synthetic image, not for diagnosis")
    for key, name in (("prompt", "Prompt"), ("seed", "Seed"), ("weights_sha256", "Weights-SHA256")):
        text.add_itxt(name, str(record.get(key, "unknown")))
    if record.get("patient_derived"):
        text.add_text("Patient-Derived", "true: local use only, not for export")
    text.add_itxt("Record", json.dumps(record, sort_keys=True))
    Image.fromarray(image).save(path, format="PNG", pnginfo=text)
    return Path(path)
