"""What the site tests look for in rendered pages: plain functions that return a list of complaints."""

import functools
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

LOADS = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "form": ("action",),
}
LINK_LOADS = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest"}
REMOTE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
CSS_LOAD = re.compile(r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
JS_LOAD = re.compile(
    r"""(?:\bimport\s*\(?|\bfrom|importScripts\(|\bfetch\(|\.src\s*=|\.href\s*=|\.open\(\s*["'][A-Z]+["']\s*,)"""
    r"""\s*["'`]((?:https?:)?//[^"'`\s]+)""",
    re.IGNORECASE,
)
EMPTY_WIDGET = "application/vnd.jupyter.widget-view+json"


def html_files(site: Path) -> list[Path]:
    """All pages of a built site."""
    return sorted(p for p in site.rglob("*.html") if "_static" not in p.relative_to(site).parts)


def soup(page: Path) -> BeautifulSoup:
    """A page, parsed once for as long as the file stays as it is: a notebook takes a second. Not to be changed."""
    stat = page.stat()
    return parsed(page, stat.st_mtime_ns, stat.st_size)


@functools.cache
def parsed(page: Path, changed: int, size: int) -> BeautifulSoup:
    """A file of which these are the time of its last change and its size, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def remote_in_page(page: Path) -> list[str]:
    """Everything in a page that a browser would load from another host. Plain links are none of it."""
    tree, found = soup(page), []
    for tag in tree.find_all(LOADS):
        for name in LOADS[tag.name]:
            values = (tag.get(name) or "").split(",") if name == "srcset" else [tag.get(name) or ""]
            found += [f"<{tag.name} {name}={v.strip()}>" for v in values if REMOTE.match(v)]
    for tag in tree.find_all("link", href=REMOTE):
        if LINK_LOADS & {rel.lower() for rel in tag.get("rel", [])}:
            found.append(f"<link href={tag['href']}>")
    for tag in tree.find_all("meta", attrs={"http-equiv": re.compile("refresh", re.IGNORECASE)}):
        found += re.findall(r"https?://\S+", tag.get("content", ""))
    styles = [tag.get_text() for tag in tree.find_all("style")] + [tag["style"] for tag in tree.find_all(style=True)]
    found += [url for text in styles for url in CSS_LOAD.findall(text)]
    found += [url for tag in tree.find_all("script") for url in JS_LOAD.findall(tag.get_text())]
    return found


def remote_in_assets(site: Path) -> list[str]:
    """Addresses of other hosts that style sheets and scripts of the site would load."""
    found = []
    for path in sorted(site.rglob("*")):
        pattern = {".css": CSS_LOAD, ".js": JS_LOAD, ".mjs": JS_LOAD, ".svg": CSS_LOAD}.get(path.suffix)
        if pattern:
            urls = pattern.findall(path.read_text(encoding="utf-8", errors="replace"))
            found += [f"{path.relative_to(site).as_posix()}: {url}" for url in urls]
    return found


def external_loads(site: Path) -> list[str]:
    """Everything that any page of a built site would load from another host."""
    in_pages = [f"{p.relative_to(site).as_posix()}: {x}" for p in html_files(site) for x in remote_in_page(p)]
    return in_pages + remote_in_assets(site)


def without_alt(page: Path) -> list[str]:
    """Images without alternative text; an empty one is allowed on the logo only, which stands beside its words."""
    bad = []
    for img in soup(page).find_all("img"):
        alt, logo = img.get("alt"), "logo__image" in img.get("class", [])
        if alt is None or (not alt.strip() and not logo) or re.fullmatch(r"\S+\.(png|svg|jpe?g)", alt.strip()):
            bad.append(f"{page.name}: {img.get('src', '')[:80]} alt={alt!r}")
    return bad


def broken_links(site: Path) -> list[str]:
    """Links, scripts and images inside the site whose file or anchor is not there."""
    trees = {page.resolve(): soup(page) for page in html_files(site)}
    ids = {p: {t.get("id") or t.get("name") for t in tree.find_all(True)} for p, tree in trees.items()}
    bad = []
    for page, tree in trees.items():
        for tag in tree.find_all(["a", "link", "script", "img"]):
            url = tag.get("href") or tag.get("src") or ""
            parts = urlsplit(url)
            if not url or parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            known = ids.get(target)
            if not target.exists() or target.is_dir():
                bad.append(f"{page.name}: {url} is not there")
            elif parts.fragment and known is not None and unquote(parts.fragment) not in known:
                bad.append(f"{page.name}: {url} has no such anchor")
    return bad


def article(page: Path) -> str:
    """The text of a page's own part, without navigation."""
    return (soup(page).select_one("article.bd-article") or soup(page)).get_text(" ")
