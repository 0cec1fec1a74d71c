"""The three editions of the course site, cut from one set of sources (`make book EDITION=instructor`).

    student      exercises with their stubs; no solution and no instructor note is in any file of the site
    solution     the same, with every solution folded below its exercise
    instructor   the same as `solution`, with the instructor notes open in the lessons

What is cut is marked in the sources, by title or by tag, and in no other way:

    ```{dropdown} Solution            a block of a page or of a notebook's text, up to the fence that closes it
    ```{dropdown} Instructor notes    the same
    a cell tagged `solution`          student: it runs, so that later cells work, and is not rendered
    a cell tagged `instructor-note`   only the instructor edition has it

`prepare` copies what the site is built from and cuts the copy. So what an edition lacks is not hidden in its pages:
it was never given to the program that makes them.
"""

import json
import re
import shutil
from pathlib import Path

import yaml

from medimgen.errors import CourseError

EDITIONS = ("student", "solution", "instructor")
SOLUTION, NOTE = "Solution", "Instructor notes"
OPENING = re.compile(rf"^(?P<fence>`{{3,}}|:{{3,}})\{{dropdown\}} (?P<title>{SOLUTION}|{NOTE})[ \t]*$")
ALMOST = re.compile(r"^\s*[`~:]{3,}\s*\{(?:[\w-]+\}\s*)?(?:instructor|solution)", re.IGNORECASE)
FOLDERS, FILES = ("lessons", "notebooks", "fig"), ("_config.yml", "_toc.yml", "*.md", "*.ipynb")
MAKE = "`make book EDITION=solution`"
ELSEWHERE = f"*The solution stands in the site's solution edition ({MAKE}).*"
ELSEWHERE_CELL = (
    f"*The solution stands folded in the notebook itself, and in the site's solution edition ({MAKE}). "
    "What is shown below was run with it.*"
)
BANNER = {"instructor": "Instructor edition: not to be handed out."}


def cut(text: str, edition: str, where: str = "a page") -> tuple[str, list[str]]:
    """The text for an edition, and the blocks that were taken out of it.

    Raises CourseError for a marked block that is never closed, and for a fence that looks like a mark and is none:
    it would put a note into the wrong hands without a word.
    """
    lines, kept, taken = text.split("\n"), [], []
    number = 0
    while number < len(lines):
        line = lines[number]
        opening = OPENING.match(line)
        if opening is None:
            if ALMOST.match(line):
                next = f"write ```{{dropdown}} {SOLUTION} or ```{{dropdown}} {NOTE}, at the start of the line"
                raise CourseError(f"{where}, line {number + 1}: {line.strip()!r} is nearly a mark", next=next)
            kept.append(line)
            number += 1
            continue
        end = _end(lines, number, opening["fence"], where)
        block, title = lines[number : end + 1], opening["title"]
        if edition == "student" or (title == NOTE and edition != "instructor"):
            taken.append("\n".join(block))
            kept += [ELSEWHERE] if title == SOLUTION else []
        else:
            kept += [block[0], *[":open:"] * (title == NOTE), *block[1:]]
        number = end + 1
    return "\n".join(kept), taken


def _end(lines: list[str], start: int, fence: str, where: str) -> int:
    closing = re.compile(rf"^{re.escape(fence)}{re.escape(fence[0])}*[ \t]*$")
    for number in range(start + 1, len(lines)):
        if closing.match(lines[number]):
            return number
    raise CourseError(f"{where}, line {start + 1}: the block is never closed", next=f"end it with a line {fence}")


def cut_notebook(notebook: dict, edition: str, where: str = "a notebook") -> list[str]:
    """Cut a notebook, as JSON gives it, in place; what was taken out of its pages."""
    cells, taken = [], []
    for cell in notebook["cells"]:
        tags, source = cell["metadata"].setdefault("tags", []), "".join(cell["source"])
        if "instructor-note" in tags and edition != "instructor":
            taken.append(source)
            continue
        if cell["cell_type"] == "markdown":
            cell["source"], gone = cut(source, edition, f"{where}, cell {cell['id']}")
            taken += gone
        cells.append(cell)
        if "solution" in tags and edition == "student" and "remove-cell" not in tags:
            taken.append(source)
            tags.append("remove-cell")  # MyST-NB runs it and renders nothing
            told = {"cell_type": "markdown", "id": f"{cell['id']}-elsewhere"[-64:], "metadata": {}}
            cells.append(told | {"source": ELSEWHERE_CELL})
    notebook["cells"] = cells
    return taken


def prepare(source: Path, into: Path, edition: str) -> Path:
    """Copy what the site is built from into a new folder, cut for an edition; returns the folder.

    Raises CourseError for an edition that does not exist and for a mark that is not whole, naming the page.
    """
    if edition not in EDITIONS:
        raise CourseError(f"no edition is called {edition!r}", next=f"use one of {', '.join(EDITIONS)}")
    into.mkdir(parents=True)
    for folder in FOLDERS:
        if (source / folder).is_dir():
            shutil.copytree(source / folder, into / folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for file in {file for pattern in FILES for file in source.glob(pattern)}:
        shutil.copy(file, into)
    for file in sorted(into.rglob("*.md")):
        text, _ = cut(file.read_text(encoding="utf-8"), edition, file.relative_to(into).as_posix())
        file.write_text(text, encoding="utf-8", newline="\n")
    for file in sorted(into.rglob("*.ipynb")):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        cut_notebook(notebook, edition, file.relative_to(into).as_posix())
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    _say_which(into / "_config.yml", edition)
    return into


def _say_which(config: Path, edition: str) -> None:
    """Put a line on top of every page of the two editions that are not for learners."""
    if edition in BANNER:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        options = settings.setdefault("sphinx", {}).setdefault("config", {}).setdefault("html_theme_options", {})
        options["announcement"] = BANNER[edition]
        config.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8", newline="\n")


def withheld(source: Path, edition: str = "student") -> dict[str, list[str]]:
    """What each page of the lessons and notebooks keeps back in an edition; pages that keep nothing are left out."""
    found = {}
    for file in sorted([*source.glob("lessons/*.md"), *source.glob("notebooks/**/*.ipynb")]):
        text = file.read_text(encoding="utf-8")
        name = file.relative_to(source).as_posix()
        taken = (
            cut_notebook(json.loads(text), edition, name) if file.suffix == ".ipynb" else cut(text, edition, name)[1]
        )
        found |= {name: taken} if taken else {}
    return found
