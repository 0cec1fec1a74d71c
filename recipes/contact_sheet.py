"""Draw fig/01-contact-sheet.png: eight synthetic films for each of ten prompts, none of them picked.

    python recipes/contact_sheet.py

Seeds 200000 to 200007 for every prompt, the model's own steps and guidance. The PNG says in its metadata that its
films are synthetic, and which weights, prompts and seeds made them.
"""

import io
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medimgen.generate import Generator
from medimgen.paths import ROOT

PROMPTS = (
    "chest x-ray, normal",
    "chest x-ray, bacterial pneumonia",
    "chest x-ray, viral pneumonia",
    "normal, bright",
    "normal, dark",
    "normal, blurred",
    "normal, tilted clockwise",
    "normal, large lungs",
    "bacterial pneumonia, white lungs",
    "chest X-ay of an adult",
)
SEED, EACH = 200_000, 8
FILE = ROOT / "fig" / "01-contact-sheet.png"


def main() -> None:
    """Write the sheet."""
    generator = Generator.load()
    results = [generator(prompt, n=EACH, seed=SEED) for prompt in PROMPTS]
    figure, axes = plt.subplots(len(PROMPTS), EACH, figsize=(EACH * 1.1 + 1.6, len(PROMPTS) * 1.1))
    for row, result in zip(axes, results, strict=True):
        row[0].set_ylabel(result.record["prompt"].replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8)
        for axis, image in zip(row, result.images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
    figure.subplots_adjust(left=0.17, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    memory, about = io.BytesIO(), PngInfo()
    figure.savefig(memory, dpi=100)
    for key, value in (
        ("Synthetic", "true"),
        ("Warning", "Synthetic images, not for diagnosis"),
        ("Weights-SHA256", generator.sha256),
        ("Prompts", json.dumps(PROMPTS)),
        ("Seeds", f"{SEED} to {SEED + EACH - 1}"),
    ):
        about.add_text(key, value)
    Image.open(memory).convert("L").save(FILE, pnginfo=about, optimize=True)
    print(f"written: {FILE.relative_to(ROOT)}, {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
