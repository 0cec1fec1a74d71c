"""Put the trained parts together as a diffusers pipeline folder, in fp16 safetensors."""

import json
import shutil
from pathlib import Path

import torch

from .settings import scheduler


def pipeline(vae, model, tokenizer):
    """A `StableDiffusionPipeline` of the trained parts."""
    from diffusers import StableDiffusionPipeline
    from diffusers.models.attention_processor import AttnProcessor2_0

    model.unet.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=vae, text_encoder=model.text, tokenizer=tokenizer, unet=model.unet, scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def write(pipe, folder: Path, defaults: dict) -> None:
    """Save in fp16 beside `defaults.json`; the old folder is replaced only when the new one is whole."""
    new = folder.with_name(folder.name + ".new")
    if new.exists():
        shutil.rmtree(new)
    pipe.to(torch.float16).save_pretrained(new, safe_serialization=True)
    # transformers loads in the precision its config names: without this the text encoder alone would stay in fp16
    config = new / "text_encoder" / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
    (new / "defaults.json").write_text(json.dumps(defaults, indent=1) + "\n", encoding="utf-8", newline="\n")
    for card in folder.glob("README.md"):
        shutil.copy(card, new)
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
    pipe.to(torch.float32)


def parameters(pipe) -> dict[str, int]:
    return {name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in ("vae", "unet", "text_encoder")}
