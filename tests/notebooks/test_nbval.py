"""Every notebook runs in the pocket tier, prints no warning, and goes red when an asserted number is wrong.

In one run: mutate() leaves every cell as it is and adds wrong ones. The full tier is run by test_badges.py.
"""

import nbformat
import pytest
from nbval_runner import MARK, code_cells, mutate, run_nbval, verdict

from medimgen.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESEARCH = sorted((ROOT / "notebooks" / "research").glob("*.ipynb"))
new_notebook, code = nbformat.v4.new_notebook, nbformat.v4.new_code_cell


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request):
    return request.param


@pytest.fixture(params=RESEARCH, ids=lambda p: p.stem)
def research(request, monkeypatch):
    """A research notebook; a tiny random model stands in for the language model."""
    monkeypatch.setenv("MEDIMGEN_SMOKE", "1")
    return request.param


def test_there_are_notebooks():
    assert NOTEBOOKS
    assert RESEARCH


def test_runs_and_one_wrong_number_turns_it_red(path, tmp_path):
    mutant = mutate(read(path))
    assert mutant.groups, f"{path.name} asserts no number and keeps no output with one"
    run = run_nbval(mutant.notebook, path.parent, "pocket", tmp_path)
    assert len(run.cells) == len(code_cells(mutant.notebook)), run.text
    assert mutant.complaints(run) == []


def test_research_runs_as_a_smoke_run_and_one_wrong_number_turns_it_red(research, tmp_path):
    test_runs_and_one_wrong_number_turns_it_red(research, tmp_path)


def kept(source, text):
    cell = code(f"{MARK}\n{source}", execution_count=1, metadata={"keep_output": True})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return cell


def test_the_checks_notice_what_they_should(tmp_path):
    """One constructed notebook: right and wrong outputs, stderr, an exception."""
    cells = [
        code("import os, sys\nx = 41"),
        code("x += 1\nassert x == 42"),
        kept("print(x)", "42\n"),
        kept("print(x)", "43\n"),
        code("print('careful', file=sys.stderr)"),
        code("import warnings\nwarnings.warn('old')"),
        code("assert x == 43"),
        code("assert os.environ['MEDIMGEN_TIER'] == 'pocket'\nassert os.environ['OMP_NUM_THREADS'] == '1'"),
    ]
    notebook = new_notebook(cells=cells)
    run = run_nbval(notebook, tmp_path, "pocket", tmp_path)
    assert run.red() == {3, 4, 5, 6}
    assert verdict(notebook, run).startswith("exit code 1")


def test_a_green_run_is_green_and_its_mutants_are_not(tmp_path):
    cells = [
        code("import numpy as np\nfrom pathlib import Path\nhere = Path.cwd().name"),
        code("auc = 0.861\nassert abs(auc - 0.86) < 0.01"),
        kept("print('films', 16)", "films 16\n"),
        code("np.testing.assert_allclose(auc, 0.861, atol=1e-6)\nassert here == 'unit'"),
    ]
    notebook, folder = new_notebook(cells=cells), ROOT / "tests" / "unit"
    assert verdict(notebook, run_nbval(notebook, folder, "pocket", tmp_path)) == ""
    mutant = mutate(notebook)
    assert len(mutant.groups) == 3
    run = run_nbval(mutant.notebook, folder, "pocket", tmp_path)
    assert len(run.cells) == len(code_cells(mutant.notebook))
    assert mutant.complaints(run) == []


def test_an_assertion_that_cannot_fail_is_reported(tmp_path):
    notebook = new_notebook(cells=[code("x = 5"), code("assert x == 5 or 1"), code("assert x == 5")])
    mutant = mutate(notebook)
    run = run_nbval(mutant.notebook, tmp_path, "pocket", tmp_path)
    assert mutant.complaints(run) == ["not noticed: assert x == 5 or 1"]


def test_a_notebook_without_code_is_no_success(tmp_path):
    notebook = new_notebook(cells=[nbformat.v4.new_markdown_cell("# Nothing")])
    assert "no code cell" in verdict(notebook, run_nbval(notebook, tmp_path, "pocket", tmp_path))
