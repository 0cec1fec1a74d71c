"""`medimgen dossier`: the page stands alone, nothing is lost by a stop, and no copy or real film leaves by accident."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medimgen import claims, dossier, generate, likeness, report
from medimgen._schema import validate
from medimgen.cli import main
from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.paths import ROOT

look = claims.load_recipe("recipes/dossier.py")
PROMPTS = ("normal", "chest, normal", "normal chest, <b>X-ay</b>")
RECORDED = ROOT / "recipes" / "results" / "dossier"


class Fake:
    """Draws smooth noise, the same for a seed; "bright" makes it brighter by a fifth if `hears`."""

    sha256, defaults, hears = "0" * 64, {"steps": 4, "guidance": 1.0}, True

    def __init__(self):
        net = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 7)])
        self.asked, self.stop = [], 10**9
        self.pipe = SimpleNamespace(unet=net, vae=net, text_encoder=net, tokenizer=Tokenizer(unk_token_id=0))

    def __call__(self, prompt, n=1, seed=0):
        self.asked.append((prompt, n, seed))
        if len(self.asked) > self.stop:
            raise KeyboardInterrupt
        return SimpleNamespace(
            images=np.stack([self.draw(prompt, seed + k) for k in range(n)]), record={"seconds": 0.5 * n}
        )

    def draw(self, prompt, seed):
        film = gaussian_filter(np.random.default_rng(seed).normal(size=(128, 128)), 6)
        return (100 + 600 * film + 51 * self.hears * ("bright" in prompt)).clip(0, 255).astype(np.uint8)


class Tokenizer(SimpleNamespace):
    def __call__(self, word, **_):
        return {"input_ids": [0 if "X" in word else 1]}


class Copies(Fake):
    """Gives away a film it learnt from at seed 200001."""

    def draw(self, prompt, seed):
        return radiographs.load("pocket", tier="pocket").images[0] if seed == 200_001 else super().draw(prompt, seed)


def slow(prompt, seed):
    return SimpleNamespace(record={"seconds": 3.0})


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with the signs of four films; returns (folder, function that sets the generator it loads)."""
    monkeypatch.setenv("MEDIMGEN_TIER", "pocket")
    films = radiographs.load("pocket", tier="pocket").images[:4]
    (tmp_path / "model").mkdir()
    likeness.save(tmp_path / "model", np.stack([likeness.signs(f) for f in films]), 0.2)

    def load(generator):
        monkeypatch.setattr(generate.Generator, "load", classmethod(lambda cls, path=None: generator))
        return generator

    return tmp_path / "model", load


@pytest.fixture(scope="module")
def done(tiny_model, tmp_path_factory):
    """The dossier of the tiny pipeline: its document and its folder."""
    out = tmp_path_factory.mktemp("out") / "dossier"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDIMGEN_TIER", "pocket")
        return dossier.write(out, tiny_model, n=13, watts=20, prompts=PROMPTS), out


def rows(document, section):
    return {r["id"]: r for r in document["sections"][section]}


def test_the_page_stands_alone_and_can_be_read_aloud(done):
    page = (done[1] / "dossier.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|model-card.md)|https?://|@import|<script|<link|url\(", page)
    assert page.count("<img ") == len(re.findall(r"<img [^>]*alt=\"[^\"]{20,}\"", page)) >= 3
    assert page.count("<svg") == len(re.findall(r'<svg role="img" aria-label="[^"]+"', page)) == 2 * len(look.MEASURES)
    assert page.count("<figure") == page.count("<figcaption") and "$" not in page
    assert page.count('role="region" tabindex="0"') == page.count("<table>") == page.count("<caption>") >= 7
    assert page.startswith('<!doctype html><html lang="en">') and "Not a medical device" in page
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert "Real films shown on this page: 0." in page and "16 real pocket films" in page


def test_the_document_holds_every_image_and_its_origin(done, tiny_model):
    document, out = done
    assert json.loads((out / "dossier.json").read_text(encoding="utf-8")) == document
    validate(document, "dossier", "dossier.json")
    assert [(i["prompt"], i["seed"]) for i in document["images"]] == [
        (p, 200_000 + k) for p, n in zip(PROMPTS, (5, 4, 4), strict=True) for k in range(n)
    ]
    assert document["weights_sha256"] == generate.weights_sha256(tiny_model) and document["settings"]["watts"] == 20
    assert document["model"]["files"]["unet/diffusion_pytorch_model.safetensors"] == report.file_sha256(
        tiny_model / "unet" / "diffusion_pytorch_model.safetensors"
    )
    assert document["model"]["data"] == "films not known here"
    assert rows(document, "words")[f"unseen: {PROMPTS[2]}"]["estimate"] == 1
    assert rows(document, "neighbours")["refused"]["estimate"] is None  # the tiny pipeline brings no signs
    said = (out / "card.md").read_text(encoding="utf-8")
    assert document["weights_sha256"] in said and "Not a medical device" in said and "| One image alone |" in said


def test_pictures_say_that_they_are_synthetic(done):
    document, out = done
    assert {p["group"] for p in document["pictures"]} == {"sheets", "failures"}
    for p in document["pictures"]:
        with Image.open(out / p["file"]) as picture:
            assert picture.text["Synthetic"] == "true" and "Real-Film" not in picture.text
            assert np.asarray(picture)[:14].max() > 200  # the label above the film
        assert report.file_sha256(out / p["file"]) == p["sha256"]


def test_a_stop_loses_nothing(model, tmp_path, capsys):
    folder, load = model
    command = ["dossier", "--n", "40", "--model", str(folder), "--out", str(tmp_path / "out")]
    load(Fake()).stop = 3
    assert main(command) == 130 and "the same command goes on" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "resume").rglob("*.npz"))) == 3
    assert not (tmp_path / "out" / "dossier.html").exists()
    again = load(Fake())
    assert main(command) == 0
    whole = 10 + 9  # prompts, and those with words to leave out; then six images alone
    assert len(again.asked) == whole - 3 + 6 and not list((tmp_path / "out").rglob("*.part"))


def test_other_weights_or_prompts_are_not_resumed(model, tmp_path):
    folder, load = model
    load(Fake())
    dossier.write(tmp_path / "out", folder, n=8, prompts=["normal", "viral"])
    other = load(Fake())
    other.sha256 = "1" * 64
    dossier.write(tmp_path / "out", folder, n=8, prompts=["normal", "viral"])
    assert len(other.asked) == 2 + 6


def test_a_copy_of_a_training_film_is_counted_and_not_shown(model, tmp_path):
    folder, load = model
    load(Copies())
    document = dossier.write(tmp_path / "out", folder, n=20, prompts=["normal", "viral"])
    refused = rows(document, "neighbours")["refused"]
    assert refused["estimate"] == 0.1 and refused["met"] is False
    assert [i["seed"] for i in document["images"] if i["refused"]] == [200_001] * 2
    sheet = np.asarray(Image.open(tmp_path / "out" / document["pictures"][0]["file"]))
    film = radiographs.load("pocket", tier="pocket").images[0]
    assert not any(np.array_equal(sheet[y : y + 128, x : x + 128], film) for y in (14, 156) for x in range(0, 512, 128))
    assert "without those refused at export" in document["pictures"][0]["caption"]
    assert not any("200001:" in p["caption"] or p["real"] for p in document["pictures"])


def test_real_films_are_shown_only_where_they_are_wanted_and_named(model, tmp_path, monkeypatch):
    folder, load = model
    load(Copies())
    original = radiographs.load
    monkeypatch.setattr(radiographs, "available_tier", lambda: "full")
    monkeypatch.setattr(radiographs, "load", lambda split, size=128, tier=None: original("pocket", size, "pocket"))
    document = dossier.write(tmp_path / "out", folder, n=20, prompts=["normal", "viral"])
    real = [p for p in document["pictures"] if p["real"]]
    first = original("pocket", tier="pocket")
    assert first.table["file"][0] in real[0]["caption"] and "200001" in real[0]["caption"]
    pixels = np.asarray(Image.open(tmp_path / "out" / real[0]["file"]))
    assert np.array_equal(pixels[14:, 128:], first.images[0])
    assert "Real-Film" in Image.open(tmp_path / "out" / real[0]["file"]).text
    page = (tmp_path / "out" / "dossier.html").read_text(encoding="utf-8")
    assert f"Real films shown on this page: {len(real)}." in page and "CC BY 4.0" in page
    again = dossier.write(tmp_path / "out", folder, n=20, real=False, prompts=["normal", "viral"])
    files = {p.name for p in (tmp_path / "out" / "pictures").iterdir()}
    assert files == {p["file"].removeprefix("pictures/") for p in again["pictures"] if not p["real"]}


def test_measures_move_with_what_they_name():
    film = radiographs.load("pocket", tier="pocket").images[:1].astype(float)
    pixels = {
        "same": film, "exposure": film * 0.8 + 51, "contrast": film * 0.5 + 60,
        "sharpness": gaussian_filter(film, (0, 2, 2)),
        "asymmetry": np.concatenate([film[..., :64], film[..., 63::-1]], -1),
    }  # fmt: skip
    found = {k: {m: v[0] for m, v in look.measure(x.astype(np.uint8)).items()} for k, x in pixels.items()}
    assert found["exposure"]["exposure"] > found["same"]["exposure"] + 0.02
    assert found["contrast"]["contrast"] == pytest.approx(found["same"]["contrast"] / 2, abs=0.01)
    assert found["sharpness"]["sharpness"] < found["same"]["sharpness"] - 0.1
    assert found["asymmetry"]["asymmetry"] == pytest.approx(0, abs=1e-4) and found["same"]["asymmetry"] > 0.01


def test_words_that_change_nothing_are_told_from_those_that_do(model, tmp_path):
    folder, load = model
    found = {}
    for hears in (True, False):
        load(Fake()).hears = hears
        document = dossier.write(tmp_path / str(hears), folder, n=24, prompts=["normal, bright", "chest, normal"])
        found[hears] = rows(document, "words")["words: normal, bright"]
    assert found[False]["estimate"] == 0 and found[True]["low"] > 0.1
    assert re.search(r"exposure \+0\.(199|200)", found[True]["how"]) and "exposure +0.000" in found[False]["how"]


def test_images_of_one_kind_show_as_too_alike_and_too_narrow(model, tmp_path):
    class One(Fake):
        def draw(self, prompt, seed):
            return np.clip(super().draw(prompt, 0).astype(int) + seed % 7, 0, 255).astype(np.uint8)

    folder, load = model
    load(One())
    document = dossier.write(tmp_path / "out", folder, n=24, prompts=["normal", "viral"])
    assert rows(document, "variety")["ssim: normal"]["low"] > 0.2
    narrow = rows(document, "measured")["spread sharpness: normal"]
    assert narrow["high"] < 0.5 and "8 real pocket films (normal) of" in narrow["how"]


def test_images_are_shared_out_over_prompts_from_the_same_seeds():
    batches = dossier.plan(["a, b", "c"], 43, 5)
    own = [b for b in batches if b.part >= 0]
    assert sum(b.count for b in own) == 43 and max(b.count for b in batches) == dossier.BATCH
    seeds = [[b.seed + k for b in own if b.part == p for k in range(b.count)] for p in (0, 1)]
    assert seeds == [list(range(5, 27)), list(range(5, 26))]
    assert [(b.text, b.seed, b.count) for b in batches if b.part < 0] == [("a", 5, 8), ("a", 13, 8)]
    with pytest.raises(CourseError, match="7 images for 2 prompts"):
        dossier.plan(["a", "c"], 7, 0)


def test_energy_follows_the_watts_and_the_logs_of_resumed_runs(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"cpu_seconds": 10}\n{"cpu_seconds": 90}\n{"cpu_seconds": 30}\n', encoding="utf-8"
    )
    batches, costs = dossier.plan(["a"], 8, 0), np.array([[4.0, 8.0, 700.0]])
    found = {r["id"]: r for r in look.speed(Fake(), "a", batches, costs, 36, tmp_path)}
    assert found["cpu"]["estimate"] == 1 and found["energy"]["estimate"] == 10 and found["one"]["estimate"] == 0.5
    assert found["training"]["estimate"] == pytest.approx(1.2) and found["peak"]["met"] is True
    assert found["one"]["met"] is True and "busy" not in found["one"]["how"]
    costs[:, 0] = 80
    crowded = look.speed(slow, "a", batches, costs, 36, tmp_path)[0]
    assert crowded["met"] is None and "10% of one was ours" in crowded["how"] and crowded["estimate"] == 3
    assert "36 W" in found["energy"]["how"] and "not measured" in found["energy"]["how"]


def quality(folder, **changes):
    row = dossier.row(
        "kid", "Distance", (9.5, 8, 11), "% of the ruler", "2,000 images", "at most 10", True, "recipes/x.py"
    )
    document = {"made": "2026-01-01T00:00:00Z", "code_version": "1", "weights_sha256": "a" * 64}
    text = json.dumps(document | {"sections": {"quality": [row | changes]}})
    (folder / "quality.json").write_text(text, encoding="utf-8")


def test_recorded_results_are_taken_in_with_their_hashes(tmp_path):
    for name in ("L1a.json", "L0.json", "runs.jsonl"):
        (tmp_path / name).write_bytes((report.RESULTS / name).read_bytes())
    quality(tmp_path)
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    run = next(r for r in report.read(tmp_path / "runs.jsonl") if r.id == claims.result("L1a")["run"])
    sections, files = dossier.recorded("b" * 64, set(run.inputs.values()), tmp_path)
    by_id = {r["id"]: r for r in sections["claims"]}
    assert by_id["L1a"]["estimate"] == claims.result("L1a")["estimate"] and "OTHER" not in by_id["L1a"]["how"]
    assert by_id["L1b"]["estimate"] is None and "not measured yet" in by_id["L1b"]["how"] and "L0" not in by_id
    assert (
        sections["quality"][0]["how"].startswith("OTHER WEIGHTS") and "quality.json" in sections["quality"][0]["source"]
    )
    told = {f["file"]: (f["same_weights"], f["taken_in"]) for f in files}
    assert told == {"L1a.json": (True, True), "odd.json": (False, False), "quality.json": (False, True)}
    sections, files = dossier.recorded("a" * 64, {"other"}, tmp_path)
    assert sections["quality"][0]["how"] == "2,000 images" and sections["claims"][0]["how"].startswith("OTHER WEIGHTS")
    digest = hashlib.sha256((tmp_path / "quality.json").read_bytes()).hexdigest()
    assert next(f for f in files if f["file"] == "quality.json")["sha256"] == digest


def test_a_recorded_row_that_breaks_the_contract_is_named(tmp_path):
    quality(tmp_path, met="yes")
    with pytest.raises(CourseError, match=r"quality\.json.*met"):
        dossier.recorded("a" * 64, set(), tmp_path)


def test_sections_nobody_knew_get_a_place_on_the_page(done):
    document, out = done
    new = document | {
        "sections": document["sections"] | {"control": [dossier.row("d", "Dice <x>", None, "", "h", "a")]}
    }
    page = dossier.page(new, out)
    assert "<h2>Control</h2>" in page and "Dice &lt;x&gt;" in page and "not decided" in page


def test_too_few_images_are_refused_before_anything_is_made(model, tmp_path, capsys):
    generator = model[1](Fake())
    assert main(["dossier", "--n", "8", "--model", str(model[0]), "--out", str(tmp_path / "out")]) == 1
    assert "ask for 40 or more" in capsys.readouterr().err and generator.asked == []


def test_the_dossier_in_the_book_shows_no_real_film_and_is_whole():
    document = json.loads((RECORDED / "dossier.json").read_text(encoding="utf-8"))
    validate(document, "dossier", "dossier.json")
    assert document["pictures"] and not any(p["real"] for p in document["pictures"])
    assert all(report.file_sha256(RECORDED / p["file"]) == p["sha256"] for p in document["pictures"])
    page = (ROOT / "lessons" / "dossier.md").read_text(encoding="utf-8")
    shown = set(re.findall(r'parts\["(\w+)"\]', page))
    assert shown <= set(dossier.parts(document, RECORDED)) and {"claims", "neighbours", "sheets_pictures"} <= shown
