"""The log of calls: what was asked of which model, when, and at what cost. One JSON line a call, on this computer.

A line is a `report.Record`: weights (SHA-256), seeds, settings, versions, seconds, energy, and the prompt with what
looks like an identifier blotted out. It holds no image and is never sent. It lies in runs/calls.jsonl of the working
folder, and git ignores runs/; the variable MEDIMGEN_RECORD=no turns the log off, any other value is the folder for it.

Energy is an estimate: WATTS for each busy core times seconds, low, middle and high, because a laptop's core draws less
than a workstation's and no programme here reads a meter; time spent waiting for other programmes counts too. Screen,
memory and manufacture are left out.
"""

import os
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from medimgen import prompts, report
from medimgen.errors import CourseError

SWITCH, NAME = "MEDIMGEN_RECORD", "calls.jsonl"
WATTS = (5.0, 15.0, 30.0)
KEPT = ("prompt", "negative", "seeds", "steps", "guidance", "scheduler", "hold", "strength", "redrawn", "rank",
        "planned_steps", "patient_derived", "adapter_sha256")  # fmt: skip
Record = report.Record


def log_file() -> Path | None:
    """Where the log lies; None while it is turned off."""
    folder = os.environ.get(SWITCH, "").strip() or "runs"
    return None if folder.lower() in ("no", "off", "0", "false") else Path(folder).expanduser() / NAME


def redacted(text: str) -> str:
    """The text with "•" for each letter and digit of what looks like an identifier; what `prompts` misses stays."""
    for _, _, (start, stop) in prompts.identifiers(text):
        text = text[:start] + "".join("•" if c.isalnum() else c for c in text[start:stop]) + text[stop:]
    return text


def energy(seconds: float, cores: int = 1) -> list[float]:
    """Watt hours, low, middle and high, of so many busy cores."""
    return [round(watts * cores * seconds / 3600, 5) for watts in WATTS]


def cores() -> int:
    """Cores that PyTorch keeps busy; 1 where it is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


@cache
def _template(loaded: tuple[str, ...]) -> Record:
    """What stays the same from call to call; asking git for the version takes long enough to do it once."""
    return report.run_record("template")


def note(what: str, made: dict[str, Any], outcome: str = "ok") -> Record | None:
    """Add one call to the log; `made` is a `generate` record or an adapter's stamp. None if the log is off.

    Never stops the work: a log that cannot be written is a warning.
    """
    if (file := log_file()) is None:
        return None
    seconds = float(made.get("seconds", 0))
    told = {key: made[key] for key in KEPT if made.get(key) not in (None, "")}
    for key in ("prompt", "negative"):
        if isinstance(text := told.get(key), str):
            told[key] = redacted(text)
        elif text:
            told[key] = [redacted(str(part)) for part in text]
    started = datetime.now(UTC) - timedelta(seconds=seconds)
    weights = made.get("weights_sha256") or made.get("base_sha256")
    record = replace(
        _template(tuple(name for name in report.WATCHED if name in sys.modules)),
        id=f"{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}", what=what, started=f"{started:%Y-%m-%dT%H:%M:%SZ}",
        seconds=round(seconds, 3), seed=made.get("seed"), inputs={"weights": weights} if weights else {},
        parameters=told, peak_mb=report.peak_mb(), outcome=outcome,
        facts={"unseen": made.get("unseen", []), "cores": cores(), "energy_wh": energy(seconds, cores())},
    )  # fmt: skip
    try:
        report.append(record, file)
    except (OSError, TypeError, ValueError) as error:
        warnings.warn(f"{file} cannot be written ({error}); this call is not recorded", stacklevel=2)
    return record


@contextmanager
def call(what: str, weights: str | Path = "", prompt: str = "", **settings) -> Iterator[None]:
    """Record a call of any other model, e.g. a language model: its name, weights (a Path, or a SHA-256) and prompt."""
    digest, start, outcome = report.file_sha256(weights) if isinstance(weights, Path) else weights, time.time(), "ok"
    try:
        yield
    except BaseException as error:
        outcome = f"failed: {type(error).__name__}"
        raise
    finally:
        note(what, settings | {"prompt": prompt, "weights_sha256": digest, "seconds": time.time() - start}, outcome)


def calls(path: Path | None = None, since: str = "") -> list[Record]:
    """Every call in the log (or in file `path`), oldest first; `since` a time such as "2026-01-31T09:00" (UTC).

    Raises CourseError if there is none.
    """
    file = path or log_file()
    if file is None or not (records := [r for r in report.read(file) if r.started >= since]):
        why = f"{file} holds no call" if file else f"the log is off ({SWITCH})"
        raise CourseError(why, next='make an image first, e.g. Generator.load()("chest x-ray, normal")')
    return records
