"""Exercise 03-1: the property tests of notebook 03 find each fault, and the check says which."""

import json

import nbformat
import numpy as np
import pytest

from medimgen import claims, perturb, report
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


def said(estimate, low, high):
    return f"{100 * estimate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def read(path):
    return " ".join((ROOT / path).read_text("utf-8").split()).replace(" % (95 % interval ", " % (")


@pytest.mark.parametrize("path", ["lessons/03-robustness.md", "models/cxr-classifier/README.md"])
def test_page_and_card_quote_claim_l3a_as_recorded(path):
    text, found = read(path), claims.result("L3a")
    shares = {"all": (found["estimate"], *found["ci95"])}
    shares |= {
        k: (found["exploratory"][k]["estimate"], *found["exploratory"][k]["ci95"])
        for k in ("bacterial", "viral", "normal")
    }
    for share in shares.values():
        assert said(*share) in text
    assert found["verdict"] == "contradicts" and "contradicted" in text.lower()
    assert found["exploratory"]["hardly_visible"]["estimate"] == 0 and "0 of 429" in text


def test_the_rows_bear_out_what_the_page_says_of_them():
    rows = claims.read_rows("L3a")
    rows = rows[rows["set"] == "test"]
    right = np.where(rows["subtype"] == "normal", 1 - rows["ill"], rows["ill"])
    sure, flips = right >= 0.9, rows[list(perturb.PERTURBATIONS)]
    assert sure.sum() == 429
    plausible = (flips[sure].to_numpy() & 15).any(0)
    assert set(flips.columns[plausible]) == {"aspect_ratio", "scatter", "collimation"}
    assert (flips.to_numpy() >= 16).any(1).sum() == 77
    normal = (rows["subtype"] == "normal").to_numpy()
    assert (right[normal] < 0.5).sum() == 116 and (right[~normal] >= 0.5).sum() == 388


def test_page_and_card_quote_claim_l3b_as_recorded():
    found = claims.result("L3b")
    points = [f"{-100 * x:.1f}" for x in (found["estimate"], *found["ci95"])]
    assert found["verdict"] == "holds"
    assert f"{points[0]} points less ({points[2]} to {points[1]})" in read("lessons/03-robustness.md")
    assert f"-{points[0]} points (-{points[1]} to -{points[2]})" in read("models/cxr-classifier-twin/README.md")


def test_page_quotes_the_share_of_missed_crossings_as_recorded():
    found = json.loads((report.RESULTS / "robustness_bench.json").read_text("utf-8"))["missed"]
    text, (middle, low, high) = read("lessons/03-robustness.md"), (100 * x for x in found["share"])
    assert f"{found['late']} of {found['crossings']} crossings on {found['films']} dev films" in text
    assert f"({middle:.0f} %, {low:.0f} to {high:.0f})" in text
    assert found["late_and_crossings"]["collimation"][0] == 11
