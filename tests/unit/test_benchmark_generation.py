"""The side by side of generators: the clock that ends training, who gets how much of it, and the yardstick."""

import importlib.util
import itertools
import json

import numpy as np
import pytest
import torch
from benchmarks import generation, generation_monai
from generator import autoencoder, common, diffusion, distil, features, texture

from medimgen.errors import CourseError
from medimgen.paths import ROOT


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
    assert list(marks)[:3] == ["0", "5", "10"]
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


@pytest.mark.parametrize("module", [features, autoencoder, diffusion, distil, texture])
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

    arm = generation.Stages({"a": 1, "b": 2, "c": 3}, tmp_path, minutes=2)
    for name in "abc":
        arm.stage(name, train)
    assert asked == pytest.approx([20, 36, 54]) and now[0] == pytest.approx(120)
    again = generation.Stages(arm.shares, tmp_path, minutes=2)
    assert again.stage("a", None)["w"] == 1 and again.spent["a"]["seconds"] == pytest.approx(30), "read, not trained"


@pytest.mark.parametrize("kind", [generation.Ours, generation.Monai])
def test_shares_are_per_cent_of_the_minutes_and_half_of_them_the_unets(kind):
    assert sum(kind.shares.values()) == 100 and 50 <= kind.shares["unet"] <= 60


def test_few_steps_warm_up_for_a_tenth_of_them(monkeypatch, tmp_path):
    clock = generation.Clock(tmp_path / "clock.json", 60)
    for total, warm in ((40, 4), (3000, 100)):
        monkeypatch.setattr(clock, "total", lambda total=total: total)
        rates = [clock.rate(k, 1.0) for k in range(total)]
        assert rates.index(max(rates)) in (warm - 1, warm) and rates[-1] < 0.05


class Counted:
    """A thing to train whose value is how often it was."""

    value = 0

    def state_dict(self):
        return {"value": torch.tensor(self.value)}

    def load_state_dict(self, values):
        self.value = int(values["value"])


def test_monais_training_loses_less_than_a_minute(second, tmp_path):
    thing, path = Counted(), tmp_path / "arm" / "unet.pt"

    def step(k):
        if k == 100:
            raise KeyboardInterrupt
        thing.value += 1
        return 0.5

    clock = generation.Clock(tmp_path / "clock.json", 1000)
    with pytest.raises(KeyboardInterrupt):
        generation_monai.loop(clock, path, {"thing": thing}, step)
    kept, lost = common.load_state(path)["step"], clock.spent()
    lost -= json.loads((tmp_path / "clock.json").read_text(encoding="utf-8"))[str(kept)]
    assert kept == int(common.load_state(path)["thing"]["value"]) and 0 < lost < 60
    again, steps = Counted(), []
    clock = generation.Clock(tmp_path / "clock.json", 1000)
    generation_monai.loop(clock, path, {"thing": again}, lambda k: steps.append((k, again.value)) or 0.5)
    assert steps[0] == (kept, kept) and 1000 <= clock.spent() < 1012


def test_class_is_a_context_and_one_in_ten_is_none():
    kinds = np.arange(3000) % 3
    assert torch.equal(generation_monai.conditions(kinds)[:3, 0], torch.eye(3))
    context = generation_monai.conditions(kinds, torch.Generator().manual_seed(0))
    none = (context == -1).all(2)[:, 0]
    assert none.float().mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(context[~none], generation_monai.conditions(kinds)[~none])


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
    return generation.Yardstick((generation.StandIn(), generation.StandIn()), draws=50)


def films(each, seed, shift=0):
    rng = np.random.default_rng(seed)
    levels = np.repeat([90, 130, 150], each) + rng.normal(0, 8, 3 * each) + shift
    images = np.clip(levels[:, None, None] + rng.normal(0, 20, (3 * each, 128, 128)), 0, 255).astype(np.uint8)
    return np.repeat(generation.CLASSES, each), images


def test_the_yardstick_tells_near_from_far(yard):
    near, far = (films(60, seed=9, shift=shift)[1] for shift in (0, 45))
    assert yard.counts == [60, 60, 60]
    assert abs(yard.distance(near, yard.counts)) < 15 < 40 < yard.distance(far, yard.counts)
    moved = np.roll(near, 60, 0)
    assert yard.distance(moved, yard.counts) == pytest.approx(yard.distance(near, yard.counts), abs=15)
    found = yard.figures(near)
    assert found["ruler"]["overall"].estimate == pytest.approx(yard.distance(near, yard.counts))
    assert set(generation.CLASSES) <= set(found["ruler"]) and "coverage" in found["manifold"]


def test_the_margin_is_what_the_aim_asks(yard):
    near, far = (films(60, seed=9, shift=shift)[1] for shift in (10, 45))
    a, b = (yard.distance(x, yard.counts) for x in (near, far))
    found = yard.margin(near, far, generation.AIM)
    assert found.estimate == pytest.approx(a - b * 2 / 3) and found.high < 0
    assert yard.margin(far, far, generation.AIM).low > 0


def test_ours_first_with_both_numbers_of_steps_then_the_nearest_of_monais_arms():
    def arm(**tried):
        return {"tried": {k[1:]: v for k, v in tried.items()}}

    found = {
        "ours": arm(s4={"1": 30.0, "1.5": 20.0}, s50={"1": 10.0, "1.5": 40.0}),
        "monai-a": arm(s50={"1": 50.0, "1.5": 60.0}),
        "monai-b": arm(s50={"1": 70.0, "1.5": 45.0}),
    }
    assert list(generation.rows(found).items()) == [
        ("ours, 4 steps", ("ours", 4, 1.5)),
        ("ours, 50 steps", ("ours", 50, 1.0)),
        ("monai-b, 50 steps", ("monai-b", 50, 1.5)),
        ("monai-a, 50 steps", ("monai-a", 50, 1.0)),
    ]


class Drawing:
    """An arm that draws grey and counts how often."""

    calls = 0

    def __init__(self, folder):
        self.stages = generation.Stages({}, folder, 1)

    def sample(self, kind, n, steps, guidance, seed):
        self.calls += 1
        return np.full((n, 128, 128), 10 * kind, np.uint8)


def test_what_was_drawn_is_not_drawn_again(tmp_path):
    arm = Drawing(tmp_path)
    first = generation.drawn(arm, [40, 3, 2], 4, 1.0, 0)
    assert arm.calls == 4 and first[:, 0, 0].tolist() == [0] * 40 + [10] * 3 + [20] * 2
    assert np.array_equal(generation.drawn(arm, [40, 3, 2], 4, 1.0, 0), first) and arm.calls == 4
    generation.drawn(arm, [40, 3, 2], 4, 1.5, 0)
    assert arm.calls == 8


def test_the_sheet_says_that_it_is_synthetic(tmp_path):
    from PIL import Image

    generation.sheet(tmp_path / "sheet.png", {"x": (films(6, seed=1)[1], [6, 6, 6])})
    assert Image.open(tmp_path / "sheet.png").text["Warning"].startswith("Synthetic images")


@pytest.mark.parametrize("more", [["--stand-in"], ["--films", "9"], ["--only", "ours"]])
def test_only_a_whole_run_is_recorded(more, monkeypatch, capsys):
    monkeypatch.setattr(generation.sys, "argv", ["generation.py", "--record", *more])
    with pytest.raises(SystemExit):
        generation.main()
    assert "is not recorded" in capsys.readouterr().err


def test_monai_within_a_fifth_of_our_size(monkeypatch):
    """Where MONAI is: its three configurations. Everywhere: a missing MONAI is said, a recorded result obeys."""
    if importlib.util.find_spec("monai"):
        for name in generation_monai.CONFIGS:
            generation_monai.build(name)
        odd = generation_monai.config(
            4, (16, 32), 1, (32, 32), 1, (0, 32), generation_monai.LINEAR, "epsilon", (1e-3, 1e-3)
        )
        monkeypatch.setitem(generation_monai.CONFIGS, "small", odd)
        with pytest.raises(CourseError, match="times our parameters"):
            generation_monai.build("small")
    monkeypatch.setitem(generation.sys.modules, "monai.networks.nets", None)
    with pytest.raises(CourseError, match="MONAI is not here"):
        generation_monai.build("monai-a")
    if generation.RESULT.is_file():
        arms = json.loads(generation.RESULT.read_text(encoding="utf-8"))["arms"]
        ours = arms["ours"]["parameters"]["all"]
        assert all(0.8 <= arm["parameters"]["all"] / ours <= 1.2 for arm in arms.values())


def test_lesson_and_card_quote_the_record():
    found = json.loads(generation.RESULT.read_text(encoding="utf-8"))
    pages = [ROOT / "lessons" / "01-local-generative-ai.md", ROOT / "models" / "cxr-mini" / "README.md"]
    lesson, card = (" ".join(page.read_text(encoding="utf-8").split()) for page in pages)
    *ours, _ = found["rows"]
    for row in found["rows"].values():
        far = row["ruler"]["overall"]
        told = "{estimate:.0f} ({low:.0f} to {high:.0f})".format(**far)
        assert told in lesson and told in card
        assert f"{row['judge']['viral']['made']['estimate']:.2f}" in card
    for name in ours:
        beside = found["beside"][name]
        assert f"{beside['ratio']:.2f} times" in lesson and f"{beside['ratio']:.2f} times" in card
        assert beside["beyond_two_thirds"]["low"] > 0, "missed, as both say"
    for text in (lesson, card):
        assert f"{found['minutes']:g} CPU minutes of one core" in text
    assert f"{found['films']:,} films" in lesson and f"MONAI {found['versions']['monai']}" in card
    assert f"in {found['arms']['ours']['stages']['distil']['seconds']:.0f} of the seconds" in lesson
