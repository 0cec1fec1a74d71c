"""Lung masks as a second prompt: pairs of film and mask, changed alike, and a ControlNet's training on them.

ControlNet (Zhang, Rao, Agrawala 2023, arXiv 2302.05543): a copy of the UNet's first half reads the mask and adds to
what the first half hands to the second. The UNet itself stays as it is.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .common import Average, Log, augment, cosine, film_tensor, load_state, save_state
from .diffusion import Data, Model, alphas, spread_times

WIDTHS = (4, 16, 32, 96)


def lungs(mask: np.ndarray) -> list[np.ndarray]:
    """The two largest connected parts of a mask, bool (h, w), the one further left in the picture first; a mask in one
    piece is parted at its middle column.
    """
    from scipy import ndimage

    parts, n = ndimage.label(mask)
    if n < 2:
        left = np.arange(mask.shape[1]) < np.nonzero(mask)[1].mean()
        return [mask & left, mask & ~left]
    sizes = np.bincount(parts.ravel())[1:]
    found = [parts == 1 + k for k in np.argsort(sizes)[::-1][:2]]
    return sorted(found, key=lambda part: np.nonzero(part)[1].mean())


def cut_row(lung: np.ndarray, share: float) -> int:
    """The row at which `share` of the lung's height lies above."""
    rows = np.flatnonzero(lung.any(1))
    return round(rows[0] + share * (rows[-1] + 1 - rows[0]))


def halved(mask: np.ndarray, side: int, share: float = 0.5) -> np.ndarray:
    """The mask with one lung (0 left in the picture, 1 right) cut off below `share` of its height."""
    lung, rest = lungs(mask)[side], mask.copy()
    rest[cut_row(lung, share) :] &= ~lung[cut_row(lung, share) :]
    return rest


def turn(x: torch.Tensor, degrees: float, **how) -> torch.Tensor:
    """Pictures (n, c, h, w) turned clockwise about their middle; the edge goes on outside unless `how` says else."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    theta = torch.tensor([[c, s, 0.0], [-s, c, 0.0]], dtype=torch.float32).repeat(len(x), 1, 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, **({"padding_mode": "border"} | how))


def turned(masks: np.ndarray, degrees: float) -> np.ndarray:
    """Masks bool (n, h, w) turned clockwise about their middle."""
    x = torch.from_numpy(masks).float().unsqueeze(1)
    return turn(x, degrees, padding_mode="zeros")[:, 0].numpy() > 0.5


def raised(mask: np.ndarray, side: int, share: float, ramp: int = 12) -> np.ndarray:
    """Row of the film, float (h, w), to read for every pixel, so that the tissue under one lung rises to `share` of
    that lung's height: the film that belongs to `halved(mask, side, share)`, made from a real one.

    In every column of that lung the rows between cut and lung base are left out and what lies below is stretched;
    beside the lung the change fades over `ramp` pixels.
    """
    lung = lungs(mask)[side]
    (h, w), cut = mask.shape, cut_row(lung, share)
    columns = np.flatnonzero(lung.any(0))
    base = h - np.argmax(lung[::-1, columns], axis=0)  # first row below the lung
    x = np.arange(w)
    away = np.maximum(columns[0] - x, x - columns[-1])
    skip = np.interp(x, columns, np.maximum(base - cut, 0)) * np.clip(1 - away / ramp, 0, 1)
    rows = np.arange(h, dtype=float)[:, None]
    last = h - 1
    below = cut + skip + (rows - cut) * (last - cut - skip) / (last - cut)
    return np.where(rows < cut, rows, below)


def raise_base(pairs: torch.Tensor, masks: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Films and masks as channels (n, 2, h, w) in -1..1, one lung of each cut short; where a lung has hardly any
    pixels, nothing is changed.
    """
    n, _, h, w = pairs.shape
    rows = np.tile(np.arange(h, dtype=float)[:, None], (n, 1, w))
    for k, mask in enumerate(masks):
        side, share = int(rng.integers(2)), rng.uniform(0.35, 0.8)
        if mask.any() and min(part.sum() for part in lungs(mask)) > 100:
            rows[k] = raised(mask, side, share)
    y = torch.from_numpy((2 * rows + 1) / h - 1).float()
    x = ((2 * torch.arange(w) + 1) / w - 1).expand(n, h, w)
    return F.grid_sample(pairs, torch.stack([x, y], -1), padding_mode="border", align_corners=False)


def pairs(images: np.ndarray, masks: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Films uint8 and masks bool (4n, h, w): as they are, moved a little, turned by up to 25 degrees, and with one
    lung cut short; never mirrored.
    """
    rng, numbers = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    both = torch.cat([film_tensor(images), torch.from_numpy(masks).float().unsqueeze(1) * 2 - 1], 1)
    moved = augment(both, rng, gain=0)
    tilted = augment(both, rng, turn=np.deg2rad(25), gain=0)
    cut = augment(raise_base(both, masks, numbers), rng, gain=0)
    x = torch.cat([both, moved, tilted, cut])
    return ((x[:, 0] + 1) * 127.5).round().byte().numpy(), (x[:, 1] > 0).numpy()


class Pairs(Data):
    """As `Data`, and which films a batch holds, so that their masks can be found."""

    def batch(self, step: int, size: int):
        chosen = np.random.default_rng([self.seed, step]).integers(0, len(self.latents), size)  # its first draw
        return chosen, *super().batch(step, size)


def build(unet):
    """A new ControlNet beside `unet`, 3.1M parameters; three equal channels, because diffusers hands over RGB."""
    from diffusers import ControlNetModel
    from diffusers.models.attention_processor import AttnProcessor

    net = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=WIDTHS)
    net.set_attn_processor(AttnProcessor())
    net.controlnet_cond_embedding.conv_out.reset_parameters()  # diffusers starts it at zero, behind other zeros
    return net


def guess(net, model, x, t, words, masks: torch.Tensor) -> torch.Tensor:
    """v of `model` at `x`, masks (n, h, w) 0..1 seen by `net`."""
    picture = masks.unsqueeze(1).expand(-1, 3, -1, -1)
    down, mid = net(x, t, words, controlnet_cond=picture, return_dict=False)
    return model.unet(x, t, words, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample


def train(data: Pairs, masks: np.ndarray, teacher: Model, path: Path, steps=500, batch=16, peak=1e-3, seed=3):
    """The averaged ControlNet, trained to predict v with the teacher's UNet held still; resumes from `path`.

    Late times (noise) are drawn more often, in proportion to their square: there the outline is settled.
    """
    torch.manual_seed(seed)
    teacher.requires_grad_(False)
    net, log, start, a = build(teacher.unet), Log(path.with_suffix(".jsonl")), 0, alphas()
    optimiser = torch.optim.AdamW(net.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average, recent = Average(net, 0.98), []
    if (state := load_state(path)) is not None:
        net.load_state_dict(state["net"]), optimiser.load_state_dict(state["optimiser"])
        average.values, start = state["average"], state["step"]
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, peak, warm=20)
        chosen, x, ids, rng = data.batch(step, batch)
        noise = torch.randn(x.shape, generator=rng)
        t = (1000 * (spread_times(len(x), rng) / 1000) ** (1 / 3)).long().clamp(max=999)
        signal, spread = a[t].sqrt().view(-1, 1, 1, 1), (1 - a[t]).sqrt().view(-1, 1, 1, 1)
        with torch.no_grad():
            words = teacher.encode(ids)
        with torch.autocast("cpu", torch.bfloat16):
            v = guess(net, teacher, signal * x + spread * noise, t, words, torch.from_numpy(masks[chosen]).float())
        loss = F.mse_loss(v.float(), signal * noise - spread * x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        average.update(net, step)
        recent.append(loss.item())
        if (step + 1) % 25 == 0 or step + 1 == steps:
            log(step=step + 1, loss=float(np.mean(recent[-25:])))
            parts = dict(net=net.state_dict(), optimiser=optimiser.state_dict(), average=average.values)
            save_state(path, step=step + 1, **parts)
    net.load_state_dict(average.values)
    return net.eval()
