"""What was asked of which model, when, and at what cost: a log on this computer, and what a paper needs out of it.

>>> generator("chest x-ray, normal", n=4)          # adds a line to runs/calls.jsonl in the working folder, see `note`
>>> print(record.methods("to teach radiographers"))             # a Methods paragraph out of the log
>>> record.claim2024().to_csv("claim.csv")         # the 44 items of CLAIM 2024, filled in as far as the log goes

One JSON line a call, as in `medimgen.report`: weights (SHA-256), seeds, settings, versions, seconds, energy, and the
prompt with what looks like an identifier blotted out. It holds no image and is never sent. git ignores runs/; the
variable MEDIMGEN_RECORD=no turns the log off, any other value is the folder for it.

Energy is an estimate: WATTS for each busy core times seconds, low, middle and high, because a laptop's core draws less
than a workstation's and no programme here reads a meter; time spent waiting for other programmes counts too. Screen,
memory and manufacture are left out. Water: what power plants evaporate, WATER litres a kWh, the average of the United
States (Li et al. 2023, arXiv 2304.03271); other grids differ several-fold, and a computer at home is not cooled by it.
"""

import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from medimgen import prompts, report
from medimgen.errors import CourseError

SWITCH, NAME = "MEDIMGEN_RECORD", "calls.jsonl"
WATTS, WATER = (5.0, 15.0, 30.0), 3.142
KEPT = ("prompt", "negative", "seeds", "steps", "guidance", "scheduler", "hold", "strength", "redrawn", "rank",
        "planned_steps", "patient_derived", "adapter_sha256")  # fmt: skip
OWN = "[yours to write]"
Record = report.Record


def log_file() -> Path | None:
    """Where the log lies; None while it is turned off."""
    folder = os.environ.get(SWITCH, "").strip() or "runs"
    return None if folder.lower() in ("no", "off", "0", "false") else Path(folder).expanduser() / NAME


def redacted(text: str) -> str:
    """The text with "•" for each letter and digit of what looks like an identifier; what `prompts` misses stays."""
    for _, _, (start, stop) in prompts._identifiers(text):
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
    """Record a call of any other model, e.g. a language model: its name, weights (file or SHA-256) and prompt."""
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


def _listed(x) -> list:
    return x if isinstance(x, list) else [x]


def _facts(records: list[Record]) -> dict[str, Any]:
    """What the log says of all calls together, as texts and numbers for paragraph and checklist."""
    drawn = [r for r in records if "seeds" in r.parameters]
    seeds = sorted(s for r in drawn for s in r.parameters["seeds"])
    texts = list(dict.fromkeys(p for r in drawn for p in _listed(r.parameters.get("prompt", ""))))
    weights = sorted({r.inputs["weights"] for r in drawn if r.inputs})
    versions = {name: value for r in records for name, value in r.versions.items()}
    others = [r.what for r in records if r not in drawn]
    settings = {f"{r.parameters.get('steps')} steps and guidance {r.parameters.get('guidance', 1):g}" for r in drawn}
    adapters = sorted({a for r in drawn if (a := r.parameters.get("adapter_sha256"))})
    return {
        "calls": len(records), "images": len(seeds), "prompts": texts, "settings": "; ".join(sorted(settings)),
        "seeds": f"seeds {seeds[0]} to {seeds[-1]}" if seeds else "no seeds", "weights": ", ".join(weights),
        "adapter": f"; adapter SHA-256 {', '.join(adapters)}" if adapters else "",
        "derived": sum(len(r.parameters["seeds"]) for r in drawn if r.parameters.get("patient_derived")),
        "version": ", ".join(sorted({r.code_version for r in records})),
        "python": ", ".join(sorted({r.python for r in records})),
        "software": ", ".join(f"{name} {value}" for name, value in sorted(versions.items())),
        "others": ", ".join(f"{n} ({(k := others.count(n))} call{'s' * (k > 1)})" for n in sorted(set(others))),
        "failed": sum(r.outcome != "ok" for r in records), "seconds": sum(r.seconds for r in records),
        "days": " to ".join(sorted({records[0].started[:10], records[-1].started[:10]})),
        "wh": [sum(r.facts["energy_wh"][k] for r in records) for k in range(3)],
    }  # fmt: skip


def methods(purpose: str = "", path: Path | None = None, since: str = "") -> str:
    """A paragraph for a paper's Methods: model, weights, prompts, settings, versions, time, energy, and what for.

    purpose : the exact application, in your words; without it the text has a gap, for no log knows it.
    """
    f = _facts(calls(path, since))
    low, middle, high = f["wh"]
    shown = "; ".join(f'"{text}"' for text in f["prompts"][:8])
    more = f"; and {len(f['prompts']) - 8} more in the log" if len(f["prompts"]) > 8 else ""
    parts = [
        f"{f['images']} synthetic images were generated on a local computer ({f['days']}) by a text-to-image diffusion "
        f"model (weights SHA-256 {f['weights']}{f['adapter']}) with {f['settings']}, {f['seeds']}, from "
        f"{len(f['prompts'])} prompt{'s' * (len(f['prompts']) > 1)}: {shown}{more}." * bool(f["images"]),
        f"{f['derived']} of them are patient-derived and stay on that computer." * bool(f["derived"]),
        f"Other models were used: {f['others']}." * bool(f["others"]),
        f"Software: medimgen {f['version']}, Python {f['python']}, {f['software']}.",
        f"{f['calls']} calls, {f['failed']} of them failed, took {f['seconds']:.0f} s and an estimated {middle:.2g} Wh "
        f"({low:.2g} to {high:.2g} Wh at {WATTS[0]:g} to {WATTS[2]:g} W for each busy core), for which power plants "
        f"evaporate about {middle * WATER:.2g} ml of water (average of the United States, Li et al. 2023).",
        f"The tools were used {purpose or 'for ' + OWN}. Nothing made was used for diagnosis.",
    ]
    return " ".join(part for part in parts if part)


def claim2024(path: Path | None = None, since: str = ""):
    """CLAIM 2024 as a table: item, section, what it asks (our words), answer, page (of your paper: yours to fill in).

    Tejani et al. 2024, Radiology: Artificial Intelligence 6(4) e240300, doi 10.1148/ryai.240300, its table of 44 items.
    Answers come from the log and speak of the course's generator; read each, for it is your study.
    """
    import pandas as pd

    from medimgen.safety.rights import require

    f = _facts(calls(path, since))
    told = f | {"data": require("kermany-cxr-224", "derive"), "weights": f"weights SHA-256 {f['weights']}"}
    table = pd.read_csv(Path(__file__).with_name("claim2024.tsv"), sep="\t", keep_default_na=False)
    table["answer"] = [text.format(**told) or OWN for text in table.pop("prefilled")]
    return table.assign(page="").set_index("item")


def second_opinion(work: Callable[[], Any], country: str = "DEU") -> dict[str, float]:
    """Watt hours of `work()` by codecarbon, offline, beside the range of `energy`. Needs the extra "safety".

    codecarbon states no uncertainty. It reads the processor's counters where it may; elsewhere it takes a typical power
    from a table times the load, and a constant for memory, which may be most of the sum: hence both are listed.
    """
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise CourseError("codecarbon is not installed", next="pip install -e .[safety] -c constraints.txt") from error
    quiet = {"output_methods": [], "log_level": "error", "allow_multiple_runs": True}
    tracker = OfflineEmissionsTracker(country_iso_code=country, tracking_mode="process", **quiet)
    tracker.start()
    start = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - start
        tracker.stop()
    found = tracker.final_emissions_data
    low, middle, high = energy(seconds, cores())
    codecarbon = {f"codecarbon_{part}": 1000 * getattr(found, f"{part}_energy") for part in ("cpu", "ram")}
    return codecarbon | {"codecarbon": 1000 * found.energy_consumed, "low": low, "middle": middle, "high": high}
