"""Grain and fine markings: the decoder and the student's last step learn to draw as much of them as films have.

Absolute and squared errors are smallest for the mean of all textures that fit, and that mean is smooth: they leave
images with too little power in the fine frequencies. Here two things pull the other way. The power of 64-pixel crops in
eight bands of frequency must be that of films (spectral regularisation, Durall et al. 2020, arXiv 2003.01826). And
critics compare crops of generated images with crops of films, one by their pixels, three by the inner layers of a net
trained on donor films (projected discriminators, Sauer et al. 2021, arXiv 2111.01007): they say where it belongs.

What may change is bounded. A film must come back as itself, and a generated image must stay the same once both are
averaged over 4 x 4 pixels: anatomy is not touched here, nor improved. Only donor films are used.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .autoencoder import CROP, Patches, perceptual_loss, quality
from .common import Average, Log, cosine, film_tensor, load_state, save_state
from .diffusion import Data, Model
from .distil import QUARTERS, angles

WEIGHTS = {"l1": 0.5, "perceptual": 0.06, "same": 1.0, "spectrum": 0.1, "fool": 0.15}
STRIDE = 1000 // QUARTERS
BATCH, CRITIC_FIRST, SEED, IMAGES = 10, 40, 41, 2400


class Critic(nn.Module):
    """Scores of crops (n, 1, 64, 64): one map from the pixels and one from each of the first three inner layers."""

    def __init__(self, features: nn.Module, pixels: Patches, width: int = 64):
        super().__init__()
        self.features, self.pixels = [features.requires_grad_(False).eval()], pixels  # in a list: not trained
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1)) for c in (32, 64, 96)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = self.features[0].maps(x)[:3]
        return [self.pixels(x).float(), *(head(m).float() for head, m in zip(self.heads, maps, strict=True))]


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """Power of square crops (n, 1, side, side) in eight equal bands of spatial frequency up to half a cycle a pixel,
    as base 10 logarithms (n, 8).
    """
    side = x.shape[-1]
    window = torch.hann_window(side, periodic=False)
    flat = x[:, 0] - x[:, 0].mean((1, 2), keepdim=True)
    power = torch.fft.rfft2(flat * window * window.view(-1, 1)).abs().square()
    radius = torch.hypot(torch.fft.fftfreq(side).view(-1, 1), torch.fft.rfftfreq(side)) * 16
    band = F.one_hot(radius.long().clamp(max=8), 9)[..., :8].float()  # the corners of the square are left out
    return (torch.einsum("nhw,hwb->nb", power, band) / band.sum((0, 1)) + 1e-4).log10()


def step(student: Model, x: torch.Tensor, t: int, words: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """One of the student's four DDIM steps, from time `t` to a quarter of all times earlier."""
    now, then = angle[t + 1], angle[t + 1 - STRIDE]
    with torch.autocast("cpu", torch.bfloat16):
        v = student.unet(x, t, words).sample
    return (now - then).cos() * x - (now - then).sin() * v.float()


@torch.no_grad()
def bank(student: Model, vae, data: Data, path: Path, n: int, seed: int = 31, batch: int = 48) -> dict:
    """`n` captions, each with the student's state before its last step and the image it would draw, averaged over
    4 x 4 pixels; kept at `path`.
    """
    if (kept := load_state(path)) is not None:
        return kept
    angle, parts, rng = angles(), [], torch.Generator().manual_seed(seed)
    for k in range(-(-n // batch)):
        _, ids, _ = data.batch(9_000_000 + k, batch)
        words, x = student.encode(ids), torch.randn((batch, *data.latents.shape[1:]), generator=rng)
        for quarter in range(QUARTERS, 1, -1):
            x = step(student, x, quarter * STRIDE - 1, words, angle)
        z = step(student, x, STRIDE - 1, words, angle)
        parts.append((ids, x, F.avg_pool2d(vae.decode(z).sample, 4).half()))
    kept = {name: torch.cat(p)[:n] for name, p in zip(("ids", "x", "pooled"), zip(*parts, strict=True), strict=True)}
    save_state(path, **kept)
    return kept


def crops(x: torch.Tensor, places: torch.Tensor, side: int, scale: int) -> torch.Tensor:
    """From each x[k] the square of `side` whose corner is at `places[k]` times `scale`."""
    corners = (places * scale).tolist()
    return torch.stack([f[:, t : t + side, u : u + side] for f, (t, u) in zip(x, corners, strict=True)])


class Training:
    """`step(k)` does one update of decoder, student and critics and returns the loss's parts."""

    def __init__(self, vae, student: Model, critic: Critic, data: Data, films: np.ndarray, made: dict, steps: int):
        self.vae, self.student, self.critic, self.made, self.steps = vae, student, critic, made, steps
        self.x, self.z, self.angle, self.level = film_tensor(films), data.latents, angles(), None
        named = [(n, p, "resnets" in n and "shortcut" not in n) for n, p in vae.decoder.named_parameters()]
        rates = (
            ([p for _, p, branch in named if branch], 2e-4),
            ([p for _, p, branch in named if not branch], 5e-5),  # these carry the linear code
            ([*student.unet.parameters()], 1e-4),
        )
        groups = [{"params": p, "peak": peak} for p, peak in rates]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.5, 0.99), weight_decay=0.0)
        self.learning = [p for group in groups for p in group["params"]]
        self.critic_optimiser = torch.optim.AdamW(critic.parameters(), 5e-4, betas=(0.5, 0.99), weight_decay=0.0)
        self.averages = Average(vae, 0.99), Average(student, 0.99)

    NAMES = ("vae", "student", "critic", "optimiser", "critic_optimiser")

    def parts(self) -> dict:
        state = {name: getattr(self, name).state_dict() for name in self.NAMES}
        return state | {"level": self.level, "averages": [a.values for a in self.averages]}

    def restore(self, state: dict) -> None:
        for name in self.NAMES:
            getattr(self, name).load_state_dict(state[name])
        self.level = state["level"]
        for average, values in zip(self.averages, state["averages"], strict=True):
            average.values = values

    def step(self, k: int) -> dict:
        rng = torch.Generator().manual_seed(1_000_003 * SEED + k)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.0 if k < CRITIC_FIRST else cosine(k, self.steps, group["peak"], 50)
        film, shown = (torch.randint(0, len(x), (BATCH,), generator=rng) for x in (self.x, self.made["x"]))
        places = torch.randint(-2, 11, (BATCH, 2), generator=rng).clamp(0, 16 - CROP // 8)
        real = crops(self.x[film], places, CROP, 8)
        again, made, same = self._draw(film, shown, places, rng)
        parts = dict(
            l1=(again - real).abs().mean(), same=same, spectrum=self._bands(real, again, made),
            perceptual=perceptual_loss(self.critic.features[0], again, real),
            fool=-torch.stack([s.mean() for y in (again, made) for s in self.critic(y)]).mean(),
        )  # fmt: skip
        self.optimiser.zero_grad(set_to_none=True)
        sum(WEIGHTS[name] * value for name, value in parts.items()).backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimiser.step()
        for average, model in zip(self.averages, (self.vae, self.student), strict=True):
            average.update(model, max(0, k - CRITIC_FIRST))
        parts["critic"] = self._teach(real, torch.cat([again, made]).detach())
        return {name: float(v.detach()) for name, v in parts.items()}

    def _draw(self, film, shown, places, rng):
        """Crops of films through the decoder, crops of generated images, and how far the latter have moved."""
        z = crops(self.z[film], places, CROP // 8, 1)
        z = z + 0.05 * torch.randn(z.shape, generator=rng)
        with torch.no_grad():
            words = self.student.encode(self.made["ids"][shown])
        fresh = step(self.student, self.made["x"][shown], STRIDE - 1, words, self.angle)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.vae.decode(torch.cat([z, crops(fresh, places, CROP // 8, 1)])).sample
        again, made = y.float().chunk(2)
        # a crop's border is decoded without what lies around it, so it is not compared
        before = crops(self.made["pooled"][shown].float(), places, CROP // 4, 2)[:, :, 2:-2, 2:-2]
        return again, made, (F.avg_pool2d(made, 4)[:, :, 2:-2, 2:-2] - before).abs().mean()

    def _bands(self, real, again, made) -> torch.Tensor:
        """Each film against itself; generated images, which have no film of their own, against films' running mean."""
        wanted = spectrum(real)
        self.level = wanted.mean(0) if self.level is None else self.level.lerp(wanted.mean(0), 0.02)
        return (spectrum(again) - wanted).abs().mean() + (spectrum(made).mean(0) - self.level).abs().mean()

    def _teach(self, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.critic(real), self.critic(made), strict=True)
        loss = torch.stack([F.relu(1 - r).mean() + F.relu(1 + m).mean() for r, m in pairs]).mean()
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()
        return loss


def train(vae, student: Model, critic: Critic, data: Data, films, dev, path: Path, steps=500, images=IMAGES):
    """(autoencoder, student), both averaged; resumes from `path`; logs the autoencoder's quality on dev films."""
    torch.manual_seed(SEED)
    made = bank(student, vae, data, path.with_name("bank.pt"), images)
    run, log, start = Training(vae, student, critic, data, films, made, steps), Log(path.with_suffix(".jsonl")), 0
    if (state := load_state(path)) is not None:
        run.restore(state)
        start = state["step"]
    for k in range(start, steps):
        parts = run.step(k)
        if (k + 1) % 20 == 0 or k + 1 == steps:
            log(step=k + 1, **parts)
        if (k + 1) % 100 == 0 or k + 1 == steps:
            save_state(path, step=k + 1, **run.parts())
    for model, average in zip((vae, student), run.averages, strict=True):
        model.load_state_dict(average.values)
    if start < steps:
        log(step=steps, **quality(vae.eval(), dev[::10]))
    return vae.eval(), student.eval()
