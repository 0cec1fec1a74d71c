"""What `medimgen dossier` measures and shows of generated films: simple things that need no trained judge.

Four measures beside those of real films, structural similarity within a prompt, what the words change, the nearest
training films, and the images that stand out. `medimgen.dossier` makes the images, this file looks at them.
"""

import contextlib
import io
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from medimgen import generate, likeness, report
from medimgen.data import radiographs
from medimgen.dossier import BATCH, Batch, kept, row
from medimgen.metrics import cluster_bootstrap, proportion

SHOWN, PAIRED, DRAWS = 8, 100, 500
MEASURES = {
    "exposure": "mean brightness of the inner three quarters",
    "contrast": "grey levels from the darkest to the brightest 5 %",
    "sharpness": "fine detail against the range of the whole film",
    "asymmetry": "1 less the correlation with the mirror image",
}


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """The four `MEASURES` of uint8 films (n, h, w), each (n,); white is 1. No clinical measurements."""
    x = images.astype(np.float32) / 255
    _, h, w = x.shape
    dark, bright = np.percentile(x, [5, 95], axis=(1, 2))
    low, high = np.percentile(x - gaussian_filter(x, (0, h / 128, w / 128)), [5, 95], axis=(1, 2))
    soft, best = gaussian_filter(x, (0, h / 32, w / 32)), np.full(len(x), -1.0)
    for shift in range(-w // 16, w // 16 + 1):
        middle = soft[:, :, w // 8 + shift : w - w // 8 + shift]
        middle = middle - middle.mean((1, 2), keepdims=True)
        best = np.maximum(best, (middle * middle[..., ::-1]).sum((1, 2)) / ((middle**2).sum((1, 2)) + 1e-6))
    inner = x[:, h // 8 : h - h // 8, w // 8 : w - w // 8].mean((1, 2))
    sharp = np.log10((high - low) / np.maximum(x.std((1, 2)), 1e-3) + 1e-6)
    return {"exposure": inner, "contrast": bright - dark, "sharpness": sharp, "asymmetry": 1 - best}


class Evidence:
    """Images on disk, a row of facts for each in `table`, and the real films (`films`, `real`) beside them."""

    def __init__(self, model: Path, batches: list[Batch], folder: Path):
        self.folder, self.tier, self.limit, self.known = folder, radiographs.available_tier() or "pocket", 0.0, None
        if (model / likeness.FILE).is_file():
            with np.load(model / likeness.FILE) as file:
                self.known = np.unpackbits(file["signs"], axis=1, count=likeness.BITS).astype(bool)
                self.limit = float(file["threshold"])
        self.table = pd.concat([self._facts(k, b) for k, b in enumerate(batches)], ignore_index=True)
        self.table[["alike", "twin"]] = 0.0
        for rows in self.table.groupby("part").groups.values():
            signs = np.stack(list(self.table["signs"][rows]))
            apart = likeness.distances(signs, signs) + np.eye(len(rows))
            self.table.loc[rows, ["alike", "twin"]] = np.c_[apart.min(1), rows.to_numpy()[apart.argmin(1)]]
        self.films = radiographs.load("dev" if self.tier == "full" else "pocket", self.picture(0).shape[-1])
        self.real = self.films.table[["subtype", "number"]].assign(**measure(self.films.images))

    def _facts(self, k: int, batch: Batch) -> pd.DataFrame:
        images = kept(self.folder, k, "images")
        signs = np.stack([likeness.signs(i) for i in images])
        apart = np.ones((len(images), 1)) if self.known is None else likeness.distances(signs, self.known)
        seeds = batch.seed + np.arange(batch.count)
        facts = {"prompt": batch.text, "part": batch.part, "seed": seeds, "batch": k, "place": np.arange(batch.count)}
        near = {"distance": apart.min(1), "donor": apart.argmin(1), "refused": apart.min(1) < self.limit}
        return pd.DataFrame(facts | measure(images) | near | {"signs": list(signs)})

    def picture(self, i: int) -> np.ndarray:
        return kept(self.folder, self.table["batch"][i], "images")[self.table["place"][i]]

    def tile(self, i: int) -> tuple[np.ndarray, str]:
        return self.picture(i), f"SYNTHETIC {self.table['seed'][i]}"

    def pictures(self, part: int, most: int) -> np.ndarray:
        return np.stack([self.picture(i) for i in self.table.index[self.table["part"] == part][:most]])

    def prompts(self):
        """(number, prompt, its rows, does it name a class and no more) for each prompt."""
        for k, rows in self.table[self.table["part"] >= 0].groupby("part"):
            text = rows["prompt"].iloc[0]
            yield k, text, rows, text.split(", ")[-1].split(" ")[0] in ("normal", "bacterial", "viral")

    def like(self, prompt: str) -> tuple[np.ndarray, str]:
        """Real films of the class that a prompt names (all, if fewer than eight): their rows, and what they are."""
        named = self.real["subtype"].map(lambda kind: kind in prompt).to_numpy()
        named = named if named.sum() >= 8 else np.full(len(named), True)
        kinds, split = ", ".join(self.real["subtype"][named].unique()), self.films.table["split"].iloc[0]
        patients = self.real["number"][named].nunique()
        return np.flatnonzero(named), f"{named.sum()} real {split} films ({kinds}) of {patients} patients"


def _shift(values, made) -> float:
    return values[made].mean() - values[~made].mean()


def _spread(values, made) -> float:
    return values[made].std() / max(values[~made].std(), 1e-9)


def _against(of, made, real, units) -> tuple[float, float, float]:
    """`of` made against real values with its interval: single images and whole patients are drawn."""
    clusters = np.concatenate([[f"image {k}" for k in range(len(made))], units])
    values, is_made = np.r_[made, real], np.arange(len(clusters)) < len(made)

    def both(v, m):  # not a number where a draw lacks one of the two
        return of(v, m) if 0 < m.sum() < len(m) else np.nan

    return tuple(cluster_bootstrap(both, clusters, values, is_made, draws=DRAWS, seed=0))


def against_real(e: Evidence) -> tuple[list[dict], dict]:
    """Rows: how the measures lie and spread beside real films', for prompts that name a class and no more; curves."""
    rows, curves = [], {}
    for _, text, made, plain in e.prompts():
        chosen, told = e.like(text)
        real = e.real.iloc[chosen]
        for name in MEASURES if plain else ():
            curves[f"{name}, {text}"] = [np.quantile(x[name], np.linspace(0.02, 0.98, 25)) for x in (made, real)]
            for of, what, unit in ((_shift, "shifted by", "SD of the real films"), (_spread, "spread", "times theirs")):
                scale = real[name].std(ddof=0) + 1e-9
                found = _against(of, made[name] / scale, real[name] / scale, real["number"])
                how = f"{name}: {MEASURES[name]}; {len(made)} images, {told}"
                rows.append(row(f"{what} {name}: {text}", f"“{text}”: {name} {what}", found, unit, how))
    return rows, curves


def variety(e: Evidence) -> list[dict]:
    """Rows: how much more like each other images of a prompt are than real films of different patients."""

    def pairs(images):
        return np.array([structural_similarity(a, b) for a, b in zip(images[::2], images[1::2], strict=False)])

    rows = []
    for k, text, _, _ in e.prompts():
        chosen, told = e.like(text)
        chosen = np.random.default_rng(0).permutation(chosen)
        chosen = chosen[np.unique(e.real["number"].iloc[chosen], return_index=True)[1]][:PAIRED]
        made, real = pairs(e.pictures(k, PAIRED)), pairs(np.random.default_rng(1).permutation(e.films.images[chosen]))
        found = _against(_shift, made, real, [f"pair {k}" for k in range(len(real))])
        how = f"SSIM {made.mean():.3f} in {len(made)} pairs, {real.mean():.3f} in {len(real)} pairs out of {told}"
        rows.append(
            row(f"ssim: {text}", f"“{text}”: images more like each other than real films by", found, "SSIM", how)
        )
    return rows


def words(e: Evidence, unseen) -> list[dict]:
    """Rows: what a prompt's last words change, the noise being the same; and words outside the vocabulary."""
    rows = []
    for k, text, table, _ in e.prompts():
        before = e.table[e.table["part"] == -1 - k]
        base, _, last = text.rpartition(", ")
        if n := len(before):
            made, without = e.pictures(k, n).astype(float), e.pictures(-1 - k, n)
            other = max(np.abs(made - np.roll(made, 1, 0)).mean(), 1e-9)
            share = np.abs(made - without).mean((1, 2)) / other
            found = cluster_bootstrap(np.mean, np.arange(n), share, draws=DRAWS, seed=0)
            moved = [f"{m} {(table[m].iloc[:n].to_numpy() - before[m].to_numpy()).mean():+.3f}" for m in MEASURES]
            how = f"mean grey difference of {n} pairs of equal seed; {', '.join(moved)}"
            what = f"“{last}” added to “{base}” changes an image by"
            rows.append(row(f"words: {text}", what, found, "of what another seed changes", how))
        if lost := unseen(text):
            what = f"“{text}”: goes on without words it never saw, {', '.join(lost)}"
            rows.append(row(f"unseen: {text}", what, len(lost), "words", "not in the vocabulary"))
    return rows


def neighbours(e: Evidence) -> list[dict]:
    """Rows: how near the images are to the films the model learnt from (`medimgen.likeness`)."""
    if e.known is None:
        return [row("refused", "Images refused at export", None, "", f"the model brings no {likeness.FILE}")]
    own = e.table[e.table["part"] >= 0]
    share, other = proportion(int(own["refused"].sum()), len(own)), likeness.nearest(e.films.images, e.known)
    how, span = f"share of {likeness.BITS} signs that differ, {len(e.known)} training films", (0.5, 0.025, 0.975)
    met = True if share.high <= 0.02 else False if share.low > 0.02 else None
    return [
        row("refused", "Images refused at export", share, "share", f"{how}; under {e.limit:.3f}", "at most 0.02", met),
        row("near", "Distance from an image to its nearest training film", np.quantile(own["distance"], span),
            "of signs", f"{how}; median and 95 % of the images"),
        row("near real", "Distance of another child's film", np.quantile(other, span), "of signs",
            f"{how}; median and 95 % of {e.like('')[1]}"),
    ]  # fmt: skip


def failures(e: Evidence, album, local: bool) -> list[dict]:
    """Rows and pictures of the images that stand out: outside real films' range, or too like each other."""
    own = pd.concat([rows for *_, rows, plain in e.prompts() if plain] or [e.table[:0]])
    _, told = e.like("")
    rows = []
    for name in MEASURES if len(own) else ():
        low, high = np.quantile(e.real[name], [0.025, 0.975])
        far = np.maximum(low - own[name], own[name] - high)
        share, how = proportion(int((far > 0).sum()), len(own)), f"range of the middle 95 % of {told}"
        rows.append(row(f"out {name}", f"Images whose {name} few real films have", share, "share", how))
        worst = [i for i in far.sort_values(ascending=False).index if local or not own["refused"][i]][:4]
        what = ", ".join(f"{own[name][i]:.2f} (“{own['prompt'][i]}”)" for i in worst)
        what = f"Unusual {name}: {what}; 95 % of real films lie between {low:.2f} and {high:.2f}"
        alt = f"{len(worst)} synthetic chest films of unusual {name}."
        album.add("failures", [e.tile(i) for i in worst], alt, f"{what}. Found by this measure, picked for it.")
    twins = e.table[e.table["part"] >= 0].sort_values("alike")["twin"].astype(int)
    pairs = dict.fromkeys(tuple(sorted(pair)) for pair in twins.items())
    pairs = [pair for pair in pairs if local or not e.table["refused"][list(pair)].any()][:4]
    apart = ", ".join(f"{e.table['alike'][[i, j]].min():.3f}" for i, j in pairs)
    told = f"Most like each other within a prompt, two by two: {apart} of the signs differ; median of all images "
    told += f"{e.table['alike'][twins.index].median():.3f}. Found by this measure, picked for it."
    album.add("failures", [e.tile(i) for pair in pairs for i in pair], f"{len(pairs)} pairs of synthetic films.", told)
    return rows


def sheets(e: Evidence, album, local: bool) -> None:
    """The first images of every prompt, none picked; those refused at export are left out unless all stays local."""
    for _, text, rows, _ in e.prompts():
        shown = [i for i in rows.index if local or not rows["refused"][i]][:SHOWN]
        seeds = "seeds " + " to ".join(str(rows["seed"][i]) for i in shown[:1] + shown[-1:])
        left = "" if shown == list(rows.index[: len(shown)]) else ", without those refused at export"
        album.add("sheets", [e.tile(i) for i in shown], f"{len(shown)} synthetic chest films of the prompt “{text}”.",
                  f"“{text}”, {seeds}{left}, none picked")  # fmt: skip


def nearest(e: Evidence, album, donors, most: int = 6) -> None:
    """The images nearest to a training film; beside each that film, if `donors` (all training films) is given."""
    own = e.table[(e.table["part"] >= 0) & ((donors is not None) | ~e.table["refused"])].sort_values("distance")
    for i, fact in own.head(most if e.known is not None else 0).iterrows():
        told = f"“{fact.prompt}”, seed {fact.seed}: {fact.distance:.3f} of the signs differ"
        tiles, real, k = [e.tile(i)], "", fact.donor
        if donors is not None and np.array_equal(likeness.signs(donors.images[k]), e.known[k]):
            real = f"{donors.table['file'][k]}, Kermany, Zhang, Goldbaum 2018, CC BY 4.0, squashed"
            tiles, told = [*tiles, (donors.images[k], "REAL FILM")], f"{told} from the film on the right, {real}"
        alt = " and, to its right, the real training film most like it" if real else ", no real film beside it"
        alt = f"A synthetic chest film{alt}."
        album.add("nearest", tiles, alt, told + ", refused at export" * bool(fact.refused), real)


def speed(generator, prompt: str, batches, costs, watts: float, log: Path) -> list[dict]:
    """Rows: seconds, memory, and an estimate of energy; also of the training, where its logs are."""
    with contextlib.redirect_stdout(io.StringIO()):
        alone = [generator(prompt, seed=k).record["seconds"] for k in range(6)][1:]
    (seconds, cpu, peak), counts, one = costs.T, np.array([b.count for b in batches]), float(np.median(alone))
    each, most, logs = cpu.sum() / counts.sum(), float(peak.max()), [p.read_text("utf-8") for p in log.glob("*.jsonl")]
    logged = [[json.loads(x).get("cpu_seconds", 0) for x in text.splitlines()] for text in logs]
    trained = sum(a for values in logged for a, b in pairwise([*values, 0]) if b < a)  # from 0 again after each resume
    share = cpu.sum() / seconds.sum()  # of the time that went by; a machine with nothing else to do gives 1 or more
    where = f"fp32, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, {os.cpu_count()} cores"
    where += f", busy with other work: {share:.0%} of one was ours" if (busy := share < 0.8) else ""
    guess = f"CPU seconds x {watts:g} W a busy core: assumed (--watts), not measured"
    spent = f"{trained / 3600:.1f} CPU hours by the model's logs; {guess}"
    span, among = (one, min(alone), max(alone)), np.median(seconds / counts)
    how, quick = f"median, least and most of 5; {where}", None if busy and one > 1 else one <= 1
    return [
        row("one", "One image alone", span, "s", how, "at most 1 s", quick),
        row("batch", f"An image among {BATCH}", among, "s", f"median of {len(counts)} batches; {where}"),
        row("cpu", "Processor time of an image", each, "s", f"mean of {counts.sum()} images in batches"),
        row("peak", "Largest memory", most, "MB", "the whole process", "at most 1,500 MB", most <= 1500),
        row("energy", "Energy of 1,000 images", each * watts / 3.6, "Wh", guess),
        row("training", "Energy of the training", trained * watts / 3600 or None, "Wh", spent),
    ]


def document(e: Evidence, folder: Path, real: bool, generator) -> dict:
    """What the images are worth to the document: rows by section, curves, pictures in `folder`, a line an image."""
    album = Album(folder, generator.sha256)
    donors = radiographs.load("donor") if real and e.tier == "full" and e.known is not None else None
    sheets(e, album, donors is not None)
    nearest(e, album, donors)
    rows, curves = against_real(e)
    sections = {
        "words": words(e, lambda text: generate.unseen_words(generator.pipe.tokenizer, text)),
        "measured": rows,
        "variety": variety(e),
        "neighbours": neighbours(e),
        "failures": failures(e, album, donors is not None),
    }
    columns = ["prompt", "seed", *MEASURES, "distance", "alike", "refused"]
    images = e.table[e.table["part"] >= 0][columns].round(4).to_dict("records")
    facts = {"tier": e.tier, "beside": e.like("")[1], "sections": sections}
    return facts | {"curves": curves, "pictures": album.all, "images": images}


class Album:
    """Pictures in `folder`, each tile under its label; `all` holds what the document says of them."""

    def __init__(self, folder: Path, sha256: str):
        self.folder, self.sha256, self.all = folder, sha256, []
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*-[0-9][0-9].png"):  # an earlier run may have shown real films
            old.unlink()

    def add(self, group: str, tiles: list[tuple[np.ndarray, str]], alt: str, caption: str, real: str = "") -> None:
        """One PNG of labelled tiles, four a row; `real` names the real film in it, else it is marked as synthetic."""
        if not tiles:
            return
        side, wide = 128, min(4, len(tiles))
        sheet, about = Image.new("L", (wide * side, -(-len(tiles) // wide) * (side + 14))), PngInfo()
        for k, (film, label) in enumerate(tiles):
            x, y = k % wide * side, k // wide * (side + 14)
            sheet.paste(Image.fromarray(film).resize((side, side), Image.Resampling.NEAREST), (x, y + 14))
            ImageDraw.Draw(sheet).text((x + 2, y + 1), label, 255)
        for key, text in (("Warning", "Not for diagnosis"), ("Weights-SHA256", self.sha256), ("Caption", caption)):
            about.add_itxt(key, text)
        about.add_itxt("Real-Film" if real else "Synthetic", real or "true")
        path = self.folder / f"{group}-{len(self.all):02d}.png"
        sheet.save(path, pnginfo=about, optimize=True)
        facts = {"group": group, "file": f"{self.folder.name}/{path.name}", "sha256": report.file_sha256(path)}
        self.all.append(facts | {"alt": alt, "caption": caption, "real": bool(real)})
