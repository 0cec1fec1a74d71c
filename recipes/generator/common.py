"""What every stage of the recipe shares: film tensors, augmentation, checkpoints, logs, moving averages."""

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


def film_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w) to float32 (n, 1, h, w) in -1 to 1."""
    return torch.from_numpy(np.array(images)).float().div_(127.5).sub_(1).unsqueeze(1)


def augment(x: torch.Tensor, rng: torch.Generator, shift=0.05, turn=0.09, zoom=0.08, gain=0.1) -> torch.Tensor:
    """Small random moves, turns, zooms and brightness changes of films (n, 1, h, w). Never mirrored: the heart
    has a side.
    """

    def uniform(scale: float) -> torch.Tensor:
        return (torch.rand(len(x), generator=rng) * 2 - 1) * scale

    angle, size = uniform(turn), 1 + uniform(zoom)
    c, s = torch.cos(angle) * size, torch.sin(angle) * size
    theta = torch.stack([c, -s, uniform(shift), s, c, uniform(shift)], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return (moved * (1 + uniform(gain)).view(-1, 1, 1, 1) + uniform(gain).view(-1, 1, 1, 1)).clamp(-1, 1)


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for k, v in module.state_dict().items():
            if v.is_floating_point():
                self.values[k].lerp_(v, 1 - decay)
            else:
                self.values[k].copy_(v)


def save_state(path: Path, **parts) -> None:
    """Write a checkpoint under another name, then rename, so that a stop never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(parts, temporary)
    temporary.replace(path)


def load_state(path: Path) -> dict | None:
    """The checkpoint at `path`, or None if there is none."""
    return torch.load(path, weights_only=True) if path.is_file() else None


class Log:
    """One JSON line per entry, with process seconds, printed too."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.start = path, time.process_time()

    def __call__(self, **entry) -> None:
        entry = {k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()}
        entry["cpu_seconds"] = round(time.process_time() - self.start, 1)
        line = json.dumps(entry)
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as f:
            f.write(line + "\n")


def cosine(step: int, total: int, peak: float, warm: int = 100, floor: float = 0.02) -> float:
    """Learning rate: linear warm-up, then half a cosine down to `floor` of the peak."""
    if step < warm:
        return peak * (step + 1) / warm
    part = (step - warm) / max(1, total - warm)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))
