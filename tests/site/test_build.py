"""The builder itself, on tiny books in a temporary folder: it fails when it must, and shows HTML before widgets."""

import json

import build_book
import pages
import pytest
import yaml

FALLBACK = "<p>pictures drawn beforehand</p>"
WIDGET = {
    "application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "0"},
    "text/html": FALLBACK,
    "text/plain": "Slider()",
}


@pytest.fixture
def book(tmp_path):
    """A book of one notebook under the course's own configuration; returns a function that builds it."""

    def build(source):
        config = yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
        config["html"].pop("favicon")
        options = config["sphinx"]["config"]
        for key in ("html_static_path", "html_css_files", "bibtex_bibfiles"):
            options[key] = []
        options["extensions"].remove("sphinxcontrib.bibtex")
        for key in ("bibtex_bibfiles", "bibtex_reference_style", "html_additional_pages", "html_js_files"):
            options.pop(key)
        options["html_theme_options"].pop("logo")
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n", encoding="utf-8")
        cells = [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Page"},
            {"cell_type": "code", "id": "b", "metadata": {}, "source": source, "outputs": [], "execution_count": None},
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (tmp_path / "page.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        return build_book.build(tmp_path, tmp_path)

    return build


def test_html_wins_over_an_empty_widget(book):
    site = book(f"from IPython.display import display\ndisplay({WIDGET!r}, raw=True)")
    shown = pages.soup(site / "page.html").select_one("div.cell_output")
    assert FALLBACK in str(shown)
    assert "widget-view+json" not in str(shown)
    assert pages.external_loads(site) == []


def test_a_widget_of_ipywidgets_brings_no_script_from_another_host(book):
    site = book("import ipywidgets\nslider = ipywidgets.IntSlider()\nslider")
    assert pages.external_loads(site) == []


def test_a_notebook_that_is_not_run_shows_its_quiz(tmp_path):
    config = yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["exclude_patterns"] == [f"{build_book.NOT_RUN}/*"]
    other = {"cell_type": "code", "source": ["1 + 1"], "outputs": []}
    asks = {"cell_type": "code", "source": ['show_quiz("pretest")'], "outputs": []}
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"cells": [other, asks]}), encoding="utf-8")
    build_book.show_quizzes(tmp_path)
    kept, shown = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert kept == other
    assert shown["outputs"][0]["data"]["text/html"].startswith('<section class="medimgen-quiz"')


def test_a_crashing_notebook_fails_the_build(book, capfd):
    with pytest.raises(RuntimeError):
        book("1 / 0")


def test_an_old_build_does_not_stay(book, tmp_path):
    old = tmp_path / "_build" / "html" / "old.html"
    old.parent.mkdir(parents=True)
    old.write_text("old", encoding="utf-8")
    book("1 + 1")
    assert not old.exists()
