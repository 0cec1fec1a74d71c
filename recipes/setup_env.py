"""Make .venv with what the course needs; a no-op in well under a second when nothing changed.

    python recipes/setup_env.py [core|dev|research ...]
    python recipes/setup_env.py here        # install nothing: only make the Python that runs this keep to itself

Standard library only, because it runs before anything is installed. On Linux, torch comes from PyTorch's
CPU wheel index if that answers within 3 seconds (the plain package brings several GB of CUDA), else from
the package index. Every version is pinned by constraints.txt.
"""

import hashlib
import json
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def python() -> Path:
    """The interpreter of .venv on this system."""
    return VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def wanted_state() -> str:
    """A hash that changes when what should be installed changes."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files) + sys.version.encode()).hexdigest()


def installed() -> set[str]:
    """The extras that .venv already holds in the wanted state."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return set(stamp["extras"]) if stamp["state"] == wanted_state() and python().is_file() else set()


def torch_index_answers() -> bool:
    """Whether PyTorch's CPU index can be reached within 3 seconds."""
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=3) as answer:
            return answer.status == 200
    except OSError:
        return False


def pip(*arguments: str) -> None:
    command = [str(python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, "--constraint", str(ROOT / "constraints.txt"), *arguments]).returncode:
        raise SystemExit(
            "Installing failed; the lines above say why.\n"
            "  Next: check that a package index can be reached and 4 GB of disk are free, then run it again."
        )


# Switches of libraries that phone home, for every kernel; where each is documented: src/medimgen/safety/tools.yml
SWITCHES = {
    "DO_NOT_TRACK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "offline",
}
LAB = {
    "LabApp": {
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "extension_manager": "readonly",
        "news_url": None,
    }
}
KERNELS = """# Written by recipes/setup_env.py: what every kernel of this environment starts with.
import os

for _name, _value in {switches}.items():
    os.environ.setdefault(_name, _value)
c.InteractiveShellApp.extra_extensions.append("medimgen.egress")  # noqa: F821
"""
CHILDREN = (  # of a .pth file the lines that start with import are run
    "import os; os.environ.get('MEDIMGEN_EGRESS') in ('on', 'strict') "
    "and __import__('medimgen.egress').egress.start()\n"
)


def files_that_keep_quiet(prefix: Path, packages: Path) -> dict[Path, str]:
    """What is written below an environment: JupyterLab's settings, the kernels', and that of the Pythons they start."""
    return {
        prefix / "etc" / "jupyter" / "jupyter_lab_config.json": json.dumps(LAB, indent=2) + "\n",
        prefix / "etc" / "ipython" / "ipython_config.py": KERNELS.format(switches=SWITCHES),
        packages / "medimgen-egress.pth": CHILDREN,
    }


def keep_quiet() -> None:
    """Nothing leaves this machine unasked: JupyterLab's news and update checks off, the guard on in every kernel."""
    announcements = "@jupyterlab/apputils-extension:announcements"
    subprocess.run([sys.executable, "-m", "jupyter", "labextension", "disable", announcements], check=True)
    for file, text in files_that_keep_quiet(Path(sys.prefix), Path(sysconfig.get_path("purelib"))).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")


def main(extras: set[str]) -> None:
    if sys.version_info < (3, 11):
        raise SystemExit(
            f"Python {sys.version.split()[0]} is too old.\n"
            "  Next: install Python 3.11 or newer and call make with PYTHON=python3.11, or use the conda route."
        )
    if "here" in extras:
        keep_quiet()
        return
    have = installed()
    if extras <= have:
        return
    print(f"Setting up .venv ({', '.join(sorted(extras))}); the first time takes a few minutes …", flush=True)
    if not python().is_file():
        venv.create(VENV, with_pip=True)
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    if sys.platform == "linux" and torch_index_answers():
        pip(torch, "--index-url", TORCH_CPU_INDEX)
    else:
        pip(torch)
    names = ",".join(sorted((have | extras) - {"core"}))
    pip("--editable", f"{ROOT}[{names}]" if names else str(ROOT))
    subprocess.run([str(python()), __file__, "here"], check=True)
    STAMP.write_text(json.dumps({"state": wanted_state(), "extras": sorted(have | extras | {"core"})}))
    print("Set up.", flush=True)


if __name__ == "__main__":
    main(set(sys.argv[1:]) or {"core"})
