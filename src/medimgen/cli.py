"""The command line: `medimgen fetch`, `preflight`, `stress`, `safety` and `dossier`."""

import argparse
import sys
from pathlib import Path

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


def _dossier(args: argparse.Namespace) -> int:
    """0: written; 1: an error; 130: stopped by Ctrl+C, the same command goes on."""
    from medimgen import dossier

    try:
        dossier.write(args.out, args.model, args.n, args.watts, real=not args.no_real)
    except KeyboardInterrupt:
        print(f"medimgen: stopped; what is made lies in {args.out}, the same command goes on.", file=sys.stderr)
        return 130
    print(f"Dossier: {args.out / 'dossier.html'}")
    return 0


def _safety(args: argparse.Namespace) -> int:
    """0: nothing found (which proves nothing); 1: somebody must look; 2: stop, or the check itself failed."""
    from medimgen.safety import checking

    try:
        report = checking.check(args.path, args.machine, not args.no_pixels)
        if args.html:
            args.html.write_text(report.html(), encoding="utf-8", newline="\n")
    except (CourseError, OSError) as error:
        print(f"medimgen: {error}", file=sys.stderr)
        return 2
    print(report)
    return report.code


def _stress(args: argparse.Namespace) -> int:
    """0: every requirement met (or none given); 1: not; 2: an error; 130: stopped by Ctrl+C."""
    from medimgen import passport, requirements, robustness

    kept = args.out / "resume"
    try:
        asked = requirements.load(args.requirements) if args.requirements else None  # hashed before the run
        model = robustness.as_model(_model(args.model), channels=args.channels, logits=args.logits)
        images, facts = _films(args.images, args.size or model.size or 128, args.table)
        sweep = robustness.sweep(
            model, images, **facts, size=args.size or model.size or 128,
            n_jobs=args.jobs, progress=True, resume_folder=kept,
        )  # fmt: skip
        document = passport.write(sweep, asked, args.out)
    except CourseError as error:
        print(f"medimgen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        done = len(list(kept.glob("*.npz")))
        print(f"medimgen: stopped; {done} tasks are kept in {kept}, the same command goes on.", file=sys.stderr)
        return 130
    verdicts = document["requirements"]["verdicts"]
    for v in verdicts:
        print(
            f"{v['status'].upper():12} {v['statement']} ({v['metric']}: {v['measured']}, asked {v['op']} {v['value']})"
        )
    print(f"Report: {args.out / 'report.html'}")
    return 0 if all(v["status"] == "pass" for v in verdicts) else 1


def _model(name: str):
    """The course's classifier by its folder, a `package.module:name` of one's own, or a path for `as_model`."""
    import importlib

    if Path(name).is_dir() or name == "cxr-classifier":
        from medimgen.classify import Classifier

        return Classifier.load(None if name == "cxr-classifier" else name)
    if Path(name).exists() or ":" not in name:
        return Path(name)
    sys.path.insert(0, "")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CourseError(f"{name}: {error}", next="name an existing module:name, or an .onnx file") from error


def _films(name: str, size: int, table: Path | None) -> tuple:
    """Films and what is known of them: of `course:SPLIT` from the course's table, else from `table`."""
    import pandas as pd

    if name.startswith("course:"):
        from medimgen import report
        from medimgen.data import radiographs

        films = radiographs.load(name.removeprefix("course:"), size)
        if name == "course:test":
            report.log_test_use("medimgen stress", "sweep of the test split", "asked for on the command line")
        known = films.table.assign(label=films.table["label"] != "normal", patient=films.table["number"])
        columns = ["film", "label", "patient", "subtype", "width", "height"]
        return films.images, _facts(known.rename(columns={"file": "film"})[columns])
    if table is None:
        return name, {}
    from medimgen.films import source

    files = source(name, size).films
    keys = [p.relative_to(name).as_posix() if Path(name).is_dir() else p.name for p in files]
    try:
        known = pd.read_csv(table, sep=None, engine="python", dtype={"film": str})
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise CourseError(f"{table} cannot be read: {error}", next="check the name, and that it is a csv") from error
    if "film" not in known or known["film"].duplicated().any() or not set(keys) <= set(known["film"]):
        raise CourseError(f"{table.name} has not one row for each film", next='add a column "film" of relative paths')
    return files, _facts(known.set_index("film").loc[keys])


def _facts(known) -> dict:
    """The keywords of `robustness.sweep` from columns label, patient and any others, which become slices; width and
    height, if both are there, become their ratio, aspect.
    """
    columns = {name: known[name].to_numpy() for name in known}
    if {"width", "height"} <= set(columns):
        columns["aspect"] = columns.pop("width") / columns.pop("height")
    return {"labels": columns.pop("label", None), "patients": columns.pop("patient", None), "slices": columns}


def parser() -> argparse.ArgumentParser:
    """The argument parser of `medimgen`."""
    top = argparse.ArgumentParser(
        prog="medimgen", description="Generative AI in Medical Imaging: course helpers. Not a medical device."
    )
    commands = top.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch", help="bring data to this machine and verify it")
    get.add_argument("id", nargs="*", help="data set ids (default: the pocket tier)")
    get.add_argument("--tier", choices=("pocket", "full", "research", "site"), default="pocket", help="fetch all of it")
    get.add_argument("--verify", action="store_true", help="hash every file again and mend what changed")
    get.add_argument("--list", action="store_true", help="list every data set and whether it is here")
    get.set_defaults(run=_fetch)
    ready = commands.add_parser("preflight", help="is this machine ready for the course?")
    ready.set_defaults(run=_preflight)
    dossier = commands.add_parser(
        "dossier", help="what does the generator draw, how well, at what cost?", description=_dossier.__doc__
    )
    dossier.add_argument("--n", type=int, default=512, help="images over all prompts")
    dossier.add_argument("--out", type=Path, default=Path("runs/dossier"), help="folder to write, and to go on from")
    dossier.add_argument("--model", type=Path, help="a pipeline folder (default: models/cxr-mini)")
    dossier.add_argument("--watts", type=float, default=15, help="assumed power of a busy core, for the energy")
    dossier.add_argument("--no-real", action="store_true", help="show no real film: a page that can be passed on")
    dossier.set_defaults(run=_dossier)
    checks = commands.add_parser("safety", help="do the nine safety rules hold?").add_subparsers(required=True)
    safety = checks.add_parser("check", help="look through a file or folder", description=_safety.__doc__)
    safety.add_argument(
        "path", type=Path, help="DICOM, pictures, weights, notebooks, scripts, prompts, tables, or a folder"
    )
    safety.add_argument("--html", type=Path, help="also write the report as a page")
    safety.add_argument("--machine", action="store_true", help="also ask what on this computer talks to the network")
    safety.add_argument("--no-pixels", action="store_true", help="do not look for text in pictures (faster)")
    safety.set_defaults(run=_safety)
    stress = commands.add_parser(
        "stress", help="how small a change flips a model's answers?", description=_stress.__doc__
    )
    stress.add_argument("model", help="an .onnx file, a folder of the course's classifier, or package.module:name")
    stress.add_argument("images", help="a folder or file of PNG, JPEG or DICOM, or course:dev (pocket, clinic ...)")
    stress.add_argument("--requirements", type=Path, help="a requirements.yml to judge by")
    stress.add_argument(
        "--out", type=Path, required=True, help="folder for report.html, passport.json and what to resume"
    )
    stress.add_argument(
        "--table", type=Path, help="csv with columns film, label (0/1), patient, width and height, and any to slice by"
    )
    stress.add_argument("--size", type=int, help="side in pixels the films are squashed to")
    stress.add_argument(
        "--channels", type=int, default=1, help="channels the model wants (0: pictures without that axis)"
    )
    stress.add_argument("--logits", action="store_true", help="the model returns raw scores, not probabilities")
    stress.add_argument("--jobs", type=int, help="processes")
    stress.set_defaults(run=_stress)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 is success, 130 a stop by Ctrl+C, 1 or 2 as each command's own docstring says."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # on Windows a pipe may know fewer letters than a file name holds
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except CourseError as error:
        print(f"medimgen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("medimgen: stopped; files already fetched are kept, the same command goes on.", file=sys.stderr)
        return 130
