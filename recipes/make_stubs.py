"""Cut each exercise's stub from its solution, so that the two can never drift apart.

    python recipes/make_stubs.py [notebook ...]            rewrite the stubs (all of notebooks/ by default)
    python recipes/make_stubs.py --check [notebook ...]    exit 1, naming the notebooks whose stubs are stale

An exercise is two code cells, one after the other: the stub (tag `exercise`), which the learner edits, and
the solution (tags `solution` and `hide-cell`, metadata `jupyter: {source_hidden: true}`). Both carry
`medimgen: {exercise: "00-1"}` as metadata. The solution is the source. What is cut from it is marked there:

    area = width * height  # hole: width times height       ->   area = ...  # width times height
    return auc(y, area)  # hole: the AUC of the area        ->   return ...  # the AUC of the area
    ax.plot(x, y)  # hole: draw it                          ->   ...  # draw it
    # hole: keep the two groups                             ->   ...  # keep the two groups
    (any lines)
    # end hole
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

from medimgen.errors import CourseError
from medimgen.paths import ROOT

HOLE = re.compile(r"^(?P<indent>\s*)(?P<body>.*?)\s*# hole:\s*(?P<hint>.*\S)\s*$")
END = re.compile(r"^\s*# end hole\s*$")


def cut(solution: str) -> str:
    """The stub of a solution: every hole becomes `...` with its hint as a comment."""
    lines, block = [], None
    for line in solution.split("\n"):
        if END.match(line):
            if block is None:
                raise CourseError("`# end hole` without a `# hole:` before it", next="add the first line")
            block = None
        elif block is not None:
            continue
        elif hole := HOLE.match(line):
            lines.append(f"{hole['indent']}{_blank(hole['body'])}  # {hole['hint']}")
            block = None if hole["body"] else line
        else:
            lines.append(line)
    if block is not None:
        raise CourseError(f"the block {block.strip()!r} has no `# end hole`", next="add it after the last line")
    if not any(HOLE.match(line) for line in solution.split("\n")):
        raise CourseError("the solution has no hole", next="mark what the learner writes with `# hole: hint`")
    return "\n".join(lines)


def _blank(statement: str) -> str:
    """A one-line statement with its value replaced by `...`."""
    if not statement:
        return "..."
    try:
        (node,) = ast.parse(f"def f():\n {statement}").body[0].body
    except (SyntaxError, ValueError):
        raise CourseError(
            f"{statement!r} is not one whole statement",
            next="put it between `# hole: hint` and `# end hole` lines",
        ) from None
    if isinstance(node, ast.Return):
        return "return ..."
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return "..."  # also for `x += 1`: `x += ...` would stop a notebook that is run with its stubs
    start = node.value.col_offset - 1  # bytes; the line was indented by one
    target = statement.encode()[:start].decode().rstrip("( ")
    many = isinstance(node, ast.Assign) and isinstance(node.targets[-1], ast.Tuple | ast.List)
    return f"{target} {', '.join(['...'] * len(node.targets[-1].elts)) if many else '...'}"


def stale(notebook: dict, name: str) -> list[tuple[dict, str]]:
    """(stub cell, its new source) for each exercise whose stub is not the solution with holes."""
    found, cells = [], notebook["cells"]
    for number, cell in enumerate(cells):
        exercise = cell["metadata"].get("medimgen", {}).get("exercise")
        place = f"{name}, cell {number + 1} (exercise {exercise})"
        tags = set(cell["metadata"].get("tags", []))
        if "exercise" in tags and not _is_solution(cells[number + 1 : number + 2], exercise):
            raise CourseError(f"{place}: no solution follows", next="put the solution cell directly after the stub")
        if "solution" not in tags:
            continue
        stub = cells[number - 1] if number else None
        if stub is None or not _is(stub, "exercise", exercise):
            raise CourseError(f"{place}: no stub before it", next="add an empty cell tagged `exercise`, same id")
        if "hide-cell" not in tags or not cell["metadata"].get("jupyter", {}).get("source_hidden"):
            raise CourseError(f"{place}: the solution is open", next="tag it hide-cell, set jupyter.source_hidden")
        try:
            source = cut("".join(cell["source"]))
        except CourseError as error:
            raise CourseError(f"{place}: {error.what}", next=error.next) from None
        if "".join(stub["source"]) != source:
            found.append((stub, source))
    return found


def _is_solution(cells: list[dict], exercise: str | None) -> bool:
    return bool(cells) and _is(cells[0], "solution", exercise)


def _is(cell: dict, tag: str, exercise: str | None) -> bool:
    metadata = cell["metadata"]
    same = exercise is not None and metadata.get("medimgen", {}).get("exercise") == exercise
    return same and cell["cell_type"] == "code" and tag in metadata.get("tags", [])


def process(path: Path, check: bool) -> bool:
    """Whether the notebook's stubs were stale; they are rewritten unless `check`. No other byte changes."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = stale(notebook, path.name)
    for stub, source in found:
        stub["source"] = source.splitlines(keepends=True) if isinstance(stub["source"], list) else source
    if found and not check:
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")
    return bool(found)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Cut exercise stubs from solutions.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a stub is stale")
    parser.add_argument("notebooks", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted((ROOT / "notebooks").rglob("*.ipynb"))
    try:
        changed = [path for path in paths if process(path, options.check)]
    except CourseError as error:
        print(error)
        return 1
    for path in changed:
        print(f"{path.name}:", "stale; run `python recipes/make_stubs.py`" if options.check else "rewritten")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
