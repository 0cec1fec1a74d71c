"""A small lung segmenter for measuring generated images, which have no mask. Trained on clinic masks, not donor
ones.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .common import Log, augment, cosine, film_tensor, load_state, save_state

SIDE = 64


def load_masks(table, root: Path, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Lung masks (n, size, size) bool for a table of films and a bool (n,) saying which films have one.

    Masks are squashed like the films (nearest). The pairing of mask and film is inferred: see `mask_match`.
    """
    from PIL import Image

    out, known = np.zeros((len(table), size, size), bool), table["mask"].notna().to_numpy()
    for k in np.flatnonzero(known):
        with Image.open(root / "masks" / f"{table['mask'].iloc[k]}.png") as image:
            out[k] = np.asarray(image.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 127
    return out, known


def _pair(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.BatchNorm2d(b), nn.SiLU()
    )


class Outliner(nn.Module):
    """U-shaped net: films (n, 1, 64, 64) in -1 to 1 to mask logits."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = _pair(1, 16), _pair(16, 32), _pair(32, 48), _pair(48, 64)
        self.e, self.f, self.g = _pair(64 + 48, 48), _pair(48 + 32, 32), _pair(32 + 16, 16)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        def up(y, skip):
            return torch.cat([F.interpolate(y, scale_factor=2.0), skip], 1)

        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        y = self.e(up(self.d(F.max_pool2d(c, 2)), c))
        return self.out(self.g(up(self.f(up(y, b)), a)))


@torch.no_grad()
def outline(net: Outliner, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Lung masks, bool (n, 64, 64) enlarged to the films' own size, of uint8 films."""
    net.eval()
    out = []
    for x in film_tensor(images).split(batch):
        y = net(F.interpolate(x, size=(SIDE, SIDE), mode="area"))
        out.append(F.interpolate(y, size=x.shape[-2:], mode="bilinear")[:, 0] > 0)
    return torch.cat(out).numpy()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Mean overlap of masks, 0 to 1."""
    both = (a & b).sum((1, 2))
    return float((2 * both / np.maximum(1, a.sum((1, 2)) + b.sum((1, 2)))).mean())


def train(images, masks, dev_images, dev_masks, path: Path, steps=300, batch=24, seed=4) -> Outliner:
    """Train on films with masks; logs the overlap on dev. Resumes from `path` when that run was finished."""
    torch.manual_seed(seed)
    rng, net, log = torch.Generator().manual_seed(seed), Outliner(), Log(path.with_suffix(".jsonl"))
    if (state := load_state(path)) is not None:
        net.load_state_dict(state["net"])
        return net.eval()
    both = torch.cat([film_tensor(images), torch.from_numpy(masks).float().unsqueeze(1) * 2 - 1], 1)
    both = F.interpolate(both, size=(SIDE, SIDE), mode="area")
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, 3e-3, warm=20)
        chosen = torch.randint(0, len(both), (batch,), generator=rng)
        moved = augment(both[chosen], rng, gain=0)
        gain = 1 + torch.randn((batch, 1, 1, 1), generator=rng) * 0.1
        net.train()
        y = net((moved[:, :1] * gain).clamp(-1, 1))
        loss = F.binary_cross_entropy_with_logits(y, (moved[:, 1:] + 1) / 2)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    log(step=steps, loss=loss.item(), dev_dice=dice(outline(net, dev_images), dev_masks))
    save_state(path, net=net.state_dict())
    return net.eval()
