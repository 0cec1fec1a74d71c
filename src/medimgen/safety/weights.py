"""Weights that may hold a program, looked at without opening them the way a library would.

A pickle is a list of instructions, and "call this function" is one of them. The content decides here, not the name:
bare pickles, pickles in archives (torch.save), packed streams (joblib) and NumPy object arrays. fickling (Trail of
Bits) follows each without executing it and holds every name it would import against a list of harmless ones. A chat
template in a GGUF or tokenizer file is a program too (CVE-2024-34359 and CVE-2026-5760 ran commands from one). The
tensors are not looked at: a model can be taught to misbehave, and no scan tells.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle
import pickletools
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from medimgen.errors import CourseError
from medimgen.safety.rules import Finding

RULE = "generated-code"
LIMIT, DEPTH = 2**28, 3  # bytes looked at of one member; archives within archives
CALLS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}  # a pickle's ways to run something
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
RISKY = re.compile(r"__\w+__|\b(?:attr|lipsum|cycler|joiner|getattr|popen|subprocess|import|eval|exec)\b")
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of GGUF's plain kinds of value
CONVERT = "do not open it; ask for a .safetensors file, or convert it on a machine that holds no patient data"
DAMAGED = (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, lzma.LZMAError)


def scan(path: str | Path) -> list[Finding]:
    """What speaks against opening a weights file, or any file below a folder; nothing found is no promise.

    Every pickle is a "stop", for the course opens safetensors only; so are a chat template that reaches into Python,
    what cannot be unpacked, and a file at `<id>/<path>` of data_manifest.yml with another SHA-256. A "look": words that
    a chat template adds to every conversation, and formats not understood. Raises CourseError if `path` is not there.
    """
    path = Path(path)
    if not path.exists():
        raise CourseError(f"no weights at {path}", next="check the path")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [finding for file in files for finding in _file(file, file.relative_to(path.parent).as_posix())]


def refuse_unsafe(path: str | Path) -> None:
    """Raise CourseError with the reason if `scan` finds a "stop" in a file or folder."""
    for finding in scan(path):
        if finding.severity == "stop":
            raise CourseError(f"{finding.where}: {finding.what}", next=finding.next)


class _Payload:
    """Pickled, it becomes the instruction open(marker, "x")."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "x")


def make_harmless_payload(path: str | Path) -> Path:
    """Write a pickle that, opened, makes an empty file and does nothing else; returns where that file would appear."""
    marker = Path(f"{path}.it-ran").resolve()
    Path(path).write_bytes(pickle.dumps(_Payload(marker), protocol=4))
    return marker


def _file(path: Path, where: str) -> Iterator[Finding]:
    from medimgen.generate import PICKLES

    yield from _against_manifest(path, where)
    with path.open("rb") as stream:
        found = list(_content(where, stream, 0))
    pickled = path.suffix.lower() in PICKLES
    if not found and (pickled or path.suffix.lower() in {".h5", ".hdf5", ".keras"}):
        what = "named like weights that may hold a program, in a form that is not known here"
        found = [Finding(RULE, where, what, CONVERT, "stop" if pickled else "look")]
    yield from found
    if path.name in ("tokenizer_config.json", "chat_template.jinja"):
        text = path.read_text(encoding="utf-8", errors="replace")
        with suppress(ValueError, AttributeError):
            text = str(json.loads(text).get("chat_template"))
        yield from _template(where, text)


def _content(where: str, stream: BinaryIO, depth: int) -> Iterator[Finding]:
    """Findings in one stream; archives are entered, and an archive that is also a pickle is read as both."""
    head = stream.read(8)
    try:
        for name, member in _members(head, stream):
            if depth == DEPTH:
                raise ValueError(f"more than {DEPTH} archives within each other")
            yield from _content(f"{where}!{name}", io.BytesIO(member[:LIMIT]), depth + 1)
            if len(member) > LIMIT:
                what = f"{name} in it is large: no more than {LIMIT} bytes were looked at"
                yield Finding(RULE, where, what, "open it only if you know where it is from", "look")
        stream.seek(0)
        if head.startswith(b"\x93NUMPY"):
            _to_objects(stream)
        if head.startswith(b"GGUF"):
            for key, text in _texts(stream):
                yield from _template(f"{where}, {key}", text) if key.startswith("tokenizer.chat_template") else ()
        elif _is_pickle(stream):
            yield _follow(where, stream)
    except DAMAGED as error:
        yield Finding(RULE, where, f"cannot be unpacked, so not checked ({type(error).__name__}: {error})", CONVERT)


def _members(head: bytes, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Name and the first LIMIT + 1 bytes of each file in a zip or tar archive or packed stream; else nothing."""
    if zipfile.is_zipfile(stream):  # decided by the end of the file
        with zipfile.ZipFile(stream) as archive:  # by entry, not by name: two entries may share one
            yield from ((info.filename, archive.open(info).read(LIMIT + 1)) for info in archive.infolist())
        return
    stream.seek(0)
    if unpack := next((opener for magic, opener in PACKED.items() if head.startswith(magic)), None):
        yield "unpacked", unpack(stream).read(LIMIT + 1)
    elif head[:1] == b"x" and int.from_bytes(head[:2], "big") % 31 == 0:
        unpacker = zlib.decompressobj()
        with suppress(zlib.error):  # then it only looked like one
            yield "unpacked", unpacker.decompress(stream.read(LIMIT), LIMIT + 1)
        if unpacker.unused_data:
            raise ValueError("a second stream follows the first")
    elif tarfile.is_tarfile(stream):
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            yield from ((m.name, archive.extractfile(m).read(LIMIT + 1)) for m in archive if m.isfile())


def _to_objects(stream: BinaryIO) -> None:
    """Move to the pickle of a NumPy object array; an array of numbers holds none, so to its end."""
    from numpy.lib import format

    header = format.read_array_header_1_0 if format.read_magic(stream)[0] == 1 else format.read_array_header_2_0
    if not header(stream)[2].hasobject:
        stream.seek(0, io.SEEK_END)


def _is_pickle(stream: BinaryIO) -> bool:
    """Whether a pickle starts here: by its mark, or, in the old form without one, by running through to its end."""
    start, head = stream.tell(), stream.read(2)
    stream.seek(start)
    if head[:1] == b"\x80" and head[1:] and head[1] <= pickle.HIGHEST_PROTOCOL:
        return True
    try:
        return not CALLS.isdisjoint(operation.name for operation, _, _ in list(pickletools.genops(stream)))
    except (ValueError, IndexError, OverflowError):
        return False
    finally:
        stream.seek(start)


def _follow(where: str, stream: BinaryIO) -> Finding:
    """What the pickles that start here would import and call, told without doing it."""
    from fickling import analysis, ml
    from fickling.fickle import EmptyPickleError, Pickled

    checks = (ml.MLAllowlist, analysis.UnsafeImportsML, analysis.UnsafeImports, analysis.BadCalls)
    checks += (analysis.InterpretationErrorAnalysis, analysis.ResourceExhaustionAnalysis)
    reasons: dict[str, None] = {}
    try:
        while stream.read(1):  # old torch files are several pickles, then numbers
            stream.seek(-1, io.SEEK_CUR)
            pickled = Pickled.load(stream, fail_on_decode_error=False)
            results = analysis.Analyzer([check() for check in checks]).analyze(pickled).results
            reasons |= {ascii((r.trigger or r.message)[:100])[1:-1]: None for r in results}
            if pickled.has_invalid_opcode:
                break
    except EmptyPickleError:
        pass
    except Exception as error:  # whatever fickling cannot follow is refused
        reasons[f"cannot be followed ({type(error).__name__})"] = None
    names = "; ".join(list(reasons)[:6])
    what = f"names what is not on the list of harmless names: {names}" if names else "all its names are on the list"
    inside = where.partition("!")[2] and f" (in {where.partition('!')[2]})"
    return Finding(RULE, where, f"a pickle{inside}, which can run any program when it is opened; {what}", CONVERT)


def _texts(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """(key, text) of every text in a GGUF header (version 2 or 3, little-endian); numbers are skipped."""

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", stream.read(struct.calcsize(f"<{code}")))[0]

    def text() -> str:
        return stream.read(min(number("Q"), LIMIT)).decode("utf-8", "replace")

    stream.seek(16)
    for _ in range(number("Q")):
        key, kind, count = text(), number("I"), 1
        if kind == 9:  # an array: kind and number of its items
            kind, count = number("I"), number("Q")
        if kind == 8:
            yield from ((key, text()) for _ in range(count))
        elif kind in SIZES:
            stream.seek(SIZES[kind] * count, io.SEEK_CUR)
        else:
            raise ValueError(f"a value of unknown kind {kind}")


def _template(where: str, template: str) -> Iterator[Finding]:
    """A chat template is a program: does it reach beyond the conversation, and which words does it put in?"""
    if risky := sorted(set(RISKY.findall(template))):
        what = f"the chat template reaches into Python: {', '.join(risky)}"
        yield Finding(RULE, where, what, "do not load it; ask for the model without this template")
    if added := re.findall(r"""(['"])((?:(?!\1)[^{}\\]|\\[^"']){30,})\1""", template):
        what = f"the chat template puts words of its own into every conversation: {added[0][1][:120]!a}"
        yield Finding(RULE, where, what, "read the whole template; set a system message of your own", "look")


def _against_manifest(path: Path, where: str) -> Iterator[Finding]:
    from medimgen.data.manifest import entries, registry

    parts = path.resolve().parts
    for id in entries().keys() & set(parts):
        rest = "/".join(parts[len(parts) - parts[::-1].index(id) :])
        wanted = next((file.sha256 for file in registry(id) if file.path == rest), None)
        if wanted and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            yield Finding(RULE, where, "its SHA-256 differs from data_manifest.yml's", f"run `medimgen fetch {id}`")
