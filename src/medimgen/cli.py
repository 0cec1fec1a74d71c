"""The command line: `medimgen fetch` and `medimgen preflight`."""

import argparse
import sys

from medimgen.errors import CourseError


def _fetch(args: argparse.Namespace) -> int:
    from medimgen.data import manifest
    from medimgen.data.fetch import fetch, is_fetched, is_reachable

    if args.list:
        for e in manifest.entries().values():
            state = "here" if is_fetched(e.id) else "in the mirror" if is_reachable(e.id) else "not here"
            print(f"{e.id:24} {e.tier:7} {e.bytes / 1e6:6.1f} MB  {state:14} {e.title}")
        return 0
    ids = args.id or [e.id for e in manifest.entries().values() if e.tier == args.tier]
    for id in ids:
        fresh = args.verify or not is_fetched(id)
        folder = fetch(id, verify=args.verify)
        if fresh or args.id:
            print(f"{id}: verified, {folder}")
    return 0


def _preflight(args: argparse.Namespace) -> int:
    from medimgen import preflight

    ok, text = preflight.run()
    print(text)
    return 0 if ok else 1


def parser() -> argparse.ArgumentParser:
    """The argument parser of `medimgen`."""
    top = argparse.ArgumentParser(
        prog="medimgen", description="Generative AI in Medical Imaging: course helpers. Not a medical device."
    )
    commands = top.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch", help="bring data to this machine and verify it")
    get.add_argument("id", nargs="*", help="data set ids (default: the pocket tier)")
    get.add_argument("--tier", choices=("pocket", "full", "research"), default="pocket", help="fetch all of a tier")
    get.add_argument("--verify", action="store_true", help="hash every file again and mend what changed")
    get.add_argument("--list", action="store_true", help="list every data set and whether it is here")
    get.set_defaults(run=_fetch)
    ready = commands.add_parser("preflight", help="is this machine ready for the course?")
    ready.set_defaults(run=_preflight)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 is success, 1 a failure that the printed next action mends, 130 a stop by Ctrl+C."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except CourseError as error:
        print(f"medimgen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("medimgen: stopped; files already fetched are kept, the same command goes on.", file=sys.stderr)
        return 130
