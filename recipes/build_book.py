"""Build the course site from scratch: `python recipes/build_book.py` (or `make book`).

Jupyter Book 1.x ends with exit code 0 when a notebook crashes, and reuses old pages. So the old build is
removed, every warning is an error, every core notebook runs, and afterwards each page of the table of contents
must be there. Research notebooks get their recorded outputs beforehand (recipes/recorded_outputs.py), and each
notebook its line on Binder (recipes/binder.py); afterwards the files of the page that
generates (recipes/browser_generator.py) are put beside the pages, each term of the glossary gets its definition
wherever it is linked (recipes/glossary_hover.py), and the search learns where each claim stands
(recipes/claims_page.py).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import binder
import browser_generator
import claims_page
import editions
import glossary_hover
import reading_level
import recorded_outputs

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = "notebooks/research"  # as in _config.yml
ASKED = re.compile(r'^show_quiz\("([\w-]+)"\)$', re.MULTILINE)


def pages(toc: Path) -> list[str]:
    """Names of all pages in a table of contents, without ending, e.g. "lessons/00-setup"."""
    import yaml

    def walk(node: dict) -> list[str]:
        own = [node[key] for key in ("root", "file") if key in node]
        below = [child for key in ("parts", "chapters", "sections") for child in node.get(key, [])]
        return own + [name for child in below for name in walk(child)]

    return walk(yaml.safe_load(toc.read_text(encoding="utf-8")))


def missing(html: Path, names: list[str]) -> list[str]:
    """Those of the pages that are not in the folder `html`, or empty."""
    files = {name: html / f"{name}.html" for name in [*names, "index", "search", "genindex"]}
    return [name for name, file in files.items() if not file.is_file() or not file.stat().st_size]


def show_quizzes(folder: Path) -> None:
    """Put each quiz below its cell in the notebooks of a folder that are not run: a quiz needs no kernel."""
    from medimgen.check import show_quiz

    for file in sorted(folder.glob("*.ipynb")):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code" and (asked := ASKED.search("".join(cell["source"]))):
                page = {"text/html": show_quiz(asked[1])._repr_html_()}
                cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": page}]
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def build(output: Path = ROOT, source: Path = ROOT, edition: str = "solution", repository: str = "") -> Path:
    """Build an edition of `source` into `output`/_build and return the folder that holds the pages.

    repository: public address that the notebooks' Binder buttons lead to; "" for no buttons.

    Raises
    ------
    RuntimeError
        If Jupyter Book fails or a page is missing afterwards; CourseError, one of these, for what is no address.
    """
    html = output / "_build" / "html"
    names = pages(source / "_toc.yml")
    if draws := browser_generator.PAGE in names:
        browser_generator.main()
    shutil.rmtree(output / "_build", ignore_errors=True)
    source = editions.prepare(source, output / "_build" / "sources", edition)
    recorded_outputs.install(source)
    binder.install(source, repository)
    show_quizzes(source / NOT_RUN)
    scripts = Path(sys.executable).parent
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TQDM_DISABLE": "1", "PYTHONIOENCODING": "utf-8"}
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(source), "--path-output", str(output)]
    done = subprocess.run(
        [*command, "--all", "-W", "-n", "--keep-going"],
        cwd=source,
        env=os.environ | quiet | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"},
    )
    if done.returncode:
        raise RuntimeError(f"jupyter-book failed (exit code {done.returncode}); its first error stands above")
    if lost := missing(html, names):
        raise RuntimeError(f"built, but these pages are missing: {', '.join(lost)}")
    if draws:
        browser_generator.install(html)
    glossary_hover.install(html)
    claims_page.install(html)
    return html


def main() -> int:
    """Build and say where the site is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT, help="folder that gets _build/ (default: the checkout)")
    parser.add_argument("--edition", choices=editions.EDITIONS, default="solution", help="recipes/editions.py")
    parser.add_argument("--repository", default="", help="its public address, for Binder buttons (recipes/binder.py)")
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        html = build(args.output.resolve(), edition=args.edition, repository=args.repository)
    except RuntimeError as error:
        print(f"build_book: {error}", file=sys.stderr)
        return 1
    print(f"\n{len(pages(ROOT / '_toc.yml'))} pages in {time.perf_counter() - start:.0f} s: {html / 'index.html'}")
    print(reading_level.summary())
    print("Open that file in a browser, or run `make serve`.")
    if not args.repository:
        print("No Binder buttons: they need a public address, make book REPOSITORY=https://github.com/you/your-fork")
    return 0


if __name__ == "__main__":
    sys.exit(main())
