"""A browser, the site as it is served, and what Python makes of the same generator."""

import browser_generator
import export_onnx
import pytest
import tiny_site
from lab import browser, find_browser


@pytest.fixture(scope="module")
def chromium():
    """Closed when its module ends: a process holds one Playwright at a time, and test_lab starts its own."""
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome found; install one to run the browser tests")
    with browser(executable) as started:
        yield started


@pytest.fixture(scope="module")
def address(site):
    """Where the whole site is served."""
    with tiny_site.served(site) as base:
        yield base


@pytest.fixture(scope="session")
def runtime():
    return export_onnx.Runtime(browser_generator.ready(), threads=1)
