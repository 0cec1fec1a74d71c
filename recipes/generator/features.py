"""A small classifier of films. Trained on donor films its inner layers serve as the autoencoder's perceptual
features; trained on clinic films it is the judge that looks at prompted images.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .common import Average, Log, augment, cosine, film_tensor, load_state, save_state

CLASSES = ("normal", "bacterial", "viral")


class Block(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.a = nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.na = nn.BatchNorm2d(after)
        self.b = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.nb = nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x):
        y = self.nb(self.b(F.silu(self.na(self.a(x)))))
        return F.silu(y + self.skip(F.avg_pool2d(x, 2)))


class FeatureNet(nn.Module):
    """Films (n, 1, 128, 128) in -1 to 1. `maps` are the inner layers, `heads` the class and how blurred or noisy
    it is.
    """

    def __init__(self, widths=(32, 64, 96, 128)):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in zip((16, *widths[:-1]), widths, strict=True))
        self.drop = nn.Dropout(0.3)
        self.kind = nn.Linear(widths[-1], len(CLASSES))
        self.blur = nn.Linear(sum(widths), 4)
        self.noise = nn.Linear(sum(widths), 3)

    def maps(self, x) -> list[torch.Tensor]:
        out, y = [], F.silu(self.stem(x))
        for block in self.blocks:
            y = block(y)
            out.append(y)
        return out

    def embed(self, x) -> torch.Tensor:
        """Mean of every inner layer: (n, 320)."""
        return torch.cat([m.mean((2, 3)) for m in self.maps(x)], 1)

    def forward(self, x):
        maps = self.maps(x)
        pooled = torch.cat([m.mean((2, 3)) for m in maps], 1)
        return self.kind(self.drop(maps[-1].mean((2, 3)))), self.blur(pooled), self.noise(pooled)


def corrupt(x: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blur (4 levels) and grain (3 levels) drawn for each film; returns the films and the two levels."""
    blur = torch.randint(0, 4, (len(x),), generator=rng)
    noise = torch.randint(0, 3, (len(x),), generator=rng)
    out = x.clone()
    for level, side in ((1, 96), (2, 72), (3, 48)):
        chosen = blur == level
        if chosen.any():
            small = F.interpolate(x[chosen], size=(side, side), mode="area")
            out[chosen] = F.interpolate(small, size=x.shape[-2:], mode="bicubic", align_corners=False)
    grain = torch.randn(x.shape, generator=rng) * torch.tensor([0.0, 0.03, 0.08])[noise].view(-1, 1, 1, 1)
    return out + grain, blur, noise


@torch.no_grad()
def probabilities(net: FeatureNet, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Class probabilities (n, 3) of uint8 films (n, 128, 128)."""
    net.eval()
    x = film_tensor(images)
    return torch.cat([net(part)[0].softmax(1) for part in x.split(batch)]).numpy()


@torch.no_grad()
def embeddings(net: FeatureNet, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Mean features (n, 320) of uint8 films (n, 128, 128)."""
    net.eval()
    x = film_tensor(images)
    return torch.cat([net.embed(part) for part in x.split(batch)]).numpy()


def balanced_accuracy(p: np.ndarray, y: np.ndarray) -> list[float]:
    """Share of films of each class that get their own label."""
    return [float((p[y == c].argmax(1) == c).mean()) for c in range(p.shape[1])]


def _loss(net: FeatureNet, films: torch.Tensor, kinds: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Cross-entropy of class, blur and grain on moved and corrupted films."""
    films, blur, noise = corrupt(augment(films, rng), rng)
    with torch.autocast("cpu", torch.bfloat16):
        kind, b, n = net(films.contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(kind.float(), kinds, label_smoothing=0.05)
    return loss + 0.5 * F.cross_entropy(b.float(), blur) + 0.5 * F.cross_entropy(n.float(), noise)


def _progress(values: dict, images: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy per class and mean negative log probability of the averaged net."""
    net = FeatureNet()
    net.load_state_dict(values)
    p = probabilities(net, images)
    accuracy = [round(a, 3) for a in balanced_accuracy(p, labels)]
    return dict(dev_accuracy=accuracy, dev_nll=float(-np.log(p[np.arange(len(p)), labels]).mean()))


def train(images, labels, dev_images, dev_labels, path: Path, steps=900, batch=32, seed=0) -> FeatureNet:
    """Train on films and class numbers, and on how blurred and grainy they were made. Resumes from `path`."""
    torch.manual_seed(seed)
    rng, net, log = torch.Generator().manual_seed(seed), FeatureNet(), Log(path.with_suffix(".jsonl"))
    net = net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    average, x, y, start = Average(net, 0.99), film_tensor(images), torch.as_tensor(labels), 0
    if (state := load_state(path)) is not None:
        net.load_state_dict(state["net"]), optimiser.load_state_dict(state["optimiser"])
        average.values, start = state["average"], state["step"]
        rng.set_state(state["rng"])
    weights = 1 / torch.bincount(y).float()
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, 2e-3)
        chosen = torch.multinomial(weights[y], batch, True, generator=rng)
        net.train()
        loss = _loss(net, x[chosen], y[chosen], rng)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
        if (step + 1) % 150 == 0 or step + 1 == steps:
            parts = dict(net=net.state_dict(), optimiser=optimiser.state_dict(), average=average.values)
            save_state(path, step=step + 1, rng=rng.get_state(), **parts)
            log(step=step + 1, loss=loss.item(), **_progress(average.values, dev_images, dev_labels))
    net.load_state_dict(average.values)
    return net.eval()
