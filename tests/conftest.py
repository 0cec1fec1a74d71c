"""What all tests share: markers, order, data tiers, one built site, an honest account of what was not tested."""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
for folder in ("recipes", "tests/notebooks", "tests/offline", "tests/safety", "tests/site"):
    sys.path.insert(0, str(ROOT / folder))

os.environ.setdefault("MEDIMGEN_RECORD", tempfile.mkdtemp(prefix="medimgen-calls-"))  # not the reader's own log

MARKERS = {
    "browser": "drives a real Chromium",
    "slow": "takes minutes; left out of `make test`, run by `make test-full`",
    "serial": "measures time or memory, so it runs alone",
}
LONGEST = ("test_file_urls", "test_nbval", "test_lab", "test_accessibility", "test_generate_page")
SMALL_ONLY = "full tier not available on this machine: {} tests ran on the pocket tier only"


def on_ci() -> bool:
    """Whether this is a CI run, where nothing may be skipped."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


def tiers() -> list[str]:
    """The data tiers that can be used here without the network."""
    from medimgen.data.fetch import is_reachable

    asked = os.environ.get("MEDIMGEN_TIER")
    return ["pocket"] + (["full"] if asked != "pocket" and is_reachable("kermany-cxr-224") else [])


def pytest_configure(config):
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_generate_tests(metafunc):
    if "tier" in metafunc.fixturenames:
        metafunc.parametrize("tier", tiers(), indirect=True)


@pytest.fixture
def tier(request, monkeypatch):
    """The data tier of this run of the test, "pocket" or "full"; `MEDIMGEN_TIER` is set to it."""
    monkeypatch.setenv("MEDIMGEN_TIER", request.param)
    return request.param


def pytest_ignore_collect(collection_path, config):
    """A run of the serial tests alone need not import all the other files, which takes 15 seconds."""
    if collection_path.name.startswith("test_") and config.option.markexpr in ("serial", "serial and not slow"):
        return "mark.serial" not in collection_path.read_text(encoding="utf-8") or None


def pytest_collection_modifyitems(items):
    """The longest files first: the first builds the site, the second does not need it, and short ones fill the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if "tier" in getattr(item, "fixturenames", ()):
            item.user_properties.append(("tier", item.callspec.params["tier"]))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """Folder of the course's rendered pages, built once for all parallel workers.

    `$MEDIMGEN_BOOK_BUILT` names a build made in the same run that is taken instead.
    """
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if on_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if on_ci() and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason(report)}"
    return report


def reason(report) -> str:
    """Why a test was skipped, in the words of the skip."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter):
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "browser" in getattr(r, "keywords", {})]
    for why, count in Counter(reason(r) for r in skipped).items():
        terminalreporter.write_line(f"browser tests skipped: {count} ({why})")
    done = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    used = [dict(r.user_properties).get("tier") for r in done if getattr(r, "when", "") == "call"]
    if "pocket" in used and "full" not in used:
        terminalreporter.write_line(SMALL_ONLY.format(used.count("pocket")))
