"""Run the recipes of claims again and show what comes out.

    python recipes/run_claims.py            all of them
    python recipes/run_claims.py L0 L1a     these

Each recipe overwrites its own result in recipes/results; `git diff` then shows what changed.
"""

import runpy
import sys

from medimgen import claims
from medimgen.paths import ROOT


def main(ids: list[str]) -> None:
    """Run the recipe of every claim in `ids`, once each, in the order of claims.yml."""
    wanted = [claims.get(id)["recipe"] for id in ids or claims.load()]
    for recipe in dict.fromkeys(wanted):
        print(f"{recipe} ...", flush=True)
        runpy.run_path(str(ROOT / recipe), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
