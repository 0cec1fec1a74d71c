"""Slides: cut from the notebooks by their metadata, without folded cells and without a load from another host."""

import sys

import make_slides
import nbformat
import pytest

from medimgen.paths import ROOT

sys.path.insert(0, str(ROOT / "tests" / "site"))
import pages

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KINDS = {"slide", "subslide", "fragment", "notes", "skip"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stand-in for reveal.js, so that the test needs no network."""
    folder = tmp_path / "program"
    for name in ("dist/reveal.css", "dist/reveal.js", "dist/theme/serif.css", "plugin/notes/notes.js"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("/* a stand-in */\n", encoding="utf-8")
    monkeypatch.setattr(make_slides, "fetch", lambda id: folder)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_says_whether_it_is_a_slide(path):
    cells = nbformat.read(path, as_version=4).cells
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in cells]
    assert set(kinds) <= KINDS and kinds[0] == "slide" and kinds.count("slide") >= 5
    for cell, kind in zip(cells, kinds, strict=True):
        if {"beyond", "solution"} & set(cell.metadata.get("tags", [])):
            assert kind == "skip", f"{cell.id}: folded cells and solutions are no slides"


def test_slides_load_nothing_from_elsewhere_and_show_what_they_should(program, tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    drawn = next(c for c in notebook.cells if c.metadata.get("mystnb", {}).get("image") and "tags" not in c.metadata)
    data = {"image/png": PIXEL, "text/plain": "a figure"}
    drawn.outputs = [nbformat.v4.new_output("display_data", data=data)]
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/html": "<p>drawn beforehand</p>"}
    core = [c for c in notebook.cells if c.cell_type == "code" and "tags" not in c.metadata]
    core[1].outputs = [nbformat.v4.new_output("display_data", data=widget)]
    nbformat.write(notebook, tmp_path / "00-a.ipynb")
    written = make_slides.make([tmp_path / "00-a.ipynb"], tmp_path / "out", run=False)
    assert [path.name for path in written] == ["00-a.html", "index.html"]
    assert pages.external_loads(tmp_path / "out") == []
    assert pages.broken_links(tmp_path / "out") == []
    page = pages.soup(written[0])
    assert len(page.select("section")) > 20 and page.html["lang"] == "en"
    assert page.title.string.startswith("Meet the films")
    text = page.get_text()
    assert "drawn beforehand" in text and "Not a medical device" in text
    assert "# hole:" not in text and 'risky), "of"' not in text, "no solution, no folded cell"
    assert "Beyond the core path" not in text, "slides fold nothing"
    assert [img["alt"] for img in page.select("section img")] == [drawn.metadata["mystnb"]["image"]["alt"]]


def test_a_short_question_and_its_code_share_a_slide():
    def cell(made, source, kind="subslide"):
        return made(source, metadata={"slideshow": {"slide_type": kind}})

    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [cell(text, "# A title", "slide"), cell(text, "Which?"), cell(code, "1 + 1"), cell(text, "long " * 100)]
    cells += [cell(code, "2"), cell(text, "And?"), cell(code, "folded", "skip"), cell(code, "3"), cell(text, "Why?")]
    made = make_slides.shown(nbformat.v4.new_notebook(cells=[*cells, cell(code, "0\n" * 30)])).cells
    fragments = [c.source for c in made if c.metadata["slideshow"]["slide_type"] == "fragment"]
    assert fragments == ["1 + 1"]
    assert cells[2].metadata["slideshow"]["slide_type"] == "subslide", "the notebook itself stays as it is"


def test_two_tables_get_a_slide_of_their_own_after_their_code(program, tmp_path):
    def shows(number):
        tables = [nbformat.v4.new_output("display_data", data={"text/html": f"<table>{k}</table>"}) for k in "AB"]
        slide = {"slideshow": {"slide_type": "subslide"}}
        return nbformat.v4.new_code_cell("verdicts", outputs=tables[:number], metadata=slide)

    head = nbformat.v4.new_markdown_cell("# A title", metadata={"slideshow": {"slide_type": "slide"}})
    for number, slides in ((1, 1), (2, 2)):  # the heading and the code share one
        page = make_slides.slides(nbformat.v4.new_notebook(cells=[head, shows(number)]))
        (tmp_path / "a.html").write_text(page, encoding="utf-8")
        found = pages.soup(tmp_path / "a.html").select("section section")
        assert len(found) == slides and len(found[-1].select("table")) == number
        assert bool(found[-1].select(".jp-InputArea")) == (number == 1), "tables alone have no box of code above them"


def test_a_theme_that_loads_from_elsewhere_is_noticed(program, tmp_path):
    (program / "dist/theme/serif.css").write_text("@import url(https://fonts.example.org/a.css);", encoding="utf-8")
    make_slides.make(NOTEBOOKS[:1], tmp_path / "out", run=False)
    assert len(pages.external_loads(tmp_path / "out")) == 1


def test_without_reveal_the_reader_is_told(monkeypatch, capsys, tmp_path):
    def refuse(id):
        raise make_slides.CourseError(f"{id}: could not be had", next="install Node.js")

    monkeypatch.setattr(make_slides, "fetch", refuse)
    assert make_slides.main(["--output", str(tmp_path / "out"), "--without-running"]) == 1
    assert "Next: install Node.js" in capsys.readouterr().err
