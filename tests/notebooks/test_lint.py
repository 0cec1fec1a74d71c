"""Each rule of the notebook lint passes a good notebook and stops a bad one."""

import copy
import json

import nbformat
import notebook_lint
import pytest
from notebook_lint import GOALS, KERNEL, MARK, RULES, badge_line, lint

from medimgen.paths import ROOT

FACTS = {"seconds": 12, "peak_mb": 600, "tiers": ["pocket", "full"], "offline": True}
FIGURE = {"mystnb": {"image": {"alt": "Two films side by side."}, "figure": {"caption": "Two films."}}}
FOLDED = {"tags": ["solution", "hide-cell"], "jupyter": {"source_hidden": True}}
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
code, prose = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell


def good():
    """The smallest notebook that keeps every rule."""
    kept = code(f"{MARK}\nprint(16)", execution_count=1, metadata={"keep_output": True})
    kept.outputs = [nbformat.v4.new_output("stream", name="stdout", text="16\n")]
    name = {"medimgen": {"exercise": "00-1"}}
    cells = [
        prose(f"# Films\n\n{badge_line(FACTS)}"),
        prose(f"## {GOALS}\n\n- a\n- b\n- c"),
        prose("What we need."),
        code("import matplotlib.pyplot as plt\nfrom medimgen import widgets\nfrom medimgen.check import check"),
        prose("## One\n\nWhy."),
        kept,
        prose("## Two"),
        code("plt.imshow([[1]])", metadata=copy.deepcopy(FIGURE)),
        prose("## Three"),
        code("box = widgets.window_slider(1)\nbox.children[0].value = 3\nbox", metadata=copy.deepcopy(FIGURE)),
        prose("## Four"),
        code("assert 1 + 1 == 2"),
        prose("## Break it"),
        code("y = 1"),
        prose("## Your turn"),
        code("x = ...", metadata={"tags": ["exercise"], **name}),
        code("x = 1", metadata={**copy.deepcopy(FOLDED), **name}),
        code('check("00-1", x)'),
        prose("## Recap\n\nYou did."),
        prose("## Next\n\nMore."),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    metadata = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}, "medimgen": dict(FACTS)}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def write(notebook):
    return json.dumps(notebook, indent=1) + "\n"


def find(notebook, words):
    return next(cell for cell in notebook.cells if words in cell.source)


def edit(words, **changes):
    """A fault: the first cell that holds `words` gets these values."""
    return lambda notebook: find(notebook, words).update(changes)


def retag(words, **metadata):
    """A fault: the first cell that holds `words` gets this metadata instead of its own."""
    return lambda notebook: find(notebook, words).update(metadata=metadata)


def insert(place, cell):
    """A fault: one more cell."""
    return lambda notebook: notebook.cells.insert(place, cell)


def swap(one, other):
    """A fault: two cells change places."""

    def fault(notebook):
        i, j = (notebook.cells.index(find(notebook, words)) for words in (one, other))
        notebook.cells[i], notebook.cells[j] = notebook.cells[j], notebook.cells[i]

    return fault


def many(notebook):
    for _ in range(30):
        notebook.cells += [prose("Why."), code("1")]


BAD = [
    ("format", lambda n: n.update(nbformat_minor=4)),
    ("format", edit("y = 1", surplus=1)),
    ("ids", edit("y = 1", id="cell-0")),
    ("ids", lambda n: n.cells[3].pop("id")),
    ("kernel", lambda n: n.metadata.pop("kernelspec")),
    ("kernel", lambda n: n.metadata.language_info.update(version="3.11.7")),
    ("title", edit("# Films", source="Films")),
    ("badge", edit("# Films", source="# Films\n\n**1 s · 0.6 GB**")),
    ("badge", lambda n: n.metadata.medimgen.pop("seconds")),
    ("badge", lambda n: n.metadata.medimgen.update(seconds=99)),
    ("goals", edit(GOALS, source=f"## {GOALS}\n\n- a\n- b")),
    ("goals", edit(GOALS, source=f"## {GOALS}\n\n- a\n- b\n- c\n- d")),
    ("imports", edit("y = 1", source="import os")),
    ("imports", edit("import matplotlib", source="x = 1")),
    ("beats", edit("## Four", source="Four")),
    ("ending", edit("## Recap", source="Recap")),
    ("ending", swap("## Break it", "## Your turn")),
    ("ending", edit("## One", source="## Next")),
    ("exercise", retag("x = ...", tags=[])),
    ("exercise", retag("x = ...", tags=["exercise"])),
    ("exercise", retag("x = 1", tags=["solution", "hide-cell"], jupyter={"source_hidden": True})),
    ("exercise", retag("x = 1", tags=["solution", "hide-cell"], medimgen={"exercise": "00-1"})),
    ("exercise", retag("x = 1", tags=["solution"], jupyter={"source_hidden": True}, medimgen={"exercise": "00-1"})),
    ("exercise", edit('check("00-1"', source="x")),
    ("count", many),
    ("length", edit("y = 1", source="y = 1\n" * 13)),
    ("prose", insert(14, code("z = 1", id="new"))),
    ("outputs", edit("y = 1", execution_count=3)),
    ("outputs", edit("y = 1", outputs=[nbformat.v4.new_output("stream", text="x")])),
    ("outputs", retag("y = 1", keep_output=True)),
    ("outputs", edit(MARK, outputs=[])),
    ("outputs", edit(MARK, execution_count=None)),
    ("outputs", retag(MARK)),
    ("paths", edit("y = 1", source="y = '/ho" + "me/ann/x.png'")),
    ("paths", edit("y = 1", source="y = r'C:" + "\\films'")),
    ("figure", retag("plt.imshow")),
    ("figure", retag("widgets.window")),
    ("figure", retag("plt.imshow", mystnb={"image": {"alt": "Two."}})),
    ("figure", edit("y = 1", source="metrics.show_roc(1)")),
    ("widget", edit("widgets.window", source="widgets.window_slider(1)")),
    ("skip", edit("y = 1", source="# NBVAL_SKIP\ny = 1")),
    ("skip", retag("y = 1", tags=["nbval-skip"])),
]  # fmt: skip


def test_a_good_notebook_passes():
    assert lint(write(good())) == []


@pytest.mark.parametrize("number", range(len(BAD)), ids=[f"{i}-{name}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_notebook_is_stopped(number):
    name, fault = BAD[number]
    notebook = good()
    fault(notebook)
    assert name in {found for found, _ in lint(write(notebook))}


def test_a_notebook_that_asserts_nothing_is_stopped():
    notebook = good()
    notebook.cells = [c for c in notebook.cells if MARK not in c.source and "assert" not in c.source]
    assert "number" in {found for found, _ in lint(write(notebook))}


def test_every_rule_has_a_bad_notebook():
    assert {name for name, _ in BAD} | {"number"} == set(RULES)


@pytest.mark.parametrize("end", ["", "\n\n"])
def test_the_end_of_the_file(end):
    assert [name for name, _ in lint(write(good()).rstrip("\n") + end)] == ["format"]


def test_what_is_no_notebook_is_said():
    assert lint("{")[0][0] == "format"


def test_fix_mends_a_notebook_that_was_run(tmp_path, capsys):
    notebook = good()
    for number, cell in enumerate(notebook_lint.code_cells(notebook), start=1):
        cell.execution_count = number
        cell.outputs = cell.outputs or [nbformat.v4.new_output("stream", text="x")]
        cell.metadata.pop("keep_output", None)
    notebook.metadata.language_info = {"name": "python", "version": "3.12.1"}
    file = tmp_path / "a.ipynb"
    file.write_text(write(notebook), encoding="utf-8")
    assert notebook_lint.main([str(file)]) == 1
    assert notebook_lint.main(["--fix", str(file)]) == 0
    once = file.read_bytes()
    assert notebook_lint.main(["--fix", str(file)]) == 0
    assert file.read_bytes() == once
    assert "[outputs]" in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_courses_notebooks(path):
    assert lint(path.read_text(encoding="utf-8")) == []
