"""The shipped weights: small, plain diffusers, few steps, quick; and what their card says is so."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from medimgen import claims, generate, likeness, report
from medimgen.data import radiographs
from medimgen.paths import ROOT

CARD = generate.FOLDER / "README.md"
SCREENS = ("screen", "control", "control-first")


@pytest.fixture(scope="module")
def generator():
    return generate.Generator.load()


def test_shipped_model_is_a_small_plain_diffusers_pipeline():
    from diffusers import StableDiffusionPipeline

    files = [p for p in generate.FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 20e6
    pipe = StableDiffusionPipeline.from_pretrained(generate.FOLDER, local_files_only=True)
    assert sum(p.numel() for part in (pipe.vae, pipe.unet, pipe.text_encoder) for p in part.parameters()) <= 9_000_000
    image = pipe("normal chest x-ray", num_inference_steps=4).images[0]
    assert (image.mode, image.size) == ("L", (128, 128))


def test_images_are_films_and_differ(generator):
    result = generator("normal chest x-ray", n=4, seed=1)
    assert result.record["steps"] <= 4 and result.images.std(axis=(1, 2)).min() > 20
    assert np.abs(np.diff(result.images.astype(int), axis=0)).mean((1, 2)).min() > 5


@pytest.mark.parametrize("threads", [1, 2])
def test_image_made_alone_equals_the_one_made_among_eight(generator, threads):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        many = generator("viral pneumonia, dark", n=8, seed=40).images
        alone = np.concatenate([generator("viral pneumonia, dark", seed=40 + k).images for k in (0, 3, 7)])
        again = generator("viral pneumonia, dark", n=8, seed=40).images
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(many, again)
    assert np.abs(alone.astype(int) - many[[0, 3, 7]].astype(int)).max() <= 1


def test_learnt_from_donor_films_and_from_nobody_elses():
    table = radiographs.labels()
    donor = table[table["split"] == "donor"]
    digest = hashlib.sha256("\n".join(sorted(donor["file"])).encode()).hexdigest()
    assert json.loads((generate.FOLDER / generate.DEFAULTS).read_text("utf-8"))["donor_ids_sha256"] == digest
    assert digest in CARD.read_text("utf-8")
    for split in ("clinic", "dev", "test", "pocket"):
        other = table[table["split"] == split]
        assert not set(donor["file"]) & set(other["file"])
        if split != "pocket":
            assert not set(donor["number"]) & set(other["number"]), split
    with np.load(generate.FOLDER / likeness.FILE) as kept:
        assert len(kept["signs"]) == len(donor)


@pytest.mark.parametrize("id", ["L1a", "L1b", "L1c", "L1d", "L1e", "L1f"])
def test_card_gives_the_recorded_figures_of_these_very_weights(id):
    result = claims.result(id)
    low, high = result["ci95"]
    assert f"{result['estimate']:.3f} ({low:.3f} to {high:.3f})" in CARD.read_text("utf-8")
    run = next(r for r in report.read(report.RUNS) if r.id == result["run"])
    for part in generate.PARTS:
        file = next((generate.FOLDER / part).glob("*.safetensors"))
        assert run.inputs[f"cxr-mini/{part}"] == hashlib.sha256(file.read_bytes()).hexdigest()


def log(name):
    return json.loads((generate.FOLDER / "log" / f"{name}.json").read_text("utf-8"))


def test_card_gives_the_figures_of_the_logs():
    card, screen, control, first = " ".join(CARD.read_text("utf-8").split()), *map(log, SCREENS)
    rebuilt = json.loads((generate.FOLDER / "log" / "texture.jsonl").read_text("utf-8").splitlines()[-1])
    for said in (
        f"of {screen['images']:,} images over ten prompts, {screen['flagged']:.1%} are nearer".replace("%", " %"),
        f"{screen['refused_at_export']:.2%} would be refused".replace("%", " %"),
        f"{control['flagged']:.0%} of its {control['images']} images are flagged".replace("%", " %"),
        f"{control['refused_at_export']:.0%} would be refused at export: caught".replace("%", " %"),
        f"{first['flagged']:.2%} of its images were flagged".replace("%", " %"),
        f"{log('student')['student']:.1f} grey levels on average",
        f"own four-step films by {log('student')['teacher']:.1f}",
        f"{rebuilt['psnr']:.1f} dB, SSIM {rebuilt['ssim']:.3f}",
    ):
        assert said in card, said


def test_card_gives_the_figures_of_the_quality_report():
    document, card = (
        json.loads((report.RESULTS / "quality.json").read_text("utf-8")),
        " ".join(CARD.read_text("utf-8").split()),
    )
    assert document["weights_sha256"] == generate.weights_sha256(generate.FOLDER)
    told = {r["id"]: "({low:.1f} to {high:.1f})".format(**r) for r in document["sections"]["quality"] if r["low"]}
    for row in document["sections"]["quality"]:
        if row["id"] == "ruler_test":
            assert f"ruler {row['estimate']:.1f} {told['ruler_test']}" in card
        if row["id"] in ("coverage_test", "coverage_test_donor"):
            assert f"{row['estimate']:.3f}" in card
        if row["id"].startswith("sureness"):
            assert f"{row['estimate']:.2f}" in card


def test_lesson_gives_the_ruler_s_figure():
    result = claims.result("L1d")
    figures = "{:.1f} ({:.1f} to {:.1f})".format(result["estimate"], *result["ci95"])
    assert figures in (ROOT / "lessons" / "01-local-generative-ai.md").read_text("utf-8")


def test_screen_passed_and_its_control_was_caught():
    screen, control, _ = map(log, SCREENS)
    assert screen["flagged"] <= 0.02 and screen["images"] >= 2000
    assert control["caught"] and control["planted_films_found"] == control["planted"]


@pytest.mark.serial
def test_first_image_of_a_fresh_kernel_is_there_within_twelve_seconds_and_the_next_within_one():
    code = (
        "import time; a = time.perf_counter()\n"
        "from medimgen import generate, report\n"
        "g = generate.Generator.load(); g('chest x-ray, normal'); b = time.perf_counter()\n"
        "g('chest x-ray, normal', seed=1); print(b - a, time.perf_counter() - b, report.peak_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, memory = map(float, done.stdout.splitlines()[-1].split())
    assert first <= 12 and second <= 1 and memory <= 1500, (first, second, memory)
    assert done.stderr == ""
