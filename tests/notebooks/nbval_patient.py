"""Plugin for the pytest that runs nbval: waits longer, refuses stderr and writes what was run.

nbval waits five seconds for a cell's output, which a busy machine can exceed, and runs in the notebook's
folder, which a copy does not have. Settings come from the environment: `NBVAL_CWD` the folder to run in,
`NBVAL_REPORT` the JSON file to write.
"""

import functools
import json
import os
from pathlib import Path

import nbval.plugin
import pytest

OUTPUT_TIMEOUT = 120
RESULTS: dict[int, str] = {}


def pytest_configure(config):
    start = nbval.plugin.RunningKernel

    @functools.wraps(start)
    def in_folder(name, cwd=None, **more):
        return start(name, cwd=os.environ.get("NBVAL_CWD", cwd), **more)

    nbval.plugin.RunningKernel = in_folder


def pytest_collection_modifyitems(items):
    for item in items:
        item.output_timeout = OUTPUT_TIMEOUT


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    noise = [o.text for o in item.test_outputs or [] if o.get("name") == "stderr"]
    if noise:
        item.raise_cell_error("the cell wrote a warning or an error text", "".join(noise))
    return result


def pytest_runtest_logreport(report):
    if report.when == "call" or not report.passed:
        RESULTS[int(report.nodeid.rsplit(" ", 1)[1])] = report.outcome


def pytest_sessionfinish():
    file = os.environ.get("NBVAL_REPORT")
    if file:
        Path(file).write_text(json.dumps(RESULTS), encoding="utf-8", newline="\n")
