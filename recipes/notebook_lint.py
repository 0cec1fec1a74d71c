"""The house rules for notebooks, checked: `python recipes/notebook_lint.py [--fix] FILE...`.

A course notebook is, from top to bottom (rule ids in brackets; `--fix` mends those marked *):

- one title cell: `# Title`, then the badge line, exactly as `badge_line` renders the metadata
  `{"medimgen": {"seconds": 12, "peak_mb": 600, "tiers": ["pocket", "full"], "offline": true}}` [title, badge];
  `make badges` writes both;
- `## What you will be able to do` with three bullets [goals];
- the first code cell imports, and no other cell does [imports];
- four or more sections of your own, `## ...`: predict, run, read what came out [beats];
- `## Break it`, `## Your turn`, `## Recap`, `## Next`, in this order [ending];
- under "Your turn" a stub tagged `exercise`, then its solution tagged `solution` and `hide-cell`, folded
  (`"jupyter": {"source_hidden": true}`), both with `{"medimgen": {"exercise": "00-1"}}`; the check calls `check(...)`
  in a cell after them [exercise].

Everywhere: 25 code cells or fewer [count]; 12 lines a cell or fewer [length]; prose before each code cell, except
right after imports, an exercise, its solution or a check [prose]; no output and no execution count in git, except
in cells marked `# NBVAL_CHECK_OUTPUT`, which keep small exact outputs, the execution count 1 and the metadata
`"keep_output": true` [outputs*]; no path of one machine [paths]; a cell that draws has an alternative text and a
caption, `"mystnb": {"image": {"alt": ...}, "figure": {"caption": ...}}` [figure]; a cell with a widget also moves
it from code, `slider.value = ...` or `button.click()` [widget]; nothing is skipped in tests [skip]; a number is
asserted, or kept as an output, so that a test can fail [number]; kernel `python3` and no machine's version
[kernel*]; every cell has its own id [ids]; valid notebook format 4.5, one newline at the end [format*].
"""

import argparse
import ast
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat

MARK = "# NBVAL_CHECK_OUTPUT"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
ENDING = ("Break it", "Your turn", "Recap", "Next")
GOALS = "What you will be able to do"
MOST_CELLS, MOST_LINES, FEWEST_BEATS = 25, 12, 4
DRAWS = {"plot", "imshow", "hist", "bar", "barh", "scatter", "subplots", "subplot_mosaic", "figure", "boxplot"}
MACHINE = re.compile(r"(?<![\w./~-])/(?:home|Users|root|work|tmp|mnt|srv|var)/|(?<!\w)[A-Za-z]:\\")
MOVES = re.compile(r"\.(?:value|index)\s*=(?!=)|\.click\(\)|\.set_state\(")

Notebook = nbformat.NotebookNode
RULES: dict[str, Callable[[Notebook, str], Iterator[str]]] = {}


def rule(function: Callable) -> Callable:
    """Enter a function in RULES under its name without `check_`; it yields one sentence a fault."""
    RULES[function.__name__.removeprefix("check_")] = function
    return function


def badge_line(facts: dict) -> str:
    """The line under a notebook's title: `**12 s · 0.6 GB · pocket and full tier · offline**`.

    facts: `seconds` (whole), `peak_mb` (10^6 bytes), `tiers` (list) and `offline` (bool).
    """
    tiers = " and ".join(facts["tiers"]) + " tier"
    online = "offline" if facts.get("offline", True) else "needs the network"
    return f"**{facts['seconds']} s · {facts['peak_mb'] / 1000:.1f} GB · {tiers} · {online}**"


def code_cells(notebook: Notebook) -> list[Notebook]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tree(source: str) -> ast.Module:
    """Syntax tree of a cell; magics are left out, and a cell that is no Python gives an empty tree."""
    lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.parse("")


def is_import_cell(cell: Notebook) -> bool:
    """Whether a code cell holds imports and nothing else."""
    body = tree(cell.source).body
    return bool(body) and all(isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) for node in body)


def called(source: str) -> Iterator[tuple[str, str]]:
    """(owner, name) of each call in a cell: ("plt", "plot") for plt.plot(), ("", "check") for check()."""
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield getattr(node.func.value, "id", "?"), node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield "", node.func.id


def makes_widget(cell: Notebook) -> bool:
    """Whether a cell builds a widget of the course or of ipywidgets."""
    return any(owner in ("widgets", "ipywidgets") for owner, _ in called(cell.source))


def draws(cell: Notebook) -> bool:
    """Whether a cell makes a figure: a drawing call, a `show_*` helper (a quiz is words) or a widget."""
    names = {name for _, name in called(cell.source)} - {"show_quiz"}
    return makes_widget(cell) or bool(names & DRAWS) or any(name.startswith("show_") for name in names)


def is_check(cell: Notebook) -> bool:
    """Whether a cell calls `check(...)`."""
    return any(name == "check" for _, name in called(cell.source))


def tags(cell: Notebook) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def sections(notebook: Notebook) -> list[str]:
    """The second-level headings, in order."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [heading.strip() for heading in re.findall(r"^## (.+)$", prose, flags=re.MULTILINE)]


def where(notebook: Notebook, cell: Notebook) -> str:
    """ "code cell 3 (`x = 1`)", for messages."""
    number = next(i for i, other in enumerate(code_cells(notebook), start=1) if other is cell)
    first = cell.source.splitlines()[0] if cell.source else ""
    return f"code cell {number} (`{first[:50]}`)"


@rule
def check_format(notebook: Notebook, text: str) -> Iterator[str]:
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield "the file does not end with one newline"
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        yield f"notebook format {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5"
    try:
        nbformat.validate(json.loads(text))
    except nbformat.ValidationError as error:
        yield str(error).splitlines()[0]


@rule
def check_ids(notebook: Notebook, text: str) -> Iterator[str]:
    found = [cell.get("id") for cell in json.loads(text)["cells"]]
    if None in found or len(set(found)) != len(found):
        yield "a cell has no id, or two have the same"


@rule
def check_kernel(notebook: Notebook, text: str) -> Iterator[str]:
    if dict(notebook.metadata.get("kernelspec", {})) != KERNEL:
        yield f"kernelspec is not {json.dumps(KERNEL)}"
    if set(notebook.metadata.get("language_info", {})) - {"name"}:
        yield "language_info says more than the name: the version changes with the machine"


@rule
def check_title(notebook: Notebook, text: str) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell does not start with `# Title`"


@rule
def check_badge(notebook: Notebook, text: str) -> Iterator[str]:
    facts = notebook.metadata.get("medimgen", {})
    if missing := {"seconds", "peak_mb", "tiers", "offline"} - set(facts):
        yield f"metadata medimgen lacks {', '.join(sorted(missing))}: run `make badges`"
    elif not notebook.cells or badge_line(facts) not in notebook.cells[0].source.splitlines():
        yield f"the first cell lacks the line {badge_line(facts)}: run `make badges`"


@rule
def check_goals(notebook: Notebook, text: str) -> Iterator[str]:
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    part = re.search(rf"^## {GOALS}$(.*?)(?=^#|\Z)", prose, flags=re.MULTILINE | re.DOTALL)
    bullets = re.findall(r"^[-*] ", part.group(1), flags=re.MULTILINE) if part else []
    if len(bullets) != 3:
        yield f"`## {GOALS}` has {len(bullets)} bullets, not 3"


@rule
def check_imports(notebook: Notebook, text: str) -> Iterator[str]:
    cells = code_cells(notebook)
    if not cells or not is_import_cell(cells[0]):
        yield "the first code cell is not the import cell"
    for cell in cells[1:]:
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree(cell.source).body):
            yield f"{where(notebook, cell)} imports: move it to the import cell"


@rule
def check_beats(notebook: Notebook, text: str) -> Iterator[str]:
    beats = [s for s in sections(notebook) if s not in (GOALS, *ENDING)]
    if len(beats) < FEWEST_BEATS:
        yield f"{len(beats)} sections between the goals and `## Break it`, fewer than {FEWEST_BEATS}"


@rule
def check_ending(notebook: Notebook, text: str) -> Iterator[str]:
    found = sections(notebook)
    if tuple(found[-4:]) != ENDING or any(found.count(name) != 1 for name in (GOALS, *ENDING)):
        yield f"the last sections are not {', '.join(ENDING)}, once each"
    elif found[0] != GOALS:
        yield f"the first section is not `## {GOALS}`"


@rule
def check_exercise(notebook: Notebook, text: str) -> Iterator[str]:
    cells = notebook.cells
    stubs = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    if not stubs:
        yield "no cell is tagged `exercise`"
    for i in stubs:
        name = cells[i].metadata.get("medimgen", {}).get("exercise")
        solution = cells[i + 1] if i + 1 < len(cells) else nbformat.v4.new_code_cell()
        if not name:
            yield f"{where(notebook, cells[i])} has no id in medimgen.exercise"
        if not {"solution", "hide-cell"} <= set(tags(solution)):
            yield f"exercise {name} is not followed by a cell tagged `solution` and `hide-cell`"
        if solution.metadata.get("medimgen", {}).get("exercise") != name:
            yield f"the solution of exercise {name} carries another id"
        if not solution.metadata.get("jupyter", {}).get("source_hidden"):
            yield f"the solution of exercise {name} is not folded (jupyter.source_hidden)"
        if not any(is_check(cell) for cell in cells[i + 2 :] if cell.cell_type == "code"):
            yield f"nothing after exercise {name} calls check(...)"


@rule
def check_count(notebook: Notebook, text: str) -> Iterator[str]:
    if (count := len(code_cells(notebook))) > MOST_CELLS:
        yield f"{count} code cells, more than {MOST_CELLS}"


@rule
def check_length(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in code_cells(notebook):
        if (lines := len(cell.source.splitlines())) > MOST_LINES:
            yield f"{where(notebook, cell)} has {lines} lines, more than {MOST_LINES}"


@rule
def check_prose(notebook: Notebook, text: str) -> Iterator[str]:
    for before, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
        if cell.cell_type != "code" or (before is not None and before.cell_type == "markdown"):
            continue
        excused = before is not None and (
            is_import_cell(before) or is_check(before) or {"exercise", "solution"} & set(tags(before))
        )
        if not excused:
            yield f"{where(notebook, cell)} has no prose before it"


@rule
def check_outputs(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in code_cells(notebook):
        if MARK not in cell.source.splitlines():
            if cell.outputs or cell.execution_count is not None or "keep_output" in cell.metadata:
                yield f"{where(notebook, cell)} keeps its output or count: run with --fix"
        elif not cell.outputs:
            yield f"{where(notebook, cell)} is marked {MARK} and has no output: run it, then save"
        elif cell.execution_count != 1 or cell.metadata.get("keep_output") is not True:
            yield f"{where(notebook, cell)} needs execution count 1 and keep_output: run with --fix"


@rule
def check_paths(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in notebook.cells:
        if match := MACHINE.search(cell.source + json.dumps(cell.get("outputs", []))):
            yield f"a cell holds a path of one machine: {match.group()}"


@rule
def check_figure(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in code_cells(notebook):
        about = cell.metadata.get("mystnb", {})
        alt, caption = about.get("image", {}).get("alt", ""), about.get("figure", {}).get("caption", "")
        if draws(cell) and "exercise" not in tags(cell) and not (alt.strip() and caption.strip()):
            yield f"{where(notebook, cell)} draws without mystnb.image.alt and mystnb.figure.caption"


@rule
def check_widget(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in code_cells(notebook):
        if makes_widget(cell) and not MOVES.search(cell.source):
            yield f"{where(notebook, cell)} has a widget and does not move it from code"


@rule
def check_skip(notebook: Notebook, text: str) -> Iterator[str]:
    for cell in code_cells(notebook):
        if "NBVAL_SKIP" in cell.source or {"nbval-skip", "skip-execution"} & set(tags(cell)):
            yield f"{where(notebook, cell)} is skipped in tests"


@rule
def check_number(notebook: Notebook, text: str) -> Iterator[str]:
    sources = [cell.source for cell in code_cells(notebook)]
    asserted = (node for source in sources for node in ast.walk(tree(source)) if isinstance(node, ast.Assert))
    if not any(re.search(r"\d", ast.unparse(node)) for node in asserted) and not any(MARK in s for s in sources):
        yield "no cell asserts a number and none keeps an output: a test could not fail"


def lint(text: str) -> list[tuple[str, str]]:
    """(rule id, sentence) for every fault in the text of a notebook file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbformat warns about missing ids; rule `ids` says it better
        try:
            notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
        except (ValueError, nbformat.ValidationError, AttributeError) as error:
            return [("format", f"no notebook: {error}")]
        return [(name, sentence) for name, check in RULES.items() for sentence in check(notebook, text)]


def fixed(text: str) -> str:
    """The text with outputs, execution counts, kernel metadata and the last newline put right."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in code_cells(notebook):
        if MARK in cell.source.splitlines():
            cell.execution_count, cell.metadata["keep_output"] = 1, True
            for output in cell.outputs:
                output.update({"execution_count": 1} if "execution_count" in output else {})
        else:
            cell.execution_count, cell.outputs = None, []
            cell.metadata.pop("keep_output", None)
        cell.metadata.pop("execution", None)
    notebook.metadata["kernelspec"] = KERNEL
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Check (and mend) the files named; 1 if faults remain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="mend what can be mended without thought")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    faults = 0
    for file in options.files:
        text = file.read_text(encoding="utf-8")
        if options.fix and (new := fixed(text)) != text:
            file.write_text(new, encoding="utf-8", newline="\n")
            text = new
        for name, sentence in lint(text):
            faults += 1
            print(f"{file.as_posix()}: [{name}] {sentence}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
