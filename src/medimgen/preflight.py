"""`medimgen preflight`: is this machine ready for a workshop? One line a requirement of `preflight.yml`.

>>> ok, text = preflight.run()
>>> print(text)
PASS  Python is 3.11 or newer [3.11.9, asked >= 3.11]
...
READY

PASS and FAIL say whether a requirement is met. NOTE marks one that is not met or could not be looked at, but
stops nobody. The report ends with READY, or with the first thing to do.
"""

import importlib.util
import json
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

from medimgen.errors import CourseError
from medimgen.paths import ROOT, cache_dir
from medimgen.requirements import Verdict, describe, evaluate, load, passed

REQUIREMENTS = Path(__file__).with_name("preflight.yml")
PACKAGES = ("torch", "diffusers", "numpy", "pydicom", "jupyterlab")
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def run() -> tuple[bool, str]:
    """Judge this machine: (ready, report). Takes under 3 s; imports neither torch nor diffusers."""
    verdicts = evaluate(load(REQUIREMENTS), measure())
    return passed(verdicts), report(verdicts)


def measure() -> dict:
    """The facts about this machine that `preflight.yml` asks for; None for what could not be looked at."""
    total, free = memory_gb()
    return {
        "python": platform.python_version(),
        "packages_missing": ", ".join(missing()) or "none",
        "versions_differing": differing(ROOT / "constraints.txt"),
        "memory_total_gb": total,
        "memory_free_gb": free,
        "disk_free_gb": disk_free_gb(cache_dir()),
        "data_tier": data_tier(),
        "jupyterlab": importlib.util.find_spec("jupyterlab") is not None,
        "jupyterlab_quiet": jupyterlab_quiet(),
    }


def report(verdicts: list[Verdict]) -> str:
    """The verdicts as text: one line each, the next action under what is not met, the conclusion last."""
    lines, todo = [], None
    for verdict in verdicts:
        item, met = verdict.requirement, verdict.status == "pass"
        word = "PASS" if met else "FAIL" if item.critical else "NOTE"
        exact = met and item.op in ("==", "!=")
        found = verdict.measured if exact and isinstance(verdict.measured, str) else describe(verdict)
        lines.append(f"{word}  {item.statement} [{found}]")
        if not met:
            lines.append(f"      {item.why}\n      Next: {item.next}")
            todo = todo or (item.next if item.critical else None)
    return "\n".join([*lines, "", "READY" if passed(verdicts) else f"NOT READY: {todo}"])


def missing() -> list[str]:
    """Those of the watched packages that are not installed."""
    return [name for name in PACKAGES if _version(name) is None]


def differing(constraints: Path) -> str | None:
    """Installed versions that differ from the pinned ones, in words; "none"; None without a constraints file.

    A local build tag is ignored: 2.13.0+cpu is 2.13.0.
    """
    if not constraints.is_file():
        return None
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.M))
    pairs = [(n, v.split("+")[0], pins[n]) for n in PACKAGES if (v := _version(n)) and n in pins]
    return ", ".join(f"{n} {v} (tested: {pin})" for n, v, pin in pairs if v != pin.split("+")[0]) or "none"


def memory_gb(limits: tuple[str, ...] = CGROUP_LIMITS) -> tuple[float, float]:
    """(total, free) memory in GB (10^9 bytes); in a container its limit counts, where it is the smaller."""
    import psutil

    memory = psutil.virtual_memory()
    total = memory.total
    for path in map(Path, limits):
        if path.is_file() and (text := path.read_text(encoding="utf-8").strip()).isdigit():
            total = min(total, int(text))
    return total / 1e9, min(memory.available, total) / 1e9


def disk_free_gb(folder: Path) -> float:
    """Free space, in GB, on the disk that holds `folder` or, before it exists, its nearest parent."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(place).free / 1e9


def data_tier() -> str | None:
    """ "full", "pocket" or "none"; None when it could not be found out."""
    from medimgen.data.radiographs import available_tier

    try:
        return available_tier() or "none"
    except (CourseError, OSError):
        return None


def jupyterlab_quiet() -> bool | None:
    """Whether JupyterLab's announcements are switched off here; None without Jupyter."""
    try:
        from jupyter_core.paths import jupyter_config_path
    except ImportError:
        return None
    for folder in map(Path, jupyter_config_path()):
        try:
            config = json.loads((folder / "labconfig" / "page_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        disabled = config.get("disabledExtensions", {})
        if ANNOUNCEMENTS in disabled and (not isinstance(disabled, dict) or disabled[ANNOUNCEMENTS]):
            return True
    return False


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
