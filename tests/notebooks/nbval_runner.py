"""Run a notebook with nbval in a process of its own, and make copies of it that must go red."""

import ast
import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
MARK = "# NBVAL_CHECK_OUTPUT"
SENT_ON = ("MEDIMGEN_", "LC_", "http", "HTTP", "no_", "NO_", "all_", "ALL_", "SYSTEMROOT", "TEMP", "TMP")
SENT_ON_EXACTLY = ("PATH", "HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "LANG", "CI", "COMSPEC", "PATHEXT")


@dataclass(frozen=True)
class Run:
    """What nbval said: exit code, everything printed, and the outcome of each code cell by its number."""

    code: int
    text: str
    cells: dict[int, str]

    def red(self) -> set[int]:
        """Numbers of the code cells that failed."""
        return {number for number, outcome in self.cells.items() if outcome != "passed"}


def clean_environment(tier: str, scratch: Path) -> dict[str, str]:
    """Environment of a course kernel: one thread, the tier, no user settings of IPython or pytest."""
    kept = {k: v for k, v in os.environ.items() if k in SENT_ON_EXACTLY or k.startswith(SENT_ON)}
    if os.environ.get("MEDIMGEN_OFFLINE") == "guard":
        kept["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MEDIMGEN_TIER": tier}
    return kept | threads | {"IPYTHONDIR": str(scratch / "ipython"), "PYTHONHASHSEED": "0"}


def run_nbval(notebook: nbformat.NotebookNode, folder: Path, tier: str, scratch: Path, timeout: int = 600) -> Run:
    """Run a notebook with `pytest --nbval-lax` as if it lay in `folder`; `scratch` is an empty folder."""
    target, report = scratch / "notebook.ipynb", scratch / "cells.json"
    nbformat.write(notebook, target)
    report.unlink(missing_ok=True)
    (scratch / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = clean_environment(tier, scratch) | {"NBVAL_CWD": str(folder), "NBVAL_REPORT": str(report)}
    old = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([*([old] if old else []), str(HERE)])
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "-p", "nbval_patient"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--color=no", f"--nbval-cell-timeout={timeout}"]
    done = subprocess.run(
        [*command, "-c", "pytest.ini", "--rootdir", ".", target.name],
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout + 120,
        check=False,
    )
    cells = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return Run(done.returncode, done.stdout + done.stderr, {int(k): v for k, v in cells.items()})


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, as nbval counts them."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def verdict(notebook: nbformat.NotebookNode, run: Run) -> str:
    """Empty if the run was green and ran every code cell, else what was wrong with it."""
    wanted = len(code_cells(notebook))
    if wanted == 0:
        return "the notebook has no code cell"
    if len(run.cells) != wanted:
        return f"{len(run.cells)} of {wanted} code cells ran\n{run.text}"
    return f"exit code {run.code}\n{run.text}" if run.code or run.red() else ""


def statements(source: str) -> list[ast.stmt]:
    """The top-level statements of a cell, IPython's own syntax translated."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(source)).body


def is_assertion(node: ast.AST) -> bool:
    """`assert ...`, or a call of something like `np.testing.assert_allclose(...)`."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return name.startswith("assert")
    return isinstance(node, ast.Assert)


def numbers(statement: ast.stmt) -> list[ast.Constant]:
    """The numbers written inside the assertions of a statement, in order."""
    found = [n for node in ast.walk(statement) if is_assertion(node) for n in ast.walk(node)]
    unique = {id(n): n for n in found if isinstance(n, ast.Constant) and type(n.value) in (int, float)}
    return list(unique.values())


def changed(statement: ast.stmt) -> Iterator[str]:
    """Source of the statement with one asserted number changed, for each number: far up, then far down."""
    for place in range(len(numbers(statement))):
        for sign in (1, -1):
            mutant = copy.deepcopy(statement)
            number = numbers(mutant)[place]
            number.value = sign * (abs(number.value) * 10 + 1009)
            yield ast.unparse(ast.fix_missing_locations(mutant))


def nudge(text: str) -> str:
    """The text with its last digit changed."""
    return re.sub(r"(\d)(?=\D*$)", lambda m: str((int(m.group()) + 1) % 10), text)


def nudge_outputs(cell: nbformat.NotebookNode) -> bool:
    """Change one digit of a kept output in place; False if it holds none."""
    for output in cell.outputs:
        holder, key = (output, "text") if "text" in output else (output.get("data", {}), "text/plain")
        if key in holder and (new := nudge(holder[key])) != holder[key]:
            holder[key] = new
            return True
    return False


@dataclass(frozen=True)
class Mutant:
    """A copy of a notebook with wrong numbers, and where it must go red.

    groups: for each asserted statement or kept output, the code cells of which at least one must fail.
    """

    notebook: nbformat.NotebookNode
    groups: dict[str, set[int]]

    def complaints(self, run: Run) -> list[str]:
        """What the run failed to notice, and cells that failed although nothing in them was changed."""
        missed = [f"not noticed: {what}" for what, cells in self.groups.items() if not cells & run.red()]
        expected = set().union(*self.groups.values())
        return missed + [f"code cell {n} failed unchanged\n{run.text}" for n in sorted(run.red() - expected)]


def mutate(notebook: nbformat.NotebookNode) -> Mutant:
    """Change every asserted number of a notebook, one at a time, all in one run with the notebook itself.

    Each cell stands as it is, and must pass. After it come cells that repeat its assertions with one number changed,
    so that the cells that follow still find what they need; and, if it keeps an output, the cell once more with one
    digit of that changed.
    """
    new, groups, count = [], {}, 0
    for cell in notebook.cells:
        new.append(copy.deepcopy(cell))
        if cell.cell_type != "code":
            continue
        count += 1
        wrong = nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata, outputs=copy.deepcopy(cell.outputs))
        if MARK in cell.source and nudge_outputs(wrong):
            groups[f"output of code cell {count - 1}"] = {count}
            new.append(wrong)
            count += 1
        for statement in statements(cell.source):
            mutants = [nbformat.v4.new_code_cell(source) for source in changed(statement)]
            if mutants:
                groups[ast.unparse(statement)] = set(range(count, count + len(mutants)))
            count += len(mutants)
            new += mutants
    whole = nbformat.v4.new_notebook(cells=new, metadata=notebook.metadata)
    return Mutant(whole, groups)
