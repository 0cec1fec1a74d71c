"""What the generator's recipe has to hold to before anything is trained with it."""

import pytest

from medimgen.data import radiographs


@pytest.fixture(scope="module")
def pipe():
    """The recipe's pipeline with random weights."""
    from generator import autoencoder, captions, diffusion, pack

    tokenizer = captions.build_tokenizer()
    return pack.pipeline(autoencoder.build(), diffusion.Model(len(tokenizer)), tokenizer)


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


def test_one_step_of_ddim_arrives_where_the_student_is_taught_to():
    """The v that the distillation asks for, put into diffusers' own scheduler, gives the teacher's place exactly."""
    import torch
    from generator import distil, settings

    angle, rng = distil.angles(), torch.Generator().manual_seed(0)
    x, goal = torch.randn(2, 1, 12, 16, 16, generator=rng)
    scheduler = settings.scheduler()
    scheduler.set_timesteps(distil.QUARTERS)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    for t in scheduler.timesteps:
        turn = angle[t + 1] - angle[t + 1 - 250]
        v = (turn.cos() * x - goal) / turn.sin()
        assert torch.allclose(scheduler.step(v, t, x).prev_sample, goal, atol=1e-3)


def test_the_teachers_walk_follows_a_known_path():
    """A teacher that knows the one film there is walks from any noise to it, whatever its step."""
    import torch
    from generator import distil

    film, rng, angle = torch.randn(12, 16, 16), torch.Generator().manual_seed(1), distil.angles()

    class Knowing:
        def unet(self, x, t, words):
            now = angle[t + 1].view(-1, 1, 1, 1)
            return type("Out", (), {"sample": (now.cos() * x - film) / now.sin()})

    x = torch.randn(4, 12, 16, 16, generator=rng)
    t = torch.full((4,), 249)
    assert torch.allclose(distil.walk(Knowing(), x, t, None, angle), film.expand(4, -1, -1, -1), atol=1e-3)
