"""The passport of a model: one HTML page that needs no other file, and the same as JSON.

>>> passport.write(sweep, requirements.load("requirements.yml"), Path("report"))     # a page and two files for machines
"""

import base64
import io
import json
import math
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import yaml
from PIL import Image

from medimgen import markup, requirements, robustness
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.report import code_version
from medimgen.safety import rights


def write(sweep, asked: requirements.Requirements | None, folder: Path, draws: int = 2000, seed: int = 0) -> dict:
    """Write `report.html`, `passport.json` and `collection.yml` (schema `collection.json`: what to collect next) into
    `folder`; returns the content of passport.json, verdicts included.
    """
    sweep = robustness.with_exposure(sweep)
    found = robustness.figures(sweep, draws, seed)
    values = robustness.measured(sweep, found)
    verdicts = requirements.evaluate(asked, values) if asked else []
    document = {
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "code_version": code_version(),
        "model": {"name": sweep.model.name, "sha256": sweep.model.sha256},
        "settings": asdict(sweep.settings) | {"seeds": sweep.seeds, "draws": draws, "bootstrap_seed": seed},
        "asked_films": sweep.total,
        "requirements": {"sha256": asked and asked.file_hash, "verdicts": [_verdict(v, found) for v in verdicts]},
        "measured": values,
        "perturbations": [
            {name: getattr(q, name) for name in ("name", "cause", "unit", "plausible", "source")}
            | {"plausible_value": q.at(q.plausible)}
            for q in sweep.perturbations
        ],
        "curves": robustness.curves(sweep).to_dict("records"),
        "slices": robustness.slices(sweep, draws, seed).to_dict("records"),
        "collection": _collection(robustness.collection(sweep, draws=draws, seed=seed)),
        "films": [
            row | {"flips": robustness.film(sweep, i).to_dict("records")}
            for i, row in enumerate(sweep.films.to_dict("records"))
        ],
        "faults": sweep.faults,
    }
    document = _plain(document)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    listed = {"model": document["model"], "made": document["made"], "items": document["collection"]}
    validate(listed, "collection", where="collection.yml")
    listed = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=120).rstrip()
    page = _page(sweep, document, found, verdicts)
    for name, content in (("passport.json", text), ("report.html", page), ("collection.yml", listed)):
        (folder / name).write_text(content + "\n", encoding="utf-8", newline="\n")
    return document


def _collection(table) -> list[dict]:
    """The rows as items of the schema, each with its reason in words."""
    items = table.to_dict("records")
    for x in items:
        told = f"{x['perturbation']} turns {x['share']:.0%} of the surely read films with this label"
        x["why"] = f"{told} ({x['low']:.0%} to {x['high']:.0%} in {x['patients']} patients)"
        x["ci95"] = [x.pop("low"), x.pop("high")]
    return items


def _plain(x):
    """The same for JSON: numpy numbers as Python's, NaN and infinity as null."""
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    x = x.item() if isinstance(x, np.generic) else x
    if isinstance(x, float):
        return round(x, 6) if math.isfinite(x) else None
    return x if x is None or isinstance(x, bool | int | str) else str(x)


def _verdict(v, found) -> dict:
    value = found.get(v.requirement.metric.removesuffix("_low95").removesuffix("_high95"))
    told = "" if value is None else f"{value.estimate:.4g}, 95 % interval {value.low:.4g} to {value.high:.4g}"
    return {**asdict(v.requirement), "measured": v.measured, "status": v.status, "evidence": told}


def _share(value) -> str:
    return "not measured" if value is None else f"{value.estimate:.1%} ({value.low:.1%} to {value.high:.1%})"


def _table(caption: str, heads: str, rows) -> str:
    """`heads` are parted by "|". Nothing if there are no rows."""
    return markup.table(caption, heads.split("|"), rows) if (rows := list(rows)) else ""


def _curve(q, shares: list[float]) -> str:
    line = " ".join(f"{120 * k / (len(shares) - 1):.1f},{30 - 28 * (y or 0):.1f}" for k, y in enumerate(shares))
    told = escape(f"{q.name}: {shares[-1] or 0:.0%} flipped at full severity; the upright line marks {q.plausible}")
    limit = f'<path d="M{120 * q.plausible:.1f} 0V32" stroke="#b35900" stroke-dasharray="3"/>'
    curve = f'<polyline points="{line}" fill="none" stroke="#0b5cad"/>'
    return markup.Html(f'<svg role="img" aria-label="{told}" width="120" height="32">{limit}{curve}</svg>')


def _figure(x: np.ndarray, text: str) -> str:
    picture, buffer = Image.fromarray((255 * x).round().astype(np.uint8)), io.BytesIO()
    picture.thumbnail((256, 256))
    picture.save(buffer, "PNG")
    data, text = base64.b64encode(buffer.getvalue()).decode(), escape(text)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _pictures(sweep, most: int = 6) -> str:
    """The films whose smallest flip lies deepest within its plausible range, each beside its three smallest flips; none
    where a film is of a data set that may not be passed on.
    """
    try:
        rights.refuse(sweep.films["sha256"])
    except CourseError as error:
        return f"<p>No pictures: {escape(error.what)}.</p>"
    flips = {i: table for i in range(len(sweep.films)) if len(table := robustness.film(sweep, i))}
    names, parts = [q.name for q in sweep.perturbations], []
    for i in sorted(flips, key=lambda i: flips[i]["reach"][0])[:most]:
        row = sweep.films.iloc[i]
        parts.append(f"<h3>Film {escape(str(row['film']))}</h3>")
        parts.append(_figure(sweep.picture(i, 0, 0, 0), f"Untouched, P(positive) {row['p']:.2f}"))
        for flip in flips[i].head(3).itertuples():
            told = f"Other answer: {flip.perturbation}, {flip.value:.3g} {flip.unit}, severity {flip.severity:.2f}"
            told += ", plausible" * flip.plausible + ", hardly visible" * flip.hardly_visible
            picture = sweep.picture(i, names.index(flip.perturbation), flip.severity, flip.seed)
            parts.append(_figure(picture, f"{told}, noise seed {flip.seed}"))
    return "".join(parts) or "<p>No film got another answer.</p>"


def _page(sweep, document: dict, found: dict, verdicts) -> str:
    shares, n = {}, document["measured"]
    for row in document["curves"]:
        shares.setdefault(row["perturbation"], []).append(row["share"])
    kinds = [
        (q.name, q.cause, f"{q.at(q.plausible):.3g} {q.unit}", _share(share), curve)
        for q in sweep.perturbations
        for share, curve in [(found[f"flips[{q.name}]"], _curve(q, shares[q.name]))]
    ]
    slices = [
        (s["slice"], s["films"], s["patients"], _share(found.get(f"sensitivity[{s['slice']}]")),
         _share(found[f"plausible_flips[{s['slice']}]"]), "" if s["p_holm"] is None else f"{s['p_holm']:.3f}")
        for s in document["slices"]
    ]  # fmt: skip
    failed = [v for v in verdicts if v.status != "pass"]
    verdict = "Every requirement is met." if verdicts else "No requirements were given."
    if failed:
        verdict = f"{len(failed)} of {len(verdicts)} requirements are not met, "
        verdict += f"{sum(v.requirement.critical for v in failed)} of them safety-critical."
    faults = [(f["film"], f["perturbation"] or "untouched", f["what"]) for f in sweep.faults]
    template = Template((Path(__file__).parent / "passport.html").read_text(encoding="utf-8"))
    return template.substitute(
        defaultdict(lambda: "not measured", n | {k: _share(v) for k, v in found.items()} | asdict(sweep.settings)),
        name=escape(sweep.model.name), sha256=sweep.model.sha256, seeds=", ".join(map(str, sweep.seeds)),
        verdict=verdict, changes=len(kinds), rightly=" and rightly" if "positive" in sweep.films else "",
        requirements=requirements.show_verdicts(verdicts)._repr_html_() if verdicts else "",
        kinds=_table("Changes", "Change|What happens|Plausible up to|Flipped by then|Flipped by severity", kinds),
        slices=_table("Slices", "Slice|Films|Patients|Sensitivity|Plausible flips|Differs from the rest: p", slices),
        collection=_table(
            "Films to collect next", "Label|So that a prompt could say|Films, each of another patient|Why",
            [[x[k] for k in ("label", "words", "how_many", "why")] for x in document["collection"]],
        ),
        pictures=_pictures(sweep), faults=_table("What went wrong", "Film|Change|What", faults),
        latency=f"{n['latency_ms']:.1f}", version=escape(document["code_version"]), made=document["made"],
    )  # fmt: skip
