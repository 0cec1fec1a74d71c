"""Bring the lesson table of README.md up to date: `python recipes/lesson_table.py` (after `make badges`).

Each row's last two cells follow from the notebooks that it links to: the largest peak memory of their badges, and what
`medimgen fetch` downloads for them by data_manifest.yml. The first row carries the pocket tier, which all others use.
"""

import json
import re

from medimgen.data import manifest
from medimgen.paths import ROOT

README = ROOT / "README.md"
NOTEBOOK = re.compile(r"\((notebooks/[^)\s]+)\.ipynb\)")


def packages(entries) -> int:
    """Bytes of the packages that hold these data sets, each counted once."""
    return sum({way["name"]: way["bytes"] for e in entries if (way := e.ways.get("wheel"))}.values())


def facts(names: list[str], first: bool) -> list[str]:
    """The cells Memory and Download of a row that links to these notebooks."""
    files = [json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8")) for name in names]
    memory = max(file["metadata"]["medimgen"]["peak_mb"] for file in files) / 1000
    known = manifest.entries().values()
    more = [e for e in known if e.tier == "research" and set(names) & set(e.users)]
    pocket = [e for e in known if e.tier == "pocket"] if first else []
    load = packages([*pocket, *more])
    return [f"{memory:.1f} GB", f"{load / 1e6:.0f} MB" if load else "nothing more"]


def renewed(text: str) -> str:
    """README.md with those cells filled in."""
    lines, first = text.splitlines(), True
    for k, line in enumerate(lines):
        if line.startswith("|") and (names := NOTEBOOK.findall(line)):
            cells = line.strip("|").split("|")
            lines[k] = "|" + "|".join([*cells[:-2], *(f" {cell} " for cell in facts(names, first))]) + "|"
            first = False
    return "\n".join(lines) + "\n"


def main() -> None:
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(f"{README.name}: the lesson table follows the badges")


if __name__ == "__main__":
    main()
