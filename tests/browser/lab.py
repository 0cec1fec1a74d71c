"""A JupyterLab and a Chromium for the browser tests: started, looked at, stopped."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
TOKEN = "course"
QUIET = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
UNWINDOWED = {"windowingMode": "none"}
SERVER = [
    "--no-browser",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--ServerApp.allow_root=True",
    "--ServerApp.open_browser=False",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]


def find_browser() -> str | None:
    """Path of a Chromium or a relative of it, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def write_settings(folder: Path) -> dict[str, str]:
    """Environment of a JupyterLab that knows no user: no news, and all cells in the page at once."""
    (folder / "config" / "labconfig").mkdir(parents=True)
    (folder / "config" / "labconfig" / "page_config.json").write_text(json.dumps(QUIET), encoding="utf-8")
    tracker = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps(UNWINDOWED), encoding="utf-8")
    return {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def wait_until_up(address: str, process: subprocess.Popen, log: Path, seconds: int = 60) -> None:
    """Return when the server answers; RuntimeError with its log if it does not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            opener.open(f"{address}/api/status?token={TOKEN}", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}")


@contextmanager
def running_lab(root: Path, scratch: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a JupyterLab that serves the folder `root`; stopped, with its kernels, at the end.

    As on Binder it knows the pocket tier and no mirror; tests/notebooks runs every notebook in the full tier as well.
    """
    port = free_port()
    address, log = f"http://127.0.0.1:{port}", scratch / "lab.log"
    environment = {**os.environ, **write_settings(scratch), "MEDIMGEN_TIER": "pocket"}
    environment.pop("MEDIMGEN_MIRROR", None)
    command = [sys.executable, "-m", "jupyterlab", *SERVER, f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        wait_until_up(address, process, log)
        yield address, process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def browser(executable: str) -> Iterator:
    """A headless browser that talks to this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS, headless=True)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def open_page(executable: str) -> Iterator:
    """A Playwright page of such a browser."""
    with browser(executable) as started:
        yield started.new_page(viewport={"width": 1280, "height": 1000})
