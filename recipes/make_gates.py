"""Where the gates of `medimgen.balance` stand, and the signs by which its export knows a film of the test split.

    python recipes/make_gates.py             write limits.json (from dev) and test_signs.npz; needs the full data tier
    python recipes/make_gates.py --measure   print how far dev films, playing the test films, are from copies and others
    python recipes/make_gates.py --recall    print the share of changed test films that the guard notices

Making signs of test films is no evaluation: nothing is chosen on them, and no model sees them.
"""

import argparse
import io
import json

import numpy as np
from PIL import Image

from medimgen import likeness
from medimgen.balance import exporting, gates
from medimgen.classify import Classifier
from medimgen.data import radiographs
from medimgen.data.fetch import fetch


def pictures(split: str, count: int | None = None, seed: int = 0) -> list[Image.Image]:
    """Films of a split as published, all or a random few."""
    table, folder = radiographs.labels().query("split == @split"), fetch(radiographs.FULL)
    table = table if count is None else table.sample(count, random_state=seed)
    return [Image.open(folder / file).convert("L") for file in table["file"]]


def signs(films: list[Image.Image]) -> np.ndarray:
    """bool (n, 511): the middle of each film."""
    return np.concatenate([exporting.middles(film, [(exporting.MARGIN,) * 4]) for film in films])


def changed(film: Image.Image, rng: np.random.Generator) -> dict[str, Image.Image]:
    """What somebody might do to a film before it lands in a folder."""

    def cut(*shares):
        (w, h), (a, b, c, d) = film.size, shares
        return film.crop((round(a * w), round(b * h), w - round(c * w), h - round(d * h)))

    def jpeg(picture, quality):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("L")

    size = int(rng.integers(64, 1025))
    return {
        "as it is": film,
        "JPEG 60": jpeg(film, 60),
        "JPEG 95": jpeg(film, 95),
        "5 % off each side": cut(0.05, 0.05, 0.05, 0.05),
        "5 % off each side, JPEG 60": jpeg(cut(0.05, 0.05, 0.05, 0.05), 60),
        "5 % off one side": cut(0.05, 0, 0, 0),
        "0 to 5 % off each side": cut(*rng.uniform(0, 0.05, 4)),
        "any size": film.resize((size, size), Image.Resampling.BICUBIC),
        "any of it at once": jpeg(
            cut(*rng.uniform(0, 0.05, 4)).resize((size, size), Image.Resampling.BICUBIC), int(rng.integers(60, 96))
        ),
    }


def distances(films: list[Image.Image], known: np.ndarray) -> np.ndarray:
    """float (n,): of each film's likest cut to the likest of `known`."""
    return np.array([likeness.distances(exporting.middles(film), known).min() for film in films])


def measure(split: str, count: int) -> None:
    """Print distances of changed films of `split` to their own signs and, for dev, of other films to dev's."""
    films, rng, own = pictures(split), np.random.default_rng(0), {}
    known = signs(films)
    for i in rng.choice(len(films), count, replace=False):
        for name, picture in changed(films[i], rng).items():
            own.setdefault(name, []).append(distances([picture], known[i : i + 1])[0])
    for name, far in own.items():
        noticed = np.mean(np.array(far) < exporting.THRESHOLD)
        print(f"{name:28} median {np.median(far):.3f}, most {max(far):.3f}; noticed {noticed:.1%} of {len(far)}")
    for other in ("clinic", "donor") if split == "dev" else ():
        near = distances(pictures(other, 2 * count), known)
        print(f"{other:28} least {near.min():.3f}; refused {np.mean(near < exporting.THRESHOLD):.1%} of {len(near)}")


def main() -> None:
    """Write the two files, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--recall", action="store_true")
    options = parser.parse_args()
    if options.measure:
        return measure("dev", 100)
    if options.recall:
        return measure("test", 200)
    np.savez_compressed(exporting.KNOWN, signs=np.packbits(signs(pictures("test")), axis=1))
    limits = gates.Gates.measure(radiographs.load("dev"), Classifier.load()).limits
    gates.LIMITS.write_text(json.dumps(limits, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
