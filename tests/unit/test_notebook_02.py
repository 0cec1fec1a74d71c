"""Exercise 02-1 of notebook 02: its solution is right, and each misconception is told apart."""

import nbformat
import numpy as np
import pytest

from medimgen.check import check
from medimgen.paths import ROOT

CELLS = nbformat.read(ROOT / "notebooks" / "02-prompts-and-balance.ipynb", 4).cells


def written(tag):
    """`smallest_cell` as the notebook's stub or solution defines it."""
    exec(next(c.source for c in CELLS if tag in c.metadata.get("tags", [])), space := {"np": np})
    return space["smallest_cell"]


def test_solution_is_right_and_stub_unanswered():
    assert check("02-1", written("solution")).right
    assert check("02-1", written("exercise")).status == "unanswered"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda table, by: int(table.groupby(by).size().min()), "a grouped count does not list them"),
        (lambda table, by: int(table.groupby(by).size().max()), "the largest cell"),
        (lambda table, by: min(int(table[c].value_counts().min()) for c in by), "smallest value of one column"),
        (lambda table, by: 0 if len(by) > 1 else int(table.groupby(by).size().min()), "no combination is missing"),
    ],
)
def test_misconceptions_are_named(wrong, told):
    feedback = check("02-1", wrong)
    assert feedback.status == "wrong" and told in feedback.message
