"""Ask the generator for a shape as well as words: lung outlines, image-to-image, inpainting.

>>> control = Control.load()
>>> control("chest x-ray, normal", mask=lungs, n=4, seed=7)                      # lungs where `lungs` is True
>>> control("chest x-ray, viral pneumonia", image=film, strength=0.5)            # half the way back to noise, and on
>>> control("chest x-ray, bacterial pneumonia", image=film, region=box, strength=1)      # redraws the box alone

Outlines go in by a ControlNet (Zhang, Rao, Agrawala 2023, arXiv 2302.05543), image-to-image is SDEdit (Meng et al.
2022, arXiv 2108.01073), inpainting puts the known part back after every step (Lugmayr et al. 2022, arXiv 2201.09865,
without their repeats). diffusers' own pipelines run the same parts: `StableDiffusionControlNetPipeline` and
`StableDiffusionImg2ImgPipeline`; its inpainting one knows 4 or 9 latent channels only and refuses these 12.

What starts from a film stays a patient's: the record says `patient_derived`, and `save_png` refuses it, however
little of the film is left and whoever published it. Not a medical device.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from medimgen.errors import CourseError
from medimgen.generate import Generator, Result, quietly
from medimgen.paths import ROOT

FOLDER = ROOT / "models" / "cxr-mini-control"


class Control(Generator):
    """A generator with a ControlNet, `net`, that reads lung masks."""

    net: Any = None

    @classmethod
    def load(
        cls, path: str | Path | None = None, adapter: str | Path | None = None, net: str | Path | None = None
    ) -> "Control":
        """The pipeline in `path` (models/cxr-mini if not given) and the ControlNet in `net` (models/cxr-mini-control).

        Raises CourseError when either is missing or the pipeline holds pickled weights.
        """
        folder = Path(net or FOLDER)
        if not any(folder.glob("*.safetensors")):
            raise CourseError(f"no ControlNet in {folder}", next="run `python recipes/train_control.py`")
        made = super().load(path, adapter)
        with quietly():
            from diffusers import ControlNetModel

            made.net = ControlNetModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float()
        return made

    def __call__(
        self,
        prompt: str,
        n: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        mask: np.ndarray | None = None,
        hold: float = 1.0,
        image: "np.ndarray | Result | None" = None,
        region: np.ndarray | None = None,
        strength: float = 0.5,
    ) -> Result:
        """Make `n` images of `prompt`; image k uses seed + k. Guidance is off: the model was distilled without.

        Parameters
        ----------
        mask : bool (128, 128), or (n, 128, 128) for one an image; True inside the lungs asked for.
        hold : float
            How firmly the mask is held to, 0 (not at all) to 2.
        image : uint8 (128, 128), or the Result of one synthetic image
            What to start from. An array is taken for a patient's film, whatever it is.
        region : bool (128, 128)
            True where `image` is to be redrawn; everywhere else its pixels stay.
        strength : float
            How far back towards noise `image` is taken, above 0 to 1; with 4 steps there are four strengths, 0.25 to 1.

        Raises CourseError for shapes, types and numbers that do not fit.
        """
        import torch

        settings = self.settings(prompt, n, seed, steps, 1.0, "")
        film, derived = _start(image)
        self._check(settings, mask, film, region, hold, strength)
        start = time.perf_counter()
        with torch.inference_mode():
            images = self.decode(self._walk(settings, mask, hold, film, region, strength))
        if region is not None:
            images = np.where(region, images, film)
        more = {"patient_derived": derived or self.stamp.get("patient_derived", False)}
        if mask is not None:
            more |= {"hold": hold, "mask_sha256": hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()}
        if film is not None:
            more |= {"strength": strength, "redrawn": 1.0 if region is None else round(float(np.mean(region)), 4)}
        return Result(images, self._record(settings, time.perf_counter() - start, more))

    def _check(self, settings, mask, film, region, hold, strength) -> None:
        """CourseError for what does not fit the model or each other."""
        size = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor
        for name, array, kind in (("mask", mask, bool), ("image", film, np.uint8), ("region", region, bool)):
            shapes = ((size, size), (settings["n"], size, size)) if name == "mask" else ((size, size),)
            if array is not None and (np.asarray(array).dtype != kind or np.shape(array) not in shapes):
                raise CourseError(
                    f"{name} is {np.asarray(array).dtype} {np.shape(array)}, not {np.dtype(kind)} {shapes[0]}",
                    next="masks and regions: array > 0; films: radiographs.load(...).images[0]",
                )
        if region is not None and film is None:
            raise CourseError("a region, but no image to redraw it in", next="pass image=, or leave region out")
        if not 0 <= hold <= 2 or not 0 < strength <= 1 or int(settings["steps"] * strength) < 1:
            raise CourseError(
                f"hold={hold}, strength={strength} with {settings['steps']} steps",
                next="hold 0 to 2; strength at least 1 / steps, at most 1",
            )

    def _walk(self, settings, mask, hold, film, region, strength):
        """Latents (n, 12, 16, 16) after the last step."""
        import torch
        import torch.nn.functional as F

        n, scheduler, extra = settings["n"], self.pipe.scheduler, {}
        words, noise = self.words(settings["prompt"]).expand(n, -1, -1), self._noise(settings, 0)
        scheduler.set_timesteps(settings["steps"])
        times, first, x = scheduler.timesteps, 0, noise * scheduler.init_noise_sigma
        if film is not None:
            first, known = len(times) - int(len(times) * strength), self._encode(film).expand(n, -1, -1, -1)
            x = scheduler.add_noise(known, noise, times[first].expand(n))
        if region is not None:
            redraw = F.max_pool2d(torch.from_numpy(region)[None, None].float(), self.pipe.vae_scale_factor) > 0
        if mask is not None:
            picture = torch.from_numpy(np.broadcast_to(mask, (n, *mask.shape[-2:])).astype(np.float32))
            picture = picture.unsqueeze(1).expand(-1, 3, -1, -1)
        for k in range(first, len(times)):
            scaled = scheduler.scale_model_input(x, times[k])
            if mask is not None:
                down, mid = self.net(scaled, times[k], words, picture, hold, return_dict=False)
                extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            x = self._advance(self.pipe.unet(scaled, times[k], words, **extra).sample, x, k, settings)
            if region is not None:
                last = k + 1 == len(times)
                x = torch.where(redraw, x, known if last else scheduler.add_noise(known, noise, times[k + 1].expand(n)))
        return x

    def _encode(self, film: np.ndarray):
        """Latents (1, 12, 16, 16) of a film: the middle of what the encoder says, without its small noise."""
        import torch

        x = torch.from_numpy(film[None, None] / np.float32(127.5) - 1)
        return self.pipe.vae.encode(x).latent_dist.mode() * self.pipe.vae.config.scaling_factor


def _start(image) -> tuple[np.ndarray | None, bool]:
    """The film to start from and whether it is, or comes from, a patient's."""
    if isinstance(image, Result):
        if len(image.images) != 1:
            raise CourseError(f"a result of {len(image.images)} images", next="make the one you mean alone, n=1")
        return image.images[0], bool(image.record.get("patient_derived"))
    return image, image is not None
