"""How good a generator's images are: judge, ruler, manifolds, steps, attributes. And claim L1d.

    python recipes/quality.py     # records claim L1d as claims.yml states it; quality_report.py gives all figures

Which real films. Generated images are held against *dev*: the generator learnt from donor films, so that a distance to
those would reward copying, and the nets that look learnt from clinic films, whose features fit them too well. What a
perfect generator would score is not 0 but what donor films score against dev, and it stands beside every figure. Dev
is not quite untouched: guidance, the nets' checkpoints and the generator's last training stage were chosen there. So
quality_report.py holds the images against the official test films too; the ledger notes it, and no choice follows.

Shape. The original films' width and height give the class away (claim L0), and the squash to a square bakes them into
the anatomy; a generated image has no original. So what is held fixed is the yardstick: 100 is also measured between
normal and pneumonia films paired by aspect ratio, which makes the ruler shorter and the figure larger.

Every function takes and returns plain tables, dicts and Intervals; a row of a table is an image with its class,
unit (patient or seed), aspect ratio, 24 features (ruler) and three probabilities (judge). Not a medical device.
"""

from base64 import b64decode, b64encode
from dataclasses import asdict

import numpy as np
import obedience
import pandas as pd
from generator import attributes as measured_attributes
from generator import claim, outlines
from generator.features import CLASSES
from generator.judge import Judge, Ruler

from medimgen import claims
from medimgen.data import radiographs
from medimgen.fidelity import interval, kid, manifold, ruler
from medimgen.metrics import Interval, cluster_bootstrap

SEED, EACH, ROUNDS, NEIGHBOURS, HALF = 200_000, 512, 20, 5, 1399
P = [f"p_{c}" for c in CLASSES]


# --- tables -----------------------------------------------------------------------------------------------------------


def table(images, kinds, units, judge, gauge, aspect=np.nan) -> pd.DataFrame:
    """One row an image. Rounded, because the rows are what a claim is computed from and recorded with."""
    p = pd.DataFrame(judge.probabilities(images).round(4), columns=P)
    rows = pd.DataFrame({"kind": kinds, "unit": units, "aspect": aspect, "features": packed(gauge.features(images))})
    return pd.concat([rows, p], axis=1)


def packed(x: np.ndarray) -> list[str]:
    """Each row of numbers within -12.7 to 12.7, to a tenth, as one short text (base64 of bytes)."""
    return [b64encode(row.tobytes()).decode() for row in (10 * x).round().clip(-127, 127).astype(np.int8)]


def some(split: str, most: int | None = None) -> tuple[np.ndarray, pd.DataFrame]:
    """Films of a split and their rows, spread over all of it if fewer are asked for."""
    films = radiographs.load(split)
    step = max(1, len(films.table) // most) if most else 1
    return films.images[::step], films.table[::step].reset_index(drop=True)


def real_table(split: str, judge, gauge, most: int | None = None) -> pd.DataFrame:
    images, rows = some(split, most)
    aspect = (rows["width"] / rows["height"]).round(4).to_numpy()
    return table(images, rows["subtype"].to_numpy(), rows["number"].astype(str).to_numpy(), judge, gauge, aspect)


def prompted(generator, each: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`each` images of every class: images, classes, units (seeds)."""
    seeds = [seed + 10_000 * k for k in range(len(CLASSES))]
    images = [claim.images(generator, claim.PROMPTS[c], each, s) for c, s in zip(CLASSES, seeds, strict=True)]
    units = [f"s{s + i}" for s in seeds for i in range(each)]
    return np.concatenate(images), np.repeat(CLASSES, each), np.array(units)


def features(rows: pd.DataFrame) -> np.ndarray:
    return np.stack([np.frombuffer(b64decode(text), np.int8) for text in rows["features"]]) / 10


def shares(like: pd.DataFrame) -> pd.Series:
    return like["kind"].value_counts(normalize=True).reindex(CLASSES)


def in_proportion(rows: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """The first rows of each class, as many as make the classes' shares those of `like`."""
    share, have = shares(like), rows["kind"].value_counts()
    total = min(have.get(c, 0) / share[c] for c in CLASSES)
    return pd.concat([rows[rows["kind"] == c].head(round(total * share[c])) for c in CLASSES])


# --- the judge --------------------------------------------------------------------------------------------------------


def confidence(rows: pd.DataFrame) -> np.ndarray:
    """The judge's probability of the class that was prompted or is the label."""
    return rows[P].to_numpy()[np.arange(len(rows)), rows["kind"].map(CLASSES.index).to_numpy(int)]


def agreement(made: pd.DataFrame, real: pd.DataFrame, draws: int, seed: int) -> dict[str, dict]:
    """For each class: how often the judge finds it in made and in real films, the difference, and the largest distance
    between the two distributions of its confidence (Kolmogorov and Smirnov's). A caricature agrees more and more
    surely than real films; a difference near 0 with a large distance is one too.
    """
    from scipy.stats import ks_2samp

    def right(rows):
        return (rows[P].to_numpy().argmax(1) == rows["kind"].map(CLASSES.index).to_numpy()).astype(float)

    out = {}
    for c in CLASSES:
        a, b = made[made["kind"] == c], real[real["kind"] == c]
        both = pd.concat([a, b])
        flag = np.r_[np.ones(len(a), bool), np.zeros(len(b), bool)]

        def difference(flag, ok):
            return ok[flag].mean() - ok[~flag].mean() if 0 < flag.sum() < len(flag) else np.nan

        def largest(flag, p):
            return ks_2samp(p[flag], p[~flag]).statistic if 0 < flag.sum() < len(flag) else np.nan

        out[c] = {
            "made": cluster_bootstrap(np.mean, a["unit"], right(a), draws=draws, seed=seed),
            "real": cluster_bootstrap(np.mean, b["unit"], right(b), draws=draws, seed=seed),
            "difference": cluster_bootstrap(difference, both["unit"], flag, right(both), draws=draws, seed=seed),
            "confidence_ks": largest(flag, confidence(both)),
            "confidence_median": [float(np.median(confidence(rows))) for rows in (a, b)],
        }
    return out


# --- the ruler --------------------------------------------------------------------------------------------------------


def apart(a: pd.DataFrame, b: pd.DataFrame, draws: int, seed: int) -> np.ndarray:
    """Squared distance of two tables: (2, 1 + draws), draws and mirrored draws."""
    return np.array(kid(features(a), features(b), a["unit"], b["unit"], draws=draws, seed=seed))


def of_kind(rows: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    return rows[rows["kind"].isin(kinds)]


def same_shape(a: pd.DataFrame, b: pd.DataFrame, bins: int = 12, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Films of `a` and `b` whose original aspect ratio is known, as many of each in every bin of it (bins of equal
    numbers over both), chosen at random.
    """
    a, b, rng = a.dropna(subset="aspect"), b.dropna(subset="aspect"), np.random.default_rng(seed)
    cuts = np.quantile(np.r_[a["aspect"], b["aspect"]], np.linspace(0, 1, bins + 1)[1:-1])
    kept = ([], [])
    for k in range(bins):
        here = [np.flatnonzero(np.digitize(rows["aspect"], cuts) == k) for rows in (a, b)]
        for chosen, out in zip(here, kept, strict=True):
            out.append(rng.permutation(chosen)[: min(map(len, here))])
    return a.iloc[np.concatenate(kept[0])], b.iloc[np.concatenate(kept[1])]


def marks(reference: pd.DataFrame, donor: pd.DataFrame, draws: int, seed: int, fixed: bool = False):
    """The ruler's 0 (donor against dev films) and 100 (normal against pneumonia among donor films), with draws."""
    sides = of_kind(donor, "normal"), of_kind(donor, "bacterial", "viral")
    sides = same_shape(*sides, seed=seed) if fixed else sides
    return apart(donor, reference, draws, seed), apart(*sides, draws, seed)


def on_ruler(values, zero, hundred, null: float | None = None) -> Interval:
    return interval(*ruler(values, zero, hundred), null, "less")


def distances(made, reference, donor, draws: int, seed: int, null: float | None = None) -> dict[str, Interval]:
    """Points of the ruler: overall with the classes in donor proportions, the same on the ruler of films of one shape,
    each class, and what the real classes are apart.
    """
    zero, hundred = marks(reference, donor, draws, seed)
    overall = apart(in_proportion(made, donor), reference, draws, seed)
    out = {
        "overall": on_ruler(overall, zero, hundred, null),
        "overall_same_shape": on_ruler(overall, *marks(reference, donor, draws, seed, fixed=True)),
    }
    for c in CLASSES:
        a, b, d = (of_kind(rows, c) for rows in (made, reference, donor))
        low = apart(d, b, draws, seed)
        out[c] = on_ruler(apart(a, b, draws, seed), low, low + hundred - zero)
    sides = of_kind(donor, "bacterial"), of_kind(donor, "viral")
    illness = of_kind(donor, "normal"), of_kind(donor, "bacterial", "viral")
    for name, pair in {"bacterial_viral": sides, "normal_pneumonia_same_shape": same_shape(*illness)}.items():
        out[name] = on_ruler(apart(*pair, draws, seed), 0 * zero, hundred - zero)
    return out | {"made_bacterial_viral": _made_sides(made, hundred - zero, draws, seed)}


def _made_sides(made, length, draws, seed) -> Interval:
    """How far apart made bacterial and viral images are; real ones: `bacterial_viral`."""
    return on_ruler(apart(of_kind(made, "bacterial"), of_kind(made, "viral"), draws, seed), 0 * length, length)


def difference(a, b, reference, donor, draws: int, seed: int) -> Interval:
    """Points of the ruler that `a` lies further from real films than `b`; images of one unit are drawn together.
    For few steps against many: not worse when the interval's upper end is below 5.
    """
    zero, hundred = marks(reference, donor, draws, seed)
    a, b = (apart(in_proportion(rows, donor), reference, draws, seed) for rows in (a, b))
    return on_ruler(a - b, 0 * zero, hundred - zero)


def spoilt(images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Films that a useful ruler must put away from 0: blurred (as if of 72 pixels), grainy, darker."""
    from skimage.transform import resize

    rng, x = np.random.default_rng(seed), images.astype(float)
    small = np.stack([resize(resize(i, (72, 72), anti_aliasing=True), (128, 128)) for i in x])
    out = {"blurred": small, "grainy": x + rng.normal(0, 5, x.shape), "darker": x * 0.85}
    return {name: v.clip(0, 255).round().astype(np.uint8) for name, v in out.items()}


# --- manifolds --------------------------------------------------------------------------------------------------------


def neighbours(made, reference, rounds: int = ROUNDS, k: int = NEIGHBOURS, seed: int = 0):
    """Precision and density of each made image, recall and coverage of each reference film (see `fidelity.manifold`),
    each the mean over `rounds` random choices of as many made images of each class as there are reference films (or
    all, where there are fewer: recall and coverage are then too low).
    """
    rng, need = np.random.default_rng(seed), reference["kind"].value_counts()
    real, totals, times = features(reference), {}, np.zeros(len(made))
    for _ in range(rounds):
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(made["kind"] == c))[: need[c]] for c in CLASSES if c in need]
        )
        times[chosen] += 1
        for name, values in manifold(real, features(made)[chosen], k).items():
            total = totals.setdefault(name, np.zeros(len(made if name in ("precision", "density") else reference)))
            total[chosen if name in ("precision", "density") else slice(None)] += values
    used = times > 0
    by_made = {name: totals[name][used] / times[used] for name in ("precision", "density")}
    return by_made | {name: totals[name] / rounds for name in ("recall", "coverage")}, used


def manifolds(made, reference, draws: int, seed: int, rounds: int = ROUNDS) -> dict[str, Interval]:
    """Precision, recall, density and coverage; made images or patients are drawn again, neighbourhoods are not."""
    values, used = neighbours(made, reference, rounds, seed=seed)
    units = {name: made["unit"][used] for name in ("precision", "density")}
    return {
        name: cluster_bootstrap(np.mean, units.get(name, reference["unit"]), v, draws=draws, seed=seed)
        for name, v in values.items()
    }


# --- steps and attributes ---------------------------------------------------------------------------------------------


def teacher(steps: int = 50):
    """The many-step model, where the training run is at hand, as a Generator that uses the same noise."""
    from generator import pack
    from train_generator import STEPS, Recipe

    from medimgen.generate import Generator

    recipe = Recipe(claim.WORK, claim.WORK / "cxr-mini", STEPS)
    (data, vae, _), (_, model) = recipe.texture(), recipe.unet()
    return Generator(pack.pipeline(vae, model, data.tokenizer), {"steps": steps, "guidance": 1.0}, "")


def obey(generator, net, each: int, draws: int, seed: int) -> dict[str, Interval]:
    """Spearman correlation of each attribute asked for and measured again: claim L1c's images, `each` a level."""
    rows = []
    for name, words in obedience.WORDS.items():
        for level, word in zip((-1, 0, 1), words, strict=True):
            for k, kind in enumerate(obedience.KINDS):
                start = obedience.SEED + 100 * k
                images = claim.images(generator, f"chest x-ray, {kind}, {word}", each // len(obedience.KINDS), start)
                values = measured_attributes.measure(images, outlines.outline(net, images))[name]
                rows += [(name, level, start + i, float(v)) for i, v in enumerate(values)]
    return obedience.explore(pd.DataFrame(rows, columns=["attribute", "level", "seed", "value"]), draws, seed)


def plain(value):
    """What JSON cannot say for itself: an Interval as a dict, a NumPy number as a number."""
    return asdict(value) if isinstance(value, Interval) else float(value)


# --- all of it, and the claim -----------------------------------------------------------------------------------------


def everything(made, dev, donor, draws: int, seed: int) -> dict[str, dict]:
    """All figures of three tables, the baseline of real films beside each."""
    baseline = donor.sample(frac=1, random_state=seed)
    return {
        "judge": {"dev": agreement(made, dev, draws, seed), "donor": agreement(made, donor, draws, seed)},
        "judge_baseline": agreement(donor.assign(unit="d" + donor["unit"]), dev, draws, seed),
        "ruler": distances(made, dev, donor, draws, seed),
        "manifold": manifolds(made, dev, draws, seed),
        "manifold_baseline": manifolds(baseline, dev, draws, seed),
    }


def make_rows() -> pd.DataFrame:
    """Made images, dev films and every second donor film in one table, column `source`; short, for it is recorded."""
    from medimgen.generate import Generator

    judge, gauge = Judge.load(), Ruler.load()
    made = table(*prompted(Generator.load(), EACH), judge, gauge)
    parts = {"m": made, "v": real_table("dev", judge, gauge), "o": real_table("donor", judge, gauge, HALF)}
    rows = pd.concat([rows.assign(source=name) for name, rows in parts.items()], ignore_index=True)
    return rows.assign(kind=rows["kind"].str[0]).drop(columns=P)


def _parts(rows: pd.DataFrame) -> list[pd.DataFrame]:
    rows = rows.assign(unit=rows["unit"].astype(str), kind=rows["kind"].map({c[0]: c for c in CLASSES}))
    return [rows[rows["source"] == name].reset_index(drop=True) for name in "mvo"]


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """Overall distance on the ruler, against 10."""
    made, dev, donor = _parts(rows)
    zero, hundred = marks(dev, donor, draws, seed)
    return on_ruler(apart(in_proportion(made, donor), dev, draws, seed), zero, hundred, 10.0)


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    found = distances(*_parts(rows), draws, seed)
    return {name: value for name, value in found.items() if name != "overall"}


def count(rows: pd.DataFrame) -> dict[str, int]:
    real = rows[rows["source"] != "m"]
    return {"images": len(rows), "generated": len(rows) - len(real), "patients": int(real["unit"].nunique())}


if __name__ == "__main__":
    claim.record("L1d", make_rows, measure, explore, count)
    print(claims.show("L1d"))
