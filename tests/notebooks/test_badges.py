"""The badge of each notebook is true, and every notebook is within its budget. Runs alone (`-m serial`)."""

import json
from functools import partial

import measure_notebooks as bench
import nbformat
import pytest
from measure_notebooks import BUDGET, Cost
from notebook_lint import MARK, badge_line, lint
from test_lint import find, good, write

from medimgen.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESEARCH = sorted((ROOT / "notebooks" / "research").glob("*.ipynb"))
FACTS = {"seconds": 10, "peak_mb": 500, "tiers": ["pocket", "full"], "offline": True}


@pytest.fixture(scope="module")
def last():
    """The yardstick's newest reading: the one after a notebook is the one before the next."""
    return []


@pytest.mark.serial
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_badge_and_budget(path, last):
    """In the fullest tier of this machine, where no cell may warn or print another result than the one it keeps."""
    facts, tier = nbformat.read(path, as_version=4).metadata["medimgen"], bench.tiers_here()[-1:]
    cost = bench.measure(path, tier, last)
    assert cost.surprises == ()
    found = bench.complaints(cost, facts, bench.budget_of(path))
    if found:  # a neighbour on the same machine only ever adds time: what is too slow stays so
        found = bench.complaints(bench.measure(path, tier, last), facts, bench.budget_of(path))
    assert found == []


@pytest.mark.serial
@pytest.mark.parametrize("path", RESEARCH, ids=lambda p: p.stem)
def test_a_smoke_run_takes_20_seconds_at_most(path, monkeypatch, last):
    monkeypatch.setenv("MEDIMGEN_SMOKE", "1")
    assert bench.measure(path, ["pocket"], last).seconds <= 20


@pytest.mark.slow
@pytest.mark.parametrize("path", RESEARCH, ids=lambda p: p.stem)
def test_badge_and_budget_of_research(path):
    """With the real model, which `make test-full` fetches."""
    cost = bench.measure(path, ["pocket"])
    facts = nbformat.read(path, as_version=4).metadata["medimgen"]
    assert bench.complaints(cost, facts, bench.budget_of(path)) == []


@pytest.mark.serial
def test_time_and_memory_are_seen(tmp_path):
    """A notebook that sleeps 1 s and holds 300 MB, half of it in a child, is measured as such."""
    cells = [
        "import subprocess, sys, time\nblock = bytearray(b'x') * 150_000_000",
        "code = \"import time; b = bytearray(b'x') * 150_000_000; time.sleep(1)\"",
        "subprocess.run([sys.executable, '-c', code], check=True); print(len(block), file=sys.stderr)",
    ]
    make = nbformat.v4.new_code_cell
    idle = bench.run_alone(nbformat.v4.new_notebook(cells=[make("x = 1")]), tmp_path, "pocket")
    busy = bench.run_alone(nbformat.v4.new_notebook(cells=[make(c) for c in cells]), tmp_path, "pocket")
    assert 280 < busy.peak_mb - idle.peak_mb < 360
    assert busy.seconds - idle.seconds > 0.9
    assert idle.surprises == () and busy.surprises == ("cell 2 wrote to stderr: 150000000\n",)


def test_another_output_than_the_one_kept_is_a_surprise():
    """Compared as text, however the kernel cut it into pieces; a cell without the mark may say what it likes."""
    kept, ran = good(), good()
    cell = find(ran, MARK)
    assert bench.surprises(kept, ran) == ()
    piece = partial(nbformat.v4.new_output, "stream", name="stdout")
    cell.outputs = [piece(text="1"), piece(text="6\n")]
    find(ran, "y = 1").outputs = [piece(text="new")]
    assert bench.surprises(kept, ran) == ()
    cell.outputs.pop()
    assert len(bench.surprises(kept, ran)) == 1


def test_a_slow_machine_is_told_from_a_slow_notebook(tmp_path, monkeypatch):
    """Half the pace in notebook and yardstick alike changes no badge; a notebook slower than the yardstick does."""
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(write(good()), encoding="utf-8")
    for pace, asked in [(1, 30), (2, 30), (1, 60)]:
        monkeypatch.setattr(bench, "yardstick", partial(float, bench.YARDSTICK_SECONDS * pace))
        monkeypatch.setattr(bench, "run_alone", partial(lambda cost, *_: cost, Cost(asked * pace, 400)))
        assert bench.measure(notebook, ["pocket"]) == Cost(asked, 400, asked * pace)


@pytest.mark.parametrize(
    ("cost", "count"),
    [
        (Cost(10, 500), 0),
        (Cost(15.9, 740), 0),
        (Cost(16.1, 740), 1),
        (Cost(10, 760), 1),
        (Cost(61, 500), 2),
        (Cost(10, 1600), 2),
    ],
)
def test_what_counts_as_too_much(cost, count):
    assert len(bench.complaints(cost, FACTS, BUDGET)) == count


def test_a_badge_over_the_budget_is_refused():
    assert bench.complaints(Cost(1, 1), FACTS | {"seconds": 61}, BUDGET)


def test_figures_are_rounded_up():
    assert bench.rounded(Cost(9.1, 401), ["pocket", "full"]) == FACTS


def test_writing_a_badge_changes_nothing_else(tmp_path):
    notebook = good()
    notebook.cells[0].source = "# Films"
    file = tmp_path / "a.ipynb"
    file.write_text(write(notebook), encoding="utf-8")
    bench.write_badge(file, FACTS)
    assert lint(file.read_text(encoding="utf-8")) == []
    once = json.loads(file.read_text(encoding="utf-8"))
    bench.write_badge(file, FACTS | {"seconds": 20})
    twice = json.loads(file.read_text(encoding="utf-8"))
    assert "".join(twice["cells"][0]["source"]) == f"# Films\n\n{badge_line(FACTS | {'seconds': 20})}"
    assert once["cells"][1:] == twice["cells"][1:]
    assert lint(json.dumps(twice, indent=1) + "\n") == []
