"""`medimgen safety check PATH`: look through a folder for what breaks one of the nine rules.

>>> report = check("my-folder")               # a table in a notebook, text elsewhere; report.ok, report.code
>>> Path("report.html").write_text(report.html(), encoding="utf-8")

Looked at: DICOM headers (and, where the models are here, text in the pixels), pictures, weights, notebooks and their
saved outputs, scripts, prompts, tables. "stop": do not go on. "look": a person must decide. The checks know patterns:
a silent report is no clean bill, and least of all proof that anything is anonymous.
"""

import csv
import html
import io
import json
import re
import subprocess
import sys
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path

from medimgen import markup, prompts
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.safety import rules
from medimgen.safety.rules import Finding

SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", "_build", ".ruff_cache"}
TEXTS, PROMPTS = {".txt", ".md", ".yml", ".yaml", ".json", ".html", ".log"}, {".txt", ".yml", ".yaml"}
WEIGHTS = {".safetensors", ".gguf", ".onnx"}
KNOWN = {".ini", ".cfg", ".toml", ".css", ".bib", ".svg", ".lock", ".jsonl", ""}
CELL = "text-align:left;vertical-align:top"  # JupyterLab aligns to the right
SERVICES = "openai|anthropic|cohere|mistralai|replicate|together|groq|litellm|gradio_client|boto3|huggingface_hub"
SERVICES += "|google\\.gen(?:erativeai|ai)|azure\\.ai"
WEB = "requests|httpx|aiohttp|urllib3?(?:\\.request)?|http\\.client|websockets?|socket|ftplib|smtplib|paramiko"
CALLS = {
    ("no-online-tools", "stop", "the library of an online service"): rf"^[ \t]*(?:from|import)[ \t]+(?:{SERVICES})\b",
    ("local-first", "look", "a library that talks to the network"): rf"^[ \t]*(?:from|import)[ \t]+(?:{WEB})\b",
    ("local-first", "look", "a command that talks to the network"): r"^[ \t]*[!%]+[ \t]*(?:curl|wget|scp|ssh|rsync)\b",
}
CALLING = {"a picture or program from the web": r"\bsrc\s*=\s*\\?[\"']https?://", "a request by script": r"\bfetch\("}
HOME = r"(?:/home/|/Users/|[A-Z]:\\{1,2}Users\\{1,2})(?!runner\b|user\b|you\b|jovyan\b)[\w.-]+"
TELLING = "ADFGHI"  # letters of 45 CFR 164.514(b)(2)(i) whose patterns hold in any text
SAVED, PROMPTING = TELLING + "C", TELLING + "BCNO"  # in outputs, in prompts; R, long numbers, would catch seeds
DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"'<>()\[\]{},;]+[^\s\"'<>()\[\]{},;.]")
NAMED = re.compile(r"(?i)(patient|full|first|last|sur)[ _]?name|.*birth[ _]?(date|day)|dob|mrn|address|phone|e-?mail")
LABEL, WHO = re.compile(r"(?i)label|findings?|diagnosis|class|subtype|target"), ("sex|gender", "age", "view|projection")
FEWEST = 0.10  # of the rows: a group below this is named
RUFF = "S102,S301,S302,S307,S310,S501,S506,S602,S604,S605,F821,B006,B023"


@dataclass(frozen=True)
class Report:
    """What was found in `files` files below `root`; `unread` counts kinds of file (or names checks) not looked into."""

    root: Path
    files: int
    findings: tuple[Finding, ...]
    unread: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether nothing says stop."""
        return self.code < 2

    @property
    def code(self) -> int:
        """0: nothing found; 1: a person must look; 2: stop."""
        return max(({"look": 1, "stop": 2}[f.severity] for f in self.findings), default=0)

    def _told(self) -> str:
        counts = Counter(f.severity for f in self.findings)
        told = (
            f"{self.root.name or self.root}: {self.files} files, {counts['stop']} to stop, {counts['look']} to look at"
        )
        missed = ", ".join(f"{name} ({n})" for name, n in self.unread.items())
        return told + ("" if not missed else f". Not looked into: {missed}") + ". What is not found may still be there."

    def __repr__(self) -> str:
        lines = [self._told()]
        for rule in rules.load().values():
            mine = [f for f in self.findings if f.rule == rule.id]
            lines += ["", f"{rule.sentence} [{rule.id}]", f"  {rule.failure}"] if mine else []
            lines += [f"  {f.severity.upper():4}  {f.where}: {f.what}\n        Next: {f.next}" for f in mine]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        known, head = rules.load(), ("Severity", "Where", "What", "Next", "Rule")
        cells = ((f.severity, f.where, f.what, f.next, f.rule) for f in self.findings)
        told = "".join(
            f"<dt>{r.id}: {html.escape(r.sentence)}</dt><dd>{html.escape(r.failure)}</dd>"
            for r in known.values()
            if r.id in {f.rule for f in self.findings}
        )
        return markup.table(self._told(), head, cells, cell=CELL) + markup.spaced(f"<dl>{told}</dl>" if told else "")

    def html(self) -> str:
        """A page that needs no other file."""
        style = "body{font:1rem sans-serif;margin:2rem}td,th{text-align:left;vertical-align:top;padding:.3rem .6rem}"
        head = f'<meta charset="utf-8"><title>Safety check</title><style>{style}</style>'
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{self._repr_html_()}</body></html>\n'


def check(path: str | Path, machine: bool = False, pixels: bool = True) -> Report:
    """Look through a file or folder.

    machine : also ask what on this computer talks to the network (`safety.tools`). pixels : also look for text in the
    pixels of pictures and DICOM files, about a second each, where `medimgen fetch rapidocr-models` has been run.
    Raises CourseError if there is nothing at `path`.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise CourseError(f"there is nothing at {root}", next="check the path")
    files = [root] if root.is_file() else sorted(_files(root))
    unread, found = Counter(), []
    readers = _pixels() if pixels else None
    if pixels and readers is None and any(_kind(p) in ("dicom", "picture") for p in files):
        unread["text in pixels: run `medimgen fetch rapidocr-models`"] += 1
    for file in files:
        where = file.relative_to(root).as_posix() if file != root else file.name
        found += [replace(f, where=where + f.where) for f in _one(file, readers, unread)]
    found += chain(_folder(root, files), _code(root, files, unread))
    if machine:
        from medimgen.safety import tools

        found += tools.check()
    order = list(rules.load())
    found.sort(key=lambda f: (f.severity != "stop", order.index(f.rule), f.where))
    return Report(root, len(files), tuple(dict.fromkeys(found)), dict(unread))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name not in SKIPPED and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _kind(path: Path) -> str:
    """What to treat a file as: by its first bytes where they tell, else by its name."""
    with path.open("rb") as file:
        head = file.read(132)
    name = path.suffix.lower()
    if head[128:] == b"DICM" or name == ".dcm":
        return "dicom"
    if head[:1] == b"\x80":  # how a pickle begins, whatever it is called
        return "weights"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return "picture"
    known = {".ipynb": "notebook", ".py": "script", ".csv": "table", ".tsv": "table"} | dict.fromkeys(TEXTS, "text")
    return known.get(name) or ("plain" if name in KNOWN and b"\0" not in head else "weights")


def _one(path: Path, readers, unread: Counter) -> Iterator[Finding]:
    """Findings in one file; `where` is what comes after its name. A file that cannot be read is a finding too."""
    from medimgen.safety import rights, weights

    try:
        yield from (replace(f, where="") for f in rights.check(path))
        kind = _kind(path)
        if kind == "weights":
            found = weights.scan(path)
            yield from (replace(f, where="") for f in found)
            if not found and path.suffix.lower() not in WEIGHTS:
                unread[path.suffix.lower() or path.name] += 1
        elif kind in ("dicom", "picture"):
            yield from _dicom(path) if kind == "dicom" else ()
            yield from (replace(f, where="") for f in (readers(path) if readers else ()))
        elif kind == "table":
            yield from _table(path)
        else:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from {"notebook": _notebook, "script": _script}.get(kind, _text)(path, text)
    except (CourseError, OSError, ValueError, csv.Error) as error:
        what = f"cannot be read, so nobody has checked it: {getattr(error, 'what', error)}"
        yield Finding("no-identified-data", "", what, "mend it or take it out", "look")


def _pixels():
    """`burned_in.check` where its models are on this computer, else None."""
    from medimgen.data.fetch import is_fetched

    try:
        here = is_fetched("rapidocr-models")
    except CourseError:
        here = False
    if not here:
        return None
    from medimgen.safety import burned_in

    return burned_in.check


def _dicom(path: Path) -> Iterator[Finding]:
    """Names of the attributes that identify, never their values; what is nested counts by its VR (person names)."""
    from pydicom import dcmread

    from medimgen import dicom

    with warnings.catch_warnings(action="ignore"):
        ds = dcmread(path, stop_before_pixels=True, force=True)
        nested = [e for item in ds if item.VR == "SQ" for part in item.value for e in part.iterall() if e.VR == "PN"]
    table = dicom.describe(path)
    made, cleaned = (str(ds.get(name, "")) == "YES" for name in ("SyntheticData", "PatientIdentityRemoved"))
    filled = table[(table["value"] != "(empty)") & ~(made & table["value"].str.upper().str.startswith("SYNTHETIC"))]
    names = set(filled[filled["identifies"] == "yes"]["attribute"])
    names = ", ".join(sorted(names | {f"{e.name} (nested)" for e in nested if not e.is_empty}))
    advice = "run medimgen.safety.deidentify, look at the result, and check again"
    if names and cleaned:
        what = f"PatientIdentityRemoved says YES, and a value stands in {names}"
        yield Finding("no-identified-data", "", what, "make sure that it was made up, and is not the person's", "look")
    elif names:
        yield Finding("no-identified-data", "", f"identifies a person: {names}", advice)
    elif not cleaned and not made:
        others = ", ".join(filled[filled["identifies"] != "no"]["attribute"])
        what = f"PatientIdentityRemoved is not YES; with other data these may single somebody out: {others}"
        yield Finding("no-identified-data", "", what, advice, "look")


def _words(where: str, text: str, letters: str = TELLING, severity: str = "look") -> Iterator[Finding]:
    """What looks like an identifier, in outline, one of a kind; and somebody's folder."""
    plain, found = re.sub(rf"\b[0-9a-f]{{12,}}\b|base64,[\w+/=]+|(?:https?|file)://\S+|{DOI.pattern}", " ", text), {}
    for line in plain.splitlines():
        for kind, letter, (start, stop) in prompts.identifiers(line[:2000]):
            if letter in letters and not (severity == "look" and line[start:stop].lower().startswith("name")):
                found.setdefault(kind, re.sub(r"\w", "•", line[start:stop]))
    if found:
        what = "holds what looks like " + ", ".join(f"{kind} ({outline})" for kind, outline in found.items())
        yield Finding("no-identified-data", where, what, "take it out, or make sure that it is nobody's", severity)
    if re.search(HOME, text):
        yield Finding(
            "no-identified-data", where, "names somebody's folder on a computer", "use relative paths", "look"
        )


def _literals(source: str) -> str:
    """The texts and comments of Python code; all of it where it is no Python."""
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    try:
        return "\n".join(t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type in kinds)
    except (tokenize.TokenError, SyntaxError):
        return source


def _text(path: Path, text: str) -> Iterator[Finding]:
    asks = "prompt" in path.name.lower() or re.search(r"(?m)^\W*prompts?:", text)
    is_prompt = asks and path.suffix.lower() in PROMPTS
    yield from _words("", text, *((PROMPTING, "stop") if is_prompt else ()))
    yield from _cited("", text) if path.suffix.lower() in (".txt", ".md") else ()
    yield from _remote("", text) if path.suffix.lower() == ".html" else ()


def _script(path: Path, text: str, where: str = "") -> Iterator[Finding]:
    yield from _words(where, _literals(text))
    for (rule, severity, what), pattern in CALLS.items():
        if hit := re.search(pattern, text, re.MULTILINE):
            yield Finding(rule, where, f"uses {what}: {hit[0].strip()}", rules.load()[rule].next, severity)


def _notebook(path: Path, text: str) -> Iterator[Finding]:
    for number, cell in enumerate(json.loads(text).get("cells", []), start=1):
        where, source = f", cell {number}", "".join(cell.get("source", ""))
        outputs = cell.get("outputs", ())
        data = [o.get("data", {}) for o in outputs]
        said = "\n".join("".join([*o.get("text", ""), *o.get("traceback", "")]) for o in outputs) + "\n"
        said += "\n".join("".join(v) for d in data for k, v in d.items() if k.startswith("text/") or "script" in k)
        yield from _script(path, source, where) if cell.get("cell_type") == "code" else _words(where, source)
        yield from _words(f"{where}, output", said, SAVED)
        yield from chain(_cited(f"{where}, output", said), _remote(f"{where}, output", said))
        if pictures := sum(k.startswith("image/") for d in data for k in d):
            what = f"{pictures} pictures are saved in the output and go wherever the notebook goes"
            yield Finding("no-identified-data", f"{where}, output", what, "clear it, or know each picture", "look")


def _remote(where: str, text: str) -> Iterator[Finding]:
    for what, pattern in CALLING.items():
        if re.search(pattern, text):
            told = f"whoever opens it makes {what}, which names that reader's computer"
            yield Finding("tools-connectivity", where, told, "take it out, or put the file beside it", "look")


def _cited(where: str, text: str) -> Iterator[Finding]:
    """References that the course's own list does not hold; whether they exist, only opening them tells."""
    if not (cited := set(DOI.findall(text))):
        return
    bib = ROOT / "lessons" / "references.bib"
    known = bib.read_text(encoding="utf-8").lower() if bib.is_file() else ""
    if new := sorted(doi for doi in cited if doi.lower() not in known):
        what = f"cites {len(new)} references that the course has not opened: {', '.join(new[:3])}"
        yield Finding("outputs-wrong", where, what, "open each, and read whether it says so", "look")


def _table(path: Path) -> Iterator[Finding]:
    """A table's columns: names of people, and who is missing."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        columns = [name.strip() for name in next(rows, [])]
        body = list(islice(rows, 300_000))
    if named := [name for name in columns if NAMED.fullmatch(name)]:
        what = f"has columns that name people: {', '.join(named)}"
        yield Finding("no-identified-data", "", what, "drop them, or keep a key apart from the table")
    if not any(LABEL.fullmatch(name.rpartition(" ")[2]) for name in columns):
        return
    places = {who: [i for i, name in enumerate(columns) if re.search(rf"(?i)\b(?:{who})", name.replace("_", " "))]
              for who in WHO}  # fmt: skip
    if missing := [who.partition("|")[0] for who, found in places.items() if not found]:
        yield Finding("bias", "", f"has labels but not {', '.join(missing)}", rules.load()["bias"].next, "look")
    for place in places[WHO[0]]:
        counts = Counter(row[place].strip() for row in body if len(row) > place)
        few = [f"{value or 'not stated'} {n / len(body):.0%}" for value, n in counts.items() if n < FEWEST * len(body)]
        if few or len(counts) == 1:
            told = ", ".join(few) or f"only {next(iter(counts))}"
            yield Finding("bias", "", f"{columns[place]}: {told}", rules.load()["bias"].next, "look")


def _folder(root: Path, files: list[Path]) -> Iterator[Finding]:
    """What only a folder as a whole shows: pictures of unknown origin among synthetic ones, weights without a card."""
    from medimgen.safety import provenance

    for folder, inside in groupby(sorted(files, key=lambda p: p.parent), key=lambda p: p.parent):
        inside, marks = list(inside), []
        where = folder.relative_to(root).as_posix() if root.is_dir() else ""
        for path in (p for p in inside if _kind(p) in ("picture", "dicom")):
            try:
                marks.append(provenance.of(path).synthetic)
            except CourseError:
                continue
        if True in marks and None in marks:
            what = f"{marks.count(None)} of {len(marks)} pictures beside synthetic ones do not say what they are"
            yield Finding(
                "outputs-wrong", where, what, "mark them (generate.save_png, dicom.write) or part them", "look"
            )
        cards = (p for level in (folder, *folder.parents) for p in level.glob("*.md") if level.is_relative_to(root))
        if any(p.suffix.lower() in WEIGHTS for p in inside) and not any(cards):
            what = "weights without a card: nobody will know what they learnt from, or what they are for"
            yield Finding(
                "document", where, what, "write a README.md beside them: data, training, limits, licence", "look"
            )


def _code(root: Path, files: list[Path], unread: Counter) -> Iterator[Finding]:
    """What ruff's rules (bandit's among them, S...) say of scripts and notebooks; none of it is run."""
    code = [str(p) for p in files if p.suffix.lower() in (".py", ".ipynb")]
    if not code:
        return
    options = ["--isolated", "--no-cache", "--preview", "--exit-zero", "--output-format", "json", "--select", RUFF]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *options, *code], capture_output=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        unread["code: ruff is not installed here"] += len(code)
        return
    for hit in found:
        path = Path(hit["filename"])
        place = path.relative_to(root.resolve()).as_posix() if root.is_dir() else path.name
        cell = f"cell {hit['cell']}, " if hit.get("cell") else ""
        where = f"{place}, {cell}line {hit['location']['row']}"
        told = f"{hit['message']} ({hit['code'] or 'not valid Python'})"
        yield Finding("generated-code", where, told, "read the line; keep it only if you know why it is there", "look")
