"""Train the course's chest radiograph generator from nothing and write models/cxr-mini (what `make models` runs).

Stages, each resumable: features, films, latents, autoencoder, unet, distil, texture, judge, outlines, settings, pack.
Stop it at any time and start it again: it goes on from the last checkpoint in the work folder.

    python recipes/train_generator.py                   # all of it, about three hours of one core
    python recipes/train_generator.py --until unet      # stop after a stage
    python recipes/train_generator.py --steps 20 --work runs/try --out runs/try/model      # a smoke run

Donor films only, except the judge and the outlines (clinic films), which measure the model and are no part of it.
The full data tier is needed. Not a medical device.

What came of it, with figures, is in models/cxr-mini/README.md.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from medimgen.data import radiographs
from medimgen.data.fetch import fetch
from medimgen.paths import ROOT, cache_dir

STAGES = (
    "features", "films", "latents", "autoencoder", "unet", "distil", "texture", "judge", "outlines", "settings", "pack",
)  # fmt: skip
STEPS = {
    "features": 350, "code": 700, "autoencoder": 2500, "unet": 5400, "distil": 350, "texture": 500, "judge": 300,
    "outlines": 300,
}  # fmt: skip
COPIES = 2


def kinds(table) -> np.ndarray:
    from generator.features import CLASSES

    return table["subtype"].map({c: k for k, c in enumerate(CLASSES)}).to_numpy()


class Recipe:
    """The stages. Every one leaves a file in `work`; a later one reads the earlier one's."""

    def __init__(self, work: Path, out: Path, steps: dict[str, int]):
        self.work, self.out, self.steps = work, out, steps
        work.mkdir(parents=True, exist_ok=True)

    def _classifier(self, split: str, name: str):
        from generator import features

        films, dev = radiographs.load(split), radiographs.load("dev")
        return features.train(
            films.images,
            kinds(films.table),
            dev.images,
            kinds(dev.table),
            self.work / f"{name}.pt",
            steps=self.steps[name],
        )

    def features(self):
        return self._classifier("donor", "features")

    def judge(self):
        return self._classifier("clinic", "judge")

    def films(self) -> dict[str, np.ndarray]:
        """Donor films and their changed copies, with measured attributes ("v_" names) and the levels' cuts."""
        from generator import attributes, diffusion, outlines

        path = self.work / "versions.npz"
        if not path.is_file():
            films = radiographs.load("donor")
            masks, known = outlines.load_masks(films.table, fetch("kermany-lung-masks-v7"))
            x, masks = diffusion.versions(films.images, masks, COPIES, seed=5)
            known = np.tile(known, COPIES + 1)
            values = attributes.measure(x, masks, known)
            np.savez_compressed(path, x=x, known=known, **{f"v_{k}": v for k, v in values.items()})
            (self.work / "edges.json").write_text(json.dumps(attributes.cuts(values)), encoding="utf-8", newline="\n")
        return dict(np.load(path))

    def code(self):
        """The autoencoder as a linear code, its encoder final."""
        from generator import autoencoder

        return autoencoder.start(radiographs.load("donor").images, self.work / "code.pt", steps=self.steps["code"])

    def latents(self):
        import torch
        from generator import common, diffusion

        path = self.work / "latents.pt"
        if not path.is_file():
            common.save_state(path, latents=diffusion.encode(self.code(), self.films()["x"]))
        return torch.load(path, weights_only=True)["latents"]

    def autoencoder(self):
        """The decoder's training on top of the code."""
        from generator import autoencoder

        steps = self.steps["autoencoder"]
        return autoencoder.train(
            self.code(),
            self.films()["x"],
            self.latents(),
            radiographs.load("dev").images,
            self.features(),
            self.work / "autoencoder.pt",
            steps=steps,
            plan={"adversarial_from": steps * 35 // 100, "whole_from": steps * 92 // 100},
        )

    def _data(self):
        from generator import attributes, captions, diffusion

        values = {k[2:]: v for k, v in self.films().items() if k.startswith("v_")}
        edges = json.loads((self.work / "edges.json").read_text(encoding="utf-8"))
        subtypes = radiographs.load("donor").table["subtype"].tolist() * (COPIES + 1)
        level = attributes.levels(values, edges)
        return diffusion.Data(self.latents(), subtypes, level, captions.build_tokenizer(), seed=11)

    def unet(self):
        from generator import diffusion

        data = self._data()
        return data, diffusion.train(data, self.work / "unet.pt", steps=self.steps["unet"])

    def distil(self):
        """The few-step model."""
        from generator import distil

        data, teacher = self.unet()
        student = distil.train(teacher, data, self.work / "distil.pt", steps=self.steps["distil"])
        path = self.work / "student.json"
        if not path.is_file():
            gap = distil.compare(teacher, student, self.autoencoder(), data.tokenizer)
            path.write_text(json.dumps(gap, indent=1) + "\n", encoding="utf-8", newline="\n")
        return data, student

    def texture(self):
        """Captions, decoder and few-step model as they are shipped, with the grain of films."""
        import torch
        from generator import autoencoder, texture

        (data, student), vae, pixels = self.distil(), self.autoencoder(), autoencoder.Patches()
        pixels.load_state_dict(torch.load(self.work / "autoencoder.pt", weights_only=True)["critic"])
        critic, dev = texture.Critic(self.features(), pixels), radiographs.load("dev").images
        path, images = self.work / "texture.pt", min(texture.IMAGES, 8 * self.steps["texture"])
        rest = (self.films()["x"], dev, path, self.steps["texture"], images)
        return data, *texture.train(vae, student, critic, data, *rest)

    def outlines(self):
        from generator import outlines

        root, parts = fetch("kermany-lung-masks-v7"), []
        for split in ("clinic", "dev"):
            films = radiographs.load(split)
            masks, known = outlines.load_masks(films.table, root)
            parts += [films.images[known], masks[known]]
        return outlines.train(*parts, self.work / "outlines.pt", steps=self.steps["outlines"])

    def settings(self):
        """Guidance and steps, chosen on dev."""
        from generator import settings
        from generator.judge import Judge

        data, vae, model = self.texture()
        dev = radiographs.load("dev")
        rest = (data.tokenizer, Judge.load(), dev.images, kinds(dev.table), self.work / "settings.json")
        return settings.choose(model, vae, *rest)

    def pack(self):
        from generator import pack

        data, vae, model = self.texture()
        files = "\n".join(sorted(radiographs.load("donor").table["file"]))
        edges = json.loads((self.work / "edges.json").read_text(encoding="utf-8"))
        pipe = pack.pipeline(vae, model, data.tokenizer)
        facts = {
            "attributes": {k: {"low_below": v[0], "high_above": v[1]} for k, v in edges.items()},
            "donor_ids_sha256": hashlib.sha256(files.encode()).hexdigest(),
            "training_steps": self.steps,
            "parameters": pack.parameters(pipe),
        }
        pack.write(pipe, self.out, self.settings() | facts)
        print(f"written: {self.out}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=cache_dir() / "training" / "cxr-mini", help="checkpoints and logs")
    parser.add_argument(
        "--out", type=Path, default=None, help="where the model goes; default: <work>/cxr-mini, to be screened"
    )
    parser.add_argument("--until", choices=STAGES, default="pack")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="at most so many steps a stage (smoke run)")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    steps = {k: min(v, args.steps or v) for k, v in STEPS.items()}
    recipe = Recipe(args.work, args.out or args.work / "cxr-mini", steps)
    for stage in STAGES[: STAGES.index(args.until) + 1]:
        print(f"stage {stage}", flush=True)
        getattr(recipe, stage)()
    if args.out == ROOT / "models" / "cxr-mini":
        print("now run recipes/screen_memorisation.py before this folder enters git", flush=True)


if __name__ == "__main__":
    main()
