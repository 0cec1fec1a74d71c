"""Claim L1f: does a classifier that learnt from generated films alone do as well as one that learnt from real ones?

    python recipes/tstr.py --only real 250 0        # one cell: arm, films, draw (about a minute of one core)
    python recipes/tstr.py                          # all cells and claim L1f; stop it at any time and start it again

"Train on synthetic, test on real" (Esteban, Hyland and Ratsch 2017, arXiv 1706.02633). Both arms: the course's
classifier network, the same number of films of each class, the same steps, and no choice of a checkpoint. A cell is one
training, and scores both questions: pneumonia or not, and viral against bacterial. Real films are donor films, which
is what the generator learnt from: the generator cannot know more than they do. Tested on clinic and dev films, which
neither arm has seen; test films are not used. Cells are kept in the work folder, one file each. The full data tier is
needed. Not a medical device.
"""

import argparse
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from generator import claim
from generator.common import Average, augment, cosine
from generator.features import CLASSES

from medimgen import claims
from medimgen.classify import Classifier, Net
from medimgen.data import radiographs
from medimgen.metrics import Interval, auc, cluster_bootstrap
from medimgen.paths import cache_dir

ARMS, DOSES, DRAWS = ("real", "synthetic"), (250, 500, 1000, 2000), (0, 1, 2)
STEPS, BATCH, PEAK, SEED = 400, 32, 2e-3, 300_000
WORK = cache_dir() / "training" / "tstr"


def pool(arm: str, work: Path, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Films and classes to draw from: donor films, or as many generated ones of each class, kept once made."""
    donor = radiographs.load("donor")
    kinds = donor.table["subtype"].map(CLASSES.index).to_numpy()
    if arm == "real":
        return donor.images, kinds
    from medimgen.generate import Generator

    generator, parts = Generator.load(folder), []
    for k, c in enumerate(CLASSES):
        path = work / f"{generator.sha256[:12]}-{c}.npy"
        if not path.is_file():
            made = claim.images(generator, claim.PROMPTS[c], int((kinds == k).sum()), SEED + 10_000 * k)
            temporary = path.with_name(f"part-{path.name}")
            np.save(temporary, made)
            temporary.replace(path)
        parts.append(np.load(path))
    return np.concatenate(parts), np.repeat(range(len(CLASSES)), [len(p) for p in parts])


def drawn(kinds: np.ndarray, n: int, draw: int) -> np.ndarray:
    """`n` films at random, the classes in the pool's proportions (largest remainders)."""
    rng = np.random.default_rng([draw, n])
    exact = n * np.bincount(kinds) / len(kinds)
    take = np.floor(exact).astype(int)
    take[np.argsort(take - exact, kind="stable")[: n - take.sum()]] += 1
    return np.concatenate([rng.permutation(np.flatnonzero(kinds == k))[:t] for k, t in enumerate(take)])


def train(images: np.ndarray, kinds: np.ndarray, seed: int, steps: int, even: str = "oversampling", decay=0.98) -> Net:
    """The net after `steps` steps, its weights averaged. even: "oversampling" (classes are shown equally often),
    "weights" (in the loss), or "nothing".
    """
    torch.manual_seed(seed)
    net = Net().to(memory_format=torch.channels_last)
    optimiser, average = torch.optim.AdamW(net.parameters(), PEAK, weight_decay=0.02), Average(net, decay)
    rare = torch.from_numpy(1 / np.bincount(kinds, minlength=len(CLASSES)).clip(1))
    share = rare[kinds] if even == "oversampling" else torch.ones(len(kinds))
    costs = rare.float() if even == "weights" else None  # a batch's loss is a weighted mean: the scale falls out
    for step in range(steps):
        rng = torch.Generator().manual_seed(10**6 * seed + step)
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, PEAK, warm=steps // 10)
        chosen = torch.multinomial(share, BATCH, True, generator=rng).numpy()
        x = augment(torch.from_numpy(images[chosen].astype(np.float32) / 127.5 - 1).unsqueeze(1), rng)
        x = ((x + 1) / 2).contiguous(memory_format=torch.channels_last)
        torch.manual_seed(10**6 * seed + step)  # dropout
        net.train()
        with torch.autocast("cpu", torch.bfloat16):
            scores = net(x).float()
        loss = F.cross_entropy(scores, torch.from_numpy(kinds[chosen]), costs, label_smoothing=0.05)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
    net.load_state_dict(average.values)
    return net.eval()


def unseen(most: int | None = None):
    """Clinic and dev films."""
    parts = [radiographs.load(split) for split in ("clinic", "dev")]
    rows = pd.concat([p.table[:most] for p in parts], ignore_index=True)
    return radiographs.Films(np.concatenate([p.images[:most] for p in parts]), rows)


def scores(classifier: Classifier, images: np.ndarray) -> pd.DataFrame:
    """Probability of pneumonia, and of viral given pneumonia, for each film."""
    p = classifier.predict(images)
    return pd.DataFrame({"sick": 1 - p[:, 0], "viral": p[:, 2] / (p[:, 1] + p[:, 2] + 1e-9)}).round(4)


def cell(arm: str, n: int, draw: int, work: Path, folder: Path | None = None, steps=STEPS, films=None) -> pd.DataFrame:
    """Scores of one training on the unseen films; read from `work` if it is there."""
    path = work / f"{arm}-{n}-{draw}-{steps}.csv"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        images, kinds = pool(arm, work, folder)
        chosen = drawn(kinds, n, draw)
        classifier = Classifier(train(images[chosen], kinds[chosen], 7000 + draw, steps))
        found = scores(classifier, (films or unseen()).images)
        temporary = path.with_suffix(".part")
        found.to_csv(temporary, index=False, lineterminator="\n")
        temporary.replace(path)
    return pd.read_csv(path)


def names() -> list[str]:
    """The columns of scores, e.g. real_2000_0_viral, in the order of the cells."""
    return [f"{a}_{n}_{d}_{task}" for n in DOSES[::-1] for d in DRAWS for a in ARMS for task in ("sick", "viral")]


def packed(rows: pd.DataFrame) -> pd.DataFrame:
    """The table that is recorded: scores as ranks in 256 steps (base64 of bytes), because 48 columns of digits are too
    long; an AUC changes by less than 0.001.
    """
    steps = (rows[names()].rank(pct=True) * 255).round().astype(np.uint8).to_numpy()
    texts = [b64encode(row.tobytes()).decode() for row in steps]
    return pd.DataFrame({"kind": rows["kind"].str[0], "unit": rows["unit"], "ranks": texts})


def unpacked(rows: pd.DataFrame) -> pd.DataFrame:
    """What `packed` was given, with ranks in place of scores."""
    steps = np.stack([np.frombuffer(b64decode(text), np.uint8) for text in rows["ranks"]])
    kinds = rows["kind"].map({c[0]: c for c in CLASSES})
    facts = pd.DataFrame({"kind": kinds, "unit": rows["unit"].astype(str)}).reset_index(drop=True)
    return pd.concat([facts, pd.DataFrame(steps, columns=names())], axis=1)


def make_rows(work: Path = WORK) -> pd.DataFrame:
    """One row a film: class, patient, and for every cell two scores."""
    films = unseen()
    columns = {"kind": films.table["subtype"], "unit": films.table["number"].astype(str)}
    for n in DOSES[::-1]:
        for draw in DRAWS:
            for arm in ARMS:
                found = cell(arm, n, draw, work, films=films)
                columns |= {f"{arm}_{n}_{draw}_{name}": found[name] for name in found}
    return pd.DataFrame(columns)


# --- figures ----------------------------------------------------------------------------------------------------------


def columns_of(rows: pd.DataFrame, arm: str, n: int, task: str) -> np.ndarray:
    """Scores (films, draws) of an arm."""
    return rows.filter(regex=rf"^{arm}_{n}_\d+_{task}$").to_numpy(float)


def mean_auc(y: np.ndarray, *columns: np.ndarray) -> float:
    """Mean AUC over training draws; with two arms, the first's minus the second's."""
    means = [np.mean([auc(y, column) for column in arm.T]) for arm in columns]
    return float(means[0] - means[1] if len(means) == 2 else means[0])


def figure(rows, arms, n: int, task: str, draws: int, seed: int, **null) -> Interval:
    """Patients resampled; the interval covers them, and the training draws only by their mean."""
    here = rows[rows["kind"] != "normal"] if task == "viral" else rows
    y = (here["kind"] == "viral") if task == "viral" else (here["kind"] != "normal")
    columns = [columns_of(here, arm, n, task) for arm in arms]
    return cluster_bootstrap(mean_auc, here["unit"], y.to_numpy(), *columns, draws=draws, seed=seed, **null)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """AUC of viral against bacterial after real films minus the same after as many generated ones, against 0.03."""
    rows = unpacked(rows)
    return figure(rows, ARMS, DOSES[-1], "viral", draws, seed, null=0.03, direction="less")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """The other question, every dose, each arm alone, and each training draw alone."""
    rows, most, out = unpacked(rows), DOSES[-1], {}
    for task in ("viral", "sick"):
        for arm in ARMS:
            out[f"auc_{task}_{arm}"] = figure(rows, [arm], most, task, draws, seed)
        for n in DOSES[:-1] if task == "viral" else DOSES:
            out[f"loss_{task}_{n}"] = figure(rows, ARMS, n, task, draws, seed)
    for draw in DRAWS:
        one = rows[["kind", "unit", *(f"{arm}_{most}_{draw}_viral" for arm in ARMS)]]
        out[f"loss_viral_{most}_draw_{draw}"] = figure(one, ARMS, most, "viral", draws, seed)
    return out


def count(rows: pd.DataFrame) -> dict[str, int]:
    return {"films": len(rows), "patients": int(rows["unit"].nunique()), "trainings": len(names()) // 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs=3, metavar=("ARM", "FILMS", "DRAW"), help="one cell, e.g. real 250 0")
    parser.add_argument("--work", type=Path, default=WORK, help="where cells are kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        arm, n, draw = args.only
        cell(arm, int(n), int(draw), args.work)
        return
    claim.record("L1f", lambda: packed(make_rows(args.work)), measure, explore, count)
    print(claims.show("L1f"))


if __name__ == "__main__":
    main()
