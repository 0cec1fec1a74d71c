"""What on this machine phones home, how the course switches it off, and whether it is off now; and ways past the guard.

>>> inventory()                 # a row for each tool: what it sends and when, the switch, its state as it is set here
>>> list(check())               # a Finding for each tool that is installed and not off
>>> ways()                      # the ways out of a kernel: stopped by `medimgen.egress` or not, and why
"""

import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from medimgen import egress
from medimgen.safety.rules import Finding

if TYPE_CHECKING:
    import pandas as pd

RULE = "tools-connectivity"
TOOLS = Path(__file__).with_suffix(".yml")
SECRET = (b"cookie:", b"authorization:")  # a browser sends JupyterLab's to every port of this machine: not to be shown


@cache
def _listed() -> dict:
    import yaml

    return yaml.safe_load(TOOLS.read_text(encoding="utf-8"))


def inventory() -> "pd.DataFrame":
    """One row a tool: tool, installed (version), sends, when, switch, now ("off", "on", "not here", "look") and source.

    `now` is read from what counts: the environment variable, the configuration file, or the library's own constant once
    it is imported. "look" marks what only its own menu shows. Nothing is imported, started or asked over the network.
    """
    import pandas as pd

    rows = [tool | {"installed": _version(tool), "now": _now(tool)} for tool in _listed()["tools"]]
    return pd.DataFrame(rows)[["tool", "installed", "sends", "when", "switch", "now", "source"]]


def ways() -> "pd.DataFrame":
    """One row a way out of a kernel: way, stopped, measured (in tests/safety/test_egress.py), why, what would help."""
    import pandas as pd

    return pd.DataFrame(_listed()["ways"]).drop(columns="id")


def check() -> Iterator[Finding]:
    """What is installed and not off; in a kernel also a guard that is not on, and a proxy on this machine."""
    for row in inventory().to_dict("records"):
        if row["now"] == "on":
            yield Finding(RULE, row["tool"], f"sends {row['sends']} {row['when']}", row["switch"], "look")
    if "IPython" in sys.modules and os.environ.get(egress.SWITCH) not in ("on", "strict"):
        what = "this kernel may reach other machines: the guard is off"
        yield Finding(
            RULE, "medimgen.egress", what, "run `medimgen.egress.guard()`; for every kernel: see setup", "look"
        )
    for name, value in os.environ.items():
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy") and value and not egress.outside(value):
            what = "a proxy on this machine carries requests on, which the guard cannot see"
            yield Finding(RULE, name, what, f"unset {name} before you start JupyterLab", "look")


def _version(tool: dict) -> str:
    for package in tool.get("packages", []):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _now(tool: dict) -> str:
    if tool.get("packages") and not _version(tool):
        return "not here"
    constant, variable, reader = tool.get("constant"), tool.get("variable"), tool.get("reader")
    if constant and constant["module"] in sys.modules:  # read once, at import: what was set later does not count
        return "off" if getattr(sys.modules[constant["module"]], constant["name"]) == constant["quiet"] else "on"
    if variable:
        return "off" if os.environ.get(variable["name"], "").lower() in variable["quiet"] else "on"
    return _READERS[reader]() if reader else "look"


def _lab_setting(name: str) -> object:
    """What JupyterLab's own configuration files say of LabApp.<name>; the first folder that names it wins."""
    from jupyter_core.paths import jupyter_config_path

    for folder in map(Path, jupyter_config_path()):
        for file in ("jupyter_lab_config.json", "jupyter_server_config.json"):
            with suppress(OSError, ValueError):
                lab = json.loads((folder / file).read_text(encoding="utf-8")).get("LabApp", {})
                if name in lab:
                    return lab[name]
    return None


def _news() -> str:
    from medimgen.preflight import jupyterlab_quiet

    return "off" if jupyterlab_quiet() else "on"


_READERS = {
    "jupyterlab_news": _news,
    "jupyterlab_manager": lambda: "off" if _lab_setting("extension_manager") == "readonly" else "on",
    "onnxruntime": lambda: "on" if sys.platform == "win32" else "off",
    "silent": lambda: "off",
}


@contextmanager
def stand_in(host: str = "127.0.0.1") -> Iterator[tuple[int, list[bytes]]]:
    """(port, what it heard): a listener of this machine that the guard takes for another, to try ways out on."""
    heard, done = [], Event()
    with socket.create_server((host, 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        port = server.getsockname()[1]
        datagrams.bind((host, port))
        thread = Thread(target=_listen, args=(server, datagrams, heard, done), daemon=True)
        thread.start()
        os.environ[egress.STAND_IN] = str(port)
        try:
            yield port, heard
        finally:
            os.environ.pop(egress.STAND_IN)
            done.set()
            thread.join()


def _listen(server: socket.socket, datagrams: socket.socket, heard: list[bytes], done: Event) -> None:
    """Write down what comes, answer every caller with an empty page, until `done`."""
    callers = []
    while not done.is_set():
        for one in select.select([server, datagrams, *callers], [], [], 0.02)[0]:
            if one is server:
                callers.append(server.accept()[0])
                continue
            with suppress(OSError):  # hung up in the middle
                if said := one.recv(4096):
                    heard.append(b"\r\n".join(x for x in said.split(b"\r\n") if not x.lower().startswith(SECRET)))
                    None if one is datagrams else one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
            if one in callers:
                callers.remove(one)
                one.close()
    for one in callers:
        one.close()
