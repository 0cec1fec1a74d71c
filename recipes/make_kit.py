"""Pack the course for a room without a network: the repository, the site and the data that may be passed on.

    python recipes/make_kit.py E:/                 # a USB stick; 0.7 GB with the full tier, less without
    python recipes/make_kit.py runs/kit --only kermany-pocket chest-ct

Every data set passes the rights gate (`medimgen.safety.rights`) before a byte is copied. What data_manifest.yml
forbids to pass on stays out; CREDITS.md in the kit names it, says where each participant gets it, and carries the
credit lines of all that is in. Every single file passes the gate as well, whatever folder it hides in. Run it again
to go on after a stop: a file that is there with the right size is left alone. Not a medical device.
"""

import argparse
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from medimgen.data import manifest
from medimgen.data.fetch import fetch, is_reachable
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.safety import rights

Copy = tuple[Path, Path]  # from, to


def allowed(ids: Iterable[str]) -> tuple[dict[str, str], dict[str, CourseError]]:
    """Credit line of each data set that may be passed on, and why each other one may not."""
    credits, refused = {}, {}
    for id in ids:
        try:
            credits[id] = rights.require(id, "redistribute")
        except CourseError as error:
            refused[id] = error
    return credits, refused


def tracked() -> list[str]:
    """The repository's files, as git lists them."""
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if run.returncode:
        raise CourseError("the repository's list of files cannot be read", next="install git, or clone the course anew")
    return [name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]


def copies(kit: Path, ids: Iterable[str]) -> Iterator[Copy]:
    """What goes where: course/ (with mirror/ inside, where the course looks for it) and site/."""
    for name in tracked():
        yield ROOT / name, kit / "course" / name
    for id in ids:
        folder = fetch(id)
        for file in manifest.registry(id):
            yield folder / file.path, kit / "course" / "mirror" / id / file.path
    for page in sorted((ROOT / "_build" / "html").rglob("*")):
        if page.is_file():
            yield page, kit / "site" / page.relative_to(ROOT / "_build" / "html")


def copy(pairs: list[Copy]) -> int:
    """Copy what is not there yet, whole files only; bytes copied. CourseError if the stick is full or read-only."""
    missing = [(a, b) for a, b in pairs if not (b.is_file() and b.stat().st_size == a.stat().st_size)]
    needed = sum(a.stat().st_size for a, _ in missing)
    with tqdm(total=needed, unit="B", unit_scale=True, desc="kit") as bar:
        for source, target in missing:
            part = target.with_name(target.name + ".part")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, part)
                part.replace(target)
            except OSError as error:
                part.unlink(missing_ok=True)
                next = f"{(needed - bar.n) / 1e6:.0f} MB are still to be written: make room, or choose another folder"
                raise CourseError(f"{target} could not be written: {error}", next=next) from error
            bar.update(source.stat().st_size)
    return needed


def credits_page(credits: dict[str, str], refused: dict[str, CourseError]) -> str:
    """CREDITS.md: what is in the kit and whose it is, what is not and how to get it."""
    inside = [f"- {line}" for line in credits.values()] or ["- no data set"]
    outside = [f"- {error.what}. Next: {error.next}" for error in refused.values()]
    lines = ["# What this kit holds, and whose it is", "", *inside, ""]
    lines += ["# What may not be passed on and is therefore not in it", "", *(outside or ["- nothing"]), ""]
    lines += ["With a network, `medimgen fetch` gets it. Images that the course generates are marked as synthetic.", ""]
    return "\n".join(lines)


def pack(kit: Path, ids: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Write the kit into a folder; the ids that went in and those that were refused.

    ids : data sets wanted; by default all that this machine has. A data set asked for by name and not allowed raises
    CourseError before anything is written; by default it is left out and named in CREDITS.md.
    """
    asked = ids is not None
    wanted = list(ids) if asked else [id for id in manifest.entries() if is_reachable(id)]
    credits, refused = allowed(wanted)
    if asked and refused:
        raise next(iter(refused.values()))
    pairs = list(copies(kit, credits))
    rights.refuse(source for source, _ in pairs)
    copy(pairs)
    (kit / "CREDITS.md").write_text(credits_page(credits, refused), encoding="utf-8", newline="\n")
    return {"in": list(credits), "refused": list(refused)}


def main(arguments: list[str] | None = None) -> None:
    """Pack a kit and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the stick, or any folder")
    parser.add_argument("--only", nargs="+", metavar="ID", help="data sets; default: all that this machine has")
    options = parser.parse_args(arguments)
    done = pack(options.folder, options.only)
    print(f"in the kit: {', '.join(done['in']) or 'no data'}; left out by their licence: {', '.join(done['refused'])}")
    if not (options.folder / "site").is_dir():
        print("No site in it: run `make book` first, then this again.")


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        raise SystemExit(str(error)) from None
