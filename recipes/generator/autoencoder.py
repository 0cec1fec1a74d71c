"""The autoencoder: films (1, 128, 128) to latents (12, 16, 16) and back, a stock diffusers `AutoencoderKL`.

It starts as a linear code (linear.py) and its encoder stays so: the latents are principal components of 8x8
blocks. The decoder learns to do better than the linear one, first on absolute, gradient and perceptual difference
(inner layers of a donor-trained classifier), then with a light patch-adversarial term, so that lung markings are
not averaged away.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import linear
from .common import Average, Log, cosine, film_tensor, load_state, save_state

CROP, CHANNELS = 64, 12
PLAN = {"batch": 12, "adversarial_from": 400, "adversarial": 0.008, "whole_from": 900}


def build():
    """A new `AutoencoderKL` of 1.65M parameters; no attention, so that crops train it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        mid_block_add_attention=False,
        force_upcast=False,
        scaling_factor=1.0,  # the UNet learns the latents as they are; diffusers would divide by 0.18215 by default
    )


class Patches(nn.Module):
    """Patch discriminator: says of each 16-pixel neighbourhood whether it is real."""

    def __init__(self, width=48):
        super().__init__()
        self.net = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, width, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.GroupNorm(4, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(4, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, 1, 1),
        )

    def forward(self, x):
        return self.net(x)


def gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of horizontal and vertical pixel differences."""
    d = a - b
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()


def perceptual_loss(net, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of channel-normalised inner layers (the first three)."""
    with torch.no_grad():
        wanted = net.maps(b)[:3]
    total = 0.0
    for x, y in zip(net.maps(a)[:3], wanted, strict=True):
        total = total + (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean()
    return total


class Training:
    """The decoder's training; `step(k)` does one update and returns the loss's parts. The encoder is not touched."""

    def __init__(self, net, films: np.ndarray, latents: torch.Tensor, features, steps: int, plan: dict, seed: int):
        torch.manual_seed(seed)
        self.x, self.z, self.features = film_tensor(films), latents, features.requires_grad_(False).eval()
        self.net, self.critic, self.steps, self.plan, self.seed = net, Patches(), steps, plan, seed
        self.learning = [*net.decoder.parameters(), *net.post_quant_conv.parameters()]
        self.optimiser = torch.optim.AdamW(self._groups(), betas=(0.9, 0.99), weight_decay=0.0)
        self.critic_optimiser = torch.optim.AdamW(self.critic.parameters(), 5e-4, betas=(0.5, 0.99))
        self.average = Average(net, 0.995)

    def _groups(self) -> list[dict]:
        """Residual branches start silent and learn fast; what carries the linear code learns slowly."""
        branch = [p for n, p in self.net.decoder.named_parameters() if "resnets" in n and "shortcut" not in n]
        known = {id(p) for p in branch}
        last = list(self.net.decoder.conv_out.parameters())
        known |= {id(p) for p in last}
        carry = [p for p in self.learning if id(p) not in known]
        return [{"params": q, "peak": r, "lr": r} for q, r in ((branch, 6e-4), (carry, 1e-4), (last, 2e-5))]

    def parts(self) -> dict:
        return dict(
            net=self.net.state_dict(), critic=self.critic.state_dict(), optimiser=self.optimiser.state_dict(),
            critic_optimiser=self.critic_optimiser.state_dict(), average=self.average.values,
        )  # fmt: skip

    def restore(self, state: dict) -> None:
        for name in ("net", "critic", "optimiser", "critic_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.average.values = state["average"]

    def batch(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops of 64 pixels on the latents' grid (whole films near the end) and their slightly noisy latents."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        whole = k >= self.plan["whole_from"]
        chosen = torch.randint(
            0, len(self.x), (self.plan["batch"] // 4 if whole else self.plan["batch"],), generator=rng
        )
        x, z = self.x[chosen], self.z[chosen]
        if not whole:
            room = 16 - CROP // 8
            places = torch.randint(-2, room + 3, (2, len(chosen)), generator=rng).clamp(0, room)
            z = torch.stack([f[:, t : t + 8, u : u + 8] for f, (t, u) in zip(z, places.T.tolist(), strict=True)])
            places = places * 8
            x = torch.stack([f[:, t : t + CROP, u : u + CROP] for f, (t, u) in zip(x, places.T.tolist(), strict=True)])
        return x, z + 0.1 * torch.randn(z.shape, generator=rng)

    def step(self, k: int) -> dict:
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(k, self.steps, group["peak"], warm=50)
        x, z = self.batch(k)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.net.decode(z).sample
            perceptual = perceptual_loss(self.features, y, x)
        y = y.float()
        parts = dict(l1=(y - x).abs().mean(), gradient=gradient_loss(y, x), perceptual=perceptual)
        loss = parts["l1"] + parts["gradient"] * 0.5 + perceptual * 0.06
        adversarial = k >= self.plan["adversarial_from"]
        if adversarial:
            with torch.autocast("cpu", torch.bfloat16):
                parts["fool"] = -self.critic(y).float().mean()
            loss = loss + parts["fool"] * self.plan["adversarial"] * min(1.0, (k - self.plan["adversarial_from"]) / 100)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimiser.step()
        self.average.update(self.net, k)
        if adversarial or k >= self.plan["adversarial_from"] - 50:
            parts["critic"] = self._teach(x, y.detach())
        return {name: float(v.detach()) for name, v in parts.items()}

    def _teach(self, real, made):
        with torch.autocast("cpu", torch.bfloat16):
            r, m = self.critic(real).float(), self.critic(made).float()
        loss = F.relu(1 - r).mean() + F.relu(1 + m).mean()
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()
        return loss


@torch.no_grad()
def reconstruct(net, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """uint8 films through encoder and decoder (posterior mean) and back to uint8."""
    out = []
    for x in film_tensor(images).split(batch):
        y = net.decode(net.encode(x).latent_dist.mean).sample
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte()[:, 0])
    return torch.cat(out).numpy()


def quality(net, images: np.ndarray) -> dict:
    """PSNR in dB and SSIM of reconstructed against real films, means over films."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    made = reconstruct(net, images)
    pairs = list(zip(images, made, strict=True))
    return dict(
        psnr=float(np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs])),
        ssim=float(np.mean([structural_similarity(a, b) for a, b in pairs])),
    )


def averaged(values: dict):
    net = build()
    net.load_state_dict(values)
    return net.eval()


def start(films: np.ndarray, path: Path, seed=1, steps=700):
    """The autoencoder that holds the linear code (see linear.py), fitted to `films` once and kept at `path`."""
    torch.manual_seed(seed)
    net, state = build(), load_state(path)
    if state is None:
        linear.start(net, films, steps)
        save_state(path, **net.state_dict())
    else:
        net.load_state_dict(state)
    return net.eval()


def train(net, films, latents, dev, features, path: Path, steps=1000, plan: dict | None = None, seed=1):
    """Train the decoder (resuming from `path`) and return the averaged autoencoder; logs quality on dev films.

    `latents` are the encoder's for `films`; `plan` says from which step on crops give way to whole films and the
    critic joins.
    """
    plan = PLAN | (plan or {})
    run, log, begin = Training(net, films, latents, features, steps, plan, seed), Log(path.with_suffix(".jsonl")), 0
    if (state := load_state(path)) is not None:
        run.restore(state)
        begin = state["step"]
    for k in range(begin, steps):
        parts = run.step(k)
        if (k + 1) % 50 == 0:
            log(step=k + 1, **parts)
        if (k + 1) % 200 == 0 or k + 1 == steps:
            save_state(path, step=k + 1, **run.parts())
            log(step=k + 1, **quality(averaged(run.average.values), dev[::10]))
    return averaged(run.average.values)
