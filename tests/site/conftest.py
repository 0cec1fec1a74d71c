"""One fresh build of the site for all site tests, shared by parallel workers."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """Folder of rendered pages: `$MEDIMGEN_BOOK_BUILT` (a build made in the same run), else a fresh build."""
    import build_book
    from filelock import FileLock

    if built := os.environ.get("MEDIMGEN_BOOK_BUILT"):
        html = Path(built).resolve()
        html = html if (html / "index.html").is_file() else html / "html"
        assert not build_book.missing(html, build_book.pages(build_book.ROOT / "_toc.yml")), f"no book in {built}"
        return html
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "book.lock"):
        failed = base / "book.failed"
        if not failed.exists() and not (base / "book.done").exists():
            failed.write_text("another worker could not build the book", encoding="utf-8")
            build_book.build(base / "book")
            failed.rename(base / "book.done")
        if failed.exists():
            pytest.fail(failed.read_text(encoding="utf-8"))
    return base / "book" / "_build" / "html"
