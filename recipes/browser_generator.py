"""What the page "Generate in your browser" needs, made ready in the cache and put into the built site.

    python recipes/browser_generator.py        once with a network; `make book` and `make test` call it

Four things: ONNX Runtime Web (fetched by the manifest's entry, MIT licence), the generator as ONNX files
(recipes/export_onnx.py), pictures made beforehand by the course's generator, and `about.json` with the patterns of
identifiers rewritten for JavaScript. Without ONNX Runtime Web the page is built all the same, with the pictures alone,
and says so. Nothing of it is committed.
"""

import base64
import html
import json
import re
import shutil
from pathlib import Path

import export_onnx
import numpy as np

from medimgen import likeness, markup, prompts
from medimgen.data.fetch import fetch, is_fetched
from medimgen.errors import CourseError
from medimgen.generate import FOLDER, Generator, save_png, weights_sha256
from medimgen.paths import cache_dir

PAGE, PROGRAM = "lessons/generate-in-your-browser", "onnxruntime-web"
SAMPLES = (
    ("chest x-ray, normal", 1), ("chest x-ray, bacterial pneumonia", 2), ("chest x-ray, viral pneumonia", 3),
    ("chest x-ray, normal, tilted clockwise", 4), ("chest x-ray, bacterial pneumonia, bright", 5),
    ("chest x-ray, normal, small lungs", 6),
)  # fmt: skip
NEXT = f"medimgen fetch {PROGRAM}"
WORD, SPACE = r"\p{L}\p{N}_", r"\p{White_Space}\x1c-\x1f"
SETS = {"w": WORD, "d": r"\p{Nd}", "s": SPACE}
EDGE = f"(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))"
TOKEN = re.compile(r"\(\?P<\w+>|\(\?-?i:|\\p\{\w+\}|\\.|\[\^?|[^\W\d_]-[^\W\d_]|.")


def javascript(pattern: str) -> str:
    """A regular expression of Python's, as the source of one that means the same in JavaScript with the flag u.

    \\w, \\d, \\s and \\b become what they mean in Python, named groups lose their P, and ignoring case is written out
    letter by letter. Raises CourseError for what the course's patterns do not hold and this does not know.
    """
    pattern = pattern.replace(r"[^\W\d_]", r"[\p{L}\p{Nl}\p{No}]").replace(r"[^\W\d]", r"[\p{L}\p{Nl}\p{No}_]")
    fold = [pattern.startswith("(?i)")]
    out, inside = [], False
    for token in TOKEN.findall(pattern.removeprefix("(?i)")):
        out.append(_rewritten(token, inside, fold[-1]))
        if token == "]" or (token[0] == "[" and not inside):
            inside = not inside
        elif token[0] == "(" and not inside:
            fold.append({"(?i:": True, "(?-i:": False}.get(token, fold[-1]))
        elif token == ")" and not inside:
            fold.pop()
    return "".join(out)


def _rewritten(token: str, inside: bool, fold: bool) -> str:
    if token == r"\b":
        return EDGE
    if token[0] == "\\" and (kind := token[1:].lower()) in SETS:
        if token[1].isupper() and inside:
            raise CourseError(f"{token} inside a set has no translation", next="write the set of the pattern out")
        return SETS[kind] if inside else f"[{'^' if token[1].isupper() else ''}{SETS[kind]}]"
    if token[0] in "\\(":
        return {"(?i:": "(?:", "(?-i:": "(?:"}.get(token, token.replace("(?P<", "(?<"))
    if len(token) == 3:  # a range, or what looks like one outside a set
        return token + token.swapcase() * fold if inside else "".join(_rewritten(c, inside, fold) for c in token)
    if not (fold and token.isalpha()):
        return token
    return token.lower() + token.upper() if inside else f"[{token.lower()}{token.upper()}]"


def rules() -> list[dict[str, str]]:
    """The course's patterns of identifiers, in order, for JavaScript."""
    return [
        {"kind": kind, "letter": letter, "pattern": javascript(pattern.pattern)}
        for kind, letter, pattern in prompts.patterns()
    ]


def ready() -> Path:
    """Folder in the cache with the generator as ONNX files and the pictures, made if the weights have changed."""
    import filelock

    folder = cache_dir() / "onnx" / "cxr-mini"
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = weights_sha256(FOLDER)
    with filelock.FileLock(f"{folder}.lock"):
        generator = None
        if _made_from(folder / export_onnx.ABOUT) != sha256:
            generator = Generator.load()
            export_onnx.export(generator, folder)
        if _made_from(folder / "samples.json") != sha256:
            _draw(generator or Generator.load(), folder)
    return folder


def _made_from(file: Path) -> str | None:
    if not file.is_file():
        return None
    facts = json.loads(file.read_text(encoding="utf-8"))
    whole = all((file.parent / name).is_file() for name in facts["files"])
    return facts["weights_sha256"] if whole and facts.get("samples", _wanted()) == _wanted() else None


def _wanted() -> list[list]:
    return [list(sample) for sample in SAMPLES]


def _draw(generator: Generator, folder: Path) -> None:
    names = [f"sample-{k}.png" for k in range(len(SAMPLES))]
    for name, (prompt, seed) in zip(names, SAMPLES, strict=True):
        result = generator(prompt, seed=seed)
        save_png(folder / name, result.images[0], result.record)
    facts = {"weights_sha256": generator.sha256, "files": names, "samples": _wanted(), **generator.defaults}
    (folder / "samples.json").write_text(json.dumps(facts), encoding="utf-8", newline="\n")


def program() -> tuple[Path | None, str]:
    """Folder of ONNX Runtime Web, or None and why it cannot be had."""
    try:
        return fetch(PROGRAM), ""
    except CourseError as error:
        return None, str(error)


def pictures() -> str:
    """The pictures made beforehand as HTML that needs no other file, with what they are in words."""
    folder = ready()
    facts, figures = json.loads((folder / "samples.json").read_text(encoding="utf-8")), []
    for name, (prompt, seed) in zip(facts["files"], SAMPLES, strict=True):
        code, said = base64.b64encode((folder / name).read_bytes()).decode(), html.escape(prompt)
        figures.append(
            f'<figure data-prompt="{said}" data-seed="{seed}" data-steps="{facts["steps"]}">'
            f'<img class="dark-light" width="128" height="128" src="data:image/png;base64,{code}" '
            f'alt="Synthetic chest radiograph that the generator drew for the words: {said}; seed {seed}">'
            f'<figcaption>“{said}”, seed {seed}</figcaption><button type="button" hidden>Draw this one here</button>'
            "</figure>"
        )
    return markup.spaced(f'<div class="made-before">{"".join(figures)}</div>')


def note(on: bool | None = None) -> str:
    """Empty where ONNX Runtime Web is at hand, else HTML that says what this build lacks and what brings it."""
    if is_fetched(PROGRAM) if on is None else on:
        return ""
    words = (
        "The program that runs the generator inside a browser could not be had when these pages were made. "
        f"<code>{NEXT}</code> brings it (it needs npm, which comes with Node.js, or a mirror folder); then run "
        "<code>make book</code> again. The pictures below were made beforehand."
    )
    title = '<p class="admonition-title">Generation is off in this build</p>'
    return markup.spaced(f'<div class="admonition warning">{title}<p>{words}</p></div>')


def install(site: Path) -> bool:
    """Put all that the page asks for into `site`/generator; whether it can generate there."""
    source, target = ready(), site / "generator"
    (target / "onnxruntime").mkdir(parents=True, exist_ok=True)
    runtime, why = program()
    about = {"on": runtime is not None, "why": why, "rules": rules()}
    if runtime:
        import onnxruntime

        notices = Path(onnxruntime.__file__).parent
        files = [source / name for name in json.loads((source / export_onnx.ABOUT).read_text("utf-8"))["files"]]
        for file in [*files, source / export_onnx.ABOUT]:
            shutil.copyfile(file, target / file.name)
        for file in [*runtime.iterdir(), notices / "LICENSE", notices / "ThirdPartyNotices.txt"]:
            shutil.copyfile(file, target / "onnxruntime" / file.name)
        with np.load(FOLDER / likeness.FILE) as kept:
            (target / "likeness.bin").write_bytes(kept["signs"].tobytes())
            about["threshold"] = float(kept["threshold"])
        about["megabytes"] = round(sum(f.stat().st_size for f in target.rglob("*") if f.suffix != ".txt") / 1e6)
    (target / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8", newline="\n")
    return runtime is not None


def main() -> None:
    folder, (runtime, why) = ready(), program()
    print(f"{folder}: the generator as ONNX files, {len(SAMPLES)} pictures")
    print(f"{runtime}: ONNX Runtime Web" if runtime else f"The page will show pictures only.\n{why}")


if __name__ == "__main__":
    main()
