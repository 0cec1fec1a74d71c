"""Claim L2b: with few outlined films, does a lung segmenter gain from films drawn to moved and turned masks?

    python recipes/few_masks.py --only made 8 3        # one cell: arm, real pairs, draw
    python recipes/few_masks.py --train                # all cells; stop it at any time and start it again
    python recipes/few_masks.py --watch                # Dice on the clinic patients kept aside for choices
    python recipes/few_masks.py                        # cells still missing, the dev films, claim L2b
    python recipes/few_masks.py --draw 3               # one draw once more, beside what was recorded of it

A draw picks 32 clinic patients and one film with a mask of each; 8 and 16 pairs are the first of them. Every mask is
moved, turned by up to 25 degrees, zoomed and stretched, EACH times anew, and models/cxr-mini-control draws a film of
the same class to each. Half of what a step sees is real. All arms take the same steps and the same classical
augmentation, which moves film and mask alike. The generator and its ControlNet learnt from donor films and masks; the
films tested on are those of dev. The full data tier is needed. Not a medical device.
"""

import argparse
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from draws import both_ways, over_draws, resamples
from generator import claim
from generator.common import Average, augment, cosine, film_tensor, load_state, save_state
from train_segmenter import batch, held_out, pairs

from medimgen import claims, control, generate
from medimgen.data import radiographs
from medimgen.metrics import Interval
from medimgen.paths import cache_dir
from medimgen.segment import Net, Segmenter, dice

FIRST, EACH, STEPS, PEAK, SEED, DEGREES, STRETCH = 8, 8, 150, 3e-3, 500_000, 25, 0.12
DRAWS = {8: range(10), 16: range(5), 32: range(5)}
ARMS = {"real": (8, 16, 32), "made": (8, 16, 32), "donor": (8,), "shuffled": (8,)}
PRIMARY = [(arm, FIRST) for arm in ARMS]
WORK = cache_dir() / "training" / "few_masks"


# --- pairs ------------------------------------------------------------------------------------------------------------


@cache
def loaded(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Films, masks, patients and files of a split; decoding the masks takes seconds, so once a process."""
    return pairs(split)


def drawn(numbers: np.ndarray, draw: int, n: int) -> np.ndarray:
    """`n` films, each of another patient; a smaller `n` gives the first of a larger. None kept aside."""
    rng = np.random.default_rng([5, draw])
    order = rng.permutation(np.flatnonzero(~held_out(numbers)))
    return order[np.sort(np.unique(numbers[order], return_index=True)[1])][:n]


def moved(mask: np.ndarray, seed: int) -> np.ndarray:
    """EACH copies of a mask, moved, turned, zoomed, and stretched along either side; bool (EACH, h, w)."""
    x, rng = torch.from_numpy(np.repeat(mask[None], EACH, 0)).float().unsqueeze(1), torch.Generator().manual_seed(seed)
    sides = torch.diag_embed(1 + (torch.rand((EACH, 2), generator=rng) * 2 - 1) * STRETCH)
    grid = F.affine_grid(torch.cat([sides, torch.zeros(EACH, 2, 1)], 2), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False) * 2 - 1
    return (augment(x, rng, turn=np.deg2rad(DEGREES), gain=0)[:, 0] > 0).numpy()


def stamp() -> str:
    """Twelve signs of the weights that draw."""
    both = generate.weights_sha256(generate.FOLDER) + generate.weights_sha256(control.FOLDER)
    return "".join(both[k : k + 6] for k in (0, 64))


def made(masks: np.ndarray, kinds: list[str], draw: int, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """EACH drawn films (uint8) and their masks for every real mask of a draw; kept in steps of 8, 16 and 32 pairs."""
    films, asked, drawer = [], np.concatenate([moved(m, SEED + 100 * draw + i) for i, m in enumerate(masks)]), None
    for low, high in ((0, 8), (8, 16), (16, 32)):
        path = work / f"films-{draw}-{high}-{stamp()}.npy"
        if low < len(masks) and not path.is_file():
            drawer, parts = drawer or control.Control.load(), []
            for i in range(low, min(high, len(masks))):
                own, seed = asked[i * EACH : (i + 1) * EACH], SEED + 1000 * draw + i * EACH
                parts.append(drawer(claim.PROMPTS[kinds[i]], n=EACH, seed=seed, mask=own).images)
            work.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"part-{path.name}")
            np.save(temporary, np.concatenate(parts))
            temporary.replace(path)
        films += [np.load(path)] if low < len(masks) else []
    return np.concatenate(films), asked


def learnt(arm: str, n: int, draw: int, work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films, masks and patients ("" if drawn) that an arm learns from; what is added weighs as much as what is real."""
    films, masks, numbers, files = loaded("clinic")
    own = drawn(numbers, draw, n)
    kinds = radiographs.labels().set_index("file")["subtype"].loc[[files[i] for i in own]].tolist()
    films, masks, numbers = films[own], masks[own], numbers[own].astype(str)
    if arm == "real":
        return films, masks, numbers
    if arm == "donor":
        more, outlines, who, _ = loaded("donor")
        chosen = np.random.default_rng([6, draw]).permutation(len(more))[: n * EACH]
        more, outlines, who = more[chosen], outlines[chosen], who[chosen].astype(str)
    else:
        more, outlines = made(masks, kinds, draw, work)
        who = np.full(len(more), "")
    if arm == "shuffled":  # every film gets the mask that another real mask led to
        outlines = np.roll(outlines, EACH * (1 + draw % (n - 1)), axis=0)
    rows = np.tile(np.arange(n), EACH)
    return tuple(np.concatenate([a[rows], b]) for a, b in ((films, more), (masks, outlines), (numbers, who)))


# --- cells ------------------------------------------------------------------------------------------------------------


def train(films: np.ndarray, masks: np.ndarray, draw: int, steps: int) -> Net:
    """The net after `steps` steps, its weights averaged; films and masks are changed alike as in train_segmenter.py."""
    torch.manual_seed(9000 + draw)
    both = torch.cat([film_tensor(films), torch.from_numpy(masks).float().unsqueeze(1) * 2 - 1], 1)
    net = Net().to(memory_format=torch.channels_last)
    optimiser, average = torch.optim.AdamW(net.parameters(), PEAK), Average(net, 0.97)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, PEAK, warm=steps // 10)
        x = batch(both, masks, step, 9000 + draw)
        net.train()
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x[:, :1].contiguous(memory_format=torch.channels_last)).float()
        loss = F.binary_cross_entropy_with_logits(found, (x[:, 1:] + 1) / 2)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
    net.load_state_dict(average.values)
    return net.eval()


def cell(arm: str, n: int, draw: int, work: Path, steps: int | None = None) -> Path:
    """The file with the net of one training; beside it (.csv) its Dice on the clinic patients kept aside."""
    steps = steps or STEPS
    name = f"{arm}-{n}-{draw}-{steps}" + (f"-{stamp()}" if arm in ("made", "shuffled") else "")
    path, table = work / f"{name}.pt", work / f"{name}.csv"
    if not table.is_file():
        films, masks, _ = learnt(arm, n, draw, work)
        net = train(films, masks, draw, steps)
        save_state(path, net=net.state_dict())
        films, masks, numbers, _ = loaded("clinic")
        aside = held_out(numbers)
        found = pd.DataFrame({"unit": numbers[aside], "dice": dice(masks[aside], Segmenter(net)(films[aside]))})
        part = table.with_suffix(".part")
        found.round(4).to_csv(part, index=False, lineterminator="\n")
        part.replace(table)
    return path


def cells(arms=None):
    """(arm, pairs, draw) of every cell, those of the primary figure first."""
    every = [(arm, n) for arm, sizes in ARMS.items() for n in sizes]
    for arm, n in arms or [*PRIMARY, *(one for one in every if one not in PRIMARY)]:
        yield from ((arm, n, draw) for draw in DRAWS[n])


def make_rows(work: Path = WORK, which=None) -> pd.DataFrame:
    """One row a dev film with a mask: its Dice, in thousandths, by every cell, e.g. made_8_0."""
    paths = {f"{arm}_{n}_{draw}": cell(arm, n, draw, work) for arm, n, draw in which or cells()}
    films, masks, numbers, files = loaded("dev")
    columns = {"unit": numbers.astype(str), "kind": radiographs.labels().set_index("file")["subtype"].loc[files].array}
    for name, path in paths.items():
        net = Net()
        net.load_state_dict(load_state(path)["net"])
        columns[name] = np.round(1000 * dice(masks, Segmenter(net)(films))).astype(int)
    return pd.DataFrame(columns)


# --- figures ----------------------------------------------------------------------------------------------------------


def means(rows: pd.DataFrame, arm: str, n: int, counted: np.ndarray) -> np.ndarray:
    """Mean Dice (1 + resamples, draws) of an arm."""
    values = rows[[f"{arm}_{n}_{draw}" for draw in DRAWS[n]]].to_numpy(float) / 1000
    return counted @ values / counted.sum(1, keepdims=True)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Mean Dice on dev with 8 real pairs, with drawn films minus without."""
    counted = resamples(rows["unit"], draws, seed)
    return both_ways(means(rows, "made", FIRST, counted) - means(rows, "real", FIRST, counted), seed, test=True)


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The exploratory figures that claims.yml names."""
    counted = resamples(rows["unit"], draws, seed)
    found = {(arm, n): means(rows, arm, n, counted) for arm, sizes in ARMS.items() for n in sizes}
    out = {f"dice_{arm}_{n}": both_ways(values, seed) for (arm, n), values in found.items()}
    gains = {(arm, n): values - found["real", n] for (arm, n), values in found.items() if arm != "real"}
    out |= {f"gain_{arm}_{n}": both_ways(v, seed) for (arm, n), v in gains.items() if (arm, n) != ("made", FIRST)}
    out["over_draws"] = over_draws(gains["made", FIRST][0])
    for kind in ("normal", "bacterial", "viral"):
        own = rows[rows["kind"] == kind]
        some = resamples(own["unit"], draws, seed)
        out[f"gain_{kind}"] = both_ways(means(own, "made", FIRST, some) - means(own, "real", FIRST, some), seed)
    return out


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"films": len(rows), "patients": int(rows["unit"].nunique()), "trainings": rows.shape[1] - 2}


# --- command line -----------------------------------------------------------------------------------------------------


def watch(work: Path) -> pd.DataFrame:
    """Mean Dice of the cells that are there on the clinic patients kept aside, and the gain over real pairs alone."""
    found = {}
    for file in sorted(work.glob(f"*-*-*-{STEPS}*.csv")):
        arm, n, draw = file.stem.split("-")[:3]
        found[arm, int(n), int(draw)] = pd.read_csv(file)
    rows = []
    for (arm, n, draw), table in found.items():
        gain = table["dice"] - found.get(("real", n, draw), table.assign(dice=np.nan))["dice"]
        boots = resamples(table["unit"], 500, 0)
        spread = (boots @ gain / boots.sum(1))[1:].std()
        mean = table["dice"].mean()
        rows.append({"arm": arm, "pairs": n, "draw": draw, "dice": mean, "gain": gain.mean(), "sd_patients": spread})
    return pd.DataFrame(rows).round(4)


def again(draw: int, work: Path) -> str:
    """Train the cells of one draw with 8 pairs anew, on films drawn before; Dice on dev beside the recorded one."""
    before, lines = claims.read_rows("L2b"), []
    with tempfile.TemporaryDirectory() as folder:
        for file in work.glob("*.npy"):
            shutil.copy(file, folder)
        here = make_rows(Path(folder), [(arm, n, draw) for arm, n in PRIMARY])
    for name in here.columns[2:]:
        lines.append(f"{name:12} recorded {before[name].mean() / 1000:.4f}, now {here[name].mean() / 1000:.4f}")
    return "\n".join([f"Draw {draw}, mean Dice on dev", *lines])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", nargs=3, metavar=("ARM", "PAIRS", "DRAW"), help=f"one cell; arms: {', '.join(ARMS)}")
    what.add_argument("--train", action="store_true", help="all cells; no look at dev")
    what.add_argument("--watch", action="store_true", help="the cells that are there, on clinic patients kept aside")
    what.add_argument("--draw", type=int, choices=DRAWS[FIRST], help="one draw again, beside the record")
    parser.add_argument("--work", type=Path, default=WORK, help="where cells are kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.only or args.train:
        for arm, n, draw in [(args.only[0], int(args.only[1]), int(args.only[2]))] if args.only else cells():
            start = time.process_time()
            cell(arm, n, draw, args.work)
            print(f"{arm} {n} {draw}: {time.process_time() - start:.0f} s of one core", flush=True)
    elif args.watch:
        print(watch(args.work).to_string())
    elif args.draw is not None:
        print(again(args.draw, args.work))
    else:
        weights = tuple(sorted(control.FOLDER.glob("*.safetensors")))
        claim.record("L2b", lambda: make_rows(args.work), measure, explore, count, more=weights)
        print(claims.show("L2b"))


if __name__ == "__main__":
    main()
