"""The builder itself, on tiny books in a temporary folder: it fails when it must, and shows HTML before widgets."""

import json

import build_book
import pages
import pytest
import small_book
import yaml

FALLBACK = "<p>pictures drawn beforehand</p>"
WIDGET = {
    "application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "0"},
    "text/html": FALLBACK,
    "text/plain": "Slider()",
}


def build(folder, *sources):
    """A book of one notebook with these code cells, built; returns the folder of its pages."""
    small_book.configure(folder, ["page"])
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Page"}]
    cells += [{**code, "id": f"code-{number}", "source": source} for number, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "page.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return build_book.build(folder, folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book with HTML beside a widget and with a widget of ipywidgets, in a folder that held another one."""
    folder = tmp_path_factory.mktemp("book")
    old = folder / "_build" / "html" / "old.html"
    old.parent.mkdir(parents=True)
    old.write_text("old", encoding="utf-8")
    display = f"from IPython.display import display\ndisplay({WIDGET!r}, raw=True)"
    return build(folder, display, "import ipywidgets\nslider = ipywidgets.IntSlider()\nslider")


def test_html_wins_over_an_empty_widget(built):
    shown = pages.soup(built / "page.html").select("div.cell_output")[0]
    assert FALLBACK in str(shown)
    assert "widget-view+json" not in str(shown)


def test_a_widget_of_ipywidgets_brings_no_script_from_another_host(built):
    assert len(pages.soup(built / "page.html").select("div.cell_output")) == 2
    assert pages.external_loads(built) == []


def test_an_old_build_does_not_stay(built):
    assert (built / "page.html").is_file() and not (built / "old.html").exists()


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


def test_a_crashing_notebook_fails_the_build(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="jupyter-book failed"):
        build(tmp_path, "1 / 0")
    assert "ZeroDivisionError" in "".join(capfd.readouterr())
