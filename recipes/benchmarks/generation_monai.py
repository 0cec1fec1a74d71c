"""MONAI's side of generation.py: its `AutoencoderKL` and `DiffusionModelUNet` in three configurations, trained here.

Read generation.py first; its first lines say what MONAI gets and what it does not.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from generator import autoencoder, captions, common, diffusion
from generator.features import CLASSES
from torch import nn

from medimgen.errors import CourseError

SEED, SAVE = 700_000, 45  # SAVE: CPU seconds between checkpoints


def config(latent, channels, blocks, unet, unet_blocks, heads, schedule, prediction, rates, batch=48) -> dict:
    """One way to set MONAI's networks up. `heads`: channels of an attention head by level, 0 = no attention. `rates`:
    learning rates of the autoencoder and of the UNet. `batch`: films a step of the UNet.
    """
    one = dict(in_channels=1, out_channels=1, latent_channels=latent, channels=channels, num_res_blocks=blocks)
    one |= dict(attention_levels=[False] * len(channels), norm_num_groups=8)
    one |= dict(with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False)
    two = dict(in_channels=latent, out_channels=latent, channels=unet, num_res_blocks=unet_blocks, norm_num_groups=16)
    two |= dict(attention_levels=[h > 0 for h in heads], num_head_channels=heads)
    two |= dict(with_conditioning=True, cross_attention_dim=len(CLASSES))
    side = 128 >> (len(channels) - 1)
    schedule = schedule | {"prediction_type": prediction}
    return dict(autoencoder=one, unet=two, schedule=schedule, rates=rates, batch=batch, latents=(latent, side, side))


BETAS = {"beta_start": 0.0015, "beta_end": 0.0195}
LINEAR, SCALED = ({"schedule": name} | BETAS for name in ("linear_beta", "scaled_linear_beta"))
SMALL = ((16, 48, 96, 128), 1, (96, 128, 128), 1, (0, 32, 32))
CONFIGS = {
    # its 2D tutorial in small: 32x32x3 latents, noise predicted; small batches, for a film costs three times as much
    "monai-a": config(3, (32, 64, 96), 2, (64, 96, 128), 2, (0, 96, 128), LINEAR, "epsilon", (5e-4, 4e-4), 16),
    "monai-b": config(12, *SMALL, {"schedule": "cosine"}, "v_prediction", (1e-3, 6e-4)),  # the shape of ours: 16x16x12
    "monai-c": config(4, *SMALL, SCALED, "v_prediction", (1e-3, 6e-4)),  # smaller latents, 16x16x4
}


def size(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def filled(net: nn.Module, values: dict) -> nn.Module:
    net.load_state_dict(values)
    return net.eval()


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """MONAI's autoencoder and UNet with new weights. CourseError if MONAI is missing or they are not of our size."""
    try:
        from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
    except ImportError as missing:
        raise CourseError("MONAI is not here", next="install it as generation.py's first lines say") from missing
    c = CONFIGS[name]
    nets = AutoencoderKL(spatial_dims=2, **c["autoencoder"]), DiffusionModelUNet(spatial_dims=2, **c["unet"])
    with torch.device("meta"):
        share = size(*nets) / size(autoencoder.build(), diffusion.Model(len(captions.vocabulary())))
    if not 0.8 <= share <= 1.2:
        raise CourseError(f"{name} has {share:.2f} times our parameters", next="change it until it is within 20 %")
    return nets


class Kept(common.Average):
    """Averaged weights that go into a checkpoint like the rest."""

    def state_dict(self) -> dict:
        return self.values

    def load_state_dict(self, values: dict) -> None:
        self.values = values


def loop(clock, path: Path, things: dict, step: Callable[[int], float]) -> None:
    """`step(k)`, which returns its loss, until the time is over; `things` (modules, optimisers, averages) are kept at
    `path` every `SAVE` seconds.
    """
    state, recent = common.load_state(path) or {"step": 0}, []
    for name, thing in things.items():
        if state["step"]:
            thing.load_state_dict(state[name])
    saved = None
    for k in clock.steps(state["step"]):
        saved = clock.spent() if saved is None else saved
        recent.append(step(k))
        if (k + 1) % 5 == 0 and clock.spent() - saved >= SAVE:
            saved = clock.spent()
            common.save_state(path, step=k + 1, **{name: thing.state_dict() for name, thing in things.items()})
            line = {"step": k + 1, "of": clock.total(), "loss": float(np.mean(recent[-50:])), "cpu_seconds": saved}
            print(path.parent.name, path.stem, json.dumps(line), flush=True)


def descend(loss: torch.Tensor, optimiser: torch.optim.Optimizer, rate: float) -> float:
    group = optimiser.param_groups[0]
    group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimiser.step()
    return loss.item()


class Autoencoding:
    """MONAI's autoencoder in training: absolute error, KL and, from 35 % of the time on, its patch discriminator, with
    its tutorial's weights. Crops of 64 pixels; whole films in the last 8 %, as in our recipe.
    """

    def __init__(self, net: nn.Module, x: np.ndarray, rate: float, clock):
        from monai.losses.adversarial_loss import PatchAdversarialLoss
        from monai.networks.nets import PatchDiscriminator

        self.net, self.x, self.rate, self.clock = net, x, rate, clock
        self.critic = PatchDiscriminator(2, 32, 1, num_layers_d=3)
        self.fool = PatchAdversarialLoss(criterion="least_squares")
        self.optimiser = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.critic_optimiser = torch.optim.AdamW(self.critic.parameters(), 5e-4, betas=(0.5, 0.99))
        self.average = Kept(net, 0.995)
        self.things = {k: getattr(self, k) for k in ("net", "critic", "optimiser", "critic_optimiser", "average")}

    def batch(self, k: int, whole: bool) -> torch.Tensor:
        rng = np.random.default_rng([SEED, k])
        x = common.film_tensor(self.x[rng.integers(0, len(self.x), 3 if whole else 12)]) / 2 + 0.5
        if whole:
            return x
        corners = rng.integers(0, 65, (len(x), 2)).tolist()
        return torch.stack([f[:, t : t + 64, u : u + 64] for f, (t, u) in zip(x, corners, strict=True)])

    def step(self, k: int) -> float:
        part = k / self.clock.total()
        x, critic = self.batch(k, part >= 0.92).contiguous(memory_format=torch.channels_last), part >= 0.35
        with torch.autocast("cpu", torch.bfloat16):
            y, mean, spread = self.net(x)
            says = self.critic(y)[-1].float() if critic else None
        y, mean, variance = y.float(), mean.float(), spread.float() ** 2
        kl = 0.5 * (mean**2 + variance - variance.log() - 1).sum() / len(x)
        loss = (y - x).abs().mean() + 1e-6 * kl
        if critic:
            loss = loss + 0.01 * self.fool(says, target_is_real=True, for_discriminator=False)
        value = descend(loss, self.optimiser, self.clock.rate(k, self.rate, warm=50))
        self.average.update(self.net, k)
        if critic:
            self.teach(x, y.detach())
        return value

    def teach(self, real: torch.Tensor, made: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            a, b = self.critic(real)[-1].float(), self.critic(made)[-1].float()
        loss = self.fool(a, target_is_real=True, for_discriminator=True)
        loss = (loss + self.fool(b, target_is_real=False, for_discriminator=True)) / 2
        descend(loss, self.critic_optimiser, 5e-4)


def as_diffusers(net: nn.Module) -> SimpleNamespace:
    """MONAI's autoencoder with the face of diffusers' (films -1 to 1), for our `autoencoder.quality`."""
    return SimpleNamespace(
        encode=lambda x: SimpleNamespace(latent_dist=SimpleNamespace(mean=net.encode(x / 2 + 0.5)[0])),
        decode=lambda z: SimpleNamespace(sample=net.decode(z) * 2 - 1),
    )


def conditions(kinds: np.ndarray, rng: torch.Generator | None = None) -> torch.Tensor:
    """The class as one-hot context (n, 1, 3); with `rng` one in ten is -1, MONAI's mark for "none" in guidance."""
    context = F.one_hot(torch.as_tensor(kinds), len(CLASSES)).float().unsqueeze(1)
    if rng is not None:
        context[torch.rand(len(context), generator=rng) < 0.1] = -1.0
    return context


class Monai:
    """One of `CONFIGS`: its two networks, trained one after the other on films (n, 128, 128) and their classes."""

    shares, steps = {"autoencoder": 40, "unet": 60}, (50,)

    def __init__(self, name: str, films, stages):
        self.films, self.stages, self.config = films, stages, CONFIGS[name]
        torch.manual_seed(2)
        self.net, self.unet = (net.to(memory_format=torch.channels_last) for net in build(name))

    def train(self) -> None:
        self.net = filled(self.net, self.stages.stage("autoencoder", self._autoencoder))
        values = self.stages.stage("unet", self._unet)
        self.scale = float(values.pop("scale"))
        self.unet, self.vae = filled(self.unet, values), as_diffusers(self.net)
        self.nets = {"autoencoder": self.net, "unet": self.unet}

    def _autoencoder(self, clock) -> dict:
        run = Autoencoding(self.net, self.films.images, self.config["rates"][0], clock)
        loop(clock, self.stages.folder / "autoencoder.pt", run.things, run.step)
        return run.average.values

    @torch.no_grad()
    def _encoded(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.net.eval()
        parts = [self.net.encode(x / 2 + 0.5) for x in common.film_tensor(self.films.images).split(32)]
        return tuple(torch.cat(p) for p in zip(*parts, strict=True))

    def scheduler(self, of: str):
        from monai.networks import schedulers

        # latents are not confined to -1 to 1, where MONAI clips by default
        return getattr(schedulers, of)(1000, clip_sample=False, **self.config["schedule"])

    def _unet(self, clock) -> dict:
        from monai.inferers import DiffusionInferer

        mean, spread = self._encoded()
        scale = 1 / (mean + spread * torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))).std()
        noising, net, average = self.scheduler("DDPMScheduler"), self.unet.train(), Kept(self.unet, 0.999)
        inferer, rate, batch = DiffusionInferer(noising), self.config["rates"][1], self.config["batch"]
        optimiser = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

        def step(k: int) -> float:
            rng = torch.Generator().manual_seed(SEED + k)
            chosen = torch.randint(0, len(mean), (batch,), generator=rng)
            z = (mean[chosen] + spread[chosen] * torch.randn(mean[chosen].shape, generator=rng)) * scale
            noise, t = torch.randn(z.shape, generator=rng), diffusion.spread_times(batch, rng)
            with torch.autocast("cpu", torch.bfloat16):
                made = inferer(z, net, noise, t, conditions(self.films.kinds[chosen], rng))
            wanted = noise if noising.prediction_type == "epsilon" else noising.get_velocity(z, noise, t)
            value = descend(F.mse_loss(made.float(), wanted), optimiser, clock.rate(k, rate))
            average.update(net, k)
            return value

        path = self.stages.folder / "unet.pt"
        loop(clock, path, {"net": net, "optimiser": optimiser, "average": average}, step)
        return average.values | {"scale": scale}

    @torch.no_grad()
    def sample(self, kind: int, n: int, steps: int, guidance: float, seed: int) -> np.ndarray:
        """`n` images of a class by DDIM, uint8 (n, 128, 128)."""
        from monai.inferers import LatentDiffusionInferer

        scheduler = self.scheduler("DDIMScheduler")
        scheduler.set_timesteps(steps)
        noise = torch.randn((n, *self.config["latents"]), generator=torch.Generator().manual_seed(seed))
        more = {"conditioning": conditions(np.full(n, kind)), "verbose": False}
        more |= {} if guidance == 1 else {"cfg": guidance}
        x = LatentDiffusionInferer(scheduler, self.scale).sample(noise, self.net, self.unet, scheduler, **more)
        return (x.clamp(0, 1) * 255).round().byte()[:, 0].numpy()
