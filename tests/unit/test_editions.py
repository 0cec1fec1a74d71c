"""Editions: what is cut is cut, a mark that is nearly one stops the build, and no file of the site holds a note."""

import copy
import json
import shutil

import build_book
import editions
import pytest
import small_book
import yaml

from medimgen.errors import CourseError

NOTE, ANSWER = "Zzplantednote is for the teacher.", "Zzplantedanswer is for later."
PAGE = f"""# Page

````{{admonition}} Challenge
What is it?

```{{dropdown}} Solution
{ANSWER}
```
````

`````{{dropdown}} Instructor notes
{NOTE}

```python
a = 1
```
`````

Said to everybody.
"""


def code(source, *tags, **metadata):
    cell = {"cell_type": "code", "id": f"c{abs(hash(source)) % 10**6}", "metadata": {"tags": list(tags), **metadata}}
    return cell | {"source": source, "outputs": [], "execution_count": None}


def notebook():
    prose = {"cell_type": "markdown", "id": "m1", "metadata": {}, "source": "# Notebook\n\nFor everybody."}
    note = {"cell_type": "markdown", "id": "m2", "metadata": {"tags": ["instructor-note"]}, "source": NOTE}
    cells = [prose, note, code("answer = ...", "exercise"), code("answer = 'zzplantedanswer'", "solution", "hide-cell")]
    cells += [code("print(len(answer))")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize(
    ("edition", "note", "answer"), [("student", 0, 0), ("solution", 0, 1), ("instructor", 1, 1)], ids=editions.EDITIONS
)
def test_each_edition_of_a_page(edition, note, answer):
    text, taken = editions.cut(PAGE, edition)
    assert (text.count(NOTE), text.count(ANSWER)) == (note, answer)
    assert ("\n".join(taken).count(NOTE), "\n".join(taken).count(ANSWER)) == (1 - note, 1 - answer)
    assert "What is it?" in text and "Said to everybody." in text and text.count("a = 1") == note
    assert (editions.ELSEWHERE in text) is (not answer)
    assert text.count(":open:") == note


@pytest.mark.parametrize(
    "line",
    [
        "```{dropdown} Instructor note",
        "  ```{dropdown} Instructor notes",
        "```{dropdown} instructor notes",
        "````{admonition} Instructor notes",
        ":::{instructor}",
        "```{dropdown} Solutions",
        "```{solution} 1",
        "```{ dropdown } Instructor notes".replace("{ dropdown }", "{dropdown}  "),
    ],
)
def test_what_is_nearly_a_mark_stops(line):
    with pytest.raises(CourseError, match="a page, line 3: .* is nearly a mark"):
        editions.cut(f"# A\n\n{line}\nb\n{line.strip()[:3]}", "student")


def test_a_block_without_an_end_stops():
    with pytest.raises(CourseError, match="lessons/x.md, line 1: the block is never closed"):
        editions.cut("````{dropdown} Solution\nb\n```\n", "student", "lessons/x.md")


def test_each_edition_of_a_notebook():
    for edition, note, answer in (("student", 0, 0), ("solution", 0, 1), ("instructor", 1, 1)):
        made = copy.deepcopy(notebook())
        taken = editions.cut_notebook(made, edition)
        shown = [c["source"] for c in made["cells"] if "remove-cell" not in c["metadata"].get("tags", [])]
        assert "\n".join(shown).count(NOTE) == note
        assert any("zzplantedanswer" in s for s in shown) == answer
        assert len(taken) == 2 - note - answer
        assert sum("solution" in c["metadata"].get("tags", []) for c in made["cells"]) == 1, "it must still run"


def test_an_unknown_edition_names_the_known(tmp_path):
    with pytest.raises(CourseError, match="(?s)teacher.*student, solution, instructor"):
        editions.prepare(tmp_path, tmp_path / "to", "teacher")


def test_every_page_of_the_course_is_marked_whole():
    kept_back = editions.withheld(build_book.ROOT)
    notes = {name for name, blocks in kept_back.items() if any(editions.NOTE in b.split("\n")[0] for b in blocks)}
    assert {name.split("/")[1][:2] for name in notes} >= {"01", "02", "03", "04"}
    solved = {name.split("/")[1].split("-")[0] for name in kept_back if name.startswith("notebooks/0")}
    assert solved == {"00", "01", "01b", "02", "03", "04"}
    assert editions.withheld(build_book.ROOT, "instructor") == {}


def test_preparing_leaves_the_sources_and_says_which_edition(tmp_path):
    root = build_book.ROOT
    before = (root / "lessons/01-local-generative-ai.md").read_bytes()
    for edition in editions.EDITIONS:
        made = editions.prepare(root, tmp_path / edition, edition)
        options = yaml.safe_load((made / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
        assert options["html_theme_options"].get("announcement") == editions.BANNER.get(edition)
        assert {"_toc.yml", "lessons", "notebooks", "fig"} <= {path.name for path in made.iterdir()}
        assert (made / "lessons/references.bib").is_file() and (made / "lessons/assets/medimgen.css").is_file()
    assert (root / "lessons/01-local-generative-ai.md").read_bytes() == before


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small book under the course's own configuration: a page and a notebook with what is planted."""
    folder = tmp_path_factory.mktemp("book")
    small_book.configure(folder, ["lessons/page", "notebooks/00"], assets=True)
    (folder / "lessons").mkdir()
    shutil.copytree(build_book.ROOT / "lessons" / "assets", folder / "lessons" / "assets")
    (folder / "lessons" / "page.md").write_text(PAGE, encoding="utf-8")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "00.ipynb").write_text(json.dumps(notebook()), encoding="utf-8")
    return folder


def holding(site, word):
    """Names of the site's files that hold a word, in whatever case: pages, search index, sources, all of them."""
    files = (path for path in site.rglob("*") if path.is_file())
    return {path.relative_to(site).as_posix() for path in files if word in path.read_bytes().lower()}


@pytest.mark.parametrize("edition", editions.EDITIONS)
def test_no_file_of_the_site_holds_what_its_edition_lacks(source, edition, tmp_path):
    site = build_book.build(tmp_path, source, edition)
    shown = {"lessons/page.html", "notebooks/00.html", "searchindex.js"}
    assert holding(site, b"zzplantednot") == (shown if edition == "instructor" else set())
    # Sphinx does not index code, so the search index has the page's answer only
    assert holding(site, b"zzplantedansw") == (shown if edition != "student" else set())
    page = (site / "notebooks" / "00.html").read_text(encoding="utf-8")
    assert ">15\n" in page, "cells after the solution ran with it"
    assert (editions.BANNER["instructor"] in page) == (edition == "instructor")
