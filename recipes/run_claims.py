"""Run the recipes of claims again and show what comes out.

    python recipes/run_claims.py            all of them
    python recipes/run_claims.py L0 L1a     these
    python recipes/run_claims.py L2a --draw 3        one training draw again; nothing is recorded

Without --draw, each recipe overwrites its own result in recipes/results; `git diff` then shows what changed.
"""

import argparse
import runpy
import sys

from medimgen import claims
from medimgen.paths import ROOT


def main(argv: list[str] | None = None) -> None:
    """Run the recipe of every claim named, once each, in the order of claims.yml; with --draw, one draw of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--draw", help="one training draw again, for claims that have draws; nothing is recorded")
    args = parser.parse_args(argv)
    if args.draw and not args.ids:
        parser.error("--draw needs the claim: run_claims.py L2a --draw 3")
    wanted, before = [claims.get(id)["recipe"] for id in args.ids or claims.load()], sys.argv
    if args.draw and (plain := [r for r in wanted if '"--draw"' not in (ROOT / r).read_text(encoding="utf-8")]):
        parser.error(f"{plain[0]} has no draws: it would record its claim anew")
    for recipe in dict.fromkeys(wanted):
        print(f"{recipe} ...", flush=True)
        sys.argv = [recipe, *(["--draw", args.draw] if args.draw else [])]
        try:
            runpy.run_path(str(ROOT / recipe), run_name="__main__")
        finally:
            sys.argv = before


if __name__ == "__main__":
    main()
