"""What recipes hold to: the list of them is whole, and the generator's is sound before anything is trained with it."""

import re

import pytest

from medimgen import claims
from medimgen.data import radiographs
from medimgen.paths import ROOT

LIST = ROOT / "recipes" / "README.md"


def test_the_list_names_every_recipe_and_no_other():
    named = set(re.findall(r"`([a-z_0-9]+\.py)`", LIST.read_text(encoding="utf-8")))
    assert named == {file.name for file in LIST.parent.glob("*.py")}


def test_the_list_says_which_recipe_runs_which_claim():
    pairs = re.findall(r"\| ([LR]\d[^|]*) \| `([a-z_]+\.py)`", LIST.read_text(encoding="utf-8"))
    told = {one: f"recipes/{file}" for ids, file in pairs for one in ids.strip().split(", ")}
    assert told == {id: claim["recipe"] for id, claim in claims.load().items()}


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
    ("stage", "split"),
    [("features", "donor"), ("films", "donor"), ("code", "donor"), ("texture", "donor"), ("judge", "clinic")],
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


def test_the_spectrum_tells_grain_from_blur():
    """White noise has the same power in every band; ten times its size a hundred times it; blur takes the fine ones."""
    import torch
    from generator import texture

    rng = torch.Generator().manual_seed(4)
    x = torch.randn(64, 1, 64, 64, generator=rng)
    bands = texture.spectrum(x).mean(0)
    assert (bands - bands.mean()).abs().max() < 0.05
    assert torch.allclose(texture.spectrum(10 * x).mean(0) - bands, torch.full((8,), 2.0), atol=0.01)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    loss = bands - texture.spectrum(blurred).mean(0)
    assert loss[0] < 0.2 and loss[4] > 0.5


def test_texture_learns_on_the_step_that_the_shipped_scheduler_takes():
    import torch
    from generator import distil, settings, texture

    class Same(torch.nn.Module):
        def unet(self, x, t, words):
            return type("Out", (), {"sample": torch.sin(x)})

    x = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(5))
    scheduler = settings.scheduler()
    scheduler.set_timesteps(distil.QUARTERS)
    for t in scheduler.timesteps:
        mine = texture.step(Same(), x, int(t), None, distil.angles())
        assert torch.allclose(mine, scheduler.step(torch.sin(x), t, x).prev_sample, atol=1e-4)


def test_texture_changes_decoder_and_unet_only():
    """Encoder, text encoder and the net behind the critics stay; one update moves decoder and UNet after the critics'
    head start, and none before it.
    """
    import torch
    from generator import autoencoder, captions, diffusion, features, texture

    torch.manual_seed(6)
    tokenizer = captions.build_tokenizer()
    vae, student, net = autoencoder.build(), diffusion.Model(len(tokenizer)), features.FeatureNet()
    films = (torch.rand(4, 128, 128) * 255).byte().numpy()
    made = {"ids": torch.zeros(4, 24, dtype=torch.long), "x": torch.randn(4, 12, 16, 16)}
    made["pooled"] = torch.zeros(4, 1, 32, 32).half()
    data = type("Data", (), {"latents": torch.randn(4, 12, 16, 16)})
    run = texture.Training(vae, student, texture.Critic(net, autoencoder.Patches()), data, films, made, 100)
    kept = {"encoder": vae.encoder, "text": student.text, "features": net}
    moved = {"decoder": vae.decoder, "unet": student.unet}

    def state():
        return {k: torch.cat([p.detach().flatten() for p in m.parameters()]) for k, m in (kept | moved).items()}

    first = state()
    run.step(0)
    assert all(torch.equal(v, state()[k]) for k, v in first.items())
    run.step(texture.CRITIC_FIRST + 50)
    second = state()
    assert {k for k in first if not torch.equal(first[k], second[k])} == set(moved)


def test_guidance_is_the_lowest_of_those_that_cannot_be_told_apart():
    from generator import settings

    real, films = [0.97, 0.8, 0.6], [200, 200, 100]

    def tried(*viral):
        return [
            {"guidance": 1 + k, "agreement": [0.97, 0.8, v], "largest_gap": abs(v - 0.6)} for k, v in enumerate(viral)
        ]

    assert settings.pick(tried(0.53, 0.58, 0.9), real, films) == 1  # 0.05 apart, one standard error is 0.064
    assert settings.pick(tried(0.45, 0.58, 0.9), real, films) == 2
    assert settings.pick(tried(0.2, 0.3, 0.59), real, films) == 3
