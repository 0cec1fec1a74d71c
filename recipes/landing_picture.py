"""Draw fig/landing.png, the picture of the first page: one noise, two prompts, four steps, nothing picked.

    python recipes/landing_picture.py

The PNG says in its metadata that its films are synthetic, and which weights, prompts and seed made them.
"""

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medimgen.generate import Generator
from medimgen.paths import ROOT

PROMPTS, SEED, STEPS = ("chest x-ray, normal", "chest x-ray, bacterial pneumonia"), 0, 4
GAP, GROUND = 8, 16  # pixels, grey level
FILE = ROOT / "fig" / "landing.png"


def sheet(rows: np.ndarray) -> np.ndarray:
    """uint8 sheet of films (rows, columns, side, side) with gaps between and around them."""
    height, width, side, _ = rows.shape
    out = np.full((height * (side + GAP) + GAP, width * (side + GAP) + GAP), GROUND, np.uint8)
    for (y, x), film in ((place, rows[place]) for place in np.ndindex(height, width)):
        top, left = GAP + y * (side + GAP), GAP + x * (side + GAP)
        out[top : top + side, left : left + side] = film
    return out


def main() -> None:
    """Write the picture."""
    generator, about = Generator.load(), PngInfo()
    rows = [generator(prompt, seed=SEED, steps=STEPS, trajectory=True).trajectory[:, 0] for prompt in PROMPTS]
    for key, value in (
        ("Synthetic", "true"),
        ("Warning", "Synthetic images, not for diagnosis"),
        ("Weights-SHA256", generator.sha256),
        ("Prompts", "; ".join(PROMPTS)),
        ("Seed", str(SEED)),
        ("Steps", str(STEPS)),
    ):
        about.add_text(key, value)
    Image.fromarray(sheet(np.stack(rows))).save(FILE, pnginfo=about, optimize=True)
    print(f"written: {FILE.relative_to(ROOT)}, {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
