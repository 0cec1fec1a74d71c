"""Definitions at the pointer: each link to a glossary entry shows the entry's plain words on hover and on focus.

A citation shows its reference in the same way, which sphinxcontrib-bibtex has put into the link's title.

`make book` calls `install` when the pages are there. It reads the entries from the built glossary, links the first
mention of each term on pages that link to none (notebooks cannot hold Sphinx's roles), and adds a script and a style
to every page with such links. Nothing is fetched, so it works from `file://` as well; without JavaScript the links
are plain links.
"""

import json
import os
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "lessons" / "assets"
GLOSSARY, DATA, FILES = "lessons/glossary.html", "glossary-terms.js", ("glossary-hover.js", "glossary-hover.css")
EVERYDAY = {  # words that pages use in their everyday sense as well, so only an author can link them
    "ablation", "agent", "cache", "curation", "exposure", "finding", "flip", "gate", "grounding", "guidance", "label",
    "latent", "manifest",
    "modality", "offline", "prompt", "requirement", "seed", "severity", "slice", "tier", "token", "view", "weights",
    "window",
}  # fmt: skip
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
CLOSED = {  # what is no running text, or must not hold a link
    "a", "button", "code", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "label", "nav", "pre", "script",
    "style", "summary", "svg", "table", "textarea",
}  # fmt: skip
BARE = {GLOSSARY, "lessons/references.html", "lessons/licences.html"}  # titles and names of others stay as they are
SHUT = {"medimgen-quiz", "cell_output"}  # classes, likewise
LINK = re.compile(r"""<a\b[^>]*\bhref="[^"]*glossary\.html#term-""")
CITED = re.compile(r"""<a\b[^>]*\bhref="[^"]*references\.html#id""")


def entries(html: str) -> dict[str, tuple[str, str]]:
    """Anchor -> (term, plain words) of a built glossary page. The plain words end where *Exactly* begins."""
    from bs4 import BeautifulSoup

    found = {}
    for dt in BeautifulSoup(html, "html.parser").select("dl.glossary dt[id]"):
        for mark in dt.select("a.headerlink"):
            mark.decompose()
        text = " ".join(dt.find_next_sibling("dd").get_text(" ").split())
        plain = re.sub(r" ([.,;:)])", r"\1", re.split(r"\s*(?:Exactly|In the course):", text)[0].replace("( ", "("))
        found[dt["id"]] = (" ".join(dt.get_text().split()), plain)
    return found


class Prose(HTMLParser):
    """Where the running text of a page's own part lies: paragraphs and list items, outside links, code and controls."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=False)
        self.lines = [0, *(m.end() for m in re.finditer("\n", page))]
        self.open, self.places = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        classes = set((dict(attributes).get("class") or "").split())
        if tag not in VOID:
            shut = tag in CLOSED or bool(classes & SHUT)
            self.open.append((tag, "shut" if shut else "own" if "bd-article" in classes else "prose"))

    def handle_endtag(self, tag):
        tags = [name for name, _ in self.open]
        if tag in tags:
            del self.open[len(tags) - 1 - tags[::-1].index(tag) :]

    def handle_data(self, data):
        tags, kinds = {name for name, _ in self.open}, {kind for _, kind in self.open}
        if "own" in kinds and "shut" not in kinds and tags & {"p", "li"}:
            line, column = self.getpos()
            start = self.lines[line - 1] + column
            self.places.append((start, start + len(data)))


def linked(page: str, known: dict[str, tuple[str, str]], glossary: str) -> str:
    """The page with the first mention of each term as a link; all else stays as it is, byte for byte."""
    cuts, taken = [], []
    places = Prose(page).places
    for anchor, (term, _) in sorted(known.items(), key=lambda item: -len(item[1][0])):
        if term.lower() in EVERYDAY or len(term) < 3:
            continue
        pattern = re.compile(rf"\b{re.escape(term)}s?\b", 0 if term.isupper() else re.IGNORECASE)
        hits = (m.span() for start, end in places for m in pattern.finditer(page, start, end))
        free = (hit for hit in hits if not any(hit[0] < b and a < hit[1] for a, b in taken))
        if hit := next(free, None):
            taken.append(hit)
            cuts.append((*hit, anchor))
    for start, end, anchor in sorted(cuts, reverse=True):
        link = f'<a class="reference internal term-found" href="{glossary}#{quote(anchor)}">{page[start:end]}</a>'
        page = page[:start] + link + page[end:]
    return page


def install(site: Path) -> int:
    """Put definitions on every page of a built site that mentions a term; how many pages that are."""
    source = site / GLOSSARY
    if not source.is_file():
        return 0
    known = entries(source.read_text(encoding="utf-8"))
    static = site / "_static"
    text = f"window.courseGlossary = {json.dumps(known, ensure_ascii=False)};\n"
    (static / DATA).write_text(text, encoding="utf-8", newline="\n")
    for name in FILES:
        shutil.copyfile(ASSETS / name, static / name)
    return sum(_dress(page, site, known) for page in sorted(site.rglob("*.html")) if "_static" not in page.parts)


def _dress(page: Path, site: Path, known: dict[str, tuple[str, str]]) -> bool:
    """Links, script and style for one page; False where it holds no term."""
    name, text = page.relative_to(site).as_posix(), page.read_text(encoding="utf-8")
    up = Path(os.path.relpath(site, page.parent)).as_posix()
    if name.startswith(("lessons/", "notebooks/")) and name not in BARE and not LINK.search(text):
        text = linked(text, known, f"{up}/{GLOSSARY}")
    if name != GLOSSARY and not LINK.search(text) and not CITED.search(text):
        return False
    tags = f'<link rel="stylesheet" href="{up}/_static/{FILES[1]}">'
    tags += "".join(f'<script defer src="{escape(up)}/_static/{js}"></script>' for js in (DATA, FILES[0]))
    page.write_text(text.replace("</head>", f"{tags}\n</head>", 1), encoding="utf-8", newline="\n")
    return True
