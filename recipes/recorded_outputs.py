"""Outputs of the research notebooks, kept from a run on the real model, for pages that are built without one.

    python recipes/recorded_outputs.py           # run the research notebooks and keep what they print and draw
    python recipes/recorded_outputs.py R02       # one of them

Notebooks have no outputs in git, and the build of the site has no language model. So each recording in results/outputs
holds the outputs by cell, the day, the version, and a hash of the notebook's code; the page shows these below its
badge. When the code has changed since, the page shows no outputs, and a test asks for a new recording. Needs the extra
`research` and `medimgen fetch --tier research`; some minutes and 2 GB a notebook.
"""

import argparse
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from measure_notebooks import environment

from medimgen import markup, report
from medimgen.paths import ROOT

FOLDER = report.RESULTS / "outputs"
NOTEBOOKS = sorted((ROOT / "notebooks" / "research").glob("*.ipynb"))
KEPT = ("text/html", "text/plain", "image/png")
LINE = (
    "*What stands below the cells was recorded on {day} with version {version} (notebook's code: {code}). Nothing runs "
    "while this page is built.*"
)


def code(notebook: dict) -> str:
    """Twelve signs of the notebook's code, cell by cell."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]


def kept(output: dict) -> dict | None:
    """An output without what a page does not show; None if nothing is left: warnings, bars, live widgets."""
    if output["output_type"] == "stream":
        return dict(output) if output["name"] == "stdout" else None
    data = {kind: value for kind, value in output.get("data", {}).items() if kind in KEPT}
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}) and "text/html" not in data:
        return None
    return {"output_type": "display_data", "metadata": {}, "data": data} if data else None


def joined(outputs: list[dict]) -> list[dict]:
    """Outputs that a page shows, what was printed in one go in one piece."""
    found = []
    for output in filter(None, map(kept, outputs)):
        if found and output["output_type"] == found[-1]["output_type"] == "stream":
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


def record(path: Path, folder: Path = FOLDER) -> Path:
    """Run a notebook and keep its outputs. Raises what its cells raise."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    signs = code(notebook)
    with environment(MEDIMGEN_RECORD="no"):
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    ran = (cell for cell in notebook.cells if cell.cell_type == "code" and "show_quiz(" not in cell.source)
    cells = {cell.id: joined(cell.outputs) for cell in ran}  # a quiz comes from its own file when a page is built
    told = {"day": f"{datetime.now(UTC):%Y-%m-%d}", "version": report.run_record("outputs").code_version, "code": signs}
    file = folder / f"{path.stem}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    told |= {"cells": {name: outputs for name, outputs in cells.items() if outputs}}
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return file


def install(sources: Path, folder: Path = FOLDER) -> None:
    """Put recorded outputs into the research notebooks of a copy of the sources, and say so below the badge."""
    for path in sorted((sources / "notebooks" / "research").glob("*.ipynb")):
        notebook, file = json.loads(path.read_text(encoding="utf-8")), folder / f"{path.stem}.json"
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"code": None}
        if told["code"] != code(notebook):
            continue
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code" and not cell["outputs"]:
                cell["outputs"] = told["cells"].get(cell["id"], [])
                for data in (output.get("data", {}) for output in cell["outputs"]):
                    data |= {"text/html": markup.spaced(data["text/html"])} if "text/html" in data else {}
        badge = "".join(notebook["cells"][0]["source"]).split("\n\n", 2)
        notebook["cells"][0]["source"] = "\n\n".join([*badge[:2], LINE.format(**told), *badge[2:]])
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", nargs="?", default="", help="R01, R02 ...; all of them if not given")
    for path in NOTEBOOKS:
        if path.stem.startswith(parser.parse_args().number):
            print(f"{path.stem} runs ...", flush=True)
            print(record(path).relative_to(ROOT))


if __name__ == "__main__":
    main()
