"""What the generator's recipe has to hold to before anything is trained with it."""

import pytest

from medimgen.data import radiographs


@pytest.fixture(scope="module")
def pipe():
    """The recipe's pipeline with random weights."""
    from generator import autoencoder, captions, diffusion, pack

    tokenizer = captions.build_tokenizer()
    return pack.pipeline(autoencoder.build(), diffusion.Model(len(tokenizer)), tokenizer, few_steps=False)


def test_decoder_gets_latents_as_the_unet_learnt_them(pipe):
    """Latents are encoded without a factor (recipes/generator/diffusion.py), so the pipeline must not apply one."""
    assert pipe.vae.config.scaling_factor == 1.0
    assert pipe.vae.config.shift_factor is None


def test_size_of_the_whole_pipeline(pipe):
    parts = (pipe.vae, pipe.unet, pipe.text_encoder)
    assert sum(p.numel() for part in parts for p in part.parameters()) <= 9_000_000


class Loaded(Exception):
    """Raised in place of loading films."""


@pytest.mark.parametrize(
    ("stage", "split"), [("features", "donor"), ("films", "donor"), ("code", "donor"), ("judge", "clinic")]
)
def test_who_learns_from_whom(stage, split, monkeypatch, tmp_path):
    """The model's parts learn from donor films; the judge, which is no part of it, from clinic films."""
    import train_generator

    def load(split, **_):
        raise Loaded(split)

    monkeypatch.setattr(radiographs, "load", load)
    recipe = train_generator.Recipe(tmp_path, tmp_path / "model", train_generator.STEPS)
    with pytest.raises(Loaded, match=f"^{split}$"):
        getattr(recipe, stage)()
