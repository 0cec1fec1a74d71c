"""The dossier of a generator: what it draws, how far from real films, how near to its training films, at what cost.

>>> document = dossier.write(Path("runs/dossier"))           # dossier.html, dossier.json, card.md, pictures/
>>> dossier.parts(document, Path("runs/dossier"))["words"]   # one section as HTML, e.g. for the book

`recipes/dossier.py` looks at the images made here; it needs no trained judge. What other recipes measured comes from
`recipes/results`: claims, and every JSON there with `sections` of rows as in `schemas/dossier.json`.
"""

import contextlib
import hashlib
import io
import json
import re
import time
from base64 import b64encode
from collections import defaultdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np

from medimgen import claims, generate, markup, report
from medimgen._schema import validate
from medimgen.data import manifest, radiographs
from medimgen.errors import CourseError
from medimgen.safety import rights

BATCH, WITHOUT = 8, 16
GRID = "display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr))"
HERE = "medimgen dossier"
KEYS = ("id", "what", "estimate", "low", "high", "unit", "aim", "met", "how", "source")


class Batch(NamedTuple):
    text: str
    seed: int
    count: int
    part: int  # number of the prompt; -1 less that number for images without the prompt's last words


def plan(prompts, n: int, seed: int) -> list[Batch]:
    """`n` images shared out over the prompts, all from the same seed on; then some without a prompt's last words."""
    if n < 4 * len(prompts):
        raise CourseError(f"{n} images for {len(prompts)} prompts", next=f"ask for {4 * len(prompts)} or more")
    parts = [(text, n // len(prompts) + (k < n % len(prompts)), k) for k, text in enumerate(prompts)]
    parts += [(text.rpartition(", ")[0], min(count, WITHOUT), -1 - k) for text, count, k in parts if ", " in text]
    return [Batch(text, seed + s, min(BATCH, count - s), k) for text, count, k in parts for s in range(0, count, BATCH)]


def make(generator, batches: list[Batch], folder: Path) -> np.ndarray:
    """Make the batches that `folder` lacks, one file each, whole or absent, so memory stays flat and a stop loses
    nothing. Returns (batches, 3): seconds, CPU seconds, and peak MB of the process that made each.
    """
    from tqdm.auto import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(b.count for b in batches), unit="image") as bar:
        for k, batch in enumerate(batches):
            path, cpu = folder / f"{k:05d}.npz", time.process_time()
            if not path.exists():
                with contextlib.redirect_stdout(io.StringIO()):
                    result = generator(batch.text, n=batch.count, seed=batch.seed)
                cost = result.record["seconds"], time.process_time() - cpu, report.peak_mb()
                with path.with_suffix(".part").open("wb") as file:
                    np.savez(file, images=result.images, cost=cost)
                path.with_suffix(".part").replace(path)
            bar.update(batch.count)
    return np.array([kept(folder, k, "cost") for k in range(len(batches))])


def kept(folder: Path, k: int, name: str = "images") -> np.ndarray:
    """What `make` has kept of batch `k`."""
    with np.load(folder / f"{k:05d}.npz") as file:
        return file[name]


def row(id: str, what: str, value, unit: str, how: str, aim=None, met=None, source=HERE) -> dict:
    """A row of a section; `value` is an Interval, three numbers, one, or None: not measured."""
    estimate, low, high = (value, None, None) if value is None or np.isscalar(value) else value
    return dict(zip(KEYS, (id, what, estimate, low, high, unit, aim, met, how, source), strict=True))


def recorded(sha256: str, weights: set[str], folder: Path = report.RESULTS) -> tuple[dict, list[dict]]:
    """Rows of the claims about generated images and of other recorded results, by section; and a note on each file."""
    sections, files, stated = defaultdict(list), [], claims.load()
    runs = {r.id: set(r.inputs.values()) for r in report.read(folder / report.RUNS.name)}
    paths = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for id in [*stated, *(set(paths) - set(stated))]:
        claim, path = stated.get(id), paths.get(id)
        if claim and not re.search("generated|generator|synthetic|cxr-mini", str(claim)):
            continue
        document = json.loads(path.read_text(encoding="utf-8")) if path else {}
        same, rows = document.get("weights_sha256") == sha256, document.get("sections", {})
        if claim:
            same, rows = weights <= runs.get(document.get("run"), set()), {"claims": [_claimed(claim, document)]}
        elif rows:
            validate(document, "dossier", path.name)
        note = "" if same or not path else "OTHER WEIGHTS THAN THESE. "
        for name, new in rows.items():
            source = f", {path.name}" if path else ""
            sections[name] += [r | {"how": note + r["how"], "source": r["source"] + source} for r in new]
        if path:
            known = {"same_weights": same, "taken_in": bool(rows)}
            files.append({"file": path.name, "sha256": report.file_sha256(path)} | known)
    return sections, files


def _claimed(claim: dict, result: dict) -> dict:
    counted = ", ".join(f"{v} {k}" for k, v in result.get("n", {}).items())
    how = f"verdict: {result.get('verdict', 'not measured yet')}; {counted}; {claim['primary']['test']}"
    value = (result.get("estimate"), *(result.get("ci95") or (None, None)))
    met, aim = {"holds": True, "contradicts": False}, f"{claim['primary']['direction']} than {claim['null_value']:g}"
    what = f"{claim['id']}: {claim['title']} ({claim['primary']['metric']})"
    return row(claim["id"], what, value, "", how, aim, met.get(result.get("verdict")), claim["recipe"])


def write(out: Path, model: Path | None = None, n=512, watts=15.0, real=True, prompts=None) -> dict:
    """Make `n` images of the model in folder `model` (models/cxr-mini if not given) over `prompts` (by default the
    contact sheet's) and write their dossier into `out`. With `real`, where the training films are in the cache, the
    page shows some of them: it is for this computer. Raises CourseError, for films that may not be passed on too; after
    a stop the same call goes on.
    """
    if real:
        rights.require(radiographs.FULL, "redistribute")
    sheet, look = (claims.load_recipe(f"recipes/{name}.py") for name in ("contact_sheet", "dossier"))
    model, prompts = model or generate.FOLDER, list(prompts or sheet.PROMPTS)
    batches = plan(prompts, n, sheet.SEED)
    generator = generate.Generator.load(model)
    settings = {"n": n, "prompts": prompts, "seed": sheet.SEED, "watts": watts}
    settings |= {k: generator.defaults[k] for k in ("steps", "guidance")}
    key = json.dumps([generator.sha256, settings["steps"], settings["guidance"], batches])
    folder = out / "resume" / hashlib.sha256(key.encode()).hexdigest()[:12]
    costs = make(generator, batches, folder)
    document = {
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "code_version": report.code_version(),
        "weights_sha256": generator.sha256, "settings": settings, "model": _facts(model, generator),
    }  # fmt: skip
    weights = {v for k, v in document["model"]["files"].items() if k.endswith(".safetensors")}
    document |= look.document(look.Evidence(model, batches, folder), out / "pictures", real, generator)
    document["sections"]["speed"] = look.speed(generator, prompts[0], batches, costs, watts, model / "log")
    more, document["recorded"] = recorded(generator.sha256, weights)
    for name, rows in more.items():
        document["sections"].setdefault(name, []).extend(rows)
    document = json.loads(json.dumps(document, default=lambda x: x.tolist()))
    validate(document, "dossier", "dossier.json")
    texts = {"dossier.html": page(document, out), "card.md": card(document), "model-card.md": document["model"]["card"]}
    texts["dossier.json"] = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return document


def _facts(model: Path, generator) -> dict:
    """Files with their hashes, parameters, the model's own card, and the data it learnt from if it is the course's."""
    files = [p for p in sorted(model.rglob("*.*")) if p.suffix in (".safetensors", ".npz", ".json")]
    text = (model / "README.md").read_text(encoding="utf-8") if (model / "README.md").is_file() else ""
    nets = (generator.pipe.unet, generator.pipe.vae, generator.pipe.text_encoder)
    films, source = sorted(radiographs.labels().query("split == 'donor'")["file"]), manifest.entries()[radiographs.FULL]
    told = f"{len(films)} films, the donor split of: {source.title}; {source.licence}; {source.source}"
    ids = generator.defaults.get("donor_ids_sha256")
    return {
        "name": model.name, "parameters": f"{sum(p.numel() for net in nets for p in net.parameters()):,}", "card": text,
        "licence": (re.findall(r"^license: (.+)$", text, re.MULTILINE) or ["not stated"])[0], "film_list": str(ids),
        "data": told if hashlib.sha256("\n".join(films).encode()).hexdigest() == ids else "films not known here",
        "files": {p.relative_to(model).as_posix(): report.file_sha256(p) for p in files if p.parent.name != "log"},
    }  # fmt: skip


def _number(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def _cells(r: dict) -> list[str]:
    """Texts of a row: what, found, aim, met, how."""
    found = "not measured" if r["estimate"] is None else _number(r["estimate"])
    found += "" if r["low"] is None else f" ({_number(r['low'])} to {_number(r['high'])})"
    met = {True: "met", False: "not met", None: "not decided"}[r["met"]] if r["aim"] else ""
    how = r["how"] if r["source"] == HERE else f"{r['how']}. {r['source']}"
    return [r["what"], f"{found} {r['unit']}", r["aim"] or "", met, how]


def _rows(name: str, rows: list[dict]) -> str:
    """The table of a section; without the columns on aims where nothing was aimed at."""
    if any(r["aim"] for r in rows):
        return _table(name.capitalize(), "What|Found (interval)|Aim|Met|How", map(_cells, rows))
    return _table(name.capitalize(), "What|Found (interval)|How", ([*c[:2], c[4]] for c in map(_cells, rows)))


def _table(caption: str, heads: str, rows) -> str:
    """A table with a scrolling frame that the keyboard reaches; `heads` are parted by "|"."""
    inside = markup.table(caption, heads.split("|"), rows, named=True)
    return f'<div style="overflow-x:auto" role="region" tabindex="0" aria-label="{escape(caption)}">{inside}</div>'


def _figure(picture: str, text: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>"


def _curve(name: str, made: list[float], real: list[float]) -> str:
    """Images (line) and real films (dots), each from its lowest value, bottom left, to its highest."""
    low, high = min(made + real), max(made + real)
    drawn = ""
    for values, more in ((made, ""), (real, 'stroke-dasharray="2 4"')):
        points = [
            (1 + 198 * (x - low) / (high - low or 1), 59 - 58 * k / (len(values) - 1)) for k, x in enumerate(values)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn += f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="2" {more}/>'
    spans = (f"{v[0]:.2f}, {v[len(v) // 2]:.2f}, {v[-1]:.2f}" for v in (made, real))
    told = "{}: images {}; real films {}".format(name, *spans)
    return _figure(f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 200 60">{drawn}</svg>', told)


def parts(document: dict, folder: Path) -> dict[str, str]:
    """HTML of each section, without headings; pictures come from `folder` and stand inside the text."""
    pictures, html = defaultdict(str), {name: _rows(name, rows) for name, rows in document["sections"].items()}
    for p in document["pictures"]:
        data, alt = b64encode((folder / p["file"]).read_bytes()).decode(), escape(p["alt"])
        pictures[p["group"]] += _figure(f'<img src="data:image/png;base64,{data}" alt="{alt}">', p["caption"])
    pictures["curves"] = "".join(_curve(name, *both) for name, both in document["curves"].items())
    html |= {f"{group}_pictures": f'<div style="{GRID}">{figures}</div>' for group, figures in pictures.items()}
    said = {True: "yes", False: "no"}
    files = [(f["file"], f["sha256"], said[f["same_weights"]], said[f["taken_in"]]) for f in document["recorded"]]
    html["recorded"] = _table("Recorded results", "File|SHA-256|On these weights|Has rows for a dossier", files)
    html["hashes"] = _table("Files of the model", "File|SHA-256", document["model"]["files"].items())
    return {name: markup.spaced(part) for name, part in html.items()}


def page(document: dict, folder: Path) -> str:
    """The whole page, which needs no other file."""
    html, template = parts(document, folder), Template((Path(__file__).parent / "dossier.html").read_text("utf-8"))
    aims = [r["met"] for rows in document["sections"].values() for r in rows if r["aim"]]
    facts = document | document["settings"] | document["model"] | {"real": sum(p["real"] for p in document["pictures"])}
    facts |= {"met": aims.count(True), "unmet": aims.count(False), "undecided": aims.count(None)}
    others = [name for name in document["sections"] if name not in template.get_identifiers()]
    html["others"] = "".join(f"<h2>{escape(name.capitalize())}</h2>{html[name]}" for name in others)
    plain = {k: escape(str(v)) for k, v in facts.items() if isinstance(v, str | int | float)}
    return template.substitute(dict.fromkeys(template.get_identifiers(), "") | plain | html)


def card(document: dict) -> str:
    """A short model card (Markdown) out of the document."""
    m, s = document["model"], document["settings"]
    lines = [
        f"# {m['name']}", "**Synthetic images for teaching. Not a medical device, not for diagnosis.**",
        f"{m['parameters']} parameters. Licence: {m['licence']}. Learnt from: {m['data']}.",
        f"{s['n']} images, {s['steps']} steps, guidance {s['guidance']:g}, beside {document['beside']}. "
        f"Weights SHA-256 {document['weights_sha256']}. medimgen {document['code_version']}, {document['made']}.",
    ]  # fmt: skip
    for name, rows in document["sections"].items():
        table = ["What | Found (interval) | Aim | Met", "---|---|---|---"]
        table += [" | ".join(cell.replace("|", "/") for cell in _cells(r)[:4]) for r in rows]
        lines += [f"## {name.capitalize()}", "\n".join(f"| {line} |" for line in table)]
    return "\n\n".join(lines) + "\n"
