"""The page of claims, made of `claims.yml` and `recipes/results` alone: counts, forest plot, cards, CSV.

    python recipes/claims_page.py > claims.csv        the same table without the book

`lessons/claims.md` calls `parts()` while the book is built, so the page shows what is recorded then; afterwards
`install` tells the site's search where each claim stands. In the plot each estimate is put on one scale: how far
it lies from the claim's own limit, on the side claimed, in units of the distance that the design was made to detect
(`detectable` in claims.yml).
"""

import base64
import csv
import io
import json
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from medimgen import claims, markup
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.report import RESULTS

STYLE = ROOT / "lessons" / "assets" / "claims.css"
SEARCH, PAGE = ("Search.setIndex(", ")"), "lessons/claims"
EDGE = 4  # the plot's half width; what lies further out gets an arrowhead
WAITING, WITHDRAWN = "not run yet", "withdrawn"
MARKS = {  # shapes before colours: full circle, empty square, full diamond, cross, empty circle, dash
    "holds": '<circle r="6" class="full"/>',
    "null": '<rect x="-5.5" y="-5.5" width="11" height="11" class="open"/>',
    "contradicts": '<path d="M0-7.5 7.5 0 0 7.5-7.5 0Z" class="full"/>',
    "not testable here": '<path d="M-5-5 5 5M5-5-5 5" class="open"/>',
    WAITING: '<circle r="5.5" class="open dashed"/>',
    WITHDRAWN: '<path d="M-6 0H6" class="open"/>',
}
SAID = {"holds": "hold", "null": "are null", "contradicts": "contradict what was claimed"}
SIDES = {"greater": "above", "less": "below", "different": "other than"}
CAPTION = (
    "Each claim against its own limit. The claims are in different units, so each is drawn on a scale of its own: 0 is "
    "the limit that was written down (the line), 1 is the distance from it that the study was planned to detect with "
    "80 % power, and to the right lies the side claimed. An interval that touches the line is a null. An arrowhead "
    "lies further out than the plot is wide. On the right, the figures as measured; what was measured, and the limit, "
    "stand below each row. Full circle: holds; empty square: null; diamond: contradicts."
)


@dataclass(frozen=True)
class Row:
    """A claim of claims.yml and its recorded result, or None."""

    claim: dict
    result: dict | None

    @property
    def id(self) -> str:
        return self.claim["id"]

    @property
    def verdict(self) -> str:
        if self.claim["status"] == WITHDRAWN:
            return WITHDRAWN
        return self.result["verdict"] if self.result else WAITING

    @property
    def date(self) -> str:
        """Day of the recorded run, from its id (20260102T...)."""
        day = self.result["run"][:8]
        return f"{day[:4]}-{day[4:6]}-{day[6:]}"

    @property
    def figures(self) -> tuple[float, float, float] | None:
        """Estimate and both ends of its interval, in the claim's own unit."""
        if not self.result or self.result["ci95"] is None:
            return None
        return (self.result["estimate"], *self.result["ci95"])

    @property
    def place(self) -> tuple[float, float, float] | None:
        """Estimate, lower and upper end on the plot's scale: 0 is the limit, 1 what the design could detect."""
        if self.figures is None:
            return None
        null, sign = self.claim["null_value"], -1 if self.claim["primary"]["direction"] == "less" else 1
        if (step := abs(self.claim["detectable"]["effect"] - null)) == 0:
            raise CourseError(f"claim {self.id}: its detectable effect is its limit", next="correct claims.yml")
        middle, *ends = (sign * (value - null) / step for value in self.figures)
        return (middle, *sorted(ends))


def rows(file: Path = ROOT / "claims.yml", folder: Path = RESULTS) -> list[Row]:
    """Every claim in the order of claims.yml, with its result where there is one."""
    stated = claims.load(file)
    there = {id: claims.result(id, folder) for id in stated if (folder / f"{id}.json").is_file()}
    return [Row(claim, there.get(id)) for id, claim in stated.items()]


def parts(file: Path = ROOT / "claims.yml", folder: Path = RESULTS) -> dict[str, str]:
    """HTML of the page's pieces: lead (with the style), plot, download, cards. Raises CourseError for a bad file."""
    found = rows(file, folder)
    style = STYLE.read_text(encoding="utf-8")
    code = base64.b64encode(table(found).encode("utf-8")).decode()
    pieces = {
        "lead": f"<style>{style}</style>{lead(found)}",
        "plot": plot(found),
        "download": f'<p><a class="claims-csv" download="claims.csv" href="data:text/csv;charset=utf-8;base64,{code}">'
        f"Download all {len(found)} claims as CSV</a></p>",
        "cards": "".join(card(row) for row in found),
    }
    return {name: markup.spaced(piece) for name, piece in pieces.items()}


def install(site: Path) -> None:
    """Let the search of a built site lead from a claim's id to its card, as it leads from a term to its entry."""
    if (site / f"{PAGE}.html").is_file():
        file, (start, end) = site / "searchindex.js", SEARCH
        index = json.loads(file.read_text(encoding="utf-8").removeprefix(start).removesuffix(end))
        page = index["docnames"].index(PAGE)
        index["indexentries"] |= {row.id.lower(): [[page, row.id, True]] for row in rows()}
        file.write_text(f"{start}{json.dumps(index, ensure_ascii=False)}{end}", encoding="utf-8", newline="\n")


def lead(found: list[Row]) -> str:
    """Counts in a sentence, and a tile for each verdict, all of one size, with links to the claims."""
    by = {verdict: [row for row in found if row.verdict == verdict] for verdict in MARKS}
    ran = [row for row in found if row.result]
    counts = [f"<strong>{len(by[verdict])}</strong> {said}" for verdict, said in SAID.items()]
    counts += [f"{len(by[v])} {v}" for v in ("not testable here", WITHDRAWN) if by[v]]
    dirty = sum(row.result["code_version"].endswith("-dirty") for row in ran)
    text = (
        f"The course has written down {len(found)} claims, and has run {len(ran)} of them. Of these, "
        f"{', '.join(counts[:-1])} and {counts[-1]}. {len(by[WAITING]) or 'None'} still "
        f"{'waits' if len(by[WAITING]) == 1 else 'wait'} for {'its run' if len(by[WAITING]) == 1 else 'their runs'}."
    )
    note = f" {dirty} of {len(ran)} were recorded from a checkout with changes not yet committed; their code version "
    text += note + "ends in <em>dirty</em>." if dirty else ""
    tiles = ""
    for verdict, group in by.items():
        if group or verdict in SAID:
            links = " ".join(f'<a href="#{row.id}">{row.id}</a>' for row in group) or "none"
            tiles += f"<li><strong>{_mark(verdict)}{verdict}: {len(group)}</strong> <span>{links}</span></li>"
    return f'<p>{text}</p><ul class="claims-tiles">{tiles}</ul>'


def described(found: list[Row]) -> str:
    """The plot in words."""
    groups = [(v, [r.id for r in found if r.verdict == v]) for v in MARKS]
    told = "; ".join(f"{verdict}: {', '.join(ids)}" for verdict, ids in groups if ids)
    out = [row.id for row in found if row.place and abs(row.place[0]) > EDGE]
    far = f" Beyond the edge of the plot: {', '.join(out)}." if out else ""
    return (
        "Forest plot with a row for each claim: its estimate and 95 % interval. The line in the middle is the claim's "
        f"own limit; to the right of it lies the side that was claimed. By verdict, {told}.{far} All figures stand in "
        "the cards below."
    )


def plot(found: list[Row]) -> str:
    """The forest plot as HTML and SVG that fits any width; one image for a screen reader, described in words."""
    body, group = "", None
    for row in found:
        if row.id[:3].rstrip("abcdefgh") != group:
            group = row.id[:3].rstrip("abcdefgh")
            name = f"Lesson {group[1:]}" if group[0] == "L" else f"Research {group}"
            body += f'<div class="claims-group">{name}</div>'
        figures = _figures(row) if row.figures else "no figure"
        body += (
            f'<div class="claims-row"><b>{row.id}</b><span class="claims-title">{escape(row.claim["title"])}</span>'
            f'{strip(row)}<span class="claims-figures">{figures}<br>{_mark(row.verdict)}{row.verdict}</span>'
            f"<small>{escape(row.claim['primary']['metric'])}; claimed: {_limit(row)}</small></div>"
        )
    ticks = "".join(
        f'<line x1="{_x(t)}" x2="{_x(t)}" y1="0" y2="5"/><text x="{_x(t)}" y="18">{_number(t, 0)}</text>'
        for t in range(-EDGE, EDGE + 1, 2)
    )
    words = '<text x="25%" y="36">← against the claim</text><text x="75%" y="36">for the claim →</text>'
    axis = f'<svg class="claims-axis" height="42">{ticks}{words}</svg>'
    axis = f'<div class="claims-row"><b></b><span></span>{axis}</div>'
    image = f'<div class="claims-plot" role="img" aria-label="{escape(described(found))}">{body}{axis}</div>'
    return f"<figure>{image}<figcaption><p>{CAPTION}</p></figcaption></figure>"


def strip(row: Row) -> str:
    """One row of the plot: the limit, the interval, the mark of the verdict."""
    inside = '<rect x="50%" width="50%" height="100%" class="claimed"/>'
    inside += '<line x1="50%" x2="50%" y1="0" y2="100%" class="limit"/>'
    if row.place:
        middle, low, high = (min(max(v, -EDGE), EDGE) for v in row.place)
        inside += f'<line x1="{_x(low)}" x2="{_x(high)}" y1="50%" y2="50%" class="interval"/>'
        for end, sign in ((row.place[1], -1), (row.place[2], 1)):
            if sign * end > EDGE:
                arrow = f'<path d="M{7 * sign}-6 {14 * sign} 0 {7 * sign} 6Z" class="full"/>'
                inside += f'<svg x="{_x(sign * EDGE)}" y="50%">{arrow}</svg>'
        inside += f'<svg x="{_x(middle)}" y="50%">{MARKS[row.verdict]}</svg>'
    return f'<svg class="claims-strip {_kind(row.verdict)}" height="34" aria-hidden="true">{inside}</svg>'


def card(row: Row) -> str:
    """Everything about one claim."""
    claim, paper, result = row.claim, row.claim["paper"], row.result
    cited = "No paper's sentence; the claim is our own."
    if paper:
        figure = f" <em>Figure:</em> {escape(paper['figure'])}." if paper["figure"] else ""
        cited = f"{escape(paper['sentence'])}{figure} <cite>{escape(paper['citation'])}</cite>"
    facts = {"Sentence tested": escape(result["claim"] if result else claim["claim"]), "The paper says": cited}
    facts |= _measured(row) if result else _planned(row)
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items() if text)
    known = escape(claim["known_before"]) if claim["known_before"] else "Nothing."
    more = _fold(
        "Cases, power, and what was known before",
        f"<p><strong>Cases.</strong> {escape(claim['cases'])}</p><p><strong>Detectable.</strong> "
        f"{_number(claim['detectable']['effect'])} with 80 % power. {escape(claim['detectable']['how'])}</p>"
        f"<p><strong>Known before.</strong> {known}</p>",
    )
    head = f'<h3 id="{row.id}">{row.id} · {escape(claim["title"])}</h3>'
    head += f'<p class="claims-verdict">{_mark(row.verdict)}{row.verdict}</p>'
    return f'<article class="claims-card {_kind(row.verdict)}">{head}<dl>{listed}</dl>{more}{_explored(row)}</article>'


def _measured(row: Row) -> dict[str, str]:
    result, claim = row.result, row.claim
    p = "" if result["p"] is None else f"; p = {result['p']:.2g}"
    if p and claim["primary"]["family"] > 1:
        p += f", {result['p_adjusted']:.2g} adjusted for {claim['primary']['family']} claims"
    figures = f"<strong>{_figures(row)}</strong>{p}" if row.figures else f"None. {escape(result['reason'] or '')}"
    cases = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in result["n"].items())
    return {
        "Estimate (95 % interval)": figures,
        "Limit": _limit(row),
        "Measure": escape(result["primary"]),
        "Test": escape(result["test"]),
        "Unit and draws": f"{escape(result['unit'])}; {result['draws']:,} draws, seed {result['seed']}",
        "Cases": cases,
        "Recorded": f"{row.date}, code version {escape(result['code_version'])}, tier {result['tier']}, "
        f"{result['minutes']:.1f} min; <code>make claims ID={row.id}</code> runs it again",
    }


def _planned(row: Row) -> dict[str, str]:
    primary, withdrawn = row.claim["primary"], row.verdict == WITHDRAWN
    return {
        "Estimate (95 % interval)": "Withdrawn." if withdrawn else "Not run yet.",
        "Limit": _limit(row),
        "Measure": escape(f"{primary['metric']}; {primary['contrast']}"),
        "Test": escape(primary["test"]),
        "Unit and draws": f"{escape(primary['unit'])}; {primary['draws']:,} draws planned, seed {primary['seed']}",
        "To run it": "" if withdrawn else f"<code>make claims ID={row.id}</code>",
    }


def _explored(row: Row) -> str:
    if not row.result or not row.result["exploratory"]:
        return ""
    lines = [
        (row.claim["exploratory"].get(name, name), _number(value["estimate"]), _between(value["ci95"]))
        for name, value in row.result["exploratory"].items()
    ]
    heads = ("Exploratory figure", "Estimate", "95 % interval")
    shown = markup.table(f"Beside claim {row.id}", heads, lines, named=True, kind="table")
    return _fold(f"{len(lines)} exploratory figures, without a verdict", shown)


def table(found: list[Row]) -> str:
    """The claims as CSV, a line each; figures as recorded, empty where there are none."""
    out = io.StringIO()
    lines = [_line(row) for row in found]
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(row: Row) -> dict[str, object]:
    claim, paper, result, primary = row.claim, row.claim["paper"] or {}, row.result or {}, row.claim["primary"]
    estimate, low, high = row.figures or ("", "", "")
    return {
        "id": row.id, "title": claim["title"], "sentence_tested": result.get("claim", claim["claim"]),
        "paper_sentence": paper.get("sentence", ""), "paper_figure": paper.get("figure", ""),
        "paper_citation": paper.get("citation", ""), "verdict": row.verdict, "estimate": estimate, "ci95_low": low,
        "ci95_high": high, "limit": claim["null_value"], "direction": primary["direction"],
        "detectable": claim["detectable"]["effect"],
        "measure": result.get("primary", f"{primary['metric']}; {primary['contrast']}"),
        "test": primary["test"], "unit": primary["unit"], "draws": result.get("draws", ""), "p": result.get("p", ""),
        "p_adjusted": result.get("p_adjusted", ""), "n": "; ".join(f"{v} {k}" for k, v in result.get("n", {}).items()),
        "tier": result.get("tier", ""), "date": row.date if result else "",
        "code_version": result.get("code_version", ""), "recipe": claim["recipe"], "reason": result.get("reason") or "",
    }  # fmt: skip


def _limit(row: Row) -> str:
    return f"{SIDES[row.claim['primary']['direction']]} {row.claim['null_value']:g}".replace("-", "−")


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _between(ends: list[float]) -> str:
    return " to ".join(_number(end) for end in ends)


def _figures(row: Row) -> str:
    return f"{_number(row.figures[0])} ({_between(row.figures[1:])})"


def _x(value: float) -> str:
    """Place on the strip, kept clear of its edges."""
    return f"{50 + 44 * value / EDGE:.2f}%"


def _kind(verdict: str) -> str:
    return f"v-{verdict.replace(' ', '-')}"


def _mark(verdict: str) -> str:
    return f'<svg class="claims-mark {_kind(verdict)}" viewBox="-9 -9 18 18" aria-hidden="true">{MARKS[verdict]}</svg>'


def _fold(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>{inside}</details>"


if __name__ == "__main__":
    sys.stdout.write(table(rows()))
