"""Every control of a notebook's widgets, used by hand in the page of a JupyterLab: which, and what was wrong.

A control works if it takes a new value and something beside it in its widget changes. A callback that raises shows
nothing in the notebook, so what the kernel says is read from its connection.
"""

import json
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import ElementHandle, Page, TimeoutError

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
WORD = " giraffe"  # the generator never saw it, and a prompt may hold it: a field has something to say about it
PATIENCE = 10_000  # milliseconds until a control counts as dead


def listen(page: Page) -> list[str]:
    """Errors and stderr of widgets' callbacks, and errors of the page's own scripts; the list grows as they come."""
    said: list[str] = []

    def received(frame: bytes) -> None:
        starts = [int.from_bytes(frame[k : k + 8], "little") for k in range(8, 8 + 8 * frame[0], 8)]
        _, header, parent, _, content = (frame[start:end] for start, end in pairwise(starts[:6]))
        content, kind = json.loads(content), json.loads(header)["msg_type"]
        if json.loads(parent).get("msg_type") == "comm_msg" and (kind == "error" or content.get("name") == "stderr"):
            said.append(f"the kernel said: {content.get('evalue', content.get('text'))}")

    page.on("pageerror", lambda error: said.append(f"the page said: {error}"))
    page.on("websocket", lambda s: s.on("framereceived", received) if "/channels" in s.url else None)
    return said


def use_all(page: Page) -> tuple[list[str], list[str]]:
    """Use every visible control: kinds and labels of those that work; what is wrong with others and with outputs."""
    page.evaluate(SCRIPT)
    works, wrong = [], []
    for control in page.evaluate_handle("course.controls()").get_properties().values():
        fault = _fault(page, control.as_element(), **(found := control.evaluate("e => course.describe(e)")))
        name = f"{found['kind']} {found['label']}"
        (wrong if fault else works).append(f"{name}: {fault}" if fault else name)
    return works, wrong + page.evaluate("course.faults()")


def _fault(page: Page, control: ElementHandle, kind: str, label: str, disabled: bool) -> str:
    """What is wrong with a control, used if that is possible; "" if nothing is."""
    if disabled or not label:
        return "disabled" if disabled else "without a label"
    if other := control.evaluate_handle("e => course.other(e)").as_element():
        _fault(page, other, kind, label, disabled)
    control.evaluate("e => course.remember(e)")
    _use(page, control, kind)
    try:
        page.wait_for_function("e => !course.same(e).length", arg=control, timeout=PATIENCE, polling=100)
    except TimeoutError:
        return " and ".join(control.evaluate("e => course.same(e)"))
    return ""


def _use(page: Page, control: ElementHandle, kind: str) -> None:
    """What a hand does, with keys where there are some."""
    if kind == "list":
        control.select_option(index=control.evaluate("e => course.next(e)"))
    elif kind in ("slider", "number", "readout", "text"):
        control.focus()
        at_end = control.evaluate("e => course.atEnd(e)")
        if kind == "readout":
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(control.evaluate("e => course.otherEnd(e)"))
        elif kind == "text":
            page.keyboard.press("End")
            page.keyboard.type(WORD)
        else:
            page.keyboard.press({"slider": "ArrowRight", "number": "ArrowUp"}[kind] if not at_end else "ArrowDown")
        page.keyboard.press("Enter")
    elif kind != "unknown control":
        control.click()
