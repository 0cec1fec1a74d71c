"""Every figure, citation, style sheet and 404 link of the site resolves, and links to other sites are well formed.

Links and anchors between pages: `test_internal_links_and_anchors_resolve` in test_site.py. Nothing outside is fetched.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_book
import pages
import pytest

URL = re.compile(r"url\(\s*[\"']?([^\"')]+)")
HOST = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
KEY = re.compile(r"^@\w+\{([^,\s]+),", re.MULTILINE)
QUOTED = re.compile(r"<(pre|code|script|style)\b.*?</\1>|\shref=\S+", re.DOTALL)
RAW = ("{cite", "{doc}", "{ref}", "{term}", "{numref}", "{figure}", "](../", ".ipynb)")


def misshapen(url: str) -> str:
    """What is wrong with the address of another site, or ""."""
    parts = urlsplit(url)
    if parts.scheme == "mailto":
        return "" if re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", parts.path) else "no mail address"
    if parts.scheme not in ("http", "https"):
        return f"scheme {parts.scheme!r}"
    local = parts.hostname in ("127.0.0.1", "localhost")
    if not local and not HOST.fullmatch(parts.hostname or ""):
        return "no host"
    if re.search(r"[\s<>\"{}|\\^`]", url) or url[-1] in ".,;:":
        return "a character that does not belong there"
    return ""


def is_download(tag) -> bool:
    """Whether a link leads nowhere and saves a table that the page carries with it."""
    return tag.has_attr("download") and tag["href"].startswith("data:text/csv;")


def outside(page: Path) -> list[str]:
    """Misshapen links of a page to other sites."""
    tags = pages.soup(page).find_all("a", href=re.compile(r"^\s*([a-z][a-z0-9+.-]*:|//)"))
    urls = [tag["href"] for tag in tags if not is_download(tag)]
    return [f"{page.name}: {url} ({why})" for url in urls if (why := misshapen(url))]


def lost_figures(page: Path) -> list[str]:
    """Pictures whose file is not there or is empty, and figures without a caption."""
    tree, bad = pages.soup(page), []
    for tag in tree.find_all(["img", "source", "video", "iframe", "object", "embed"]):
        for url in [tag.get("src") or tag.get("data") or "", *re.findall(r"(\S+)\s+[\d.]+[wx]", tag.get("srcset", ""))]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            file = page.parent / unquote(parts.path)
            if not file.is_file() or not file.stat().st_size:
                bad.append(f"{page.name}: {url} is not there")
    figures = tree.select("article figure:not(.cell_output figure):not(#maker figure)")
    return bad + [f"{page.name}: a figure without a caption" for figure in figures if not figure.find("figcaption")]


def lost_citations(page: Path, entries: set[str]) -> list[str]:
    """Citations that name nobody, or lead to no entry of the page of references."""
    tree, text = pages.soup(page), _prose(page)
    bad = [f"{page.name}: {raw} was not replaced" for raw in RAW if raw in text]
    bad += [f"{page.name}: {tag.get_text()}" for tag in tree.select("article .problematic, article .system-message")]
    for link in tree.select("article a[href*='references.html#']"):
        if link["href"].rpartition("#")[2] not in entries or not link.get_text(strip=True).strip("[]?"):
            bad.append(f"{page.name}: {link}")
    return bad


def _prose(page: Path) -> str:
    return QUOTED.sub("", page.read_text(encoding="utf-8"))


def lost_in_styles(site: Path) -> list[str]:
    """Files that a style sheet of the site asks for and that are not there."""
    bad = []
    for sheet in site.rglob("*.css"):
        for url in URL.findall(sheet.read_text(encoding="utf-8", errors="replace")):
            path = unquote(urlsplit(url).path)
            if path and not url.startswith(("data:", "http", "#")) and not (sheet.parent / path).is_file():
                bad.append(f"{sheet.name}: {url}")
    return bad


@pytest.fixture(scope="module")
def html(site):
    return pages.html_files(site)


def test_links_to_other_sites_are_well_formed(html):
    assert sum(len(pages.soup(page).select("a[href^=http]")) for page in html) > 50
    assert [line for page in html for line in outside(page)] == []


@pytest.mark.parametrize(
    "url",
    [
        "http:/a.org",
        "https://nodot",
        "https://a.org/b c",
        "ftp://a.org",
        "https://a.org/x.",
        "mailto:nobody",
        "//a.org/x",
        "data:text/csv;base64,YQ==",
        "data:text/html,<p>' download='a.html",
    ],
)
def test_a_misshapen_link_turns_red(tmp_path, url):
    page = tmp_path / "a.html"
    page.write_text(f"<a href='{url}'>a</a><a href='https://doi.org/10.1/x(y)'>b</a>", encoding="utf-8")
    assert len(outside(page)) == 1


def test_a_table_to_save_is_no_link_elsewhere(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("<a download='a.csv' href='data:text/csv;base64,YQ=='>a</a>", encoding="utf-8")
    assert outside(page) == []


def test_every_figure_is_there_and_has_a_caption(html):
    assert [line for page in html for line in lost_figures(page)] == []


def test_a_lost_figure_turns_red(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("<article><figure><img src='lost.png' srcset='a.png 2x'></figure></article>", encoding="utf-8")
    assert len(lost_figures(page)) == 3


def test_every_citation_leads_to_its_entry(site, html):
    entries = {tag["id"] for tag in pages.soup(site / "lessons" / "references.html").select("div.citation")}
    assert [line for page in html for line in lost_citations(page, entries)] == []


def test_a_lost_citation_turns_red(tmp_path):
    page = tmp_path / "a.html"
    text = "<article>{cite}x <a href='references.html#id1'>[A]</a> <a href='references.html#id2'>[?]</a></article>"
    page.write_text(text, encoding="utf-8")
    assert len(lost_citations(page, {"id2"})) == 3


def test_every_cited_key_is_in_the_bibliography():
    keys = set(KEY.findall((build_book.ROOT / "lessons" / "references.bib").read_text(encoding="utf-8")))
    files = [*(build_book.ROOT / "lessons").glob("*.md"), *(build_book.ROOT / "notebooks").rglob("*.ipynb")]
    cited = {k.strip() for f in files for m in CITED.findall(f.read_text(encoding="utf-8")) for k in m.split(",")}
    assert len(cited) > 10 and cited - keys == set()


def idle(bib: str, texts: list[str]) -> set[str]:
    """Entries that nothing names: neither by key (a citation, the manifest) nor by DOI or arXiv number."""
    found = set()
    for entry in re.split(r"^(?=@)", bib, flags=re.MULTILINE)[1:]:
        names = {KEY.match(entry)[1], *re.findall(r"10\.\d{4,}/[^\s}]+|\d{4}\.\d{5}", entry)}
        found |= set() if any(name in text for name in names for text in texts) else {KEY.match(entry)[1]}
    return found


def test_every_entry_of_the_bibliography_is_named_somewhere():
    root = build_book.ROOT
    files = [*(root / "lessons").glob("*.md"), *(root / "notebooks").rglob("*.ipynb"), *(root / "src").rglob("*.py")]
    texts = [f.read_text(encoding="utf-8") for f in [*files, root / "data_manifest.yml", root / "claims.yml"]]
    bib = (root / "lessons" / "references.bib").read_text(encoding="utf-8")
    assert idle(bib, texts) == set()
    assert idle(bib + "@misc{idle2020, doi = {10.1000/idle}}\n", texts) == {"idle2020"}


def test_no_lesson_links_a_paper_past_the_bibliography():
    """Notebooks may: JupyterLab knows no citations."""
    bare = re.compile(r"\]\(https?://(?:dx\.)?(?:doi\.org|arxiv\.org|pubmed|www\.nature\.com)")
    pages_with = [f.name for f in (build_book.ROOT / "lessons").glob("*.md") if bare.search(f.read_text("utf-8"))]
    assert pages_with == []
    assert bare.search("[x](https://doi.org/10.1/x)")


def test_every_file_that_a_style_sheet_asks_for_is_there(site, tmp_path):
    assert lost_in_styles(site) == []
    (tmp_path / "a.css").write_text("a { background: url('lost.png') } b { background: url(data:,) }", encoding="utf-8")
    assert len(lost_in_styles(tmp_path)) == 1


def test_page_not_found_has_its_own_page(site):
    """Its links are those of the folder of the site; that it works at any depth is tested in a browser."""
    tree = pages.soup(site / "404.html")
    assert tree.select_one("#page-not-found h1").get_text(strip=True).startswith("Page not found")
    links = {a["href"] for a in tree.select("#page-not-found a[href]") if not a["href"].startswith("#")}
    assert {"lessons/index.html", "search.html", "lessons/glossary.html"} <= links
    assert not [link for link in links if link.startswith(("/", ".."))]
