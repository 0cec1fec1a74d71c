"""Train the lung segmenter (models/cxr-segmenter) on clinic films that have a mask.

    python recipes/train_segmenter.py          # resumable; some minutes of one core

No donor film, so that it can judge a generator; no dev film either, so that masks of dev films can be asked of one.
Films and masks are moved and turned alike (every second batch by up to 30 degrees), and in a quarter of the pairs
the tissue under one lung is pulled up, so that odd outlines are known to it. About 15 % of the clinic patients are
held out and watched; dev is looked at once, at the end. The full data tier is needed. Not a medical device.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from generator.common import Average, Log, augment, cosine, film_tensor, load_state, save_state
from generator.control import raise_base, turn
from generator.outlines import load_masks

from medimgen import report
from medimgen.data import radiographs
from medimgen.data.fetch import fetch
from medimgen.metrics import cluster_bootstrap
from medimgen.paths import cache_dir
from medimgen.segment import FOLDER, Net, Segmenter, dice, save

STEPS, BATCH, PEAK, EVERY = 450, 24, 3e-3, 100


def pairs(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Films, masks, patient numbers and file names of the films of a split that have a mask."""
    films = radiographs.load(split)
    masks, known = load_masks(films.table, fetch("kermany-lung-masks-v7"))
    table = films.table[known]
    return films.images[known], masks[known], table["number"].to_numpy(), table["file"].tolist()


def held_out(numbers: np.ndarray, share: float = 0.15) -> np.ndarray:
    """bool (n,): patients kept aside, by a hash of their number."""
    value = [int(hashlib.sha256(str(n).encode()).hexdigest()[:8], 16) / 16**8 for n in numbers]
    return np.array(value) < share


def batch(both: torch.Tensor, masks: np.ndarray, step: int, seed: int) -> torch.Tensor:
    """Films and masks as channels (n, 2, 128, 128) in -1..1, changed alike; brightness of the films alone."""
    rng, numbers = torch.Generator().manual_seed(10**6 * seed + step), np.random.default_rng([seed, step])
    chosen = numbers.integers(0, len(both), BATCH)
    x, odd = both[chosen], BATCH // 4
    x[:odd] = raise_base(x[:odd], masks[chosen[:odd]], numbers)
    x = augment(x, rng, gain=0, turn=np.deg2rad(30) if step % 2 else 0.09)
    gain, light = 1 + torch.randn((BATCH, 1, 1, 1), generator=rng) * 0.1, torch.randn((BATCH, 1, 1, 1), generator=rng)
    return torch.cat([(x[:, :1] * gain + light * 0.1).clamp(-1, 1), x[:, 1:]], 1)


def train(images, masks, numbers, path: Path, steps: int = STEPS, seed: int = 0) -> Net:
    """The averaged net; resumes from `path`. Logs the mean Dice on the patients held out."""
    torch.manual_seed(seed)
    aside, net, log = held_out(numbers), Net(), Log(path.with_suffix(".jsonl"))
    both = torch.cat([film_tensor(images), torch.from_numpy(masks).float().unsqueeze(1) * 2 - 1], 1)[~aside]
    optimiser, average, start = torch.optim.AdamW(net.parameters(), PEAK), Average(net, 0.99), 0
    if (state := load_state(path)) is not None:
        net.load_state_dict(state["net"]), optimiser.load_state_dict(state["optimiser"])
        average.values, start = state["average"], state["step"]
    known = masks[~aside]
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, PEAK, warm=30)
        x = batch(both, known, step, seed)
        net.train()
        loss = F.binary_cross_entropy_with_logits(net(x[:, :1]), (x[:, 1:] + 1) / 2)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            best = Net()
            best.load_state_dict(average.values)
            log(
                step=step + 1,
                loss=loss.item(),
                held_out=float(dice(Segmenter(best)(images[aside]), masks[aside]).mean()),
            )
            parts = dict(net=net.state_dict(), optimiser=optimiser.state_dict(), average=average.values)
            save_state(path, step=step + 1, **parts)
    net.load_state_dict(average.values)
    return net.eval()


def figures(net: Net, images, masks, numbers, draws: int = 2000) -> dict[str, list[float]]:
    """Mean Dice with 95 % intervals, patients resampled: films as they are, turned by 20 degrees, one base raised."""
    both = torch.cat([film_tensor(images), torch.from_numpy(masks).float().unsqueeze(1) * 2 - 1], 1)
    changed = {
        "as_they_are": both,
        "turned_20_degrees": turn(both, 20),
        "one_lung_cut_short": raise_base(both, masks, np.random.default_rng(0)),
    }
    out = {}
    for name, x in changed.items():
        films = ((x[:, 0] + 1) * 127.5).round().byte().numpy()
        value = dice(Segmenter(net)(films), (x[:, 1] > 0).numpy())
        interval = cluster_bootstrap(lambda d: float(d.mean()), numbers, value, draws=draws, seed=0)
        out[name] = [round(v, 4) for v in interval]
    return out


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=cache_dir() / "training" / "cxr-segmenter", help="checkpoints")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the model goes")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    images, masks, numbers, files = pairs("clinic")
    net = train(images, masks, numbers, args.work / "segmenter.pt", args.steps)
    learnt = sorted(file for file, aside in zip(files, held_out(numbers), strict=True) if not aside)
    dev = pairs("dev")
    facts = {
        "learnt_from": "clinic",
        "films": len(learnt),
        "films_sha256": hashlib.sha256("".join(f"{file}\n" for file in learnt).encode()).hexdigest(),
        "steps": args.steps,
        "dice_dev": figures(net, *dev[:3]),
        "code_version": report.code_version(),
    }
    save(net, args.out, facts)
    print(json.dumps(facts, indent=1), flush=True)


if __name__ == "__main__":
    main()
