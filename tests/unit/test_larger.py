"""recipes/larger.py: what 224 pixels would cost. The parts that need no training."""

import json

import larger
import numpy as np
import pytest
from PIL import Image

from medimgen.paths import ROOT


def test_reduced_keeps_the_mean_of_areas():
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224)).astype("u1")
    small = larger.reduced(images)
    assert small.shape == (2, 128, 128) and small.dtype == np.uint8
    assert np.abs(small.mean((1, 2)) - images.mean((1, 2))).max() < 1
    assert small.std() < 0.8 * images.std()


def test_the_sheet_shows_both_sizes_and_says_that_they_are_synthetic(tmp_path):
    for name, side in (("teacher-128-6", 128), ("teacher-224-6-2", 224)):
        np.save(tmp_path / f"{name}.npy", np.full((18, side, side), side // 2, "u1"))
    larger.sheet(tmp_path, steps=2, each=6, file=tmp_path / "sheet.png", a_class=4)
    picture = Image.open(tmp_path / "sheet.png")
    assert picture.text["Synthetic"] == "true" and picture.size == (4 * 232, 6 * 232)
    shown = np.asarray(picture)
    assert (shown == 64).sum() == 12 * 128**2 and (shown == 112).sum() == 12 * 224**2


def test_the_sheet_needs_the_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="teacher-128-6"):
        larger.sheet(tmp_path, steps=2, each=6, file=tmp_path / "sheet.png")


def test_the_lesson_quotes_the_record():
    found = json.loads(larger.RESULT.read_text(encoding="utf-8"))
    text = " ".join((ROOT / "lessons" / "01-local-generative-ai.md").read_text(encoding="utf-8").split())
    for name in ("teacher_128", "teacher_224"):
        assert "{estimate:.1f} ({low:.1f} to {high:.1f})".format(**found["ruler"][name]) in text
    ms = found["cost_ms"]
    assert f"{ms['image_224'] / ms['image_128']:.1f} times as much" in text
    assert f"{ms['image_224']:.0f} ms instead of {ms['image_128']:.0f}" in text
    assert f"{found['steps']} steps on latents of the larger films: {found['minutes_this_run']:.0f} minutes" in text
