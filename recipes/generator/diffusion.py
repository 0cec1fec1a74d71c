"""The text-conditioned latent diffusion: latents of donor films with measured attributes, training, sampling."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import captions
from .autoencoder import CHANNELS
from .common import Average, Log, cosine, film_tensor, load_state, save_state
from .features import CLASSES

SCHEDULE = dict(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


def versions(images: np.ndarray, masks: np.ndarray, copies: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each film as it is, then `copies` slightly turned, enlarged, lightened or darkened ones (never mirrored)."""
    rng = torch.Generator().manual_seed(seed)
    x, m = film_tensor(images), torch.from_numpy(masks).float().unsqueeze(1)
    films, outlines = [images], [masks]
    for _ in range(copies):
        n = len(x)
        angle = (torch.rand(n, generator=rng) * 2 - 1) * np.deg2rad(6)
        size = 1 - torch.rand(n, generator=rng) * 0.08
        shift = (torch.rand(2, n, generator=rng) * 2 - 1) * 0.03
        c, s = torch.cos(angle) * size, torch.sin(angle) * size
        theta = torch.stack([c, -s, shift[0], s, c, shift[1]], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        gain = 1 + (torch.rand(n, 1, 1, 1, generator=rng) * 2 - 1) * 0.1
        light = (torch.rand(n, 1, 1, 1, generator=rng) * 2 - 1) * 0.12
        films.append((((moved * gain + light).clamp(-1, 1) + 1) * 127.5).round().byte()[:, 0].numpy())
        outlines.append(F.grid_sample(m, grid, align_corners=False)[:, 0].numpy() > 0.5)
    return np.concatenate(films), np.concatenate(outlines)


@torch.no_grad()
def encode(vae, images: np.ndarray, batch: int = 32) -> torch.Tensor:
    """Posterior means (n, 12, 16, 16) of uint8 films."""
    return torch.cat([vae.encode(x).latent_dist.mean for x in film_tensor(images).split(batch)])


def build_unet():
    """A new UNet of 6.7M parameters on 12x16x16 latents; attention at 8x8 and 4x4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 128, 112),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class Model(torch.nn.Module):
    """UNet and text encoder together, so that one optimiser and one average cover both."""

    def __init__(self, words: int):
        super().__init__()
        from diffusers.models.attention_processor import AttnProcessor

        self.unet, self.text = build_unet(), captions.build_text_encoder(words)
        self.unet.set_attn_processor(AttnProcessor())  # trains several times faster on a CPU than the fused one

    def encode(self, ids):
        return self.text(ids).last_hidden_state

    def forward(self, x, t, ids):
        return self.unet(x, t, self.encode(ids)).sample


def alphas() -> torch.Tensor:
    """Cumulative signal share at each of the 1000 times, as diffusers' schedulers have it."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE).alphas_cumprod


def tokens(tokenizer, texts: list[str]) -> torch.Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


class Data:
    """Latents with what the captions need; `batch(step)` depends on seed and step only, so that a resumed run
    repeats it.
    """

    def __init__(self, latents: torch.Tensor, subtypes: list[str], level: dict[str, np.ndarray], tokenizer, seed: int):
        self.latents, self.subtypes, self.level, self.tokenizer, self.seed = latents, subtypes, level, tokenizer, seed
        self.by_kind = [np.flatnonzero(np.array(subtypes) == c) for c in CLASSES]

    def batch(self, step: int, size: int):
        rng = np.random.default_rng([self.seed, step])
        torch_rng = torch.Generator().manual_seed(self.seed * 10_000_019 + step)
        chosen = rng.integers(0, len(self.latents), size)
        texts = [captions.caption(self.subtypes[i], {k: int(v[i]) for k, v in self.level.items()}, rng) for i in chosen]
        return self.latents[chosen], tokens(self.tokenizer, texts), torch_rng


def spread_times(n: int, rng: torch.Generator) -> torch.Tensor:
    """One of the 1000 times for each of `n` films, one from each n-th of the range: a loss with less noise than
    independent draws give.
    """
    t = (torch.arange(n) + torch.rand(n, generator=rng)) * 1000 / n
    return t.long().clamp(max=999)


def train(data: Data, path: Path, steps=5000, batch=48, peak=6e-4, seed=2, start_from: dict | None = None) -> Model:
    """Train UNet and text encoder to predict v; resumes from `path`; returns the averaged model."""
    torch.manual_seed(seed)
    model, log, start, a = Model(len(data.tokenizer)), Log(path.with_suffix(".jsonl")), 0, alphas()
    if start_from:
        model.load_state_dict(start_from)
    optimiser = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average, recent = Average(model, 0.999), []
    if (state := load_state(path)) is not None:
        model.load_state_dict(state["model"]), optimiser.load_state_dict(state["optimiser"])
        average.values, start = state["average"], state["step"]
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, peak)
        x, ids, rng = data.batch(step, batch)
        noise, t = torch.randn(x.shape, generator=rng), spread_times(len(x), rng)
        signal, spread = a[t].sqrt().view(-1, 1, 1, 1), (1 - a[t]).sqrt().view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            v = model(signal * x + spread * noise, t, ids)
        loss = F.mse_loss(v.float(), signal * noise - spread * x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model, step)
        recent.append(loss.item())
        if (step + 1) % 50 == 0:
            log(step=step + 1, loss=float(np.mean(recent[-50:])))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            save_state(
                path, model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values, step=step + 1
            )
    model.load_state_dict(average.values)
    return model.eval()


@torch.no_grad()
def sample(
    model: Model, vae, tokenizer, scheduler, texts: list[str], steps: int, guidance: float, seed: int, batch=32
) -> np.ndarray:
    """uint8 films (n, 128, 128), or 8 x `sample_size` of the UNet, by one of diffusers' schedulers."""
    out, rng = [], torch.Generator().manual_seed(seed)
    for at in range(0, len(texts), batch):
        part = texts[at : at + batch]
        words, none = model.encode(tokens(tokenizer, part)), model.encode(tokens(tokenizer, [""] * len(part)))
        scheduler.set_timesteps(steps)
        side = model.unet.config.sample_size
        x = torch.randn((len(part), CHANNELS, side, side), generator=rng) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            v = model.unet(x, t, words).sample
            if guidance != 1:
                v0 = model.unet(x, t, none).sample
                v = v0 + guidance * (v - v0)
            extra = {"generator": rng} if "generator" in scheduler.step.__code__.co_varnames else {}
            x = scheduler.step(v, t, x, **extra).prev_sample
        out.append(((vae.decode(x).sample.clamp(-1, 1) + 1) * 127.5).round().byte()[:, 0])
    return torch.cat(out).numpy()
