"""What data the course may use: `data_manifest.yml`, read and checked."""

import difflib
import html
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from medimgen import markup
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.paths import ROOT

MANIFEST = ROOT / "data_manifest.yml"
REGISTRY = Path(__file__).parent / "registry"


@dataclass(frozen=True)
class Entry:
    """One data set: where it comes from, what may be done with it, what to look out for.

    `ways` maps "mirror", "https", "wheel" and "npm" to what that way needs; `redistribute` is "yes",
    "attribution", "share-alike" or "no"; `derive` tells whether anything may be made from it.
    """

    id: str
    title: str
    tier: str
    bytes: int
    sha256: str
    ways: dict
    licence: str
    redistribute: str
    derive: bool
    citation: str
    source: str
    users: tuple[str, ...]
    traps: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """One line of a registry: a relative POSIX path, its size in bytes and its SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


def read(path: Path) -> dict[str, Entry]:
    """The entries of a manifest file, checked against its schema.

    Raises
    ------
    CourseError
        If the file is not YAML or an entry breaks the schema; the message names the place.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CourseError(f"{path.name} is not valid YAML: {error}", next="correct the line it names") from error
    validate(raw, "manifest", path.name)
    words = {True: "yes", False: "no"}  # YAML reads a bare yes or no as a truth value
    return {
        key: Entry(
            id=key,
            **value
            | {
                "redistribute": words.get(value["redistribute"], value["redistribute"]),
                "users": tuple(value["users"]),
                "traps": tuple(value["traps"]),
            },
        )
        for key, value in raw.items()
    }


@cache
def entries() -> dict[str, Entry]:
    """All entries of the course's manifest, by id."""
    return read(MANIFEST)


def entry(id: str) -> Entry:
    """The entry called `id`; an unknown id raises CourseError with the nearest known ones."""
    known = entries()
    if id in known:
        return known[id]
    near = difflib.get_close_matches(id, known, n=2) or sorted(known)
    raise CourseError(
        f"no data set is called {id!r}",
        next=f"try {' or '.join(near[:3])}; `medimgen fetch --list` shows all",
    )


def registry_file(id: str) -> Path:
    """Path of the list of files, with hashes, that make up data set `id`."""
    return REGISTRY / f"{id}.tsv"


@cache
def registry(id: str) -> tuple[File, ...]:
    """The files that make up data set `id`; a path that leaves the folder raises CourseError."""
    rows = registry_file(id).read_text(encoding="utf-8").splitlines()[1:]
    files = tuple(File(path, int(size), digest) for path, size, digest in (row.split("\t") for row in rows if row))
    for file in files:
        refuse_escape(file.path, registry_file(id).name)
    return files


def refuse_escape(path: str, where: str) -> None:
    """Raise CourseError if a relative path would be written outside its folder ("zip slip")."""
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in path:
        raise CourseError(
            f"{where} holds {path!r}, which points outside its folder",
            next="do not use this file; fetch it again from the source named in data_manifest.yml",
        )


@dataclass(frozen=True)
class _Table:
    """HTML for a notebook or page, plain text for a terminal."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def show_licences() -> _Table:
    """Table of every data set: licence, what it allows, where it comes from."""
    may = {
        "yes": "yes",
        "attribution": "yes, naming the source",
        "share-alike": "yes, under the same licence",
    }
    head = ("Data set", "Tier", "Licence", "May be passed on", "May be built on", "Source")
    rows, lines = [], []
    for e in entries().values():
        cells = (e.title, e.tier, e.licence, may.get(e.redistribute, "no"), "yes" if e.derive else "no")
        rows.append([*cells, markup.Html(f'<a href="{html.escape(e.source)}">{html.escape(e.citation)}</a>')])
        lines.append(f"{e.id}: {'; '.join(cells)}; {e.source}")
    shown = markup.table("Data sets, and what their licences allow", head, rows, named=True, kind="licences")
    return _Table(shown, "\n".join(lines))
