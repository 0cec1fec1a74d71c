"""Our generator beside MONAI's: same donor films, same CPU minutes, same metrics.

    python recipes/benchmarks/generation.py --minutes 25              # ours, MONAI's three briefly, the best of them
    python recipes/benchmarks/generation.py --minutes 25 --arm ours   # one arm alone
    python recipes/benchmarks/generation.py --minutes 0.3 --films 64 --each 12 --draws 50 --stand-in     # smoke run

An arm trains for so many CPU minutes of one thread (`time.process_time`; checkpoints are written meanwhile, so a stop
costs little). Ours runs the recipe's own stages, its minutes shared as in the card of cxr-mini, distillation among
them, and draws in four steps. MONAI gets its `AutoencoderKL` and `DiffusionModelUNet` in three configurations, about
as many parameters as ours, and draws in 50 DDIM steps. Each is trained for a third of the minutes first; the one
nearest to dev films is then trained afresh for all of them. So MONAI has the minutes twice.

What is not the same, and why. MONAI has no text encoder: its UNet is told the class, by cross attention, and learns no
captions. Its tutorials add a perceptual loss whose weights are downloads: here absolute error, KL and its
`PatchDiscriminator`. In its favour: films are encoded once, not at every step; weights are averaged, times spread,
precision mixed as in our recipe; learning rates are not its tutorials', which are meant for hours of a GPU.

MONAI in a folder of its own: `pip install --no-deps --target FOLDER monai==1.6.1 einops`, then PYTHONPATH=FOLDER. Run
arms one after another on a machine that does nothing else, or all at once: `slowdown` in the result is a mean step
over a fast one, and should be alike in all arms. Full data tier. Not a medical device.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from generator import autoencoder, captions, common, diffusion, distil, features
from generator.claim import PROMPTS, WORK
from generator.features import CLASSES

from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.paths import ROOT, cache_dir

RESULT = ROOT / "recipes" / "results" / "generation_peers.json"
CARD = {"features": 3, "code": 4, "autoencoder": 15, "unet": 65, "distil": 17}  # minutes, models/cxr-mini/README.md
FOREVER, SEED, GUIDANCES, BATCH = 10**9, 700_000, (1.0, 1.5), 32


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

    def steps(self, first: int) -> Iterator[int]:
        """Step numbers from `first` until the time is over; one at least."""
        if first:
            self.begin = time.process_time() - self.marks.get(str(first), max(self.marks.values()))
        self.step = first
        while not self.took or self.spent() < self.seconds:
            before = self.spent()
            if self.step % 25 == 0:
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

    def cosine(step, total, *rest, **more):
        return common.cosine(step, clock.total(), *rest, **more)

    usual, module.range, module.cosine = module.cosine, limited, cosine
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
    """What every arm learns from: donor films and two changed copies of each, made and measured by the recipe before
    any clock starts. `most`: only so many donor films, evenly chosen, and the first dev films (smoke
    run).
    """

    def __init__(self, most: int | None = None, work: Path = WORK):
        from train_generator import COPIES, STEPS, Recipe, kinds

        parts, dev = Recipe(work, work / "cxr-mini", STEPS).films(), radiographs.load("dev")
        donor = radiographs.load("donor")
        n = len(donor.images)
        one = np.unique(np.linspace(0, n - 1, min(most or n, n)).round().astype(int))
        every = np.concatenate([one + n * k for k in range(COPIES + 1)])
        self.images, self.kinds = donor.images[one], kinds(donor.table)[one]
        self.x, self.x_kinds = parts["x"][every], np.tile(self.kinds, COPIES + 1)
        self.values = {k[2:]: v[every] for k, v in parts.items() if k.startswith("v_")}
        self.edges = json.loads((work / "edges.json").read_text(encoding="utf-8"))
        self.dev, self.dev_kinds = dev.images[:most], kinds(dev.table)[:most]


class Arm:
    """A generator in training. `shares`: parts of the time by stage, in order; each stage leaves a file in `folder`.
    After `train()` there are `nets` (by name), `vae` (with diffusers' encode and decode) and `sample`.
    """

    def __init__(self, name: str, shares: dict[str, float], films: Films, folder: Path, minutes: float):
        self.name, self.shares, self.films, self.folder = name, shares, films, folder
        self.seconds, self.spent = 60 * minutes, {}
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
            parts = train(clock)
            common.save_state(path, parts=parts, figures=clock.figures())
        state = common.load_state(path)
        self.spent[name] = state["figures"]
        print(self.name, name, json.dumps(state["figures"]), flush=True)
        return state["parts"]


def filled(net: nn.Module, values: dict) -> nn.Module:
    net.load_state_dict(values)
    return net.eval()


class Ours(Arm):
    """The recipe's stages with a clock in place of step counts."""

    def __init__(self, *rest):
        super().__init__("ours", CARD, *rest)

    def loop(self, module, name: str, run: Callable[[Clock, Path], nn.Module]) -> dict:
        def train(clock):
            with until(module, clock):
                return dict(run(clock, self.folder / f"{name}.pt").state_dict())

        return self.stage(name, train)

    def _code(self, clock: Clock) -> dict:
        steps = max(20, round(700 * self.seconds / 60 / sum(CARD.values())))
        net = autoencoder.start(self.films.images, self.folder / "code.pt", steps=steps)
        return {"net": dict(net.state_dict()), "latents": diffusion.encode(net, self.films.x)}

    def _decoder(self, code: dict, net: nn.Module) -> dict:
        def run(clock, path):
            plan = Plan(clock, {"adversarial_from": 0.35, "whole_from": 0.92})
            rest = (self.films.x, code["latents"], self.films.dev, net, path, FOREVER, plan)
            return autoencoder.train(filled(autoencoder.build(), code["net"]), *rest)

        return self.loop(autoencoder, "autoencoder", run)

    def train(self) -> None:
        from generator import attributes

        f, tokenizer = self.films, captions.build_tokenizer()
        known = (f.images, f.kinds, f.dev, f.dev_kinds)
        net = self.loop(features, "features", lambda _, path: features.train(*known, path, FOREVER))
        net, code = filled(features.FeatureNet(), net), self.stage("code", self._code)
        self.vae, self.tokenizer = filled(autoencoder.build(), self._decoder(code, net)), tokenizer
        subtypes, levels = [CLASSES[k] for k in f.x_kinds], attributes.levels(f.values, f.edges)
        data = diffusion.Data(code["latents"], subtypes, levels, tokenizer, seed=11)
        values = self.loop(diffusion, "unet", lambda _, path: diffusion.train(data, path, FOREVER))
        teacher = filled(diffusion.Model(len(tokenizer)), values)
        values = self.loop(distil, "distil", lambda _, path: distil.train(teacher, data, path, FOREVER))
        self.model = filled(diffusion.Model(len(tokenizer)), values)
        self.nets = {"autoencoder": self.vae, "unet": self.model.unet, "text": self.model.text}

    def sample(self, kind: int, n: int, guidance: float, seed: int) -> np.ndarray:
        """`n` images of a class, uint8 (n, 128, 128)."""
        from generator.settings import STEPS, scheduler

        texts = [PROMPTS[CLASSES[kind]]] * n
        rest = (self.tokenizer, scheduler(), texts, STEPS, guidance, seed, BATCH)
        return diffusion.sample(self.model, self.vae, *rest)


def config(latent, channels, blocks, unet, unet_blocks, heads, schedule, prediction, rates) -> dict:
    """One way to set MONAI's networks up. `heads`: channels of an attention head by level, 0 = no attention. `rates`:
    learning rates of the autoencoder and of the UNet.
    """
    one = dict(in_channels=1, out_channels=1, latent_channels=latent, channels=channels, num_res_blocks=blocks)
    one |= dict(attention_levels=[False] * len(channels), norm_num_groups=8)
    one |= dict(with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False)
    two = dict(in_channels=latent, out_channels=latent, channels=unet, num_res_blocks=unet_blocks, norm_num_groups=16)
    two |= dict(attention_levels=[h > 0 for h in heads], num_head_channels=heads)
    two |= dict(with_conditioning=True, cross_attention_dim=len(CLASSES))
    side = 128 >> (len(channels) - 1)
    schedule = schedule | {"prediction_type": prediction}
    return dict(autoencoder=one, unet=two, schedule=schedule, rates=rates, latents=(latent, side, side))


BETAS = {"beta_start": 0.0015, "beta_end": 0.0195}
LINEAR, SCALED = ({"schedule": name} | BETAS for name in ("linear_beta", "scaled_linear_beta"))
SMALL = ((16, 48, 96, 128), 1, (96, 128, 128), 1, (0, 32, 32))
CONFIGS = {
    # its 2D tutorial in small: 32x32x3 latents, noise predicted
    "monai-a": config(3, (32, 64, 96), 2, (64, 96, 128), 2, (0, 96, 128), LINEAR, "epsilon", (5e-4, 4e-4)),
    "monai-b": config(12, *SMALL, {"schedule": "cosine"}, "v_prediction", (1e-3, 6e-4)),  # the shape of ours: 16x16x12
    "monai-c": config(4, *SMALL, SCALED, "v_prediction", (1e-3, 6e-4)),  # smaller latents, 16x16x4
}


def size(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """MONAI's autoencoder and UNet with new weights. CourseError if MONAI is missing or they are not of our size."""
    try:
        from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
    except ImportError as missing:
        raise CourseError("MONAI is not here", next="install it as this recipe's first lines say") from missing
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


def loop(clock: Clock, path: Path, things: dict, step: Callable[[int], None], every: int = 100) -> None:
    """`step(k)` until the time is over; `things` (modules, optimisers, averages) are kept at `path`."""
    state = common.load_state(path) or {"step": 0}
    for name, thing in things.items():
        if state["step"]:
            thing.load_state_dict(state[name])
    for k in clock.steps(state["step"]):
        step(k)
        if (k + 1) % every == 0:
            common.save_state(path, step=k + 1, **{name: thing.state_dict() for name, thing in things.items()})


def descend(loss: torch.Tensor, optimiser: torch.optim.Optimizer, rate: float) -> None:
    group = optimiser.param_groups[0]
    group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimiser.step()


class Autoencoding:
    """MONAI's autoencoder in training: absolute error, KL and, from 35 % of the time on, its patch discriminator, with
    its tutorial's weights. Crops of 64 pixels; whole films in the last 8 %, as in our recipe.
    """

    def __init__(self, net: nn.Module, x: np.ndarray, rate: float, clock: Clock):
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

    def step(self, k: int) -> None:
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
        descend(loss, self.optimiser, common.cosine(k, self.clock.total(), self.rate, warm=50))
        self.average.update(self.net, k)
        if critic:
            self.teach(x, y.detach())

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


class Monai(Arm):
    """MONAI's two networks, trained one after the other."""

    def __init__(self, name: str, *rest):
        super().__init__(name, {"autoencoder": 0.4, "unet": 0.6}, *rest)
        self.config = CONFIGS[name]
        torch.manual_seed(2)
        self.net, self.unet = (net.to(memory_format=torch.channels_last) for net in build(name))

    def _autoencoder(self, clock: Clock) -> dict:
        run = Autoencoding(self.net, self.films.x, self.config["rates"][0], clock)
        loop(clock, self.folder / "autoencoder.pt", run.things, run.step)
        return run.average.values

    @torch.no_grad()
    def _encoded(self) -> tuple[torch.Tensor, torch.Tensor]:
        batches = np.array_split(self.films.x, len(self.films.x) // 32 + 1)
        with torch.autocast("cpu", torch.bfloat16):
            parts = [self.net.encode(common.film_tensor(x) / 2 + 0.5) for x in batches]
        return tuple(torch.cat(p).float() for p in zip(*parts, strict=True))

    def scheduler(self, of: str):
        from monai.networks import schedulers

        # latents are not confined to -1 to 1, where MONAI clips by default
        return getattr(schedulers, of)(1000, clip_sample=False, **self.config["schedule"])

    def _unet(self, clock: Clock) -> dict:
        from monai.inferers import DiffusionInferer

        mean, spread = self._encoded()
        scale = 1 / (mean + spread * torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))).std()
        noising, net, average = self.scheduler("DDPMScheduler"), self.unet.train(), Kept(self.unet, 0.999)
        inferer, rate = DiffusionInferer(noising), self.config["rates"][1]
        optimiser = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

        def step(k: int) -> None:
            rng = torch.Generator().manual_seed(SEED + k)
            chosen = torch.randint(0, len(mean), (48,), generator=rng)
            z = (mean[chosen] + spread[chosen] * torch.randn(mean[chosen].shape, generator=rng)) * scale
            noise, t = torch.randn(z.shape, generator=rng), diffusion.spread_times(48, rng)
            context = conditions(self.films.x_kinds[chosen], rng)
            with torch.autocast("cpu", torch.bfloat16):
                made = inferer(z, net, noise, t, context)
            wanted = noise if noising.prediction_type == "epsilon" else noising.get_velocity(z, noise, t)
            descend(F.mse_loss(made.float(), wanted), optimiser, common.cosine(k, clock.total(), rate))
            average.update(net, k)

        loop(clock, self.folder / "unet.pt", {"net": net, "optimiser": optimiser, "average": average}, step)
        return average.values | {"scale": scale}

    def train(self) -> None:
        self.net = filled(self.net, self.stage("autoencoder", self._autoencoder))
        values = self.stage("unet", self._unet)
        self.scale = float(values.pop("scale"))
        self.unet, self.vae = filled(self.unet, values), as_diffusers(self.net)
        self.nets = {"autoencoder": self.net, "unet": self.unet}

    @torch.no_grad()
    def sample(self, kind: int, n: int, guidance: float, seed: int) -> np.ndarray:
        from monai.inferers import LatentDiffusionInferer

        scheduler, rng, out = self.scheduler("DDIMScheduler"), torch.Generator().manual_seed(seed), []
        scheduler.set_timesteps(50)
        inferer = LatentDiffusionInferer(scheduler, self.scale)
        for at in range(0, n, BATCH):
            noise = torch.randn((min(BATCH, n - at), *self.config["latents"]), generator=rng)
            context, cfg = conditions(np.full(len(noise), kind)), None if guidance == 1 else guidance
            with torch.autocast("cpu", torch.bfloat16):
                x = inferer.sample(noise, self.net, self.unet, scheduler, conditioning=context, verbose=False, cfg=cfg)
            out.append((x.float().clamp(0, 1) * 255).round().byte()[:, 0])
        return torch.cat(out).numpy()


class StandIn:
    """Judge and ruler of a smoke run: means of 16-pixel squares. They measure nothing worth reporting."""

    def features(self, images: np.ndarray) -> np.ndarray:
        return F.avg_pool2d(common.film_tensor(images), 16).flatten(1).numpy()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        f = self.features(images)[:, : 16 * len(CLASSES)].reshape(len(images), len(CLASSES), -1).mean(2)
        return np.exp(4 * f) / np.exp(4 * f).sum(1, keepdims=True)


class Yardstick:
    """The same figures for every arm, those of recipes/quality.py: images against dev films, beside donor films."""

    def __init__(self, judge, gauge, draws: int, most: int | None = None):
        import quality

        self.of, self.nets, self.draws = quality, (judge, gauge), draws
        self.dev, self.donor = (quality.real_table(split, judge, gauge, most) for split in ("dev", "donor"))
        self.marks = quality.marks(self.dev, self.donor, 0, 0)

    def table(self, images: np.ndarray):
        """`images` (3, n, 128, 128), by class."""
        n = images.shape[1]
        units = np.array([f"s{i}" for i in range(3 * n)])
        return self.of.table(np.concatenate(images), np.repeat(CLASSES, n), units, *self.nets)

    def distance(self, images: np.ndarray) -> float:
        """Points of the ruler between all classes and dev films; what is chosen by."""
        made = self.of.apart(self.of.in_proportion(self.table(images), self.donor), self.dev, 0, 0)
        return float(self.of.ruler(made, *self.marks)[0, 0])

    def figures(self, images: np.ndarray) -> dict:
        return self.of.everything(self.table(images), self.dev, self.donor, self.draws, 0)

    def further(self, a: np.ndarray, b: np.ndarray):
        """Points of the ruler that `a` lies further from dev films than `b`."""
        return self.of.difference(self.table(a), self.table(b), self.dev, self.donor, self.draws, 0)


def images(arm: Arm, each: int, guidance: float, seed: int) -> np.ndarray:
    return np.stack([arm.sample(k, each, guidance, seed + 10_000 * k) for k in range(len(CLASSES))])


def measured(arm: Arm, yard: Yardstick, each: int) -> dict:
    """An arm's result; its images are left in its folder. Guidance is chosen on dev with other noise."""
    few = max(4, each // 3)
    tried = {g: yard.distance(images(arm, few, g, SEED + 100_000)) for g in GUIDANCES}
    guidance = min(tried, key=tried.get)
    begin = time.process_time()
    made = images(arm, each, guidance, SEED)
    rate = made[:, :, 0, 0].size / (time.process_time() - begin)
    np.save(arm.folder / "images.npy", made)
    counts = {name: size(net) for name, net in arm.nets.items()}
    return {
        "parameters": counts | {"all": sum(counts.values())},
        "cpu_minutes": sum(s["seconds"] for s in arm.spent.values()) / 60,
        "stages": arm.spent,
        "autoencoder_on_dev": autoencoder.quality(arm.vae, arm.films.dev),
        "guidance": {"chosen": guidance, "distances": tried},
        "images_per_cpu_second": rate,
        "quality": yard.figures(made),
    }


def arm_of(name: str, films: Films, folder: Path, minutes: float) -> Arm:
    return Ours(films, folder, minutes) if name == "ours" else Monai(name, films, folder, minutes)


def choose(films: Films, yard: Yardstick, args) -> dict[str, float]:
    """Distance of each of MONAI's configurations after a third of the minutes, guidance 1."""
    found = {}
    for name in CONFIGS:
        arm = arm_of(name, films, args.work / "third" / name, args.minutes / 3)
        arm.train()
        found[name] = yard.distance(images(arm, max(4, args.each // 3), 1.0, SEED + 100_000))
    return found


def beside(work: Path, results: dict, yard: Yardstick) -> dict:
    """Ours against each of MONAI's arms that has run: ratio of the overall distances and their difference."""
    made = {name: np.load(work / name / "images.npy") for name in results}
    far = {name: result["quality"]["ruler"]["overall"]["estimate"] for name, result in results.items()}
    return {
        name: {"ratio": far["ours"] / far[name], "further": yard.further(made["ours"], made[name])}
        for name in results
        if name != "ours" and "ours" in results
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="CPU minutes an arm")
    parser.add_argument("--arm", choices=["ours", *CONFIGS], help="this one alone; default: all, MONAI's best chosen")
    parser.add_argument("--work", type=Path, help="checkpoints; default: in the cache folder, by minutes")
    parser.add_argument("--each", type=int, default=300, help="images a class")
    parser.add_argument("--films", type=int, help="at most so many donor films (smoke run)")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument(
        "--stand-in", action="store_true", help="means of squares for the judge and the ruler (smoke run)"
    )
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.relative_to(ROOT).as_posix()}")
    args = parser.parse_args()
    if args.record and (args.stand_in or args.films):
        parser.error("a smoke run is not recorded")
    torch.set_num_threads(1)
    args.work = args.work or cache_dir() / "training" / "generation" / f"{args.minutes:g}"
    from generator.judge import Judge, Ruler

    nets = (StandIn(), StandIn()) if args.stand_in else (Judge.load(), Ruler.load())
    films, yard, third = Films(args.films), Yardstick(*nets, args.draws, args.films and 10 * args.films), {}
    names = [args.arm] if args.arm else ["ours"]
    if not args.arm:
        third = choose(films, yard, args)
        names.append(min(third, key=third.get))
    for name in names:
        arm = arm_of(name, films, args.work / name, args.minutes)
        arm.train()
        write(arm.folder / "result.json", measured(arm, yard, args.each))
    done = {p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in sorted(args.work.glob("*/result.json"))}
    versions = {
        p: importlib.metadata.version(p) for p in ("monai", "torch", "diffusers") if importlib.util.find_spec(p)
    }
    facts = {"minutes": args.minutes, "each": args.each, "films": len(films.images), "threads": 1, "versions": versions}
    result = facts | {"third": third, "arms": done, "beside": beside(args.work, done, yard)}
    write(RESULT if args.record else args.work / "result.json", result)
    print(json.dumps(result["beside"], indent=1, default=str))


def write(path: Path, result: dict) -> None:
    from quality import plain

    path.write_text(json.dumps(result, indent=1, default=plain) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
