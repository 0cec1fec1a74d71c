"""A good start for the autoencoder: principal components of 8x8 blocks, written into an `AutoencoderKL` by hand.

Trained from random weights for 20 minutes of one core, this autoencoder reached 30 dB; the twelve first principal
components of 8x8 blocks, a purely linear code, reach 35 dB. So the network starts as that code and learns what is
better. Three tricks make a stock `AutoencoderKL` linear: (1) the last convolution of every residual block starts
at zero, so that blocks pass their input on; (2) two channels +x and -x give silu(x) - silu(-x) = x; (3) two
channels of constants +K and -K hold the standard deviation that group normalisation divides by nearly constant.
"""

import numpy as np
import torch
import torch.nn.functional as F

from .common import film_tensor

K, ENCODER_K = 16.0, 64.0
WIDTHS = (24, 24, 16, 12)


def unshuffle(x: torch.Tensor) -> torch.Tensor:
    """(n, 1, 128, 128) to (n, 64, 16, 16): the 8x8 block of each cell, halved three times as the encoder does it."""
    for _ in range(3):
        x = torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    return x


def components(films: np.ndarray, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (channels, 64) and biases that turn blocks into principal components of mean 0.

    Their variances are levelled, but not wholly: component k keeps deviation proportional to its own to the power
    0.3, with mean square 1, so that noise drowns texture before it drowns brightness and anatomy.
    """
    blocks = unshuffle(film_tensor(films)).permute(0, 2, 3, 1).reshape(-1, 64).double()
    mean = blocks.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T))
    best = vectors[:, -channels:].flip(1) / values[-channels:].flip(0).sqrt()
    strength = values[-channels:].flip(0) ** 0.15
    best = best * strength / strength.square().mean().sqrt()
    return best.T.float(), -(mean @ best).float()


def _clear(conv, rows: slice | int) -> None:
    conv.weight[rows] = 0
    conv.bias[rows] = 0


@torch.no_grad()
def quiet(net) -> None:
    """Start every residual block as the identity (or its 1x1 shortcut)."""
    for name, part in net.named_modules():
        if name.endswith("conv2"):
            part.weight.zero_(), part.bias.zero_()


@torch.no_grad()
def write_encoder(net, weights: torch.Tensor, biases: torch.Tensor) -> None:
    """Make the encoder answer `weights` x block + `biases` ."""
    enc, channels = net.encoder, len(weights)
    _clear(enc.conv_in, 0)
    enc.conv_in.weight[0, 0, 1, 1] = 1
    for level, size in enumerate((1, 4, 16)):
        conv = enc.down_blocks[level].downsamplers[0].conv
        _clear(conv, slice(0, 4 * size))
        for place in range(4):
            for c in range(size):
                conv.weight[place * size + c, c, place // 2, place % 2] = 1
        if level < 2:
            shortcut = enc.down_blocks[level + 1].resnets[0].conv_shortcut
            _clear(shortcut, slice(0, 4 * size))
            shortcut.weight[: 4 * size, : 4 * size, 0, 0] = torch.eye(4 * size)
    last, wide = enc.down_blocks[3].resnets[0].conv_shortcut, 24
    _clear(last, slice(None))
    enc.conv_out.weight *= 0.05
    enc.conv_out.bias.zero_()
    per = -(-channels // 4)  # components in each of the four groups that the last normalisation knows
    spread = ((2 * ENCODER_K**2 + 2 * per) / wide) ** 0.5
    for c in range(channels):
        at = wide * (c // per) + 2 * (c % per)
        for sign, row in ((1, at), (-1, at + 1)):
            last.weight[row, :, 0, 0], last.bias[row] = sign * weights[c], sign * biases[c]
        enc.conv_out.weight[c] = 0
        enc.conv_out.weight[c, at, 1, 1], enc.conv_out.weight[c, at + 1, 1, 1] = spread, -spread
    for group in range(4):
        at = wide * group + 2 * per
        last.bias[at], last.bias[at + 1] = ENCODER_K, -ENCODER_K
    enc.conv_out.weight[channels:] = 0
    enc.conv_out.bias[channels:] = 2 * float(np.log(0.1))
    for conv, size in ((net.quant_conv, 2 * channels), (net.post_quant_conv, channels)):
        conv.weight[:, :, 0, 0], conv.bias[:] = torch.eye(size), 0


def fit_decoder(films: np.ndarray, code: torch.Tensor, steps=700, batch=12, seed=0) -> torch.nn.ModuleList:
    """The best linear decoder of the shape that the network allows (nearest enlargement, then 3x3), by Adam on
    squared error.
    """
    torch.manual_seed(seed)
    a, b, c, d = WIDTHS
    shapes = ((code.shape[1], a, 3), (a, b, 3), (b, c, 3), (c, d, 3), (d, 1, 1))
    layers = torch.nn.ModuleList(torch.nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in shapes)
    optimiser, x = torch.optim.Adam(layers.parameters(), 4e-3), film_tensor(films)
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * (1 - step / steps) + 1e-5
        chosen = torch.randint(0, len(x), (batch,), generator=rng)
        loss = F.mse_loss(linear_decode(layers, code[chosen]), x[chosen])
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        if (step + 1) % 100 == 0:
            print(f"linear decoder, step {step + 1}: {10 * np.log10(4 / loss.item()):.2f} dB", flush=True)
    return layers


def linear_decode(layers, z: torch.Tensor) -> torch.Tensor:
    y = layers[0](z)
    for layer in layers[1:4]:
        y = layer(F.interpolate(y, scale_factor=2.0))
    return layers[4](y)


@torch.no_grad()
def write_decoder(net, layers) -> None:
    """Make the decoder answer what the fitted linear one does."""
    dec, (_, b, c, d) = net.decoder, WIDTHS
    targets = [dec.conv_in, *(dec.up_blocks[i].upsamplers[0].conv for i in range(3))]
    for conv, layer in zip(targets, layers[:4], strict=True):
        rows, columns = layer.weight.shape[:2]
        _clear(conv, slice(0, rows))
        conv.weight[:rows, :columns], conv.bias[:rows] = layer.weight, layer.bias
    for level, size in ((1, b), (2, c)):
        shortcut = dec.up_blocks[level].resnets[0].conv_shortcut
        _clear(shortcut, slice(0, size))
        shortcut.weight[:size, :size, 0, 0] = torch.eye(size)
    last = dec.up_blocks[3].resnets[0].conv_shortcut
    _clear(last, slice(0, 4))
    for sign, row in ((1, 0), (-1, 1)):
        last.weight[row, :d, 0, 0], last.bias[row] = sign * layers[4].weight[0, :, 0, 0], sign * layers[4].bias[0]
        last.bias[row + 2] = sign * K
    spread = ((2 * K**2 + 0.5) / 4) ** 0.5
    _clear(dec.conv_out, slice(None))
    dec.conv_out.weight[0, 0, 1, 1], dec.conv_out.weight[0, 1, 1, 1] = spread, -spread


def start(net, films: np.ndarray, steps=700) -> None:
    """Write the linear code, fitted to `films`, into a fresh autoencoder."""
    quiet(net)
    weights, biases = components(films, net.config.latent_channels)
    write_encoder(net, weights, biases)
    with torch.no_grad():
        code = torch.einsum("kc,nchw->nkhw", weights, unshuffle(film_tensor(films))) + biases.view(1, -1, 1, 1)
    write_decoder(net, fit_decoder(films, code, steps))
