"""Chest radiographs of children (Kermany, Zhang, Goldbaum 2018), with labels, patients and splits.

Not for diagnosis: 128-pixel films of children. Bacterial against viral is the data set's label; a film alone
does not show it reliably. Patients are known by number only, and a number is not proof of one child.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from medimgen import pictures
from medimgen.data.fetch import fetch, is_reachable
from medimgen.errors import CourseError
from medimgen.paths import ROOT, cache_dir

LABELS = Path(__file__).parent / "kermany_labels.tsv"
SPLITS = ROOT / "recipes" / "splits.tsv"
SPLIT_NAMES = ("donor", "clinic", "dev", "pocket", "test", "none")
FULL, POCKET = "kermany-cxr-224", "kermany-pocket"


class Films(NamedTuple):
    """`images`: uint8 (n, size, size), 0 black to 255 white. `table`: one row a film, in the same order."""

    images: np.ndarray
    table: pd.DataFrame


def labels() -> pd.DataFrame:
    """One row for each of the 5,856 films; ships with the course, so both tiers have it.

    Columns: file, label (normal, pneumonia), subtype (normal, bacterial, viral), patient, number
    (kind and bare number: the unit that never crosses a split), duplicate_group, mask, mask_match,
    width and height in pixels of the original film (NaN where unknown), split.
    """
    table = pd.read_csv(LABELS, sep="\t", dtype={"duplicate_group": "string", "mask": "string", "mask_match": "string"})
    splits = pd.read_csv(SPLITS, sep="\t")
    return table.merge(splits, on="file", how="left", validate="one_to_one")


def available_tier() -> str | None:
    """ "full" if all films are in the cache or mirror, else "pocket" if the 16 are in the cache, else None.

    `MEDIMGEN_TIER=pocket` asks for the small one.
    """
    wanted = os.environ.get("MEDIMGEN_TIER")
    if wanted not in (None, "", "pocket", "full"):
        raise CourseError(f"MEDIMGEN_TIER is {wanted!r}", next="set it to pocket or full, or remove it")
    if wanted != "pocket" and is_reachable(FULL):
        return "full"
    if wanted != "full" and is_reachable(POCKET):
        return "pocket"
    return None


def load(split: str | None = None, size: int = 128, tier: str | None = None) -> Films:
    """Films as one array, with their table.

    Parameters
    ----------
    split : {"donor", "clinic", "dev", "pocket", "test", "none"}, optional
        All films of the tier if not given. "none" holds the films left out of every split.
    size : int
        Side in pixels, 16 to 224. Films are squashed to a square, as the data set's copies are.
    tier : {"pocket", "full"}, optional
        By default full where it is in the cache or mirror, else pocket (fetched if need be).

    Returns
    -------
    Films
        With `split` given an array of its own; without, a read-only memory map of all films.

    Raises
    ------
    CourseError
        Unknown split, size or tier, or a split that the pocket tier does not hold.
    """
    tier = tier or available_tier() or os.environ.get("MEDIMGEN_TIER") or "pocket"
    if tier not in ("pocket", "full"):
        raise CourseError(f"no tier is called {tier!r}", next='use tier="pocket" or tier="full"')
    if split is not None and split not in SPLIT_NAMES:
        raise CourseError(f"no split is called {split!r}", next=f"use one of {', '.join(SPLIT_NAMES)}")
    if not 16 <= size <= 224:
        raise CourseError(f"size={size} is not between 16 and 224", next="the films are stored at 224 x 224")
    if tier == "pocket" and split not in (None, "pocket"):
        raise CourseError(
            f"the pocket tier holds 16 films and no {split} split",
            next=f'run `medimgen fetch {FULL}` (38 MB), or load(split="pocket")',
        )
    table = labels().assign(source=FULL if tier == "full" else POCKET, licence="CC-BY-4.0")
    if tier == "pocket":
        table = table[table["split"] == "pocket"].reset_index(drop=True)
    images = _array(table["file"], size, tier)
    if split is None:
        return Films(images, table)
    chosen = np.flatnonzero(table["split"] == split)
    return Films(images[chosen], table.iloc[chosen].reset_index(drop=True))


def original(file: str) -> np.ndarray:
    """One of the 16 pocket films at the size it was published, uint8 (h, w); `file` as in the table."""
    path = fetch(POCKET) / Path(file).name
    if not path.is_file():
        raise CourseError(
            f"{file} is not one of the 16 films kept at full size",
            next='choose from load(split="pocket").table',
        )
    return np.asarray(_grey(path))


def show_films(films: Films, per_class: int = 4, seed: int = 0):
    """Draw `per_class` films of each subtype present, one row a subtype; returns the matplotlib figure."""
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(seed)
    subtypes = [s for s in ("normal", "bacterial", "viral") if (films.table["subtype"] == s).any()]
    figure, axes = plt.subplots(
        len(subtypes), per_class, figsize=(2 * per_class, 2.15 * len(subtypes)), layout="constrained", squeeze=False
    )
    for row, subtype in zip(axes, subtypes, strict=True):
        chosen = rng.permutation(np.flatnonzero(films.table["subtype"] == subtype))[:per_class]
        for axis, k in zip(row, chosen, strict=False):
            axis.imshow(films.images[k], cmap="gray", vmin=0, vmax=255)
        row[0].set_title(subtype, loc="left")
        for axis in row:
            axis.set_axis_off()
    return figure


def _array(files: pd.Series, size: int, tier: str) -> np.ndarray:
    """Memory map of all films of a tier at `size`; decoded once, then kept in the cache."""
    folder = fetch(FULL if tier == "full" else POCKET)
    path = cache_dir() / "arrays" / f"{folder.name}-{size}.npy"
    if not _usable(path, (len(files), size, size), folder):
        _decode([folder / (f if tier == "full" else Path(f).name) for f in files], size, path)
    return np.load(path, mmap_mode="r")


def _usable(path: Path, shape: tuple[int, ...], folder: Path) -> bool:
    """Whether an array file is whole and newer than the verified films it was made from."""
    stamp = folder.parent / f"{folder.name}.verified.json"
    try:
        fresh = path.stat().st_mtime >= stamp.stat().st_mtime
        return fresh and np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _decode(files: list[Path], size: int, target: Path) -> None:
    """Decode and squash `files` into one .npy, written under another name and then renamed."""
    from tqdm.auto import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    images = np.empty((len(files), size, size), np.uint8)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        squashed = pool.map(lambda path: _squash(path, size), files, chunksize=32)
        for k, image in enumerate(tqdm(squashed, total=len(files), unit="film", disable=len(files) < 500)):
            images[k] = image
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    with temporary.open("wb") as f:
        np.save(f, images)
    temporary.replace(target)


def _squash(path: Path, size: int) -> np.ndarray:
    """The film at `path` squashed to (size, size), by way of 224 x 224 as in the data set's own copies."""
    image = _grey(path)
    for side in (224, size):
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.HAMMING)  # antialiased; half of Lanczos's time
    return np.asarray(image)


def _grey(path: Path) -> Image.Image:
    return pictures.grey(pictures.read(path, draft="L"))
