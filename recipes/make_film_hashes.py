"""Perceptual hashes of every film in the manifest, so that a copy in the repository is noticed.

    python recipes/make_film_hashes.py            write recipes/film_hashes.npz (needs the full data tier)
    python recipes/make_film_hashes.py --measure  print how far apart films and their copies lie

The hash of a film and the distance of two are those of `medimgen.likeness`. A picture is compared seven times: as
it is and with its edges continued outwards by 1.5 or 3 % in six ways, which undoes a small crop; and each time as a
negative.

Measured with `--measure`, 2,000 films against all 5,924: the nearest different film is never closer than
0.205 (0.1 % within 0.211, median 0.32). Copies of 500 films, distance within which 99 % lie: 64 to 512 px 0.05,
JPEG quality 30 0.04, brightness +-10 % 0.02, contrast x1.3 0.08, RGB 0.00, 3 % cropped 0.14, 3 % cropped on
every side 0.19 (0.8 % missed at 0.20), on one side 0.20 (1.0 % missed), off a corner 0.16. Hence THRESHOLD.
"""

import argparse
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from medimgen.likeness import BITS, distances, signs

DATASETS = ("kermany-cxr-224", "nih-cxr8-subset")
THRESHOLD = 0.20
"""Distance below which two pictures count as the same film; above it they are different films."""

EXACT = 0.12
"""The same for pictures that were not cropped (tiles of a contact sheet), compared once instead of seven times."""

PADS = [(0.0, 0.0, 0.0, 0.0), (0.015,) * 4, (0.03,) * 4]
PADS += [(0.03, 0.03, 0.0, 0.0), (0.0, 0.0, 0.03, 0.03), (0.03, 0.0, 0.0, 0.03), (0.0, 0.03, 0.03, 0.0)]
FILE = Path(__file__).with_name("film_hashes.npz")


def continued(picture: Image.Image, pad: tuple[float, float, float, float]) -> Image.Image:
    """The picture with its edges repeated outwards by these shares (left, top, right, bottom)."""
    pixels = np.asarray(picture.convert("L"))
    height, width = pixels.shape
    left, top, right, bottom = (round(p * s) for p, s in zip(pad, (width, height) * 2, strict=True))
    return Image.fromarray(np.pad(pixels, ((top, bottom), (left, right)), mode="edge"))


def questions(picture: Image.Image) -> np.ndarray:
    """bool (7, 511): the hashes of a picture, as it is and with a small crop undone in six ways."""
    grey = picture.convert("L")
    if max(grey.size) > 512:
        grey = grey.resize([max(1, round(s * 512 / max(grey.size))) for s in grey.size], Image.Resampling.BOX)
    return np.stack([signs(continued(grey, pad)) for pad in PADS])


def load(file: Path = FILE) -> np.ndarray:
    """bool (n, 511): the committed hashes, in the order of `films()`."""
    return np.unpackbits(np.load(file)["signs"], axis=1, count=BITS).astype(bool)


@cache
def films() -> tuple[str, ...]:
    """`<dataset>/<path>` of every film of the two radiograph sets: what each row of the file is."""
    from medimgen.data.manifest import registry

    pairs = ((dataset, file.path) for dataset in DATASETS for file in registry(dataset))
    return tuple(f"{dataset}/{path}" for dataset, path in pairs if path.endswith((".jpeg", ".png")))


def film_paths() -> list[Path]:
    """Where each of `films()` lies on this machine; fetches what is missing."""
    from medimgen.data.fetch import fetch

    folders = {dataset: fetch(dataset) for dataset in DATASETS}
    return [folders[dataset] / path for dataset, path in (film.split("/", 1) for film in films())]


def copies(picture: Image.Image) -> dict[str, Image.Image]:
    """What somebody might do to a film before it ends up in a repository."""
    width, height = picture.size
    x, y = round(0.03 * width), round(0.03 * height)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=30)
    sizes = {f"{s} px": picture.resize((s, s), Image.Resampling.BICUBIC) for s in (64, 96, 128, 256, 512)}
    bright = {f"brightness x{f}": ImageEnhance.Brightness(picture).enhance(f) for f in (0.9, 1.1)}
    return sizes | bright | {
        "JPEG quality 30": Image.open(jpeg),
        "contrast x1.3": ImageEnhance.Contrast(picture).enhance(1.3),
        "grey to RGB": picture.convert("RGB"),
        "3 % off in all": picture.crop((x // 2, y // 2, width - x + x // 2, height - y + y // 2)),
        "3 % off each side": picture.crop((x, y, width - x, height - y)),
        "3 % off one side": picture.crop((x, 0, width, height)),
        "3 % off a corner": picture.crop((0, 0, width - x, height - y)),
    }  # fmt: skip


def duplicate_groups(paths: list[Path]) -> np.ndarray:
    """One number a film; equal numbers = byte-identical pictures or a duplicate group of the label table."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(np.asarray(Image.open(f).convert("L")).tobytes(), i) for i, f in enumerate(paths)])


def measure(paths: list[Path], known: np.ndarray, count: int, seed: int = 0) -> None:
    """Print nearest distances between different films, and from copies to their originals."""
    chosen = np.random.default_rng(seed).choice(len(paths), count, replace=False)
    groups = duplicate_groups(paths)
    other, once, own = [], [], {}
    for i in chosen:
        picture = Image.open(paths[i]).convert("L")
        table = distances(questions(picture), known)[:, groups != groups[i]]
        other.append(table.min())
        once.append(table[0].min())
        for change, copy in copies(picture).items() if len(other) <= count // 4 else ():
            own.setdefault(change, []).append(distances(questions(copy), known[i : i + 1]).min())
    other, once = np.array(other), np.array(once)
    print(f"nearest different film, {count} films: least {other.min():.3f}, 0.1 % {np.quantile(other, 0.001):.3f}, "
          f"median {np.median(other):.3f}; alarms at {THRESHOLD}: {(other < THRESHOLD).mean():.3%}")  # fmt: skip
    print(f"compared once: least {once.min():.3f}; alarms at {EXACT}: {(once < EXACT).mean():.3%}")
    for change, values in own.items():
        v = np.array(values)
        print(f"{change:20s} median {np.median(v):.3f}, 99 % {np.quantile(v, 0.99):.3f}, most {v.max():.3f}; "
              f"missed at {THRESHOLD}: {(v >= THRESHOLD).mean():.2%}")  # fmt: skip


def main() -> None:
    """Write the file, or measure with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs="?", type=int, const=2000, metavar="N")
    options = parser.parse_args()
    paths = film_paths()
    if options.measure:
        return measure(paths, load(), options.measure)
    packed = np.packbits(np.stack([signs(Image.open(f)) for f in paths]), axis=1)
    np.savez_compressed(FILE, signs=packed)
    print(f"{FILE.name}: {len(packed)} films, {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
