"""The core path of a lesson notebook: at most 40 minutes and 12 open code cells, none of which needs a folded one."""

import builtins
import copy
import json
import symtable

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from medimgen.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_CELLS, MOST_MINUTES = 12, 40
SAID = "**Beyond the core path:**"
PROMPT = "Beyond the core path: show"
GIVEN = {*dir(builtins), "display", "get_ipython", "__name__"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def minutes(cell):
    return cell["metadata"].get("medimgen", {}).get("minutes")


def code(cells, *without):
    """The code cells that carry none of these tags."""
    return [c for c in cells if c["cell_type"] == "code" and not tags(c) & set(without)]


def core(cells):
    """The open code cells: what a learner runs or writes within the 40 minutes."""
    return code(cells, "beyond", "solution")


def names(text):
    """(names that a cell gives, names that it takes as it runs, names that its functions take when they are called)."""
    table = symtable.symtable(TransformerManager().transform_cell(text), "cell", "exec")
    given = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    taken, called, todo = {s.get_name() for s in table.get_symbols() if s.is_referenced()}, set(), table.get_children()
    while todo:
        inner = todo.pop()
        called |= {s.get_name() for s in inner.get_symbols() if s.is_global() and s.is_referenced()}
        todo += inner.get_children()
    return given, taken, called


def faults(cells):
    """What is wrong with the core path, one sentence each."""
    open_cells, bad = core(cells), []
    if len(open_cells) > MOST_CELLS:
        bad.append(f"{len(open_cells)} open code cells")
    for cell in code(cells, "solution"):
        if not (isinstance(minutes(cell), int) and minutes(cell) > 0):
            bad.append(f"{cell['id']} has no minutes")
    if (total := sum(minutes(cell) or 0 for cell in open_cells)) > MOST_MINUTES:
        bad.append(f"{total} minutes")
    for cell in cells:
        folded = cell["metadata"].get("jupyter", {}).get("source_hidden") is True and "hide-cell" in tags(cell)
        if cell["cell_type"] == "code" and folded != bool(tags(cell) & {"beyond", "solution"}):
            bad.append(f"{cell['id']} is folded and on the core path, or neither")
        prompt = cell["metadata"].get("mystnb", {}).get("code_prompt_show")
        if (prompt == PROMPT) != ("beyond" in tags(cell)):
            bad.append(f"{cell['id']}: its fold does not say that it is beyond the core path")
        first = source(cell).partition("\n")[0]  # what JupyterLab shows of a folded cell
        marked = first.endswith("# Beyond the core path")
        if "solution" not in tags(cell) and marked != ("beyond" in tags(cell)):
            bad.append(f"{cell['id']}: JupyterLab does not say that it is beyond the core path")
    return bad + lost(cells) + unsaid(cells, total)


def lost(cells):
    """Names that an open cell takes and only a folded one gives. Solutions count: an exercise ends in one."""
    known, bad, later = set(GIVEN), [], {}
    for cell in code(cells, "beyond"):
        given, taken, called = names(source(cell))
        bad += [f"{cell['id']} needs {name}" for name in sorted(taken - known - given)]
        known |= given
        later |= dict.fromkeys(called, cell["id"])
    return bad + [f"{later[name]} needs {name}" for name in sorted(later.keys() - known)]


def unsaid(cells, total):
    """The reader is told once, right before the first folded cell, with the minutes that the metadata add up to."""
    first = next((i for i, cell in enumerate(cells) if "beyond" in tags(cell)), None)
    told = [i for i, cell in enumerate(cells) if SAID in source(cell)]
    if first is None or told != [first - 1] or f"{total} minutes" not in source(cells[first - 1]).split(SAID)[1]:
        return [f"no sentence before the first folded cell, or not with {total} minutes"]
    return []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_core_path(path):
    cells = read(path)
    assert faults(cells) == []
    exercises = [c for c in core(cells) if "exercise" in tags(c)]
    checks = [c for c in core(cells) if "check(" in source(c)]
    assert exercises and len(checks) >= len(exercises), "something to write, and its check, within the core path"


def test_there_are_six():
    assert [path.name.split("-")[0] for path in NOTEBOOKS] == ["00", "01", "01b", "02", "03", "04"]


def opened(cells):
    for cell in code(cells, "solution"):
        cell["metadata"].pop("tags", None)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (opened, "open code cells"),
        (lambda cells: core(cells)[3]["metadata"]["medimgen"].update(minutes=30), "minutes"),
        (lambda cells: core(cells)[3]["metadata"]["medimgen"].pop("minutes"), "has no minutes"),
        (
            lambda cells: core(cells)[3]["metadata"].update(jupyter={"source_hidden": True}, tags=["hide-cell"]),
            "folded",
        ),
        (lambda cells: core(cells)[1]["metadata"].update(tags=["beyond", "hide-cell"]), "needs"),
        (lambda cells: cells[6].update(source=source(cells[6]).replace("40 minutes", "20 minutes")), "no sentence"),
    ],
    ids=["too many", "too long", "no minutes", "folded", "needed later", "sentence"],
)
def test_a_spoilt_core_path_is_noticed(spoil, told):
    cells = copy.deepcopy(read(ROOT / "notebooks" / "02-prompts-and-balance.ipynb"))
    cells = copy.deepcopy(read(NOTEBOOKS[0])) if told == "no sentence" else cells
    spoil(cells)
    assert any(told in line for line in faults(cells)), faults(cells)


def test_names_see_into_functions_and_magics():
    given, taken, called = names("def f(a):\n    b = a\n    return c + b\nx = !ls {folder}\nx += y")
    assert {"f", "x"} <= given and "y" in taken and called == {"c"}
