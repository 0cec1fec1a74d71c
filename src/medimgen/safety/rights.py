"""May this be passed on, and may anything be made from it? The flags of data_manifest.yml, as code that stops.

>>> rights.require("nih-cxr8-subset", "redistribute")      # the credit that has to go with it
>>> rights.require("nlm-reports", "derive")                # raises CourseError
>>> rights.refuse(folder.rglob("*"))                       # raises if one of the files is of such a data set

A file is recognised by its SHA-256, so any name will do; a changed copy (cut, resized, saved again) is not.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from medimgen.data import manifest
from medimgen.errors import CourseError
from medimgen.report import file_sha256
from medimgen.safety.rules import Finding

USES = {"redistribute": "passed on", "derive": "built on"}


def require(id: str, use: str) -> str:
    """The credit line that goes with data set `id` when it is used; CourseError if its flag for `use` says no.

    use : "redistribute" (copies in a kit, export, figure or result) or "derive" (weights, figures, images from it).
    """
    if use not in USES:
        raise CourseError(f"use={use!r} is no use that the manifest rules on", next=f"choose from {', '.join(USES)}")
    entry = manifest.entry(id)
    flag = getattr(entry, use)
    if flag in (False, "no"):
        what = f"{entry.title} ({id}) may not be {USES[use]}: data_manifest.yml says {use}: no ({entry.licence})"
        raise CourseError(what, next=f"leave it out; give its address ({entry.source}) and how to get it instead")
    also = "; what is made from it keeps this licence" if entry.redistribute == "share-alike" else ""
    return f"{entry.title}. {entry.citation}, {entry.source}. Licence: {entry.licence}{also}"


@cache
def _known() -> tuple[frozenset[int], dict[str, str]]:
    """Sizes of all registered files, and data set by SHA-256; where two sets hold a file, the stricter one."""
    entries = sorted(manifest.entries().values(), key=lambda e: (e.redistribute == "no", not e.derive))
    files = [(f, e.id) for e in entries if manifest.registry_file(e.id).is_file() for f in manifest.registry(e.id)]
    return frozenset(file.bytes for file, _ in files), {file.sha256: id for file, id in files}


def owner(file: Path | str) -> str | None:
    """The data set that a file (or a SHA-256, as text) belongs to; None if it is none of the manifest's."""
    sizes, known = _known()
    if isinstance(file, Path):
        near = file.is_file() and (file.stat().st_size in sizes or file.suffix in (".tsv", ".csv"))  # line ends differ
        hashes = (hashlib.sha256(file.read_bytes()).hexdigest(), file_sha256(file)) if near else ()
        return next((known[found] for found in hashes if found in known), None)  # a binary file may be called .txt
    if len(file) != 64 or set(file) - set("0123456789abcdef"):
        raise CourseError(f"{file!r} is no SHA-256", next="pass a file as a Path, e.g. Path(folder).rglob('*')")
    return known.get(file)


def refuse(files: Iterable[Path | str], use: str = "redistribute") -> list[str]:
    """Credit lines of the data sets that files (or SHA-256s) belong to; CourseError if one of them forbids `use`."""
    return [require(id, use) for id in sorted({owner(file) for file in files} - {None})]


def check(path: Path) -> Iterator[Finding]:
    """A "stop" for a file that may not be passed on, a "look" for one whose source has to be named."""
    if id := owner(path):
        try:
            credit = require(id, "redistribute")
            yield Finding("rights", str(path), f"a file of {id}", f"name the source beside it: {credit}", "look")
        except CourseError as error:
            yield Finding("rights", str(path), error.what, error.next)
