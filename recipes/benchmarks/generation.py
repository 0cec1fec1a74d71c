"""Our generator beside MONAI's: same donor films, same CPU minutes, same metrics.

    python recipes/benchmarks/generation.py --minutes 25 --only ours    # train one arm, try its guidance; if wanted
    python recipes/benchmarks/generation.py --minutes 25 --record       # all four arms, what is not done yet
    python recipes/benchmarks/generation.py --minutes 0.2 --films 64 --draws 50 --stand-in --work runs/try   # smoke run

An arm trains from nothing for so many CPU minutes of one thread (`time.process_time`). Start it again after a stop and
it goes on from its last checkpoint; what was lost does not count. Every learning rate warms up and comes down within
those minutes. Ours runs the recipe's own stages, its minutes shared as in `Ours.shares`; MONAI's `AutoencoderKL` gets
40 % and its `DiffusionModelUNet` 60 %, so that both UNets have about half of the minutes. MONAI's three configurations
(generation_monai.py), of our number of parameters within 20 %, have the minutes each: four arms, one of them ours.

The same for all: donor films as they are, bf16 in training, averaged weights, times spread, one in ten without a
condition, images drawn in 32 bits, guidance from one grid by one rule: nearest to dev films on the ruler, with noise
of its own. By the same rule one of MONAI's three is chosen, so MONAI has six tries, ours two for each sampler.
MONAI draws in 50 DDIM steps. Ours draws twice: in four steps, as shipped, by the distilled student; and in 50 DDIM
steps by its teacher, which had the minutes without the student's. Then as many images of each class as dev has films.

What differs. Ours learns captions whose attributes and lung masks were measured before the clock starts; MONAI has no
text encoder: its UNet is told the class by cross attention. Ours has a perceptual loss from a net that it trains within
its minutes; MONAI's takes its weights from a download, so its autoencoder gets absolute error, KL and its
`PatchDiscriminator` with the tutorial's weights. Its learning rates are not the tutorials', which are meant for hours
of a GPU. One training run an arm: the intervals are over images and patients, not over training seeds. Dev is both
where choices were made and where they are measured, which favours whoever has more tries.

MONAI in a folder of its own: `pip install --no-deps --target FOLDER monai==1.6.1 einops`, then PYTHONPATH=FOLDER.
`slowdown` in the result, a mean step over a fast one, should be alike in all arms: run them on a machine that does
nothing else. Full data tier. Not a medical device.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.generation_monai import CONFIGS, Monai, filled, size
from generator import autoencoder, captions, common, diffusion, distil, features, texture
from generator.claim import PROMPTS, WORK
from generator.features import CLASSES

from medimgen.data import radiographs
from medimgen.paths import ROOT, cache_dir

RESULT = ROOT / "recipes" / "results" / "generation_bench.json"
FIGURE = ROOT / "fig" / "01-beside-monai.png"  # of generated images alone: real films stay out of the repository
ARMS = ("ours", *CONFIGS)
FOREVER, SEED, GUIDANCES, BATCH, AIM = 10**9, 700_000, (1.0, 1.5), 32, 2 / 3


class Clock:
    """CPU seconds of one stage. A run that was stopped goes on with what it had left at its last checkpoint."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.seconds, self.step, self.took = path, seconds, 0, []
        self.marks = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.begin = time.process_time()

    def spent(self) -> float:
        return time.process_time() - self.begin

    def total(self) -> int:
        """Steps that the stage will have had in the end, at its speed so far."""
        done = self.step + 1
        return max(done, round(done * self.seconds / max(self.spent(), 1e-9)))

    def rate(self, step: int, peak: float, warm: int = 100, **more) -> float:
        """The recipe's learning rate over the steps that there will be, a tenth of them at most to warm up."""
        total = self.total()
        return common.cosine(step, total, peak, warm=max(1, min(warm, total // 10)), **more)

    def steps(self, first: int) -> Iterator[int]:
        """Step numbers from `first` until the time is over; one at least."""
        if first:
            self.begin = time.process_time() - self.marks.get(str(first), max(self.marks.values()))
        self.step = first
        while not self.took or self.spent() < self.seconds:
            before = self.spent()
            if self.step % 5 == 0:
                self.marks[str(self.step)] = before
                self.path.write_text(json.dumps(self.marks), encoding="utf-8", newline="\n")
            yield self.step
            self.took.append(self.spent() - before)
            self.step += 1

    def figures(self) -> dict[str, float]:
        slow = float(np.mean(self.took) / np.quantile(self.took, 0.1)) if self.took else 1.0
        return {"seconds": self.spent(), "steps": self.step, "slowdown": slow}


@contextmanager
def until(module, clock: Clock):
    """A training loop of the recipe, asked for `FOREVER` steps, ends by the clock, and its learning rate follows it:
    the module's `range` and `cosine` are exchanged for ones that do.
    """

    def limited(*ends):
        return clock.steps(ends[0]) if ends[-1] == FOREVER else range(*ends)

    usual, module.range = module.cosine, limited
    module.cosine = lambda step, total, *rest, **more: clock.rate(step, *rest, **more)
    try:
        yield
    finally:
        del module.range
        module.cosine = usual


class Plan(dict):
    """The autoencoder's plan with shares of the time in place of steps ("_from")."""

    def __init__(self, clock: Clock, plan: dict):
        super().__init__(plan)
        self.clock = clock

    def __ror__(self, other: dict) -> "Plan":
        return Plan(self.clock, dict(other) | dict(self.items()))

    def __getitem__(self, key: str):
        value = super().__getitem__(key)
        return int(value * self.clock.total()) if key.endswith("_from") else value


class Films:
    """What every arm learns from: donor films; for our captions their attributes, measured by the recipe before any
    clock starts. `most`: only about so many of them and of dev films, evenly chosen (smoke run).
    """

    def __init__(self, most: int | None = None, work: Path = WORK):
        from train_generator import STEPS, Recipe, kinds

        donor, dev = radiographs.load("donor"), radiographs.load("dev")
        n = len(donor.images)
        one = np.unique(np.linspace(0, n - 1, min(most or n, n)).round().astype(int))
        parts = Recipe(work, work / "cxr-mini", STEPS).films()  # the first n rows are the films as they are
        self.images, self.kinds = donor.images[one], kinds(donor.table)[one]
        self.values = {k[2:]: v[:n][one] for k, v in parts.items() if k.startswith("v_")}
        self.edges = json.loads((work / "edges.json").read_text(encoding="utf-8"))
        step = max(1, len(dev.images) // most) if most else 1
        self.dev, self.dev_kinds = dev.images[::step], kinds(dev.table)[::step]


class Stages:
    """Training in parts. `shares`: parts of the time by stage, in order; each leaves a file in `folder`."""

    def __init__(self, shares: dict[str, float], folder: Path, minutes: float):
        self.shares, self.folder, self.seconds, self.spent = shares, folder, 60 * minutes, {}
        folder.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, train: Callable[[Clock], dict]) -> dict:
        """What a stage leaves (tensors by name): from its file, or trained until its share of the time is over.
        What an earlier stage took too much or too little, the later ones share.
        """
        path = self.folder / f"{name}.final.pt"
        if not path.is_file():
            left = self.seconds - sum(s["seconds"] for s in self.spent.values())
            waiting = sum(share for k, share in self.shares.items() if k not in self.spent)
            clock = Clock(self.folder / f"{name}.clock.json", left * self.shares[name] / waiting)
            print(self.folder.name, name, f"begins, {clock.seconds:.0f} CPU seconds", flush=True)
            parts = train(clock)
            common.save_state(path, parts=parts, figures=clock.figures())
        state = common.load_state(path)
        self.spent[name] = state["figures"]
        print(self.folder.name, name, "is done", json.dumps(state["figures"]), flush=True)
        return state["parts"]


class Ours:
    """The recipe's stages with a clock in place of step counts.

    Shares: the code's part is what it costs to fit and to encode each film once, about 100 seconds however long the
    run. The rest is the card's, with less for perceptual features.
    """

    shares, steps = {"features": 4, "code": 10, "autoencoder": 10, "unet": 50, "distil": 12, "texture": 14}, (4, 50)

    def __init__(self, films: Films, stages: Stages):
        self.films, self.stages, self.tokenizer = films, stages, captions.build_tokenizer()

    def train(self) -> None:
        from generator import attributes

        f = self.films
        known = (f.images, f.kinds, f.dev, f.dev_kinds)
        net = self._loop(features, "features", lambda _, path: features.train(*known, path, FOREVER))
        code = self.stages.stage("code", self._code)
        self.vae = filled(autoencoder.build(), self._decoder(code, filled(features.FeatureNet(), net)))
        subtypes, levels = [CLASSES[k] for k in f.kinds], attributes.levels(f.values, f.edges)
        data = diffusion.Data(code["latents"], subtypes, levels, self.tokenizer, seed=11)
        values = self._loop(diffusion, "unet", lambda _, path: diffusion.train(data, path, FOREVER))
        teacher = filled(diffusion.Model(len(self.tokenizer)), values)
        values = self._loop(distil, "distil", lambda _, path: distil.train(teacher, data, path, FOREVER))
        self.models = {4: filled(diffusion.Model(len(self.tokenizer)), values), 50: teacher}
        critic = texture.Critic(filled(features.FeatureNet(), net), self._pixels())
        rest = (self.vae, self.models[4], critic, data, f.images, f.dev)
        both = self._loop(
            texture, "texture", lambda _, path: nn.ModuleList(texture.train(*rest, path, FOREVER, images=480))
        )
        filled(nn.ModuleList([self.vae, self.models[4]]), both)
        self.nets = {"autoencoder": self.vae, "unet": teacher.unet, "text": teacher.text}

    def _pixels(self) -> autoencoder.Patches:
        """The decoder's critic as its last checkpoint has it; a new one if it never came to a checkpoint."""
        state, pixels = common.load_state(self.stages.folder / "autoencoder.pt"), autoencoder.Patches()
        return filled(pixels, state["critic"]) if state else pixels

    def _loop(self, module, name: str, run: Callable[[Clock, Path], nn.Module]) -> dict:
        def train(clock):
            with until(module, clock):
                return dict(run(clock, self.stages.folder / f"{name}.pt").state_dict())

        return self.stages.stage(name, train)

    def _code(self, clock: Clock) -> dict:
        steps = int(np.clip(700 * self.stages.seconds / 1500, 20, 700))
        net = autoencoder.start(self.films.images, self.stages.folder / "code.pt", steps=steps)
        return {"net": dict(net.state_dict()), "latents": diffusion.encode(net, self.films.images)}

    def _decoder(self, code: dict, net: nn.Module) -> dict:
        def run(clock, path):
            plan = Plan(clock, {"adversarial_from": 0.35, "whole_from": 0.92})
            rest = (self.films.images, code["latents"], self.films.dev, net, path, FOREVER, plan)
            return autoencoder.train(filled(autoencoder.build(), code["net"]), *rest)

        return self._loop(autoencoder, "autoencoder", run)

    def sample(self, kind: int, n: int, steps: int, guidance: float, seed: int) -> np.ndarray:
        """`n` images of a class by DDIM, uint8 (n, 128, 128)."""
        from generator.settings import scheduler

        rest = (self.tokenizer, scheduler(), [PROMPTS[CLASSES[kind]]] * n, steps, guidance, seed, n)
        return diffusion.sample(self.models[steps], self.vae, *rest)


class StandIn:
    """Judge and ruler of a smoke run: means of 16-pixel squares. They measure nothing worth reporting."""

    def features(self, images: np.ndarray) -> np.ndarray:
        return F.avg_pool2d(common.film_tensor(images), 16).flatten(1).numpy()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        f = self.features(images)[:, : 16 * len(CLASSES)].reshape(len(images), len(CLASSES), -1).mean(2)
        return np.exp(4 * f) / np.exp(4 * f).sum(1, keepdims=True)


class Yardstick:
    """The figures of recipes/quality.py, the same for every arm: images against dev films, beside donor films (every
    second, as in claim L1d). Images come class after class, `counts[k]` of each.
    """

    def __init__(self, nets: tuple, draws: int, most: int | None = None):
        import quality

        self.of, self.nets, self.draws = quality, nets, draws
        self.dev, self.donor = quality.real_table("dev", *nets, most), quality.real_table("donor", *nets, quality.HALF)
        self.marks = quality.marks(self.dev, self.donor, draws, 0)
        self.counts = self.dev["kind"].value_counts().reindex(CLASSES).tolist()
        self.few = [-(-n // 6) for n in self.counts]

    def table(self, images: np.ndarray, counts: list[int]) -> pd.DataFrame:
        units = np.array([f"s{i}" for i in range(len(images))])
        return self.of.table(images, np.repeat(CLASSES, counts), units, *self.nets)

    def distance(self, images: np.ndarray, counts: list[int]) -> float:
        """Points of the ruler between all classes and dev films; what is chosen by."""
        made = self.of.apart(self.of.in_proportion(self.table(images, counts), self.donor), self.dev, 0, 0)
        return float(self.of.ruler(made[0, 0], *(mark[0, 0] for mark in self.marks)))

    def figures(self, images: np.ndarray) -> dict:
        made, rest = self.table(images, self.counts), (self.draws, 0)
        return {
            "judge": self.of.agreement(made, self.dev, *rest),
            "ruler": self.of.distances(made, self.dev, self.donor, *rest),
            "manifold": self.of.manifolds(made, self.dev, *rest),
        }

    def margin(self, a: np.ndarray, b: np.ndarray, share: float):
        """Points of the ruler that `a` is beyond `share` of `b`'s distance; below 0: nearer than that."""
        a, b = (self.of.in_proportion(self.table(x, self.counts), self.donor) for x in (a, b))
        far = [self.of.apart(x, self.dev, self.draws, 0) for x in (a, b)]
        zero, hundred = self.marks
        return self.of.on_ruler(far[0] - share * far[1], (1 - share) * zero, hundred - share * zero, 0.0)


def drawn(arm, counts: list[int], steps: int, guidance: float, seed: int) -> np.ndarray:
    """Images, class after class. What was drawn is kept in the arm's folder, a batch a file, and read again."""
    parts, folder = [], arm.stages.folder / "images"
    folder.mkdir(exist_ok=True)
    for kind, count in enumerate(counts):
        for at in range(0, count, BATCH):
            n, start = min(BATCH, count - at), seed + 10_000 * kind + at
            path = folder / f"{steps}-{guidance:g}-{start}-{n}.npy"
            if not path.is_file():
                before = time.process_time()
                np.save(path, arm.sample(kind, n, steps, guidance, start))
                print(arm.stages.folder.name, path.stem, f"{time.process_time() - before:.0f} CPU seconds", flush=True)
            parts.append(np.load(path))
    return np.concatenate(parts)


def tried(arm, yard: Yardstick) -> dict:
    """A trained arm: what it is, and its distances by steps and guidance on a sixth as many images as dev has films."""
    counts, choose, few = {name: size(net) for name, net in arm.nets.items()}, {}, yard.few
    for steps in arm.steps:
        made = {f"{g:g}": drawn(arm, few, steps, g, SEED + 100_000) for g in GUIDANCES}
        choose[str(steps)] = {g: yard.distance(images, few) for g, images in made.items()}
    print(arm.stages.folder.name, json.dumps(choose), flush=True)
    return {
        "parameters": counts | {"all": sum(counts.values())},
        "cpu_minutes": sum(s["seconds"] for s in arm.stages.spent.values()) / 60,
        "stages": arm.stages.spent,
        "autoencoder_on_dev": autoencoder.quality(arm.vae, arm.films.dev[::4]),
        "tried": choose,
    }


def rows(found: dict[str, dict]) -> dict[str, tuple[str, int, float]]:
    """(arm, steps, guidance) by name: ours with each number of steps, then MONAI's arms, the nearest first."""
    best = {}
    for arm, result in found.items():
        for steps, distances in result["tried"].items():
            guidance = min(distances, key=distances.get)
            order = 0 if arm == "ours" else 1, distances[guidance] * (arm != "ours")
            best[f"{arm}, {steps} steps"] = order, (arm, int(steps), float(guidance))
    return {name: row for name, (_, row) in sorted(best.items(), key=lambda item: item[1][0])}


def compared(found: dict, made: dict[str, np.ndarray], yard: Yardstick) -> dict:
    """Figures of each row, and each of ours against MONAI's: ratio of distances, points beyond `AIM` of MONAI's."""
    figures = {name: yard.figures(images) for name, images in made.items()}
    far = {name: figure["ruler"]["overall"].estimate for name, figure in figures.items()}
    *ours, other = made
    margins = {name: yard.margin(made[name], made[other], AIM) for name in ours}
    beside = {name: {"ratio": far[name] / far[other], "beyond_two_thirds": margins[name]} for name in ours}
    real = yard.of.manifolds(yard.donor.sample(frac=1, random_state=0), yard.dev, yard.draws, 0)
    chosen = {name: dict(zip(("arm", "steps", "guidance"), row, strict=True)) for name, row in rows(found).items()}
    return {"arms": found, "chosen": chosen, "rows": figures, "beside": beside, "donor_films": {"manifold": real}}


def sheet(path: Path, shown: dict[str, tuple[np.ndarray, list[int]]]) -> None:
    """Sixteen images a row, the first of each class, none picked. `shown`: images and numbers by class."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(shown), 1, figsize=(8.4, 2.3 * len(shown)), squeeze=False)
    for axis, (name, (images, counts)) in zip(axes[:, 0], shown.items(), strict=True):
        first = zip(np.cumsum([0, *counts[:-1]]), (5, 6, 5), counts, strict=True)
        grid = images[np.concatenate([start + np.arange(n) % c for start, n, c in first])].reshape(2, 8, 128, 128)
        axis.imshow(np.hstack(np.hstack(grid)), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{name}: 5 normal, 6 bacterial, 5 viral", fontsize=8, loc="left")
        axis.set(xticks=[], yticks=[])
    about = {"Warning": "Synthetic images, not for diagnosis"}
    if "dev films" not in shown:
        about |= {"Synthetic": "true", "Made-By": f"recipes/benchmarks/generation.py, seeds from {SEED}"}
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata=about)
    plt.close(figure)


def run(args) -> dict | None:
    from generator.judge import Judge, Ruler

    films, arms = Films(args.films), {}
    for name in [args.only] if args.only else ARMS:
        stages = Stages((Ours if name == "ours" else Monai).shares, args.work / name, args.minutes)
        arms[name] = Ours(films, stages) if name == "ours" else Monai(name, films, stages)
        arms[name].train()
    nets = (StandIn(), StandIn()) if args.stand_in else (Judge.load(), Ruler.load())
    yard = Yardstick(nets, args.draws, args.films)
    found = {name: tried(arm, yard) for name, arm in arms.items()}
    if args.only:
        return None
    every = {name: (arms[arm], *rest) for name, (arm, *rest) in rows(found).items()}
    made = {name: drawn(arm, yard.counts, *rest, SEED) for name, (arm, *rest) in list(every.items())[:3]}
    few = {name: (drawn(arm, yard.few, *rest, SEED + 100_000), yard.few) for name, (arm, *rest) in every.items()}
    real = films.dev[np.argsort(films.dev_kinds, kind="stable")], np.bincount(films.dev_kinds).tolist()
    sheet(args.work / "sheet.png", {"dev films": real} | few)
    if args.record:
        sheet(FIGURE, dict(list(few.items())[:3]))
    versions = {p: importlib.metadata.version(p) for p in ("monai", "torch", "diffusers")}
    facts = {"minutes": args.minutes, "images": yard.counts, "films": len(films.images), "threads": 1}
    return facts | {"versions": versions} | compared(found, made, yard)


def main() -> None:
    from quality import plain

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=25, help="CPU minutes an arm")
    parser.add_argument("--only", choices=ARMS, help="train this arm and try its guidance, nothing else")
    parser.add_argument("--work", type=Path, help="checkpoints and the sheet; default: in the cache folder, by minutes")
    parser.add_argument("--films", type=int, help="at most so many films (smoke run)")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--stand-in", action="store_true", help="means of squares for judge and ruler (smoke run)")
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name} and {FIGURE.name}")
    args = parser.parse_args()
    if args.record and (args.stand_in or args.films or args.only):
        parser.error("a smoke run or a single arm is not recorded")
    torch.set_num_threads(1)
    args.work = args.work or cache_dir() / "training" / "generation" / f"{args.minutes:g}"
    if (result := run(args)) is not None:
        path = RESULT if args.record else args.work / "result.json"
        path.write_text(json.dumps(result, indent=1, default=plain) + "\n", encoding="utf-8", newline="\n")
        print(json.dumps(result["beside"], indent=1, default=plain), f"\nwritten: {path}, {args.work / 'sheet.png'}")


if __name__ == "__main__":
    main()
