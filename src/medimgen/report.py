"""Run records: what ran, on which data, with which code, for how long. One JSON line a run.

>>> with report.run("confounder", seed=0, inputs={"labels": LABELS}, parameters={"draws": 2000}) as run:
...     ...                                   # the work
>>> report.append(run.record, RUNS)

A line of `recipes/results/runs.jsonl` (schema `run.json`):
{"id": "20260102T030405Z-9f2c41aa", "what": "confounder", "started": "2026-01-02T03:04:05Z", "seconds": 4.2,
 "seed": 0, "inputs": {"labels": "<sha256>"}, "parameters": {"draws": 2000}, "tier": "both",
 "code_version": "0.1.0+1a2b3c4", "python": "3.11.9", "versions": {"numpy": "2.4.6"}, "peak_mb": 180.0,
 "outcome": "ok", "facts": {}}

The test ledger (`recipes/results/test_ledger.jsonl`) holds the same records; `facts` then says who and why.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from medimgen import __version__
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.paths import ROOT

RESULTS = ROOT / "recipes" / "results"
RUNS = RESULTS / "runs.jsonl"
LEDGER = RESULTS / "test_ledger.jsonl"
TEXT = {".csv", ".json", ".jsonl", ".md", ".py", ".tsv", ".txt", ".yaml", ".yml"}
WATCHED = ("numpy", "scipy", "pandas", "sklearn", "skimage", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Record:
    """One finished run. seconds is wall time, peak_mb the process's largest memory so far (1 MB = 10^6)."""

    id: str
    what: str
    started: str
    seconds: float
    seed: int | None
    inputs: dict[str, str]
    parameters: dict
    tier: str | None
    code_version: str
    python: str
    versions: dict[str, str]
    peak_mb: float
    outcome: str
    facts: dict


@dataclass
class Run:
    """A run in progress: fill `facts` while it lasts; `record` is there when the `with` block has ended."""

    facts: dict = field(default_factory=dict)
    record: Record | None = None


def run_record(
    what: str,
    *,
    started: datetime | None = None,
    seconds: float = 0.0,
    seed: int | None = None,
    inputs: Mapping[str, str | Path] | None = None,
    parameters: dict | None = None,
    tier: str | None = None,
    outcome: str = "ok",
    **facts,
) -> Record:
    """A run record made now. Inputs are paths (hashed here) or ready sha256 strings; other facts are kept."""
    started = started or datetime.now(UTC)
    record = Record(
        id=f"{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
        what=what,
        started=f"{started:%Y-%m-%dT%H:%M:%SZ}",
        seconds=round(seconds, 3),
        seed=seed,
        inputs={k: file_sha256(v) if isinstance(v, Path) else v for k, v in (inputs or {}).items()},
        parameters=parameters or {},
        tier=tier,
        code_version=code_version(),
        python=platform.python_version(),
        versions={n: str(v) for n in WATCHED if (v := getattr(sys.modules.get(n), "__version__", None))},
        peak_mb=peak_mb(),
        outcome=outcome,
        facts=facts,
    )
    validate(asdict(record), "run", where=f"run record {what!r}")
    return record


@contextmanager
def run(what: str, **facts) -> Iterator[Run]:
    """Time a block and make its record; an exception is recorded as the outcome and goes on up."""
    running, started, clock, outcome = Run(), datetime.now(UTC), time.perf_counter(), "ok"
    try:
        yield running
    except BaseException as error:
        outcome = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        seconds = time.perf_counter() - clock
        facts = {**facts, **running.facts, "started": started, "seconds": seconds, "outcome": outcome}
        running.record = run_record(what, **facts)


def append(record: Record, path: Path) -> None:
    """Add one line to a JSONL file; two processes may do so at once. A torn last line is closed first."""
    from filelock import FileLock

    line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock"), timeout=60), path.open("ab+") as file:
        torn = file.tell() > 0 and file.seek(-1, 2) >= 0 and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + line.encode("utf-8"))


def read(path: Path) -> list[Record]:
    """All records of a JSONL file, oldest first; [] if there is none. Warns of torn lines and skips them."""
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            warnings.warn(f"{path.name}, line {number} is cut off: skipped", stacklevel=2)
            continue
        validate(fields, "run", where=f"{path.name}, line {number}")
        records.append(Record(**fields))
    return records


def log_test_use(who: str, what: str, why: str, path: Path = LEDGER) -> Record:
    """Note in the ledger that the test split was evaluated: who (recipe or notebook), what, why, and when."""
    if not (who.strip() and what.strip() and why.strip()):
        raise CourseError("the test ledger needs who, what and why", next="say each in a few words")
    record = run_record(what, who=who, why=why)
    append(record, path)
    return record


def file_sha256(path: Path) -> str:
    """sha256 of a file. In text files CRLF counts as LF, so that a Windows checkout has the same hash."""
    data = path.read_bytes()
    if path.suffix in TEXT:
        data = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(data).hexdigest()


def combined_sha256(inputs: Mapping[str, str]) -> str:
    """One hash for several inputs: the only one as it is, else the hash of the sorted `name hash` lines."""
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    lines = "".join(f"{name} {value}\n" for name, value in sorted(inputs.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def code_version(root: Path = ROOT) -> str:
    """Package version, plus `+<git describe>` when `root` is a git checkout that git can describe."""
    try:
        version = metadata.version("medimgen")
    except metadata.PackageNotFoundError:
        version = __version__
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{re.sub(r'[^0-9A-Za-z.-]', '', done.stdout)}"


def peak_mb() -> float:
    """Largest resident memory of this process since it started, in MB (10^6 bytes)."""
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = peak if sys.platform == "darwin" else peak * 1024
    except ImportError:  # Windows
        import psutil

        size = psutil.Process().memory_info().peak_wset
    return round(size / 1e6, 1)
