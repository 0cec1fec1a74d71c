"""Train the course's classifier (models/cxr-classifier) and its twin, and look at the test films once.

    python recipes/train_classifier.py plain        # on donor and clinic films
    python recipes/train_classifier.py twin         # the same films, steps and seeds, half of them perturbed on the way
    python recipes/train_classifier.py evaluate     # both on test, with a line in the test ledger

Stop it at any time and start it again: it goes on from the last checkpoint. The weights kept are those with the lowest
negative log probability on dev. Every step draws its random numbers from its own number, so a resumed run is the
same run. The full data tier is needed. Not a medical device.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from generator.common import Average, Log, augment, cosine, load_state, save_state

from medimgen import report
from medimgen.classify import CLASSES, FOLDER, Classifier, Net, save
from medimgen.data import radiographs
from medimgen.metrics import Interval, auc, cluster_bootstrap
from medimgen.paths import cache_dir
from medimgen.perturb import PERTURBATIONS

LEARNT = ("donor", "clinic")
STEPS, BATCH, PEAK, EVERY = 2000, 32, 2e-3, 200
ARMS = {"plain": FOLDER, "twin": FOLDER.with_name("cxr-classifier-twin")}


def kinds(table) -> np.ndarray:
    return table["subtype"].map({c: k for k, c in enumerate(CLASSES)}).to_numpy()


def perturbed(films: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Films (n, h, w) in 0..1, each left alone or, with probability one half, given one perturbation drawn from all of
    them, at a severity drawn evenly from its plausible range.
    """
    films, names = films.copy(), list(PERTURBATIONS)
    drawn = rng.integers(2 * len(names), size=len(films))
    for k in np.unique(drawn[drawn < len(names)]):
        rows, change = np.flatnonzero(drawn == k), PERTURBATIONS[names[k]]
        s = rng.uniform(0, change.plausible, len(rows)).astype(np.float32)
        films[rows] = change.run(films[rows], s, int(rng.integers(2**31))).clip(0, 1)
    return films


def batch(images, labels, weights, step: int, seed: int, twin: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Films (n, 1, h, w) in 0..1, moved a little, and their classes; classes are drawn equally often."""
    rng, numbers = torch.Generator().manual_seed(10**6 * seed + step), np.random.default_rng([seed, step])
    chosen = torch.multinomial(weights, BATCH, True, generator=rng).numpy()
    films = images[chosen].astype(np.float32) / 255
    films = perturbed(films, numbers) if twin else films
    x = augment(torch.from_numpy(films).unsqueeze(1) * 2 - 1, rng)
    return ((x + 1) / 2).contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen])


def dev_nll(values: dict, dev) -> tuple[float, float]:
    """Mean negative log probability, and the AUC of pneumonia, of the averaged weights on dev films."""
    net = Net()
    net.load_state_dict(values)
    p, y = Classifier(net).predict(dev.images), kinds(dev.table)
    return float(-np.log(p[np.arange(len(p)), y] + 1e-9).mean()), auc(y > 0, 1 - p[:, 0])


def train(arm: str, films, dev, path: Path, steps: int = STEPS, seed: int = 0) -> dict:
    """Train one arm, resuming from `path`; returns the checkpoint, whose `best` are the weights to keep."""
    torch.manual_seed(seed)
    net, log = Net().to(memory_format=torch.channels_last), Log(path.with_suffix(".jsonl"))
    optimiser, average = torch.optim.AdamW(net.parameters(), PEAK, weight_decay=0.02), Average(net, 0.995)
    state = load_state(path) or {"step": 0, "nll": float("inf"), "auc": 0.0, "best": average.values, "at": 0}
    if state["step"]:
        net.load_state_dict(state["net"]), optimiser.load_state_dict(state["optimiser"])
        average.values = state["average"]
    labels = kinds(films.table)
    weights = torch.from_numpy(1 / np.bincount(labels, minlength=len(CLASSES)).clip(1)[labels])
    for step in range(state["step"], steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, PEAK)
        x, y = batch(films.images, labels, weights, step, seed, arm == "twin")
        torch.manual_seed(10**6 * seed + step)  # dropout
        net.train()
        loss = F.cross_entropy(net(x), y, label_smoothing=0.05)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        average.update(net, step)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            nll, area = dev_nll(average.values, dev)
            if nll < state["nll"]:
                best = {k: v.clone() for k, v in average.values.items()}
                state |= {"nll": nll, "auc": area, "best": best, "at": step + 1}
            state |= {"step": step + 1, "net": net.state_dict(), "optimiser": optimiser.state_dict()}
            save_state(path, **state | {"average": average.values})
            log(step=step + 1, loss=loss.item(), dev_nll=nll, dev_auc=area)
    return state


def pack(arm: str, state: dict, films, folder: Path, seed: int = 0) -> None:
    """Write the kept weights with what they learnt from."""
    net = Net()
    net.load_state_dict(state["best"])
    names = "".join(f"{file}\n" for file in sorted(films.table["file"])).encode()
    facts = {
        "arm": arm,
        "learnt_from": LEARNT,
        "films": len(films.table),
        "films_sha256": hashlib.sha256(names).hexdigest(),
        "seed": seed,
        "steps": state["step"],
        "kept_step": state["at"],
        "dev_nll": round(state["nll"], 5),
        "dev_auc": round(state["auc"], 5),
        "code_version": report.code_version(),
    }
    save(net, folder, facts)


def evaluate(classifier: Classifier, films, draws: int = 2000) -> dict[str, Interval]:
    """AUC of pneumonia against normal, and of viral against bacterial among the ill, patients resampled."""
    p, y, who = classifier.predict(films.images), kinds(films.table), films.table["number"].to_numpy()
    ill = y > 0
    viral = p[ill, 2] / (p[ill, 1] + p[ill, 2])
    return {
        "auc_pneumonia": cluster_bootstrap(auc, who, ill, 1 - p[:, 0], draws=draws, seed=0),
        "auc_viral": cluster_bootstrap(auc, who[ill], y[ill] == 2, viral, draws=draws, seed=0),
    }


def look_at_test(folders: dict[str, Path]) -> None:
    """Evaluate every arm that is there on the test films; figures go into its config.json and the test ledger."""
    films = radiographs.load("test")
    for arm, folder in folders.items():
        if not folder.is_dir():
            continue
        classifier = Classifier.load(folder)
        report.log_test_use("recipes/train_classifier.py", f"AUC of {folder.name}", "figures of the model card")
        found = {name: [round(v, 4) for v in value] for name, value in evaluate(classifier, films).items()}
        text = json.dumps(classifier.facts | {"test": found}, indent=1) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")
        print(arm, found, flush=True)


def learnt_films():
    """Donor and clinic films as one."""
    parts = [radiographs.load(split) for split in LEARNT]
    table = pd.concat([p.table for p in parts], ignore_index=True)
    return radiographs.Films(np.concatenate([p.images for p in parts]), table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=[*ARMS, "evaluate"])
    parser.add_argument("--work", type=Path, default=cache_dir() / "training" / "cxr-classifier", help="checkpoints")
    parser.add_argument("--out", type=Path, help="where the model goes")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.what == "evaluate":
        return look_at_test(ARMS)
    films = learnt_films()
    state = train(args.what, films, radiographs.load("dev"), args.work / f"{args.what}.pt", args.steps)
    pack(args.what, state, films, args.out or ARMS[args.what])


if __name__ == "__main__":
    main()
