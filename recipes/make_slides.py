"""Slides of the core notebooks, from the notebooks themselves: `python recipes/make_slides.py` (or `make slides`).

nbconvert writes them and reveal.js shows them. Which cell is a slide stands in its metadata (`slideshow`); what lies
beyond the core path, solutions and checks are left out. A short text and the code below it share a slide, two tables
or more get a slide of their own after their code, and a slide that is too full is drawn smaller. reveal.js comes from
npm by the manifest's entry `reveal-js` and is copied beside the slides, so a folder opens by double click, without a
network. The notebooks run first, so that their figures are there; `--without-running` leaves the figures out and takes
seconds.

Keys: space for the next slide, Esc for the overview, S for the speaker's view, `?print-pdf` in the address for paper.
"""

import argparse
import html
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
from jinja2 import DictLoader

from medimgen.data.fetch import fetch
from medimgen.errors import CourseError
from medimgen.paths import ROOT

PROGRAM, OUTPUT = "reveal-js", ROOT / "_build" / "slides"
NOT_A_DEVICE = "Not a medical device. For teaching and research. Generated films are synthetic."
SHORT_TEXT, SHORT_CODE = 320, 14  # letters, lines: what may share a slide
# The theme's page loads five programs from other hosts; what is left out here is all of them.
PAGE = """{% extends 'reveal/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_css %}<style>
.reveal-viewport.reveal-viewport { background: #fff; }
.reveal { font-family: system-ui, "Segoe UI", Roboto, Arial, sans-serif; font-size: 22px; color: #1b2730; }
.reveal :is(h1, h2, h3) { font-family: Charter, Cambria, Georgia, serif; text-transform: none; color: #10202a; }
.reveal h1 { font-size: 2em; } .reveal h2 { font-size: 1.5em; }
.reveal h1::after { content: ""; display: block; width: 60px; height: 5px; margin-top: 14px;
  background: linear-gradient(90deg, #0f6470 70%, #9a4b12 70%); }
.reveal .slides section { text-align: left; }
.reveal .slides section:not(.stack) { height: 100%; overflow: auto; }
.reveal .slides .pdf-page section:not(.stack) { height: calc(100% - 54px); }
.reveal :is(.jp-MarkdownCell, .jp-RenderedHTMLCommon) { font-size: 22px; line-height: 1.45; color: inherit; }
.reveal section:not(:has(.jp-CodeCell)) .jp-RenderedHTMLCommon { font-size: 28px; }
.reveal :is(.jp-InputPrompt, .jp-OutputPrompt) { display: none; }
.reveal .jp-CodeCell pre { font-size: 16px; line-height: 1.35; box-shadow: none; width: 100%; margin: 0; }
.reveal .jp-CodeCell pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.reveal .jp-OutputArea img { max-height: 380px; width: auto; margin: 6px auto; }
.reveal [data-frames] img { width: auto !important; height: 340px; margin: 6px 0; }
.reveal [data-frames] input { width: 300px; vertical-align: middle; }
.reveal .jp-OutputArea table { font-size: 14px; width: 100%; margin: 0 0 14px; }
.reveal .jp-OutputArea :is(th, td, caption) { text-align: left !important; }
.reveal .slide-number { background: none; color: #4d5c67; font-size: 13px; }
.not-a-device { position: fixed; left: 12px; bottom: 6px; z-index: 30; margin: 0; }
.not-a-device { font: 13px sans-serif; color: #4d5c67; }
</style>{% endblock %}
{% block footer_js %}
<p class="not-a-device">NOT_A_DEVICE</p>
<script src="{{ reveal_url_prefix }}/dist/reveal.js"></script>
<script src="{{ reveal_url_prefix }}/plugin/notes/notes.js"></script>
<script>
// A slide that is too full is drawn smaller.
const fit = (slide) => {
  for (let size = 100; size >= 50; size -= 5) {
    slide.style.zoom = size / 100;
    if (slide.scrollHeight <= slide.clientHeight + 1) return;
  }
};
const current = () => [Reveal.getCurrentSlide()].filter(Boolean).forEach(fit);
for (const moment of ["ready", "slidechanged", "resize"]) Reveal.on(moment, current);
Reveal.on("pdf-ready", () => document.querySelectorAll(".pdf-page section").forEach(fit));
addEventListener("load", current);
Reveal.initialize({ width: 1100, height: 680, hash: true, slideNumber: "c/t", plugins: [RevealNotes], center: false,
  controls: false, navigationMode: "linear", transition: "none", backgroundTransition: "none",
  pdfMaxPagesPerSlide: 1, pdfSeparateFragments: false });
</script>
{% endblock %}""".replace("NOT_A_DEVICE", NOT_A_DEVICE)


def shown(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the cells that slides show, without tags that would hide them, and without dead widgets."""
    made = nbformat.from_dict(notebook)
    for text, code in pairwise(made.cells):
        kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in (text, code)]
        short = len(text.source) <= SHORT_TEXT and len(code.source.splitlines()) <= SHORT_CODE
        if (text.cell_type, code.cell_type) == ("markdown", "code") and "skip" not in kinds and short:
            code.metadata["slideshow"] = {"slide_type": "fragment"}  # the question first, the answer at the next key
    cells = [c for c in made.cells if c.metadata.get("slideshow", {}).get("slide_type") not in (None, "skip")]
    made.cells = [part for cell in cells for part in apart(cell)]
    made.metadata.pop("widgets", None)
    made.metadata["title"] = title(notebook)
    for cell in made.cells:
        cell.source = re.sub(r"\n\n\*\*Beyond the core path:\*\*[^\n]*|^# NBVAL_CHECK_OUTPUT\n", "", cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)  # the HTML drawn beforehand stands beside it
            described = html.escape(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
            if "image/png" in data and described:  # nbconvert's own template drops an alternative text
                code = data.pop("image/png").replace("\n", "")
                data["text/html"] = f'<img src="data:image/png;base64,{code}" alt="{described}">'
    return made


def apart(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cell; where it shows two tables or more, its code and its outputs as two cells, for two slides."""
    if sum("<table" in output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])) < 2:
        return [cell]
    alone = {"slideshow": {"slide_type": "subslide"}, "transient": {"remove_source": True}}  # no empty box of code
    below, cell.outputs = nbformat.v4.new_code_cell(outputs=cell.outputs, metadata=alone), []
    return [cell, below]


def title(notebook: nbformat.NotebookNode) -> str:
    """The notebook's title, from its first line."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def slides(notebook: nbformat.NotebookNode) -> str:
    """The slides of an (executed) notebook as one HTML page that loads from the folder `reveal` beside it alone."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        extra_loaders=[DictLoader({"course.html.j2": PAGE})],
        template_file="course.html.j2",
        reveal_url_prefix="reveal",
        reveal_theme="serif",
        language_code="en",
    )
    page, _ = exporter.from_notebook_node(shown(notebook))
    return page


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook after a run from top to bottom, solutions included."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def make(paths: list[Path], output: Path, run: bool = True) -> list[Path]:
    """Write the slides of each notebook, an index, and reveal.js beside them; the pages written."""
    program = fetch(PROGRAM)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copytree(program, output / "reveal", dirs_exist_ok=True)
    written, entries = [], []
    for path in paths:
        notebook = executed(path) if run else nbformat.read(path, as_version=4)
        page = output / f"{path.stem}.html"
        page.write_text(slides(notebook), encoding="utf-8", newline="\n")
        written.append(page)
        entries.append(f'<li><a href="{page.name}">{path.stem.split("-")[0]} {title(notebook)}</a></li>')
        kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown(notebook).cells]
        print(f"{page.name}: {sum(kind in ('slide', 'subslide') for kind in kinds)} slides", flush=True)
    index = f"""<!DOCTYPE html><html lang="en-GB"><head><meta charset="utf-8"><title>Slides</title></head>
<body style="font: 18px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem"><main>
<h1>Slides of the core notebooks</h1><ul>{"".join(entries)}</ul><p>{NOT_A_DEVICE}</p></main></body></html>
"""
    (output / "index.html").write_text(index, encoding="utf-8", newline="\n")
    return [*written, output / "index.html"]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: the core notebooks")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--without-running", action="store_true", help="slides without figures, in seconds")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    try:
        written = make(paths, options.output, not options.without_running)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Open {written[-1]} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
