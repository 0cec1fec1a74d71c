"""The site without a network: opened as files by a browser that notes whom it asks, and served by `make serve`.

Opened as a file, a page may not read another one: the search says so, and the page that generates.
"""

import re
import shutil

import browser_generator
import build_book
import pytest
import tiny_site

from medimgen.paths import ROOT

pytestmark = pytest.mark.browser
NAMES = [*build_book.pages(ROOT / "_toc.yml"), "404", "genindex", "search"]
FORBIDDEN = re.compile(r"CORS policy|net::ERR_FAILED")  # what a browser says of one file that reads another
STYLED = "getComputedStyle(document.documentElement).getPropertyValue('--course-serif') !== ''"


@pytest.fixture
def page(chromium):
    with tiny_site.noting(chromium) as page:
        yield page


def search(page, address, word):
    page.goto(f"{address}?q={word}")
    done = "() => /finished|did not match/.test(document.querySelector('#search-results')?.innerText)"
    page.wait_for_function(done, timeout=60_000)
    return page.locator("#search-results").inner_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_reads_as_a_file_with_the_plug_pulled(page, site, name):
    page.context.set_offline(True)
    page.goto((site / f"{name}.html").as_uri())
    assert page.locator("h1:visible").count() == 1 and page.evaluate(STYLED)
    assert page.evaluate("[...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).length") == 0
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    # what reads another file: the program of the page that generates, which says so (below)
    assert [line for line in page.said if not (name == browser_generator.PAGE and FORBIDDEN.search(line))] == []


def test_search_as_files_finds_and_says_what_it_cannot_show(page, site):
    page.context.set_offline(True)
    assert "Meet the films" in search(page, (site / "search.html").as_uri(), "confounder")
    assert "make serve" in page.locator(".opened-as-a-file").inner_text()
    page.locator("#search-results a", has_text="Meet the films").first.click()
    assert page.locator("h1").first.inner_text().startswith("Meet the films")


@pytest.mark.parametrize(("word", "where"), [("L1e", "claims.html#L1e"), ("ablation", "glossary.html#term-ablation")])
def test_search_leads_to_a_claim_and_to_a_term(page, site, word, where):
    page.context.set_offline(True)
    search(page, (site / "search.html").as_uri(), word)
    page.locator("#search-results li a").first.click()
    page.locator(f"#{where.rpartition('#')[2]}").wait_for(state="attached")
    assert page.url.endswith(where)


def test_quiz_as_a_file_answers(page, site):
    page.context.set_offline(True)
    page.goto((site / "lessons" / "00-setup.html").as_uri())
    quiz = page.locator(".medimgen-quiz")
    before = quiz.inner_text()
    quiz.locator(":is(summary, input)").first.click()
    assert len(quiz.inner_text()) > len(before) + 20


def test_generate_as_a_file_says_what_to_do(page, site):
    page.goto((site / f"{browser_generator.PAGE}.html").as_uri())
    assert "make serve" in page.locator("#maker [data-part=status]").inner_text()
    assert page.locator("button[name=go]").is_disabled() and page.locator(".made-before img").count() >= 4


# Served


def test_a_request_to_another_host_would_be_noticed(page, address):
    page.goto(f"{address}/lessons/index.html")
    page.evaluate("fetch('http://other.invalid/').catch(() => 0)")
    assert page.asked[-1] == "http://other.invalid/"


def test_search_shows_the_lines_around_a_word(page, address):
    found = search(page, f"{address}/search.html", "confounder")
    assert "Meet the films" in found
    page.wait_for_function("() => document.querySelector('#search-results .context')", timeout=60_000)
    assert page.locator(".opened-as-a-file").count() == 0
    assert "Meet the films" not in search(page, f"{address}/search.html", "qqqqzz")


def test_a_page_with_a_formula_brings_mathjax_along(site):
    with_formula = [p for p in site.rglob("*.html") if re.search(r'class="[^"]*\bmath\b', p.read_text("utf-8"))]
    assert not with_formula or list(site.rglob("tex-chtml.js")), with_formula


@pytest.mark.parametrize("lost", ["lost.html", "lessons/lost.html", "notebooks/research/deeper/lost.html"])
@pytest.mark.parametrize("below", ["", "course/"])
def test_page_not_found_works_at_any_depth(page, site, tmp_path, lost, below):
    """As a web server answers with it; also where the site is not at the root of its host."""
    home = tmp_path / below
    for name in ("404.html", "objects.inv", "_static", "lessons"):
        copy = shutil.copytree if (site / name).is_dir() else shutil.copy
        home.mkdir(parents=True, exist_ok=True)
        copy(site / name, home / name)
    missing = (site / "404.html").read_text(encoding="utf-8")
    with tiny_site.served(tmp_path) as base:
        page.route(f"**/{lost}", lambda route: route.fulfill(status=404, body=missing, content_type="text/html"))
        page.goto(f"{base}/{below}{lost}")
        assert page.locator("h1:visible").inner_text().startswith("Page not found") and page.evaluate(STYLED)
        page.locator("#pst-skip-link a").evaluate("e => e.click()")
        assert page.url == f"{base}/{below}{lost}#main-content"
        page.locator("#page-not-found a").first.click()
        assert page.url == f"{base}/{below}lessons/index.html"
        assert page.locator("h1:visible").inner_text().startswith("Generative AI")


@pytest.mark.parametrize("lost", ["nowhere", "lessons/nowhere", "notebooks/research/"])
def test_make_serve_answers_with_the_page_not_found(page, address, lost):
    """Also for a folder, whose files a web host does not list either."""
    assert page.goto(f"{address}/{lost}").status == 404
    assert page.locator("h1:visible").inner_text().startswith("Page not found") and page.evaluate(STYLED)
    page.locator("#page-not-found a").first.click()
    assert page.url == f"{address}/lessons/index.html"
