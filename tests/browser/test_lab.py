"""A participant's first minutes: JupyterLab opens a notebook, runs it, and every control of its widgets works."""

import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from controls import listen, use_all
from lab import TOKEN, find_browser, open_page, running_lab
from measure_notebooks import peak_of
from playwright.sync_api import Error

from medimgen.paths import ROOT

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BINDER_MB = 1900  # of the 2 GB that Binder gives
ROLLUP = Path("/proc/self/smaps_rollup")
KERNEL_READY = "#jp-main-statusbar :text('| Idle')"
ALL_RAN_OR_ONE_FAILED = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
    const texts = prompts.map(p => p.textContent.trim()).filter(t => t);
    const failed = document.querySelector(".jp-OutputArea-output[data-mime-type*='error']");
    return failed !== null || (texts.length > 0 && texts.every(t => /^\\[\\d+\\]:?$/.test(t)));
}"""


class Run(NamedTuple):
    """What came of a notebook in JupyterLab; `peak_mb` is that of the server with its kernels, without the browser."""

    complaints: list[str]
    moved: bool
    popups: list[str]
    used: list[str]
    peak_mb: float


@pytest.fixture(scope="module")
def browser():
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome found; install one to run the browser tests")
    return executable


def run_all(page, address, name, seconds=240):
    """Open a notebook and press Run > Run All Cells, as a participant does; returns when all have run."""
    page.goto(f"{address}/lab/tree/{name}?token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_selector(KERNEL_READY, timeout=90_000)
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    page.wait_for_function(ALL_RAN_OR_ONE_FAILED, timeout=seconds * 1000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=seconds * 1000)


def saved(page, file):
    """The notebook as JupyterLab writes it when the participant saves."""
    before = file.stat().st_mtime_ns
    page.locator(".jp-Notebook").first.click(position={"x": 2, "y": 2})
    page.keyboard.press("Control+s")
    end = time.monotonic() + 30
    while (file.stat().st_mtime_ns == before or not file.stat().st_size) and time.monotonic() < end:
        page.wait_for_timeout(200)
    page.wait_for_timeout(1000)  # the server empties the file before it writes
    return nbformat.read(file, as_version=4)


def complaints(notebook):
    """Cells that did not run, raised, or wrote to stderr, with what they said."""
    found = []
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        if cell.execution_count is None:
            found.append(f"code cell {number} did not run")
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"code cell {number}: {output.get('evalue', output.get('text'))}")
    return found


def widgets_of(notebook):
    """How many outputs of a notebook are widgets."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return sum("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)


def look(picture, file):
    """Screenshot of a picture; a widget may replace it meanwhile, so a detached one is looked for again."""
    for _ in range(9):
        try:
            return picture.screenshot(path=file, timeout=5000)
        except Error:
            picture.page.wait_for_timeout(300)
    return picture.screenshot(path=file)


def slider_moves_picture(page, scratch):
    """Focus the first slider that stands beside a picture, press arrow keys; whether the picture changes.

    Raises AssertionError if the picture changes by itself: then nothing would be shown.
    """
    box = page.locator(".jp-OutputArea .widget-vbox", has=page.locator("img")).first
    if not box.count():
        return False
    handle, picture = box.locator("[role=slider]").first, box.locator("img").first
    picture.scroll_into_view_if_needed()
    quiet = [look(picture, scratch / f"before-{i}.png") for i in range(3) if not page.wait_for_timeout(700)]
    assert all(a == b for a, b in pairwise(quiet[1:])), "the picture changes although nobody moves the slider"
    value = handle.get_attribute("aria-valuenow")
    handle.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    end = time.monotonic() + 15
    while time.monotonic() < end:
        page.wait_for_timeout(300)
        if look(picture, scratch / "after.png") != quiet[-1]:
            return handle.get_attribute("aria-valuenow") != value
    return False


def drive(notebook_file, browser, scratch):
    """Run one notebook in a JupyterLab of its own, move its slider, use all its controls, and look."""
    root = scratch / "root"
    root.mkdir()
    shutil.copy(notebook_file, root)
    with running_lab(root, scratch) as (address, pid), peak_of(pid) as peak, open_page(browser) as page:
        said = listen(page)
        run_all(page, address, notebook_file.name)
        said.clear()  # while the kernel starts, JupyterLab asks it for widgets that it does not know yet
        page.screenshot(path=scratch / "run.png")
        moved = slider_moves_picture(page, scratch)
        page.screenshot(path=scratch / "slider.png")
        used, wrong = use_all(page)
        page.wait_for_selector(KERNEL_READY)
        popups = page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts()
        notebook, shown = saved(page, root / notebook_file.name), page.evaluate("course.widgets()")
    wrong += [] if shown == (of := widgets_of(notebook)) else [f"{shown} of {of} widgets are shown"]
    return Run(complaints(notebook) + wrong + said, moved, popups, used, *peak)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda n: n.stem)
def driven(request, browser, tmp_path_factory):
    """What one core notebook did, run once for all tests below."""
    return drive(request.param, browser, tmp_path_factory.mktemp("lab"))


def test_a_notebook_runs_and_its_controls_work(driven):
    assert (driven.complaints, driven.moved, driven.popups) == ([], True, [])
    assert driven.used


@pytest.mark.skipif(not ROLLUP.is_file(), reason=f"the memory of server and kernel was not measured: no {ROLLUP} here")
def test_server_and_kernel_fit_into_binder(driven):
    assert driven.peak_mb <= BINDER_MB


CONSTRUCTED = """
import io, ipywidgets, numpy as np
from PIL import Image
def png(level):
    memory = io.BytesIO()
    Image.fromarray(np.full((90, 120), level, np.uint8)).save(memory, "PNG")
    return memory.getvalue()
picture = ipywidgets.Image(value=png(10), width=240)
slider = ipywidgets.IntSlider(value=10, max=250, description="centre", readout=False)
def moved(change):
    picture.value = png(change.new)
if not {spoilt}:
    slider.observe(moved, "value")
ipywidgets.VBox([slider, picture])
"""
OF_EACH_KIND = """
told = ipywidgets.HTML("nothing changed", layout={"width": "2000px" if {spoilt} else "auto"})
controls = [
    ipywidgets.FloatSlider(description="how far", disabled={spoilt}),
    ipywidgets.Dropdown(options="ab", description="which"),
    ipywidgets.Checkbox(description="whether"),
    ipywidgets.RadioButtons(options="ab", description="either"),
    ipywidgets.ToggleButtons(options="ab", description="one"),
    ipywidgets.BoundedIntText(description="how many"),
    ipywidgets.Text(description="" if {spoilt} else "what"),
]
def tell(change):
    told.value = f"{change.owner.description} is {change.new}"
for control in controls:
    control.observe(tell, "value")
button = ipywidgets.Button(description="now")
def press(button):
    told.value = "pressed"
    assert not {spoilt}, "this button breaks"
button.on_click(press)
ipywidgets.VBox([*controls, button, told])
"""
BROKEN = "from IPython.display import HTML\nHTML('<img src=\"data:image/png;base64,\" height=90>')"
KINDS = ["list which", "tick whether", "tick either, a", "tick either, b", "toggle one, a", "toggle one, b"]
KINDS += ["number how many"]
FAULTS = ["code cell 5: division by zero", "slider centre: the same beside it", "slider how far: disabled"]
FAULTS += ["text : without a label", "an output is cut", "an output is blank", "an output is red"]
FAULTS += ["the kernel said: this button breaks"]


@pytest.mark.parametrize("spoilt", [False, True])
def test_an_error_a_dead_control_and_too_much_memory_are_noticed(spoilt, browser, tmp_path):
    cells = [cell.replace("{spoilt}", str(spoilt)) for cell in (CONSTRUCTED, OF_EACH_KIND)]
    cells += [BROKEN, "block = bytearray(b'x') * 2_500_000_000", "1 / 0"] if spoilt else ["print(1)"]
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    file = tmp_path / "constructed.ipynb"
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    file.write_text(json.dumps(book), encoding="utf-8")
    run = drive(file, browser, tmp_path)
    assert run[:3] == (FAULTS if spoilt else [], not spoilt, [])
    more = ["button now"] if spoilt else ["text what", "button now"]
    assert run.used == ([] if spoilt else ["slider centre", "slider how far", "readout how far"]) + KINDS + more
    assert (run.peak_mb > BINDER_MB) == spoilt
