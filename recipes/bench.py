"""Time what has a time budget, print figure and budget, exit 1 if one is over: `make bench`."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medimgen.paths import ROOT

LOAD = """
import time
from medimgen.data import radiographs
start = time.perf_counter()
radiographs.load()
print(time.perf_counter() - start)
"""


def seconds(*command: str, **environment: str) -> float:
    """Wall time of a command in seconds; a failing command stops the benchmark."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def printed(*command: str) -> float:
    """The number that a command prints last."""
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def median(measure: Callable[[], float], runs: int = 3) -> float:
    return statistics.median(measure() for _ in range(runs))


def import_seconds() -> float:
    empty = median(lambda: seconds(sys.executable, "-c", "pass"))
    return median(lambda: seconds(sys.executable, "-c", "import medimgen")) - empty


def cold_load() -> float:
    """Load all films of the tier at 128 px without the array cache; the arrays in the cache are put back."""
    from medimgen.paths import cache_dir

    arrays = cache_dir() / "arrays"
    with tempfile.TemporaryDirectory(dir=cache_dir()) as aside:
        if arrays.is_dir():
            shutil.move(arrays, Path(aside) / "arrays")
        took = printed(sys.executable, "-c", LOAD)
        shutil.rmtree(arrays, ignore_errors=True)
        if (Path(aside) / "arrays").is_dir():
            shutil.move(Path(aside) / "arrays", arrays)
    return took


BUDGETS: list[tuple[str, float, Callable[[], float]]] = [
    ("import medimgen", 0.2, import_seconds),
    ("all films at 128 px, decoded", 6.0, lambda: median(cold_load)),
    ("all films at 128 px, from the array cache", 1.0, lambda: median(lambda: printed(sys.executable, "-c", LOAD))),
    ("medimgen preflight", 3.0, lambda: median(lambda: seconds(sys.executable, "-m", "medimgen", "preflight"))),
    ("set-up when nothing changed", 5.0, lambda: median(lambda: seconds("make", "--silent", "pocket"))),
]


def main() -> int:
    from medimgen.data.radiographs import available_tier

    print(f"{available_tier()} tier, {os.cpu_count()} cores, median of 3 runs")
    over = 0
    for name, budget, measure in BUDGETS:
        took = measure()
        over += took > budget
        print(f"{name:45} {took:6.2f} s  of {budget:4.1f} s  {'OVER' if took > budget else 'ok'}", flush=True)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
