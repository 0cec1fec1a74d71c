"""The shipped weights: small, plain diffusers, few steps."""

from medimgen import generate


def test_shipped_model_is_a_small_plain_diffusers_pipeline():
    from diffusers import StableDiffusionPipeline

    files = [p for p in generate.FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 20e6
    assert (generate.FOLDER / "README.md").is_file()
    pipe = StableDiffusionPipeline.from_pretrained(generate.FOLDER, local_files_only=True)
    assert sum(p.numel() for part in (pipe.vae, pipe.unet, pipe.text_encoder) for p in part.parameters()) <= 9_000_000
    image = pipe("normal chest x-ray", num_inference_steps=4).images[0]
    assert (image.mode, image.size) == ("L", (128, 128))
    result = generate.Generator.load()("normal chest x-ray", n=2, seed=1)
    assert result.record["steps"] <= 4 and result.images.std(axis=(1, 2)).min() > 20
