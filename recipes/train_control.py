"""Train the ControlNet that makes the generator keep to a lung outline, and write models/cxr-mini-control.

    python recipes/train_control.py             # resumable; about nine minutes of one core

Needs the full data tier, models/cxr-mini and the checkpoints of recipes/train_generator.py (autoencoder, teacher).
Pairs are donor films with a mask, three in four of them changed (`generator.control.pairs`); 15 % of the patients are
held out, and every choice was made on their masks. Claim L1g (recipes/shape.py) measures it on masks of dev films.
Not a medical device.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from generator import attributes, captions, common, control, diffusion, outlines
from train_segmenter import held_out

from medimgen import report
from medimgen.data import radiographs
from medimgen.data.fetch import fetch
from medimgen.generate import FOLDER as GENERATOR
from medimgen.generate import Generator, weights_sha256
from medimgen.paths import ROOT, cache_dir

STEPS = 500
FOLDER = ROOT / "models" / "cxr-mini-control"
CACHE = cache_dir() / "training"


def donor():
    """Donor films, masks bool (n, 128, 128), and bool (n,) twice: has a mask and is learnt from, or is held out."""
    films = radiographs.load("donor")
    masks, known = outlines.load_masks(films.table, fetch("kermany-lung-masks-v7"))
    aside = held_out(films.table["number"].to_numpy())
    return films, masks, known & ~aside, known & aside


def make_pairs(work: Path, generator: Generator):
    """Training data, masks bool (n, 128, 128) in the same order, names of the films; kept in `work`."""
    path = work / "pairs.pt"
    films, masks, learnt, _ = donor()
    if not path.is_file():
        x, m = control.pairs(films.images[learnt], masks[learnt], seed=21)
        values = dict.fromkeys(attributes.NAMES, np.full(len(x), np.nan))  # tilt and lung size: the mask says them
        values |= {"exposure": attributes.exposure(x), "sharpness": attributes.sharpness(x)}
        values["opacity"] = attributes.opacity(x, m)
        edges = {k: (v["low_below"], v["high_above"]) for k, v in generator.defaults["attributes"].items()}
        level = {k: torch.from_numpy(v) for k, v in attributes.levels(values, edges).items()}
        latents = diffusion.encode(generator.pipe.vae, x)
        common.save_state(path, latents=latents, masks=torch.from_numpy(m), level=level)
    kept = torch.load(path, weights_only=True)
    subtypes = films.table["subtype"][learnt].tolist() * (len(kept["latents"]) // int(learnt.sum()))
    level = {k: v.numpy() for k, v in kept["level"].items()}
    data = control.Pairs(kept["latents"], subtypes, level, captions.build_tokenizer(), seed=12)
    return data, kept["masks"].numpy(), sorted(films.table["file"][learnt])


def teacher(data, path: Path) -> diffusion.Model:
    """The generator before its distillation, as train_generator.py left it."""
    model = diffusion.Model(len(data.tokenizer))
    model.load_state_dict(torch.load(path, weights_only=True)["average"])
    return model.eval()


def pack(net, files: list[str], steps: int, folder: Path) -> None:
    """Write the ControlNet in fp16, as diffusers reads it, and `facts.json`: what it learnt from."""
    net.set_attn_processor(AttnProcessor2_0())
    net.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    net.to(torch.float32)
    facts = {
        "learnt_from": "donor",
        "films": len(files),
        "films_sha256": hashlib.sha256("".join(f"{file}\n" for file in files).encode()).hexdigest(),
        "steps": steps,
        "generator_sha256": weights_sha256(GENERATOR),
        "parameters": sum(p.numel() for p in net.parameters()),
        "code_version": report.code_version(),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8", newline="\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=CACHE / "cxr-mini-control", help="checkpoints")
    parser.add_argument("--base", type=Path, default=CACHE / "cxr-mini", help="checkpoints of the generator")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the model goes")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    data, masks, files = make_pairs(args.work, Generator.load())
    net = control.train(data, masks, teacher(data, args.base / "unet.pt"), args.work / "control.pt", args.steps)
    pack(net, files, args.steps, args.out)
    print(f"written: {args.out}", flush=True)


if __name__ == "__main__":
    main()
