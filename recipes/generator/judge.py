"""The judge of prompted images and the net whose features the ruler measures in, both of clinic films.

Neither shares its architecture with anything that made or chose the generator: the perceptual features, the first
judge and the course's classifier are residual nets of strided blocks; these are densely connected ones (Huang et al.
2017, arXiv 1608.06993), with other seeds. The judge is the mean of two nets. The ruler is a third, which also learns to
tell how blurred and how grainy a film was made, so that its features see texture and not disease alone.

`load` trains what is missing and resumes what was stopped; recipes/quality.py does so. The full data tier is needed.
Every step draws its random numbers from its own number, so a resumed run is the same run. The weights kept are those
of the lowest negative log probability on dev. Not a medical device.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from medimgen.data import radiographs
from medimgen.paths import cache_dir

from .common import Average, Log, augment, cosine, film_tensor, load_state, save_state
from .features import CLASSES, balanced_accuracy, corrupt

SEEDS = {"judge-a": 1301, "judge-b": 1302, "ruler": 1303}
STEPS, BATCH, PEAK, EVERY = 1500, 32, 2e-3, 100
WORK = cache_dir() / "training" / "judge"


class Dense(nn.Module):
    """`layers` convolutions, each of which sees what all earlier ones found; then half the width at half the side."""

    def __init__(self, width: int, growth: int, layers: int, out: int):
        super().__init__()
        widths = [width + growth * k for k in range(layers)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths)
        self.convs = nn.ModuleList(nn.Conv2d(w, growth, 3, padding=1, bias=False) for w in widths)
        self.norm, self.mix = nn.BatchNorm2d(width + growth * layers), nn.Conv2d(width + growth * layers, out, 1)

    def forward(self, x):
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.mix(F.relu(self.norm(x)))


class DenseNet(nn.Module):
    """Films (n, 1, 128, 128) in -1 to 1 to class scores (n, 3); `embed` gives the features (n, 2 x 144) before them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(16, 48, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([Dense(48, 24, 4, 80), Dense(80, 32, 4, 112), Dense(112, 32, 3, 144)])
        self.drop, self.kind = nn.Dropout(0.3), nn.Linear(288, len(CLASSES))
        self.blur, self.noise = nn.Linear(288, 4), nn.Linear(288, 3)

    def embed(self, x):
        x = self.stem(F.pixel_unshuffle(x, 4))
        for k, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if k else x)
        x = F.relu(x)
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    def forward(self, x):
        return self.kind(self.drop(self.embed(x)))


def loss_of(net: DenseNet, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator, texture: bool) -> torch.Tensor:
    """Cross-entropy of the class on moved films, half of them blurred or grainy; with `texture` all of them, and
    cross-entropy of how much.
    """
    moved = augment(x, rng, shift=0.06, turn=0.12, zoom=0.12, gain=0.15)
    spoilt, blur, noise = corrupt(moved, rng)
    keep = torch.rand(len(x), generator=rng) < (0.0 if texture else 0.5)
    films = torch.where(keep.view(-1, 1, 1, 1), moved, spoilt).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = net.embed(films)
        kind, b, n = net.kind(net.drop(features)), net.blur(features), net.noise(features)
    loss = F.cross_entropy(kind.float(), y, label_smoothing=0.05)
    if texture:
        loss = loss + 0.3 * F.cross_entropy(b.float(), blur) + 0.3 * F.cross_entropy(n.float(), noise)
    return loss


@torch.no_grad()
def run(net: nn.Module, images: np.ndarray, what: str, batch: int = 64) -> np.ndarray:
    """`what` = "probabilities" (n, 3) or "features" (n, 288) of uint8 films (n, 128, 128)."""
    net.eval()
    parts = film_tensor(images).split(batch)
    return torch.cat([net(p).softmax(1) if what == "probabilities" else net.embed(p) for p in parts]).numpy()


def _evaluate(values: dict, dev, labels: np.ndarray) -> tuple[float, list[float]]:
    """Mean negative log probability on dev films, and the share of each class that is found."""
    net = DenseNet()
    net.load_state_dict(values)
    p = run(net, dev, "probabilities")
    return float(-np.log(p[np.arange(len(p)), labels] + 1e-9).mean()), balanced_accuracy(p, labels)


def train(images, labels, dev, dev_labels, path: Path, seed: int, steps: int = STEPS, texture=False) -> DenseNet:
    """The averaged net with the lowest negative log probability on dev; resumes from `path`."""
    torch.manual_seed(seed)
    net, log = DenseNet().to(memory_format=torch.channels_last), Log(path.with_suffix(".jsonl"))
    optimiser, average = torch.optim.AdamW(net.parameters(), PEAK, weight_decay=0.05), Average(net, 0.99)
    x, y = film_tensor(images), torch.from_numpy(np.array(labels))
    weights = (1 / torch.bincount(y).float())[y]
    state = load_state(path) or {"step": 0, "nll": float("inf"), "best": average.values}
    if state["step"]:
        net.load_state_dict(state["net"]), optimiser.load_state_dict(state["optimiser"])
        average.values = state["average"]
    for step in range(state["step"], steps):
        rng = torch.Generator().manual_seed(10**6 * seed + step)
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, PEAK)
        chosen = torch.multinomial(weights, BATCH, True, generator=rng)
        torch.manual_seed(10**6 * seed + step)  # dropout
        net.train()
        loss = loss_of(net, x[chosen], y[chosen], rng, texture)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            nll, found = _evaluate(average.values, dev, dev_labels)
            if nll < state["nll"]:
                state |= {"nll": nll, "at": step + 1, "best": {k: v.clone() for k, v in average.values.items()}}
            state |= {"step": step + 1, "net": net.state_dict(), "optimiser": optimiser.state_dict()}
            save_state(path, **state | {"average": average.values})
            accuracy = [round(a, 3) for a in found]
            log(step=step + 1, loss=loss.item(), dev_nll=nll, dev_accuracy=accuracy, mean=float(np.mean(found)))
    net = DenseNet()
    net.load_state_dict(state["best"])
    return net.eval()


def load(name: str, work: Path = WORK, steps: int = STEPS) -> DenseNet:
    """One of `SEEDS`, trained on clinic films now if it is not in `work` or not finished."""
    kinds = {c: k for k, c in enumerate(CLASSES)}
    films, dev = radiographs.load("clinic"), radiographs.load("dev")
    y, dev_y = (part.table["subtype"].map(kinds).to_numpy() for part in (films, dev))
    rest = dict(seed=SEEDS[name], steps=steps, texture=name == "ruler")
    return train(films.images, y, dev.images, dev_y, work / f"{name}.pt", **rest)


class Judge:
    """Mean of the two judges: `probabilities(images)` (n, 3) for normal, bacterial, viral."""

    def __init__(self, nets: list[nn.Module]):
        self.nets = nets

    @classmethod
    def load(cls, work: Path = WORK) -> "Judge":
        return cls([load(name, work) for name in SEEDS if name != "ruler"])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        return np.mean([run(net, images, "probabilities") for net in self.nets], 0)


class Ruler:
    """Features (n, 24) of uint8 films (n, 128, 128).

    The net's 288 numbers are centred and scaled as on the clinic films it learnt from, turned to their first 24
    principal components there, and scaled once more to a mean square of 1: distances depend on no unit.
    """

    def __init__(self, net: nn.Module, films: np.ndarray, dimensions: int = 24):
        raw = run(net, films, "features").astype(float)
        self.net, self.centre, self.scale = net, raw.mean(0), raw.std(0) + 1e-6
        _, size, turn = np.linalg.svd((raw - self.centre) / self.scale, full_matrices=False)
        kept = size[:dimensions] ** 2
        self.kept = float(kept.sum() / (size**2).sum())
        self.turn = turn[:dimensions].T / np.sqrt(kept.mean() / len(films))

    @classmethod
    def load(cls, work: Path = WORK) -> "Ruler":
        return cls(load("ruler", work), radiographs.load("clinic").images)

    def features(self, images: np.ndarray) -> np.ndarray:
        return (run(self.net, images, "features") - self.centre) / self.scale @ self.turn
