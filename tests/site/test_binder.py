"""Binder: a button on each notebook that fits, a reason on each that does not, and neither leads anywhere by itself."""

import json
import os

import binder
import build_book
import pages
import pytest
import small_book

from medimgen.errors import CourseError

FORK = "https://github.com/someone/their-fork"
START = "https://mybinder.org/v2/gh/someone/their-fork/HEAD?urlpath=lab/tree/notebooks"
NOTEBOOKS = sorted((build_book.ROOT / "notebooks").rglob("*.ipynb"))


def facts(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["medimgen"]


def buttons(page):
    return [a["href"] for a in pages.soup(page).select("article.bd-article a[href*='mybinder.org/']")]


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (f"{FORK}.git/", "gh/someone/their-fork"),
        ("https://gitlab.com/group/part/fork", "gl/group%2Fpart%2Ffork"),
        ("https://codeberg.org/someone/fork", "git/https%3A%2F%2Fcodeberg.org%2Fsomeone%2Ffork"),
    ],
)
def test_the_address_that_binder_documents(address, where):
    found = binder.launch(address, "notebooks/a b.ipynb")
    assert found == f"https://mybinder.org/v2/{where}/HEAD?urlpath=lab/tree/notebooks/a%20b.ipynb"


@pytest.mark.parametrize(
    "address",
    ["git@github.com:someone/fork.git", "/some/where/fork", "http://github.com/a/b", "https://me:word@github.com/a/b"],
)
def test_what_is_no_public_address_is_refused_and_not_repeated(address):
    with pytest.raises(CourseError, match="https://github.com/you/your-fork") as caught:
        binder.launch(address, "a.ipynb")
    assert address not in str(caught.value)


def tiny(folder, sizes):
    """Sources of a book: the page that explains Binder, and notebooks with these badges."""
    small_book.configure(folder, ["lessons/setup", *(f"notebooks/{name}" for name in sizes)], run=False)
    (folder / "lessons").mkdir()
    (folder / "lessons" / "setup.md").write_text("# Set up\n\n(setup-binder)=\n## Binder\n\nWords.\n", encoding="utf-8")
    for name, size in sizes.items():
        badge = f"# A title\n\n**9 s · {size / 1000:.1f} GB · pocket tier · offline**\n\nProse."
        cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": badge}
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        metadata = {"kernelspec": kernel, "medimgen": {"peak_mb": size}}
        notebook = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        file = folder / "notebooks" / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(notebook), encoding="utf-8")
    return folder


def test_pages_of_a_book_with_an_address(tmp_path):
    source = tiny(tmp_path, {"00": 500, "research/R1": 1500, "research/R2": 1600})
    site = build_book.build(tmp_path / "made", source, repository=FORK)
    assert buttons(site / "notebooks/00.html") == [f"{START}/00.ipynb"]
    assert buttons(site / "notebooks/research/R1.html") == [f"{START}/research/R1.ipynb"]
    assert buttons(site / "notebooks/research/R2.html") == buttons(site / "lessons/setup.html") == []
    assert "Not on Binder: this notebook takes 1.6 GB" in pages.article(site / "notebooks/research/R2.html")
    assert pages.external_loads(site) == pages.broken_links(site) == []
    assert "Binder" not in (source / "notebooks/00.ipynb").read_text(encoding="utf-8")


def test_without_an_address_only_the_reason_is_given(tmp_path):
    source = tiny(tmp_path, {"00": 500, "R2": 1600})
    before = (source / "notebooks/00.ipynb").read_bytes()
    binder.install(source)
    assert (source / "notebooks/00.ipynb").read_bytes() == before
    assert "\n\n*Not on Binder: " in json.loads((source / "notebooks/R2.ipynb").read_bytes())["cells"][0]["source"]


def test_every_core_notebook_fits_and_the_site_says_which_does_not(site):
    for notebook in NOTEBOOKS:
        name = notebook.relative_to(build_book.ROOT).as_posix()
        fits = "mybinder.org" in binder.line_for(facts(notebook), name, FORK)
        page = (site / name.replace(".ipynb", ".html")).read_text(encoding="utf-8")
        assert fits or notebook.parent.name == "research"
        assert ("Not on Binder" in page) != fits
        assert "mybinder.org" not in page


def test_binder_finds_what_it_builds_from():
    """Beside a folder `binder` or a Dockerfile, repo2docker would pass over environment.yml and postBuild."""
    assert not [name for name in ("binder", ".binder", "Dockerfile") if (build_book.ROOT / name).exists()]
    script = build_book.ROOT / "postBuild"
    assert os.access(script, os.X_OK) and script.read_bytes().startswith(b"#!/usr/bin/env bash\n")
    assert "\nmedimgen fetch\n" in script.read_text(encoding="utf-8")
