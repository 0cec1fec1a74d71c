"""The training behind `medimgen.finetune`: LoRA on a distilled UNet, in two phases (the why is told there)."""

import copy
import hashlib
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from medimgen.errors import CourseError
from medimgen.generate import Generator, Progress

RANK, BATCH, PEAK, OWN = 8, 16, 1e-3, 64
PHASES, FIRST, FOLDER = ("undo", "folder"), 1 / 3, "folder"
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj"]


class Training:
    """A copy of the UNet with both adapters, and what steps draw from; each step has its own random numbers."""

    def __init__(self, generator: Generator, pictures, captions: list[str], chosen: list[str], seed: int):
        pipe, self.seed, self.step, self.seconds, self.phase, self.file = generator.pipe, seed, 0, 0.0, None, None
        self.unet = copy.deepcopy(pipe.unet).requires_grad_(False)
        self.unet.set_attn_processor(AttnProcessor())  # trains several times faster on a CPU than the fused one
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):  # peft, of two adapters
            torch.manual_seed(seed)
            for name in PHASES:
                self.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS), adapter_name=name)
        pipe.scheduler.set_timesteps(generator.defaults["steps"])
        self.times = pipe.scheduler.timesteps.clone()
        self.signal = pipe.scheduler.alphas_cumprod[self.times].view(-1, 1, 1, 1)
        with torch.no_grad():
            starts = range(0, OWN, 8)
            own = [generator.denoise(settings(generator, chosen[k : k + 8], 1000 + k))[-1] for k in starts]
            films = [pipe.vae.encode(x).latent_dist.mean for x in versions(pictures, seed).split(16)]
            films = torch.cat(films) * pipe.vae.config.scaling_factor
            words = generator.words(captions).repeat(len(films) // len(pictures), 1, 1)
            self.latents, self.words = (torch.cat(own), films), (generator.words(chosen[:OWN]), words)

    def _enter(self, phase: int) -> None:
        """Train one adapter, the earlier ones standing still."""
        self.phase = phase
        self.unet.set_adapters(list(PHASES[: phase + 1]))
        for name, value in self.unet.named_parameters():
            value.requires_grad_(f".{PHASES[phase]}." in name)
        self.weights = [value for value in self.unet.parameters() if value.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, PEAK, betas=(0.9, 0.99), weight_decay=0.0)

    def _advance(self, share: float) -> None:
        """One step at `share` of the way; the learning rate of each phase falls from its peak to nearly 0."""
        if self.phase != (phase := int(share >= FIRST)):
            self._enter(phase)
        part = (share - FIRST) / (1 - FIRST) if phase else share / FIRST
        for group in self.optimiser.param_groups:
            group["lr"] = PEAK * (0.02 + 0.98 * math.cos(math.pi / 2 * part) ** 2)
        rng = torch.Generator().manual_seed(self.seed % 2**32 * 10_000_019 + self.step)
        i = torch.randint(len(self.latents[phase]), (BATCH,), generator=rng)
        k = torch.randint(len(self.times), (BATCH,), generator=rng)
        x, clear, grain = self.latents[phase][i], self.signal[k].sqrt(), (1 - self.signal[k]).sqrt()
        noise = torch.randn(x.shape, generator=rng)
        v = self.unet(clear * x + grain * noise, self.times[k], self.words[phase][i]).sample
        loss = F.mse_loss(v, clear * noise - grain * x)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()

    def run(self, steps: int, minutes: float, report: Progress, cancel: Callable[[], bool]) -> bool:
        """Train to the end, or until `cancel`; says whether the end was reached."""
        before, start = self.seconds, time.perf_counter()
        while (share := max(self.step / steps, self.seconds / (60 * minutes))) < 1:
            if cancel():
                self._keep()
                return False
            self._advance(share)
            self.step, self.seconds = self.step + 1, before + time.perf_counter() - start
            report(self.step, steps)
            if self.step % 25 == 0:
                self._keep()
        if self.file:
            self.file.unlink(missing_ok=True)
        return True

    def resume(self, file: Path, key: str) -> None:
        """Keep the run in `file` from now on, and go on from there if `key`, what was asked for, is the same."""
        self.file, self.key = file, key
        state = torch.load(file, weights_only=True) if file.is_file() else {"key": key, "step": 0}
        if state["key"] != key:
            raise CourseError(f"{file} is of another run", next="delete it, or choose another output folder")
        if state["step"]:
            self.unet.load_state_dict(state["adapters"], strict=False)
            self.step, self.seconds = state["step"], state["seconds"]
            self._enter(state["phase"])
            self.optimiser.load_state_dict(state["optimiser"])

    def _keep(self) -> None:
        if self.file and self.step:
            state = {name: getattr(self, name) for name in ("key", "step", "seconds", "phase")}
            state["adapters"] = {k: v for k, v in self.unet.state_dict().items() if "lora_" in k}
            torch.save(state | {"optimiser": self.optimiser.state_dict()}, part := self.file.with_suffix(".part"))
            part.replace(self.file)

    def finish(self):
        """The UNet with the folder's adapter alone."""
        self.unet.set_adapters([FOLDER])
        self.unet.delete_adapters(PHASES[0])
        self.unet.set_attn_processor(AttnProcessor2_0())
        return self.unet.requires_grad_(False).eval()


def versions(pictures: np.ndarray, seed: int, copies: int = 4):
    """The films (n, 1, h, w) in -1 to 1, then `copies` slightly turned, shifted and enlarged ones, never mirrored."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(pictures).float().div(127.5).sub(1)[:, None]
    out = [x]
    for _ in range(copies):
        turn, dx, dy, size = (torch.rand(4, len(x), generator=rng) * 2 - 1) * torch.tensor(
            [[0.05], [0.04], [0.04], [0.04]]
        )
        c, s = turn.cos() * (1 - size.abs()), turn.sin()
        grid = F.affine_grid(torch.stack([c, -s, dx, s, c, dy], 1).view(-1, 2, 3), list(x.shape), align_corners=False)
        out.append(F.grid_sample(x, grid, padding_mode="border", align_corners=False))
    return torch.cat(out)


def settings(generator: Generator, captions: list[str], seed: int) -> dict[str, Any]:
    first = generator.settings(captions[0], len(captions), seed, None, None, "")
    return first | {"prompt": captions}


def images(generator: Generator, captions: list[str]) -> np.ndarray:
    """uint8 (n, h, w): one image a caption, image k from seed k."""
    return generator.make(settings(generator, captions, 0)).images


def layers(unet) -> dict:
    """The adapter's weights under the names that stock diffusers reads."""
    layers = get_peft_model_state_dict(unet, adapter_name=FOLDER)
    return {f"unet.{name}": value.detach().contiguous() for name, value in layers.items()}


def sha256(layers: dict) -> str:
    digest = hashlib.sha256()
    for name in sorted(layers):
        digest.update(name.encode() + layers[name].numpy().tobytes())
    return digest.hexdigest()
