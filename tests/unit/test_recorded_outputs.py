"""Recorded outputs belong to the notebooks as they are, and pages show them only then."""

import json

import nbformat
import pytest
import recorded_outputs

NAME = "R99-tiny"


def tiny(source):
    head = nbformat.v4.new_markdown_cell("# Title\n\n**1 s · 0.1 GB**\n\nText.", id="a")
    return nbformat.v4.new_notebook(cells=[head, nbformat.v4.new_code_cell(source, id="b")])


def page(folder, source, outputs):
    """What `install` makes of a notebook in a copy of the sources, by its cells."""
    path = folder / "sources" / "notebooks" / "research" / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(tiny(source), path)
    recorded_outputs.install(folder / "sources", outputs)
    return nbformat.read(path, 4).cells


@pytest.mark.parametrize("path", recorded_outputs.NOTEBOOKS, ids=lambda path: path.stem)
def test_recordings_are_of_the_notebooks_as_they_are(path):
    told = json.loads((recorded_outputs.FOLDER / f"{path.stem}.json").read_text(encoding="utf-8"))
    notebook = nbformat.read(path, 4)
    again = f"the notebook's code has changed: python recipes/recorded_outputs.py {path.stem.split('-')[0]}"
    assert told["code"] == recorded_outputs.code(notebook), again
    text = json.dumps(told)
    assert "Traceback" not in text and "SMOKE" not in text and len(text) < 400_000
    drawn = [c.id for c in notebook.cells if "mystnb" in c.metadata]
    assert drawn and all(any("image/png" in o.get("data", {}) for o in told["cells"][cell]) for cell in drawn)


def test_a_page_shows_what_was_recorded_and_says_when(tmp_path):
    source = "import sys\nprint(6 * 7)\nprint('hidden', file=sys.stderr)\nprint(7)"
    nbformat.write(tiny(source), tmp_path / f"{NAME}.ipynb")
    told = json.loads(
        recorded_outputs.record(tmp_path / f"{NAME}.ipynb", tmp_path / "kept").read_text(encoding="utf-8")
    )
    head, cell = page(tmp_path, source, tmp_path / "kept")
    assert [output["text"] for output in cell.outputs] == ["42\n7\n"]
    _, badge, line, text = head.source.split("\n\n")
    assert told["day"] in line and told["code"] in line and badge.startswith("**1 s") and text == "Text."


def test_a_page_shows_nothing_of_code_that_has_changed(tmp_path):
    nbformat.write(tiny("print(1)"), tmp_path / f"{NAME}.ipynb")
    recorded_outputs.record(tmp_path / f"{NAME}.ipynb", tmp_path / "kept")
    head, cell = page(tmp_path, "print(2)", tmp_path / "kept")
    assert cell.outputs == [] and "recorded" not in head.source


def test_search_sees_the_words_of_a_recorded_table_one_by_one(tmp_path):
    table = {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<tr><td>one</td><td>two</td></tr>"}}
    told = {"day": "2026-01-01", "version": "1", "code": recorded_outputs.code(tiny("1")), "cells": {"b": [table]}}
    (tmp_path / f"{NAME}.json").write_text(json.dumps(told), encoding="utf-8")
    _, cell = page(tmp_path, "1", tmp_path)
    assert cell.outputs[0].data["text/html"].split() == ["<tr><td>one</td>", "<td>two</td>", "</tr>"]


def test_live_widgets_and_bars_are_left_out():
    view = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Box()"},
    }
    assert recorded_outputs.kept(view) is None
    assert recorded_outputs.kept({"output_type": "stream", "name": "stderr", "text": "50 %"}) is None
    both = {"output_type": "display_data", "data": view["data"] | {"text/html": "<p>"}}
    assert recorded_outputs.kept(both)["data"] == {"text/html": "<p>", "text/plain": "Box()"}
