"""A browser for the tests of the page that generates, and what Python makes of the same generator."""

import browser_generator
import export_onnx
import pytest
from lab import browser, find_browser


@pytest.fixture(scope="module")
def chromium():
    """Closed when its module ends: a process holds one Playwright at a time, and test_lab starts its own."""
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome found; install one to run the browser tests")
    with browser(executable) as started:
        yield started


@pytest.fixture(scope="session")
def runtime():
    return export_onnx.Runtime(browser_generator.ready(), threads=1)
