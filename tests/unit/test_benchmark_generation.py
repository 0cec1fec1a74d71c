"""The side by side of generators: the clock that ends training, who gets how much of it, and the yardstick."""

import importlib.util
import itertools
import json

import numpy as np
import pytest
import torch
from benchmarks import generation
from generator import autoencoder, common, diffusion, distil, features

from medimgen.errors import CourseError


@pytest.fixture
def second(monkeypatch):
    """A clock that has moved by a second each time it is read."""
    count = itertools.count()
    monkeypatch.setattr(generation.time, "process_time", lambda: float(next(count)))


def test_a_stage_ends_by_the_clock_and_goes_on_where_it_was(second, tmp_path):
    clock = generation.Clock(tmp_path / "clock.json", 1000)
    whole = sum(1 for _ in clock.steps(0))
    assert 1000 <= clock.figures()["seconds"] <= 1010 and clock.figures()["steps"] == whole
    marks = json.loads((tmp_path / "clock.json").read_text(encoding="utf-8"))
    assert list(marks)[:3] == ["0", "25", "50"]
    rest = sum(1 for _ in generation.Clock(tmp_path / "clock.json", 1000).steps(50))
    assert rest == pytest.approx(whole - 50, abs=2)


def test_a_clock_that_is_over_still_allows_one_step(second, tmp_path):
    assert list(generation.Clock(tmp_path / "clock.json", 0.5).steps(0)) == [0]


class Tiny(torch.nn.Module):
    """Stands in for the 7 million parameters."""

    def __init__(self, words):
        super().__init__()
        self.net = torch.nn.Linear(4, 4)

    def forward(self, x, t, ids):
        return self.net(x)


class TinyData:
    tokenizer = ()

    def batch(self, step, size):
        return torch.zeros(3, 12, 2, 4), None, torch.Generator().manual_seed(step)


def test_the_recipes_own_training_ends_by_the_clock(second, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "Model", Tiny)
    rates, clock = [], generation.Clock(tmp_path / "clock.json", 1200)
    real = common.cosine
    monkeypatch.setattr(common, "cosine", lambda *a, **k: rates.append(real(*a, **k)) or rates[-1])
    with generation.until(diffusion, clock):
        diffusion.train(TinyData(), tmp_path / "unet.pt", generation.FOREVER)
    assert 200 < clock.step < 400 and len(rates) == clock.step
    assert max(rates) == pytest.approx(6e-4, rel=0.05), "warmed up"
    assert rates[-1] == pytest.approx(6e-4 * 0.02, rel=0.1), "come down by the end of the time"
    assert common.load_state(tmp_path / "unet.pt")["step"] == clock.step // 100 * 100
    assert not hasattr(diffusion, "range") and diffusion.cosine is real, "put back"


@pytest.mark.parametrize("module", [features, autoencoder, diffusion, distil])
def test_every_loop_of_the_recipe_can_be_clocked(module):
    """`until` exchanges these two names; a loop that is written otherwise would never end."""
    assert "range" in module.train.__code__.co_names
    assert module.cosine is common.cosine


def test_the_decoders_plan_follows_the_clock(second, tmp_path):
    clock = generation.Clock(tmp_path / "clock.json", 1000)
    plan = autoencoder.PLAN | generation.Plan(clock, {"adversarial_from": 0.35, "whole_from": 0.92})
    joined = {"adversarial_from": None, "whole_from": None}
    for k in clock.steps(0):
        for name, at in joined.items():
            if at is None and k >= plan[name]:
                joined[name] = clock.spent() / 1000
    assert joined["adversarial_from"] == pytest.approx(0.35, abs=0.02)
    assert joined["whole_from"] == pytest.approx(0.92, abs=0.02)
    assert plan["batch"] == autoencoder.PLAN["batch"]


def test_later_stages_pay_for_earlier_ones(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(generation.time, "process_time", lambda: now[0])
    asked = []

    def train(clock):
        asked.append(clock.seconds)
        now[0] += 30 if len(asked) == 1 else clock.seconds
        return {"w": torch.ones(1)}

    arm = generation.Arm("x", {"a": 1, "b": 2, "c": 3}, None, tmp_path, minutes=2)
    for name in "abc":
        arm.stage(name, train)
    assert asked == pytest.approx([20, 36, 54]) and now[0] == pytest.approx(120)
    again = generation.Arm("x", arm.shares, None, tmp_path, minutes=2)
    assert again.stage("a", None)["w"] == 1 and again.spent["a"]["seconds"] == pytest.approx(30), "read, not trained"


def test_the_card_states_the_shares():
    card = (generation.ROOT / "models" / "cxr-mini" / "README.md").read_text(encoding="utf-8")
    stated = " ".join(card.split())
    for stage, words in {
        "features": "({} min)",
        "code": "latents {} min",
        "autoencoder": "({} min of one core)",
    }.items():
        assert words.format(generation.CARD[stage]) in stated, stage
    assert f"({generation.CARD['unet']} min)" in stated and f"({generation.CARD['distil']} min)" in stated


def test_class_is_a_context_and_one_in_ten_is_none():
    kinds = np.arange(3000) % 3
    assert torch.equal(generation.conditions(kinds)[:3, 0], torch.eye(3))
    context = generation.conditions(kinds, torch.Generator().manual_seed(0))
    none = (context == -1).all(2)[:, 0]
    assert none.float().mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(context[~none], generation.conditions(kinds)[~none])


@pytest.fixture
def yard(monkeypatch):
    """The stand-in yardstick on made-up films whose classes differ in brightness."""
    import quality

    def real_table(split, judge, gauge, most):
        kinds, images = films(60, seed=len(split))
        return quality.table(
            images, kinds, np.array([f"{split}{i}" for i in range(180)]), judge, gauge, 1 + np.arange(180) % 7 / 7
        )

    monkeypatch.setattr(quality, "real_table", real_table)
    return generation.Yardstick(generation.StandIn(), generation.StandIn(), draws=50)


def films(each, seed, shift=0):
    rng = np.random.default_rng(seed)
    levels = np.repeat([90, 130, 150], each) + rng.normal(0, 8, 3 * each) + shift
    images = np.clip(levels[:, None, None] + rng.normal(0, 20, (3 * each, 128, 128)), 0, 255).astype(np.uint8)
    return np.repeat(generation.CLASSES, each), images


def by_class(images):
    return images.reshape(3, -1, 128, 128)


def test_the_yardstick_tells_near_from_far(yard):
    near, far = (by_class(films(40, seed=9, shift=shift)[1]) for shift in (0, 45))
    assert abs(yard.distance(near)) < 15 < 40 < yard.distance(far)
    assert yard.distance(near[[1, 2, 0]]) == pytest.approx(yard.distance(near), abs=15), "overall knows no classes"
    found = yard.figures(near)
    assert found["ruler"]["overall"].estimate == pytest.approx(yard.distance(near))
    assert set(generation.CLASSES) <= set(found["ruler"]) and "coverage" in found["manifold"]
    apart = yard.further(far, near)
    assert apart.estimate == pytest.approx(yard.distance(far) - yard.distance(near)) and apart.low > 0


def test_ours_against_each_of_the_others(yard, tmp_path):
    for name, shift in (("ours", 10), ("monai-b", 25)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "images.npy", by_class(films(40, seed=9, shift=shift)[1]))
    results = {n: {"quality": {"ruler": {"overall": {"estimate": v}}}} for n, v in (("ours", 10.0), ("monai-b", 20.0))}
    found = generation.beside(tmp_path, results, yard)
    assert list(found) == ["monai-b"] and found["monai-b"]["ratio"] == 0.5 and found["monai-b"]["further"].high < 0
    assert generation.beside(tmp_path, {"monai-b": results["monai-b"]}, yard) == {}


def test_monai_within_a_fifth_of_our_size(monkeypatch):
    """Where MONAI is: its three configurations. Everywhere: a missing MONAI is said, a recorded result obeys."""
    if importlib.util.find_spec("monai"):
        for name in generation.CONFIGS:
            generation.build(name)
        odd = generation.config(4, (16, 32), 1, (32, 32), 1, (0, 32), generation.LINEAR, "epsilon", (1e-3, 1e-3))
        monkeypatch.setitem(generation.CONFIGS, "small", odd)
        with pytest.raises(CourseError, match="times our parameters"):
            generation.build("small")
    monkeypatch.setitem(generation.sys.modules, "monai.networks.nets", None)
    with pytest.raises(CourseError, match="MONAI is not here"):
        generation.build("monai-a")
    if generation.RESULT.is_file():
        arms = json.loads(generation.RESULT.read_text(encoding="utf-8"))["arms"]
        ours = arms["ours"]["parameters"]["all"]
        assert all(0.8 <= arm["parameters"]["all"] / ours <= 1.2 for arm in arms.values())
