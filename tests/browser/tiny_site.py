"""A book of the page that generates alone, its web server, and a browser that notes whom it asks."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser_generator
import build_book
import serve
import small_book

STUBS = {  # what the page links to
    "index": "# Course",
    "01-local-generative-ai": "# Lesson 1",
    "dossier": "# Dossier",
    "glossary": "# Glossary\n\n```{glossary}\nseed\n  A number.\n```",
}


def build(folder: Path) -> Path:
    """The page as `make book` makes it, among stubs of the pages that it links to; returns the folder of pages."""
    lessons = folder / "lessons"
    shutil.copytree(build_book.ROOT / "lessons" / "assets", lessons / "assets")
    for name, text in STUBS.items():
        (lessons / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    shutil.copy(build_book.ROOT / f"{browser_generator.PAGE}.md", lessons)
    pages = ["lessons/index", browser_generator.PAGE, *(f"lessons/{name}" for name in STUBS if name != "index")]
    small_book.configure(folder, pages, assets=True)
    return build_book.build(folder, folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a web server on this machine that shows a folder, the one that `make serve` starts."""
    with serve.server(folder) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


@contextmanager
def noting(chromium, **options) -> Iterator:
    """A page in a context of its own, the addresses it asks for (`page.asked`), what it complains of (`page.said`)."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    page.asked, page.said = [], []
    context.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    yield page
    context.close()
