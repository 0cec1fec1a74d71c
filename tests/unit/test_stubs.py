"""Exercise stubs: every stub in the notebooks is its solution with holes, and the cutting is exact."""

import json

import pytest

from medimgen.claims import load_recipe
from medimgen.errors import CourseError
from medimgen.paths import ROOT

stubs = load_recipe("recipes/make_stubs.py")
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
SOLUTION = "def f(a):\n    b = a + 1  # hole: one more\n    return b * 2  # hole: twice that\n\n\nf(1)"
STUB = "def f(a):\n    b = ...  # one more\n    return ...  # twice that\n\n\nf(1)"


def cell(source, *tags, exercise="00-1", hidden=False, as_list=True):
    metadata = {"tags": list(tags), "medimgen": {"exercise": exercise}}
    if hidden:
        metadata["jupyter"] = {"source_hidden": True}
    lines = source.splitlines(keepends=True) if as_list else source
    return {"cell_type": "code", "id": "é1", "metadata": metadata, "source": lines, "outputs": []}


def notebook(tmp_path, stub=STUB, solution=SOLUTION, **options):
    prose = {"cell_type": "markdown", "metadata": {}, "source": ["Größe"]}
    pair = [cell(stub, "exercise", **options), cell(solution, "solution", "hide-cell", hidden=True)]
    path = tmp_path / "demo.ipynb"
    document = {"cells": [prose, *pair], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_stub_is_its_solution_with_holes(path):
    assert not stubs.process(path, check=True), "run `python recipes/make_stubs.py`"


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("x = a == b  # hole: compare", "x = ...  # compare"),
        ("    x: int = 3  # hole: three", "    x: int = ...  # three"),
        ("x = y = f(1)  # hole: f", "x = y = ...  # f"),
        ("x['é'] = (1 + 2)  # hole: add", "x['é'] = ...  # add"),
        ("a, b = f()  # hole: both", "a, b = ..., ...  # both"),
        ("    return a  # hole: give a", "    return ...  # give a"),
        ("plot(x, color='red')  # hole: draw", "...  # draw"),
        ("x += 1  # hole: count", "...  # count"),
        ("# hole: loop\nfor i in y:\n    print(i)\n# end hole", "...  # loop"),
        ("    # hole: a\n    b\n    # end hole\n    c", "    ...  # a\n    c"),
    ],
)
def test_cut(line, cut):
    assert stubs.cut(line) == cut


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1", "no hole"),
        ("# hole: a\nx = 1", "no `# end hole`"),
        ("x = 1  # hole: a\n# end hole", "without"),
        ("for i in x:  # hole: a\n    pass", "one whole statement"),
        ("a = f(  # hole: a\n  1)", "one whole statement"),
    ],
)
def test_cut_refuses(source, told):
    with pytest.raises(CourseError, match=told):
        stubs.cut(source)


def test_fresh_notebook_is_left_alone(tmp_path):
    path = notebook(tmp_path)
    before = path.read_bytes()
    assert stubs.main([str(path)]) == 0 and stubs.main(["--check", str(path)]) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("as_list", [True, False])
def test_an_edited_solution_is_red_until_recut_and_nothing_else_changes(tmp_path, capsys, as_list):
    fresh = notebook(
        tmp_path, solution=SOLUTION.replace("f(1)", "f(5)"), stub=STUB.replace("f(1)", "f(5)"), as_list=as_list
    )
    wanted = fresh.read_bytes()
    path = notebook(tmp_path, solution=SOLUTION.replace("f(1)", "f(5)"), as_list=as_list)
    old = path.read_bytes()
    assert stubs.main(["--check", str(path)]) == 1 and "demo.ipynb" in capsys.readouterr().out
    assert path.read_bytes() == old
    assert stubs.main([str(path)]) == 0 and path.read_bytes() == wanted
    assert stubs.main(["--check", str(path)]) == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cells: cells.pop(2), "no solution follows"),
        (lambda cells: cells.pop(1), "no stub before it"),
        (lambda cells: cells[2]["metadata"]["medimgen"].update(exercise="00-2"), "no solution follows"),
        (lambda cells: cells[2]["metadata"]["tags"].remove("hide-cell"), "solution is open"),
        (lambda cells: cells[2]["metadata"].pop("jupyter"), "solution is open"),
        (lambda cells: cells.insert(2, cells[0]), "no solution follows"),
        (lambda cells: cells[2].update(source="x = 1"), "no hole"),
    ],
)
def test_a_broken_pair_is_named(tmp_path, capsys, change, told):
    path = notebook(tmp_path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document["cells"])
    path.write_text(json.dumps(document), encoding="utf-8")
    assert stubs.main(["--check", str(path)]) == 1
    out = capsys.readouterr().out
    assert told in out and "demo.ipynb, cell" in out
