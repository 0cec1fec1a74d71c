"""Notebook 04: solutions are right, stubs unanswered, misconceptions told apart; each rule has a cell that runs."""

import nbformat
import pytest

from medimgen.check import check
from medimgen.paths import ROOT
from medimgen.safety import rules

CELLS = nbformat.read(ROOT / "notebooks" / "04-safety-rules.ipynb", 4).cells
CODE = [cell for cell in CELLS if cell.cell_type == "code"]
NAMES = {"04-1": "survivors", "04-2": "worth"}


def written(exercise, tag):
    """The exercise's function as the notebook's stub or solution defines it."""
    cells = (c for c in CODE if c.metadata.get("medimgen", {}).get("exercise") == exercise)
    exec(next(c.source for c in cells if tag in c.metadata["tags"]), space := {})
    return space[NAMES[exercise]]


@pytest.mark.parametrize("exercise", NAMES)
def test_solution_is_right_and_stub_unanswered(exercise):
    assert check(exercise, written(exercise, "solution")).right
    assert check(exercise, written(exercise, "exercise")).status == "unanswered"


@pytest.mark.parametrize(
    ("exercise", "wrong", "told"),
    [
        ("04-1", lambda planted, text: sum(v.lower() in text.lower() for v in planted), "turned round"),
        ("04-1", lambda planted, text: sum(v.split("^")[0] in text for v in planted), "capitals aside"),
        ("04-2", lambda a, b, c, d: a / b, "the sensitivity alone"),
        ("04-2", lambda a, b, c, d: (c / d) / (a / b), "upside down"),
    ],
)
def test_misconceptions_are_named(exercise, wrong, told):
    feedback = check(exercise, wrong)
    assert feedback.status == "wrong" and told in feedback.message


def test_each_rule_has_a_cell_that_runs():
    tags = {tag for cell in CODE for tag in cell.metadata.get("tags", [])}
    assert {f"rule:{rule}" for rule in rules.load()} <= tags


def test_the_guard_is_never_opened():
    """What is tried on purpose is tried inside `local_only`; no cell switches the guard or lets a host pass."""
    assert not any(word in cell.source for cell in CODE for word in ("egress.guard", "allowing", "open_environment"))
    tries = [cell.source for cell in CODE if "careful(" in cell.source or "-S -c" in cell.source]
    assert len(tries) == 3 and all("egress.local_only()" in source for source in tries)
