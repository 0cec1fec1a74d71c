"""Time and memory of each notebook, for its badge: `python recipes/measure_notebooks.py [--write] [FILE...]`.

Each notebook is run alone in a fresh kernel, in every data tier that this machine has: wall time from before
the kernel starts until the last cell is done, and the peak memory of the kernel with its children (shared
pages counted in proportion on Linux, private memory elsewhere), sampled ten times a second.
With `--write` (`make badges`) the worse tier, rounded up, becomes the badge; without it the measurement is
compared: more than half as much again as the badge, and one second, is a failure. A budget holds for both.

One machine's minute is not another's, and a shared one's not even its own of an hour ago (the same notebook, the
same day: 29 to 63 s). So a yardstick, the same work each time in a fresh Python, is timed before and after, and the
seconds are those of a machine on which it takes `YARDSTICK_SECONDS`: a laptop of two cores. The clock's own seconds
are printed too.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from notebook_lint import MARK, badge_line

BUDGET = {"seconds": 60, "peak_mb": 1500}
RESEARCH_BUDGET = {"seconds": 180, "peak_mb": 2000}
SLACK, SLACK_SECONDS = 1.5, 1.0
PAUSE = 0.1
YARDSTICK_SECONDS = 9.0
YARDSTICK = """
import matplotlib.pyplot, numpy, pandas, scipy.ndimage, skimage.transform, torch, transformers
torch.set_num_threads(2)
layers = [part for _ in range(6) for part in (torch.nn.Conv2d(96, 96, 3, padding=1), torch.nn.SiLU())]
network, images = torch.nn.Sequential(*layers), torch.randn(8, 96, 32, 32)
with torch.inference_mode():
    for _ in range(30):
        network(images)
print(sum(i % 7 for i in range(3_000_000)), [numpy.ones(25_000_000).sum() for _ in range(4)])
"""


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds at the yardstick's pace, peak memory in 10^6 bytes, and the clock's own seconds.

    surprises: what its cells put out and should not have; see the function of that name.
    """

    seconds: float
    peak_mb: float
    raw_seconds: float = math.nan
    surprises: tuple[str, ...] = ()


def yardstick() -> float:
    """Seconds that the yardstick takes now: starting Python, reading libraries, convolutions, a loop, fresh memory."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", YARDSTICK], check=True, capture_output=True)
    return time.perf_counter() - start


def memory_mb(pid: int) -> float:
    """Memory that a process and its children occupy now, in 10^6 bytes; 0 once it is gone."""
    import psutil

    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.uss
        except psutil.AccessDenied:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


@contextmanager
def peak_of(pid: int) -> Iterator[list[float]]:
    """A list whose only entry is the peak memory, in MB, of the process while the block runs."""
    peak, done = [memory_mb(pid)], threading.Event()

    def sample() -> None:
        while not done.wait(PAUSE):
            peak[0] = max(peak[0], memory_mb(pid))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        peak[0] = max(peak[0], memory_mb(pid))
        done.set()
        watcher.join()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """These environment variables while the block runs, for the kernel to inherit."""
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def surprises(kept: nbformat.NotebookNode, ran: nbformat.NotebookNode) -> tuple[str, ...]:
    """Cells of `ran` that wrote to stderr, and those whose output is not the one that they keep in `kept`."""

    def text(cell: nbformat.NotebookNode) -> str:
        return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", []))

    found = []
    for number, (old, new) in enumerate(zip(kept.cells, ran.cells, strict=True)):
        noise = "".join(o.text for o in new.get("outputs", []) if o.get("name") == "stderr")
        found += [f"cell {number} wrote to stderr: {noise}"] if noise else []
        if MARK in old.source and text(old) != text(new):
            found.append(f"cell {number} keeps {text(old)!r} and now says {text(new)!r}")
    return tuple(found)


def run_alone(notebook: nbformat.NotebookNode, folder: Path, tier: str, timeout: int = 900) -> Cost:
    """Run a notebook in a fresh kernel of this Python; the notebook given is not changed.

    Raises nbclient's CellExecutionError if a cell does.
    """
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    manager = AsyncKernelManager()
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    copy = nbformat.from_dict(notebook)
    client = NotebookClient(copy, km=manager, timeout=timeout, resources={"metadata": {"path": str(folder)}})
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"MEDIMGEN_TIER": tier, "IPYTHONDIR": scratch, "OMP_WAIT_POLICY": "PASSIVE"}
        with environment(**settings):
            start = time.perf_counter()
            with client.setup_kernel(), peak_of(manager.provisioner.pid) as peak:
                for number, cell in enumerate(copy.cells):
                    client.execute_cell(cell, number)
                seconds = time.perf_counter() - start
    return Cost(seconds, peak[0], surprises=surprises(notebook, copy))


def measure(path: Path, tiers: list[str], last: list[float] | None = None) -> Cost:
    """The worst seconds and the worst memory of a notebook file over the tiers.

    last: the yardstick's reading of a moment ago, if there is one; the new one takes its place.
    """
    notebook, last = nbformat.read(path, as_version=4), [] if last is None else last
    costs, before = [], last.pop() if last else yardstick()
    for tier in tiers:
        cost, after = run_alone(notebook, path.parent, tier), yardstick()
        pace = 2 * YARDSTICK_SECONDS / (before + after)
        costs.append(Cost(cost.seconds * pace, cost.peak_mb, cost.seconds, cost.surprises))
        before = after
    last.append(before)
    worst = [max(getattr(c, name) for c in costs) for name in ("seconds", "peak_mb", "raw_seconds")]
    return Cost(*worst, tuple(said for c in costs for said in c.surprises))


def rounded(cost: Cost, tiers: list[str]) -> dict:
    """The badge's facts: whole seconds and hundreds of megabytes, rounded up."""
    return {
        "seconds": math.ceil(cost.seconds),
        "peak_mb": math.ceil(cost.peak_mb / 100) * 100,
        "tiers": tiers,
        "offline": True,
    }


def write_badge(path: Path, facts: dict) -> None:
    """Put the facts into a notebook's metadata and the line under its title; nothing else changes."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["medimgen"] = {**notebook.metadata.get("medimgen", {}), **facts}
    lines = notebook.cells[0].source.splitlines()
    place = next((i for i, line in enumerate(lines) if line.startswith("**") and " GB · " in line), None)
    if place is None:
        lines[1:1] = ["", badge_line(facts)]
    else:
        lines[place] = badge_line(facts)
    notebook.cells[0].source = "\n".join(lines)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def complaints(cost: Cost, facts: dict, budget: dict) -> list[str]:
    """Where a measurement exceeds its badge by half, or the budget."""
    found = []
    limit = facts.get("seconds", 0) * SLACK + SLACK_SECONDS
    if cost.seconds > limit:
        found.append(f"took {cost.seconds:.1f} s, the badge says {facts.get('seconds')} s: run `make badges`")
    if cost.peak_mb > facts.get("peak_mb", 0) * SLACK:
        found.append(f"used {cost.peak_mb:.0f} MB, the badge says {facts.get('peak_mb')} MB: run `make badges`")
    if cost.seconds > budget["seconds"] or facts.get("seconds", 0) > budget["seconds"]:
        found.append(f"{cost.seconds:.1f} s is over the budget of {budget['seconds']} s")
    if cost.peak_mb > budget["peak_mb"] or facts.get("peak_mb", 0) > budget["peak_mb"]:
        found.append(f"{cost.peak_mb:.0f} MB is over the budget of {budget['peak_mb']} MB")
    return found


def budget_of(path: Path) -> dict:
    """The budget of a notebook: research notebooks may take longer."""
    return RESEARCH_BUDGET if path.parent.name == "research" else BUDGET


def tiers_here() -> list[str]:
    """The data tiers that need no network on this machine."""
    from medimgen.data.fetch import is_reachable

    return ["pocket", "full"] if is_reachable("kermany-cxr-224") else ["pocket"]


def main(arguments: list[str] | None = None) -> int:
    """Measure the notebooks named, or all; write the badges or compare with them."""
    from medimgen.paths import ROOT

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the badges instead of comparing")
    parser.add_argument("--tier", choices=["pocket", "full"], help="default: every tier this machine has")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    tiers = [options.tier] if options.tier else tiers_here()
    if options.write and tiers != ["pocket", "full"]:
        parser.error("badges speak for both tiers: set MEDIMGEN_MIRROR or run `medimgen fetch kermany-cxr-224`")
    failed = False
    for path in options.files or sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cost, facts = measure(path, tiers), nbformat.read(path, as_version=4).metadata.get("medimgen", {})
        print(f"{path.name}: {cost.seconds:.1f} s ({cost.raw_seconds:.1f} by the clock), ", end="")
        print(f"{cost.peak_mb:.0f} MB ({' and '.join(tiers)})", flush=True)
        if options.write:
            write_badge(path, rounded(cost, tiers))
        else:
            for sentence in complaints(cost, facts, budget_of(path)):
                failed = True
                print(f"{path.name}: {sentence}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
