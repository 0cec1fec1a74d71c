"""medimgen.likeness: copies are near, other films are far, and a copy cannot be exported."""

import numpy as np
import pytest

from medimgen import generate, likeness
from medimgen.data import radiographs
from medimgen.errors import CourseError


@pytest.fixture(scope="module")
def films():
    return radiographs.load("pocket").images


def test_brightness_and_contrast_do_not_count(films):
    known = np.stack([likeness.signs(f) for f in films])
    changed = np.clip(films.astype(float) * 0.7 + 30, 0, 255).astype(np.uint8)
    assert likeness.nearest(changed, known).max() < 0.08
    apart = likeness.distances(known, known)
    np.fill_diagonal(apart, 1)
    assert apart.min() > 0.2


def test_copy_of_a_training_film_is_refused_and_nothing_written(films, tmp_path):
    model, path = tmp_path / "model", tmp_path / "copy.png"
    model.mkdir()
    likeness.save(model, np.stack([likeness.signs(f) for f in films[:8]]), threshold=0.2)
    assert likeness.too_like(films, model).tolist() == [True] * 8 + [False] * 8
    with pytest.raises(CourseError, match="different seed"):
        generate.save_png(path, films[3], {"seed": 1}, model=model)
    assert not path.exists()
    assert generate.save_png(path, films[12], {"seed": 1}, model=model).is_file()


def test_model_without_signs_refuses_nothing(films, tmp_path):
    assert not likeness.too_like(films, tmp_path).any()


def test_a_float_picture_is_refused_and_not_given_chance_signs():
    with pytest.raises(CourseError, match="float64"):
        likeness.signs(np.random.default_rng(0).random((64, 64)))
