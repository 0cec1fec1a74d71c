"""Exercise 03-1: the property tests of notebook 03 find each fault, and the check says which."""

import nbformat
import numpy as np
import pytest

from medimgen import perturb
from medimgen.check import check
from medimgen.paths import ROOT

ALL = {"identity at 0", "pure", "repeatable", "monotone", "a film"}
CELLS = [c for c in nbformat.read(ROOT / "notebooks" / "03-robustness.ipynb", 4).cells if c.cell_type == "code"]


def defined(name, **known):
    """A function as the notebook's last cell that begins with it defines it."""
    source = [cell.source for cell in CELLS if cell.source.startswith(f"def {name}(")][-1]
    exec(source, space := {"np": np, **known})
    return space[name]


@pytest.fixture(scope="module")
def properties():
    film = np.random.default_rng(0).integers(60, 180, (1, 48, 48)).astype(np.uint8)
    return defined("properties", images=film)


def shifted(film, s, seed):
    return film + 0.01 + 0.1 * s


def in_place(film, s, seed):
    film += 0.1 * s
    return film


def unseeded(film, s, seed):
    return film + 0.1 * s + 0.001 * s * np.random.default_rng().random(film.shape)


def there_and_back(film, s, seed):
    return film + 0.2 * s * (1 - s)


def too_bright(film, s, seed):
    return film + s


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (shifted, "identity at 0"),
        (in_place, "pure"),
        (unseeded, "repeatable"),
        (there_and_back, "monotone"),
        (too_bright, "a film"),
    ],
)
def test_each_fault_is_found_and_named(properties, change, lost):
    found = properties(change)
    assert found == ALL - {lost}
    told = check("03-1", found)
    assert told.status == "wrong" and len(told.message) > 60


def test_doing_nothing_is_not_monotone(properties):
    assert properties(lambda film, s, seed: film) == ALL - {"monotone"}


def test_the_solution_and_the_course_s_own_pass(properties):
    assert check("03-1", properties(defined("mine"))).right
    for name in ("motion", "dose", "exposure"):
        assert properties(lambda film, s, seed, name=name: perturb.apply(name, film, s, seed)) == ALL


def test_the_stub_is_not_answered_yet(properties):
    assert properties(lambda film, s, seed: ...) is ...
    assert check("03-1", ...).status == "unanswered"


def test_the_slider_can_still_move_to_the_right():
    cell = next(c.source for c in CELLS if "frame_slider" in c.source)
    start = int(cell.split("dial.slider.value = ")[1].split()[0])
    steps = int(cell.split("np.linspace(0, 1, ")[1].split(")")[0])
    assert start > 0 and start + 12 < steps
