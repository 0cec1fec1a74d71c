"""Feedback: the tiny pipeline learns to draw brighter images, because a proxy or a reader prefers those."""

import json

import numpy as np
import pytest

from medimgen import feedback, finetune, generate, lora
from medimgen.errors import CourseError
from medimgen.paths import ROOT

PROMPTS = ("normal", "pneumonia")


class Bright:
    """A proxy to which bright images are pneumonia."""

    classes, name, sha256 = ("normal", "pneumonia"), "brightness", "ab" * 32

    def predict(self, images):
        p = images.mean((1, 2)) / 255
        return np.stack([1 - p, p], 1)


@pytest.fixture(scope="module")
def generator(tiny_model):
    return generate.Generator.load(tiny_model)


@pytest.fixture(scope="module")
def run(generator):
    return list(generator.stream([(prompt, seed) for seed in range(32) for prompt in PROMPTS]))


@pytest.fixture(scope="module")
def bent(generator, run):
    score = feedback.scores(feedback.drawn(run)[0], "pneumonia", Bright())
    return feedback.prefer(generator, run, score, by=Bright(), steps=60)


def test_scores_are_the_probability_of_what_was_asked_of_each_image():
    images = np.stack([np.full((8, 8), v, np.uint8) for v in (0, 51, 255)])
    assert feedback.scores(images, "pneumonia", Bright()) == pytest.approx([0, 0.2, 1])
    assert feedback.scores(images, ["pneumonia", "normal", "normal"], Bright()) == pytest.approx([0, 0.8, 0])
    for asked, named in (("viral", "knows no viral"), (["normal"], "3 images, 1 classes")):
        with pytest.raises(CourseError, match=named):
            feedback.scores(images, asked, Bright())
    with pytest.raises(CourseError, match="0 images"):
        feedback.scores(images[:0], "normal", Bright())


def test_the_course_classifier_names_films_it_cannot_score():
    from medimgen.classify import Classifier

    proxy, films = Classifier.load(), np.full((2, 128, 128), 0.5, np.float32)
    assert feedback.scores(films, ["normal", "viral"], proxy) == pytest.approx(proxy.predict(films)[[0, 1], [0, 2]])
    films[1, 3, 3] = np.nan
    for bad, named in ((films, "NaN"), (films[:, :64], "shape")):
        with pytest.raises(CourseError, match=named):
            feedback.scores(bad, "viral", proxy)


def test_the_best_share_of_each_prompt_is_preferred_and_nothing_barred():
    prompts, x = list(PROMPTS) * 32, np.arange(64.0)
    best = feedback.preferred(x, prompts)
    assert np.flatnonzero(best).tolist() == list(range(48, 64))
    assert np.flatnonzero(feedback.preferred(-x, prompts, 0.125)).tolist() == list(range(8))
    easy = x + 1000 * (np.array(prompts) == "normal")  # one prompt scores higher throughout
    assert feedback.preferred(easy, prompts).reshape(32, 2).sum(0).tolist() == [8, 8]
    assert np.flatnonzero(feedback.preferred(x, prompts, barred=x > 61)).tolist() == list(range(48, 62))


def test_votes_of_any_kind_mean_the_same_and_a_missing_one_is_no_vote():
    votes = [True] * 9 + [False] * 3 + [None] * 4
    for same in (votes, [v if v is None else int(v) for v in votes]):
        assert feedback.preferred(same, ["normal"] * 16).tolist() == [True] * 9 + [False] * 7


@pytest.mark.parametrize(
    ("opinions", "named"),
    [
        ([None] * 16, "no votes"),
        ([True] * 16, "all opinions are True"),
        ([False] * 9 + [None] * 7, "all opinions are False"),
        ([0.3] * 16, "all opinions are 0.3"),
        ([True] * 7 + [False] * 9, "7 preferred images"),
        ([float("nan")] + [0.5, 0.7, 0.2] * 5, "NaN"),
        ([None] + [0.5, 0.7, 0.2] * 5, "missing"),
        ([0.1, float("inf")] * 8, "infinite"),
        ([True] * 15, "15 opinions on 16"),
        (np.ones((16, 2)), "opinion"),
        (["up"] * 16, "no number"),
        (np.linspace(0, 1, 16), "4 preferred images"),
        ([], "0 opinions"),
    ],
)
def test_opinions_from_which_nothing_can_be_learnt_are_named(opinions, named):
    with pytest.raises(CourseError, match=named) as error:
        feedback.preferred(opinions, ["normal"] * 16)
    assert error.value.next
    with pytest.raises(CourseError, match="share"):
        feedback.preferred(np.linspace(0, 1, 64), ["normal"] * 64, keep=1.5)


def spread(run):
    return feedback.scores(feedback.drawn(run)[0], "pneumonia", Bright()).std()


def test_new_images_are_more_to_the_proxys_taste_and_the_given_generator_stays(generator, run, bent):
    """The best quarter of a normal spread lies 1.3 standard deviations up: as far as one round could go."""
    before, after = (feedback.scores(x, "pneumonia", Bright()) for x in (bent.before, bent.after))
    assert len(after) == finetune.SHOWN and 0.5 < (after - before).mean() / spread(run) < 2
    assert (after > before).mean() > 0.8
    assert not generator.stamp and not hasattr(generator.pipe.unet, "peft_config")


def test_taste_decides_the_direction(generator, run, bent):
    """The same run with the opposite taste becomes darker than it becomes bright."""
    score = -feedback.scores(feedback.drawn(run)[0], "pneumonia", Bright())
    dark = feedback.prefer(generator, run, score, by="reader 1", steps=60)
    assert np.array_equal(dark.before, bent.before)
    assert bent.after.mean() - dark.after.mean() > 255 * spread(run)
    assert dark.generator.stamp["preferred_by"] == "reader 1"


def test_training_is_of_the_images_drawn_and_of_the_preferred(generator, run):
    best = np.zeros(64, bool)
    best[[5, 40]] = True
    training, chosen = feedback._training(lora, generator, run, best, 0)
    assert len(training.latents[0]) == len(training.words[0]) == lora.OWN + 64 and len(training.latents[1]) == 2
    images = feedback.drawn(run)[0]
    assert abs(generator.decode(training.latents[1]).astype(int) - images[best]).max() <= 1
    assert np.allclose(training.words[1][0], generator.words(PROMPTS[1])[0].detach(), atol=1e-5)
    assert sorted(set(chosen)) == sorted(PROMPTS) and len(chosen) == lora.OWN


def test_stamp_says_who_preferred_and_is_not_patient_derived(bent, tmp_path):
    from safetensors import safe_open

    assert bent.stamp["preferred_by"] == f"brightness {Bright.sha256}" and bent.stamp["patient_derived"] is False
    assert (bent.stamp["images"], bent.stamp["preferred"], bent.stamp["steps"]) == (64, 16, 60) and bent.finished
    record = bent.generator("normal", seed=3).record
    assert record["preferred_by"] == bent.stamp["preferred_by"]
    assert record["adapter_sha256"] == bent.stamp["adapter_sha256"]
    generate.refuse_patient_derived(record)
    saved = bent.save(tmp_path / "adapter")
    assert json.loads((saved / finetune.STAMP).read_text("utf-8")) == bent.stamp
    assert "brightness" in (saved / "README.md").read_text("utf-8")
    with safe_open(saved / finetune.WEIGHTS, "pt") as opened:
        head = opened.metadata()
    assert head["patient_derived"] == "false" and json.loads(head["stamp"]) == bent.stamp


def test_a_saved_adapter_loads_with_its_stamp_and_its_images_may_be_exported(tiny_model, bent, tmp_path):
    saved = bent.save(tmp_path / "adapter")
    loaded = generate.Generator.load(tiny_model, adapter=saved)
    assert loaded.stamp == bent.generator.stamp and loaded.stamp["patient_derived"] is False
    result = loaded("normal", seed=3)
    assert abs(result.images.astype(int) - bent.generator("normal", seed=3).images).max() <= 1
    assert generate.save_png(tmp_path / "a.png", result.images[0], result.record).is_file()
    (saved / finetune.WEIGHTS).write_bytes((saved / finetune.WEIGHTS).read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CourseError, match="stamp"):
        finetune.attach(generate.Generator.load(tiny_model), saved)


def test_saved_weights_load_in_stock_diffusers_and_draw_the_same(tiny_model, bent, tmp_path):
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    x, words = torch.ones((1, 2, 8, 8)), torch.ones((1, 8, 16))
    with torch.no_grad():
        plain = pipe.unet(x, 500, words).sample
        pipe.load_lora_weights(str(bent.save(tmp_path)))
        stock, own = pipe.unet(x, 500, words).sample, bent.generator.pipe.unet(x, 500, words).sample
    assert torch.allclose(stock, own, atol=1e-5) and not torch.allclose(stock, plain, atol=1e-4)


def test_the_same_call_gives_the_same_adapter_and_a_cancelled_one_says_so(generator, run):
    votes, calls = [True, True, False, None] * 16, []
    how = {"by": "reader 1", "steps": 4, "progress": lambda *a: calls.append(a)}
    first, second = (feedback.prefer(generator, run, votes, **how) for _ in range(2))
    assert first.stamp["adapter_sha256"] == second.stamp["adapter_sha256"] and first.stamp["preferred"] == 32
    assert calls == [(k, 4) for k in (1, 2, 3, 4)] * 2
    short = feedback.prefer(
        generator, run, votes, by="reader 1", steps=4, cancel=lambda: len(calls) > 9, progress=how["progress"]
    )
    assert not short.finished and short.stamp["steps"] == 2


def test_pictures_of_unknown_origin_and_runs_that_are_not_their_record_are_refused(generator, run, bent):
    votes = [True, False] * 32
    images, _ = feedback.drawn(run)
    for bad in (images, list(images), [], "runs"):
        with pytest.raises(CourseError, match="no run"):
            feedback.prefer(generator, bad, votes, by="reader 1")
    swapped = [generate.Result(r.images[::-1], r.record) for r in run]
    other = [generate.Result(r.images, r.record | {"weights_sha256": "0" * 64}) for r in run]
    theirs = list(bent.generator.stream([("normal", seed) for seed in range(64)]))
    for bad in (swapped, other, theirs):
        with pytest.raises(CourseError, match="not what its record says"):
            feedback.prefer(generator, bad, votes, by="reader 1", steps=1)
    for who, whose in (("reader 1", bent.generator), (" ", generator), (object(), generator)):
        with pytest.raises(CourseError, match="adapter is on already, or nobody"):
            feedback.prefer(whose, run, votes, by=who)


def test_images_like_a_training_film_and_blanked_ones_are_never_learnt_from(generator, run, monkeypatch):
    votes = [True] * 20 + [False] * 44
    monkeypatch.setattr(feedback, "too_like", lambda images, model: np.arange(len(images)) < 2)
    images = run[1].images.copy()
    images[0] = 0
    blanked = [run[0], generate.Result(images, run[1].record | {"withheld": [0]}), *run[2:]]
    bent = feedback.prefer(generator, blanked, votes, by="reader 1", steps=1)
    assert bent.stamp["preferred"] == len(bent.films) == 17 and bent.stamp["barred"] == 3
    assert bent.films.any((1, 2)).all()


def test_gallery_counts_votes_from_buttons_and_gives_them_to_prefer(generator, run):
    gallery = feedback.thumbs(run)
    assert gallery.votes == [None] * 64 and "64 not voted on" in gallery.view.value
    assert gallery.buttons[3].options == (("Thumb up", True), ("Thumb down", False))
    assert gallery.buttons[3].description == "Image 4"
    for k in range(12):
        gallery.buttons[k].value = k < 9
    gallery.buttons[0].value = False  # minds may change
    assert gallery.votes == [False] + [True] * 8 + [False] * 3 + [None] * 52
    assert "8 up, 4 down, 52 not voted on" in gallery.view.value
    assert feedback.prefer(generator, run, gallery.votes, by="reader 1", steps=1).stamp["preferred"] == 8


def test_gallery_has_alternative_texts_and_an_html_version(run):
    gallery = feedback.thumbs(run[0])
    data, _ = gallery._repr_mimebundle_()
    assert {"text/html", "application/vnd.jupyter.widget-view+json"} <= set(data)
    assert data["text/html"].count("<figure") == 8 and "image 2, pneumonia" in data["text/html"]
    cells = gallery.children[1].children
    assert [f'alt="Synthetic image {k + 1}: {PROMPTS[k % 2]}"' in c.children[0].value for k, c in enumerate(cells)] == [
        True
    ] * 8


# --- recipes/feedback.py ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe():
    """The recipe, whose file has the module's name."""
    import importlib.util
    import sys

    from medimgen.paths import ROOT

    spec = importlib.util.spec_from_file_location("recipe_feedback", ROOT / "recipes" / "feedback.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(gain_judge, gain_proxy, n=128, draws=3):
    """Rows of arms a and c as the recipe tabulates them, with planted gains of viral images."""
    import pandas as pd

    rng, parts = np.random.default_rng(0), []
    for draw in range(draws):
        base = rng.uniform(0.2, 0.6, n)
        for arm, g, h in (("a", 0, 0), ("c", gain_judge, gain_proxy)):
            noise = rng.normal(0, 0.02, (2, n))
            parts.append(
                pd.DataFrame(
                    {"draw": draw, "unit": [f"s{draw}-{k}" for k in range(n)], "kind": "viral", "arm": arm,
                     "judge": base + g + noise[0], "proxy": base + h + noise[1]}
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_no_seed_is_both_ranked_and_measured_and_none_in_two_draws_or_classes(recipe):
    most = max(recipe.CAP * max(recipe.FULL["each"].values()) + recipe.BATCH, recipe.FULL["ranked"])
    starts = sorted(
        recipe.seed(d, c, r) for d in range(recipe.FULL["trainings"]) for c in recipe.CLASSES for r in (False, True)
    )
    assert len(starts) == 6 * recipe.FULL["trainings"] and min(np.diff(starts)) >= most
    assert recipe.FULL["trainings"] >= 3 and recipe.FULL["each"]["viral"] == 128


def test_primary_contrast_finds_a_planted_gain_by_seed_and_none_where_there_is_none(recipe):
    found = recipe.primary(rows_of(0.05, 0.2), 500)
    assert found.estimate == pytest.approx(0.05, abs=0.01) and found.low > 0.04 and found.p < 0.01
    assert found.high - found.low < 0.02  # pairing takes out what images differ by
    none = recipe.primary(rows_of(0.0, 0.2), 500)
    assert none.low < 0 < none.high and none.p > 0.05
    swapped = rows_of(0.05, 0.2).sample(frac=1, random_state=1).replace({"arm": {"a": "c", "c": "a"}})
    assert recipe.primary(swapped, 500).high < -0.04


def test_filter_keeps_what_passes_up_to_the_number_and_stops_at_the_cap(recipe, monkeypatch):
    calls = []

    def draw(generator, prompt, n, seed):
        calls.append(seed)
        return np.full((n, 8, 8), 200 if seed % 32 else 10, np.uint8)

    monkeypatch.setattr(recipe.claim, "images", draw)
    monkeypatch.setitem(recipe.claim.PROMPTS, "pneumonia", "pneumonia")
    first = np.stack([np.full((8, 8), v, np.uint8) for v in (10, 200, 10, 250)])
    kept, seeds, drawn = recipe.filtered(None, Bright(), "pneumonia", 0.5, 2, first, [4, 5, 6, 7])
    assert (seeds, drawn, calls) == ([5, 7], 4, []) and kept.mean() == 225
    kept, seeds, drawn = recipe.filtered(None, Bright(), "pneumonia", 0.5, 1, first, [4, 5, 6, 7])
    assert (seeds, drawn) == ([5], 2)
    kept, seeds, drawn = recipe.filtered(None, Bright(), "pneumonia", 0.5, 6, first, [28, 29, 30, 31])
    assert calls == [32, 48] and seeds == [29, 31, 48, 49, 50, 51] and drawn == 4 + 16 + 4
    kept, seeds, drawn = recipe.filtered(None, Bright(), "pneumonia", 0.999, 6, first, [28, 29, 30, 31])
    assert not len(kept) and seeds == [] and 24 <= drawn < 24 + recipe.BATCH


def test_unpaired_difference_is_of_the_second_arm(recipe):
    found = recipe.unpaired(rows_of(0.1, 0.2), ("a", "c"), "viral", "proxy", 300)
    assert found.estimate == pytest.approx(0.2, abs=0.01) and found.low > 0.15


def test_a_draw_gives_every_arm_its_images_and_counts_what_it_drew(recipe, generator, monkeypatch):
    monkeypatch.setattr(recipe, "CLASSES", PROMPTS)
    monkeypatch.setattr(recipe.claim, "PROMPTS", dict(zip(PROMPTS, PROMPTS, strict=True)))
    size = {"ranked": 16, "steps": 2, "each": {"normal": 3, "pneumonia": 5}}
    made, took = recipe.one_draw(generator, Bright(), {"normal": 0.0, "pneumonia": 0.0}, 1, size)
    assert {key: len(images) for key, (images, _) in made.items()} == {
        (arm, c): n for arm in "abcd" for c, n in size["each"].items()
    }
    assert [took[arm] for arm in "abcd"] == [8] * 4 and took["tuning"] > 0 and took["stamp"]["steps"] == 2
    assert made["a", "normal"][1] == made["c", "normal"][1] == made["d", "normal"][1]
    assert set(made["b", "normal"][1]) <= set(
        range(recipe.seed(1, "normal", True), recipe.seed(1, "normal", True) + 16)
    )
    assert not np.array_equal(made["a", "pneumonia"][0], made["c", "pneumonia"][0])


def test_the_smoke_run_or_another_model_cannot_be_recorded(recipe, monkeypatch, capsys):
    for option in (["--smoke"], ["--folder", "runs/mine"]):
        monkeypatch.setattr("sys.argv", ["feedback.py", "--record", *option])
        with pytest.raises(SystemExit):
            recipe.main()
        assert "only the full run" in capsys.readouterr().err


def test_notebook_01b_says_what_the_record_says():
    record = json.loads((ROOT / "recipes" / "results" / "feedback.json").read_text(encoding="utf-8"))
    rows = {r["id"].removeprefix("feedback_"): r for r in record["sections"]["control"]}
    cells = json.loads((ROOT / "notebooks" / "01b-control.ipynb").read_text(encoding="utf-8"))["cells"]
    text = next("".join(c["source"]) for c in cells if c["id"] == "taste-read")
    far = [round(rows[f"{arm}_ruler_normal"]["estimate"]) for arm in "ac"]
    assert "rose from {} to {}".format(*far) in text
    assert rows["excess_viral"]["high"] < 0, "the other judge gains no less than the proxy"
    assert rows["c_coverage"]["estimate"] < rows["a_coverage"]["estimate"] <= rows["b_coverage"]["estimate"]
