"""Lungs of a child's chest film at 128 pixels, found by a small U-shaped network.

>>> segmenter = Segmenter.load()
>>> segmenter(films.images)                        # bool (n, 128, 128), True inside the lungs

After Ronneberger, Fischer and Brox 2015 (arXiv 1505.04597), a quarter of a million weights, trained by
recipes/train_segmenter.py on masks that count most of the heart as lung. It measures generated films, which have no
mask of their own, and has learnt from none of the films the generator learnt from. Not a medical device.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from medimgen.errors import CourseError
from medimgen.paths import ROOT

FOLDER = ROOT / "models" / "cxr-segmenter"
SIZE = 128


def _pair(a: int, b: int) -> nn.Sequential:
    layers = [nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, nn.SiLU())


class Net(nn.Module):
    """Films (n, 1, 128, 128) in -1 to 1 to mask logits of the same shape; works on 2 x 2 blocks as four channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = _pair(4, 16), _pair(16, 32), _pair(32, 48), _pair(48, 64)
        self.e, self.f, self.g = _pair(64 + 48, 48), _pair(48 + 32, 32), _pair(32 + 16, 16)
        self.out = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        def up(y, skip):
            return torch.cat([F.interpolate(y, scale_factor=2.0), skip], 1)

        a = self.a(F.pixel_unshuffle(x, 2))
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        y = self.e(up(self.d(F.max_pool2d(c, 2)), c))
        return F.pixel_shuffle(self.out(self.g(up(self.f(up(y, b)), a))), 2)


class Segmenter:
    """Films to lung masks."""

    def __init__(self, net: Net, facts: dict | None = None):
        self.net, self.facts = net.eval(), facts or {}

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Segmenter":
        """Load a folder (models/cxr-segmenter if not given); `facts` is its config.json. Reads no network.

        Raises CourseError when a file is missing or the weights are not those that config.json names.
        """
        folder = Path(path or FOLDER)
        config, weights = folder / "config.json", folder / "model.safetensors"
        if missing := [p.name for p in (config, weights) if not p.is_file()]:
            raise CourseError(f"{folder} holds no {missing[0]}", next="run `python recipes/train_segmenter.py`")
        facts = json.loads(config.read_text(encoding="utf-8"))
        if hashlib.sha256(weights.read_bytes()).hexdigest() != facts["sha256"]:
            raise CourseError(f"{weights} is not the file config.json names", next=f"run `git checkout -- {folder}`")
        net = Net()
        net.load_state_dict(load_file(weights))
        return cls(net, facts)

    def __call__(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """Lung masks, bool (n, 128, 128), of films uint8 (n, 128, 128) or one (128, 128); CourseError for others."""
        x = np.asarray(images)
        if x.dtype != np.uint8 or x.ndim not in (2, 3) or x.shape[-2:] != (SIZE, SIZE):
            raise CourseError(f"films {x.dtype} {x.shape}", next=f"pass uint8 (n, {SIZE}, {SIZE})")
        x = torch.from_numpy(np.array(x.reshape(-1, 1, SIZE, SIZE), np.float32)) / 127.5 - 1
        with torch.inference_mode():
            return torch.cat([self.net(part)[:, 0] > 0 for part in x.split(batch)]).numpy()


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of masks bool (n, h, w), pair by pair (Dice 1945): twice the common part over the sum; 1 if both are
    empty.
    """
    both, total = (a & b).sum((1, 2)), a.sum((1, 2)) + b.sum((1, 2))
    return np.where(total, 2 * both / np.maximum(1, total), 1.0)


def save(net: Net, folder: Path, facts: dict) -> None:
    """Write model.safetensors and config.json (facts and the weights' sha256)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)
    text = json.dumps(facts | {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}, indent=1) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")
