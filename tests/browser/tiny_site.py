"""A book of the page that generates alone, its web server, and a browser that notes whom it asks."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser_generator
import build_book
import serve
import yaml

STUBS = {  # what the page links to
    "index": "# Course",
    "01-local-generative-ai": "# Lesson 1",
    "dossier": "# Dossier",
    "glossary": "# Glossary\n\n```{glossary}\nseed\n  A number.\n```",
}


def build(folder: Path) -> Path:
    """The page as `make book` makes it, among stubs of the pages that it links to; returns the folder of pages."""
    config = yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["html"].pop("favicon")
    options = config["sphinx"]["config"]
    options["extensions"].remove("sphinxcontrib.bibtex")
    for key in ("bibtex_bibfiles", "bibtex_reference_style", "html_additional_pages"):
        options.pop(key)
    options["html_theme_options"].pop("logo")
    lessons = folder / "lessons"
    shutil.copytree(build_book.ROOT / "lessons" / "assets", lessons / "assets")
    for name, text in STUBS.items():
        (lessons / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    shutil.copy(build_book.ROOT / f"{browser_generator.PAGE}.md", lessons)
    chapters = [{"file": name} for name in [browser_generator.PAGE, *(f"lessons/{n}" for n in STUBS if n != "index")]]
    toc = {"format": "jb-book", "root": "lessons/index", "chapters": chapters}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return build_book.build(folder, folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a web server on this machine that shows a folder, the one that `make serve` starts."""
    with serve.server(folder) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
