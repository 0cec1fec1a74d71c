"""The files a visitor meets first: README, citation, licences, figures, bibliography."""

import re
import runpy
from pathlib import Path

import build_book
import pytest
import yaml

ROOT = build_book.ROOT
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub makes of the headings, and explicit MyST targets."""
    heads = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}
    return made | set(re.findall(r"^\(([\w-]+)\)=$", markdown, re.MULTILINE))


def dead_links(name: str, text: str) -> list[str]:
    """Relative links of a page at the top level whose file or anchor is missing."""
    dead = []
    for _, url in LINK.findall(text):
        if re.match(r"[a-z]+:", url):
            continue
        path, _, anchor = url.partition("#")
        target = ROOT / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(url)
    return dead


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "LICENSE-CONTENT.md"])
def test_links_resolve(name):
    assert dead_links(name, read(name)) == []


def test_dead_links_are_noticed():
    assert dead_links("README.md", "[a](lost.md) [b](#lost) [c](README.md)") == ["lost.md", "#lost"]


def test_readme_shows_the_doors_before_anything_else():
    first_screen = read("README.md")[:1600]
    for word in ("make lab", "make book", "mybinder.org", "Learn", "Teach", "Run it here"):
        assert word in first_screen
    assert "make test" in read("README.md")
    assert "ot a medical device" in first_screen


def notebooks():
    """Lessons' and research notebooks, without JupyterLab's own copies."""
    return [p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]


def test_readme_and_index_list_every_notebook_and_no_other():
    there = {p.name for p in notebooks()}
    for name in ("README.md", "lessons/index.md"):
        listed = {Path(url).name for _, url in LINK.findall(read(name)) if url.endswith(".ipynb")}
        assert listed == there


def test_contents_list_every_lesson_and_notebook():
    there = {f"lessons/{p.stem}" for p in (ROOT / "lessons").glob("*.md")}
    there |= {p.relative_to(ROOT).with_suffix("").as_posix() for p in notebooks()}
    assert set(build_book.pages(ROOT / "_toc.yml")) == there


def test_citation_file():
    import tomllib

    cff = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert cff["license"] == "Apache-2.0"
    assert all(author.keys() & {"name", "family-names"} for author in cff["authors"])


def test_licence_texts():
    assert "Apache License" in read("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in read("LICENSE")
    assert "creativecommons.org/licenses/by/4.0" in read("LICENSE-CONTENT.md")


def test_every_citation_key_of_the_manifest_is_in_the_bibliography():
    from medimgen.data import manifest

    keys = set(re.findall(r"^@\w+\{([^,]+),", read("lessons/references.bib"), re.MULTILINE))
    assert {e.citation for e in manifest.entries().values()} - keys == set()


def test_figures_are_what_their_script_draws(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "fig")
    for script in sorted((ROOT / "fig").glob("draw*.py")):
        runpy.run_path(str(script))["main"](tmp_path)
    drawn = {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()}
    kept = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "fig").glob("*.svg")}
    assert drawn == kept


def test_every_figure_has_its_alternative_text():
    notes = yaml.safe_load(read("fig/alt.yml"))
    assert set(notes) == {p.name for p in (ROOT / "fig").iterdir() if p.suffix in {".svg", ".png", ".jpg"}}
    for name, note in notes.items():
        decorative = name in {"logo.svg", "favicon.svg"}
        assert decorative or len(note["alt"]) > 40, name


def test_pages_use_the_alternative_text_of_the_figure():
    notes = yaml.safe_load(read("fig/alt.yml"))
    for page in (ROOT / "lessons").glob("*.md"):
        for name, alt in re.findall(
            r"\{figure\} \.\./fig/(\S+)\n(?::(?!alt)[^\n]*\n)*:alt: ([^\n]+)", page.read_text("utf-8")
        ):
            assert " ".join(notes[name]["alt"].split()) == alt, (page.name, name)


def test_errors_in_the_set_up_table_are_the_ones_that_the_course_raises():
    """Every quoted message of "When something fails" stands, gap by gap, in the code that raises it."""
    table = read("lessons/00-setup.md").split("## When something fails")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(quoted) >= 6
    code = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "src" / "medimgen").rglob("*.py"))
    code += "".join(f"{name}, " for name in ("data_manifest.yml",))  # a file name, put in when the error is raised
    assert [q for q in quoted for part in q.split("…") if part.strip() and part.strip() not in code] == []
