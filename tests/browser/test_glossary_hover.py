"""Definitions and references at the pointer in Chromium, from files: hover, focus, Escape, and nothing moves."""

import glossary_hover
import pytest

pytestmark = pytest.mark.browser
TERM = "a.glossary-link"
PAGE = """<!doctype html><html lang="en"><head><title>t</title>
<style>body {{ font: 16px sans-serif }}</style></head><body>
<article class="bd-article"><p style="margin-top: {top}px">A <a href="glossary.html#term-GAN" title="old">GAN</a> and a
<a href="glossary.html#term-lost">lost one</a>.</p>
<p id="next">Next.</p><button>Last</button></article></body></html>"""
CITING = """<!doctype html><html lang="en"><head><title>c</title></head><body><article class="bd-article">
<p>Films tell more [<a href="references.html#id7" title="Ada Zech. Shortcuts. 2018.">Zech, 2018</a>].
Again [<a href="references.html#id7" title="Ada Zech. Shortcuts. 2018.">Zech, 2018</a>],
<a href="references.html">all of them</a>.</p><button>Last</button></article></body></html>"""
GLOSSARY = """<!doctype html><html lang="en"><head><title>g</title></head><body><article class="bd-article">
<dl class="glossary">
<dt id="term-GAN">GAN</dt><dd><p>Two &lt;b&gt; networks. <em>Exactly:</em> a game.</p></dd></dl>
</article></body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name in ("lessons", "_static"):
        (folder / name).mkdir()
    (folder / "lessons" / "glossary.html").write_text(GLOSSARY, encoding="utf-8")
    (folder / "lessons" / "page.html").write_text(PAGE.format(top=40), encoding="utf-8")
    (folder / "lessons" / "low.html").write_text(PAGE.format(top=570), encoding="utf-8")
    (folder / "lessons" / "cites.html").write_text(CITING, encoding="utf-8")
    assert glossary_hover.install(folder) == 4
    return folder


@pytest.fixture
def opened(chromium, site):
    """A function that opens a page by `file://`; afterwards no request may have gone elsewhere, and no error come."""
    context = chromium.new_context(viewport={"width": 360, "height": 620})
    asked, errors = [], []

    def go(name="page"):
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "lessons" / f"{name}.html").as_uri())
        return page

    yield go
    context.close()
    assert errors == [] and [url for url in asked if not url.startswith(site.as_uri())] == []


def tip(page):
    return page.get_by_role("tooltip")


def test_hover_shows_the_plain_words_and_nothing_moves(opened):
    page = opened()
    before = page.locator("#next").bounding_box()
    assert tip(page).count() == 0
    page.hover(TERM)
    tip(page).wait_for()
    assert tip(page).inner_text() == "GAN: Two <b> networks."
    assert page.locator("#next").bounding_box() == before
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    tip(page).hover()  # the pointer may go onto the words, and they stay
    page.wait_for_timeout(400)
    assert tip(page).is_visible()
    page.hover("button")
    tip(page).wait_for(state="hidden")


def test_focus_shows_it_escape_and_blur_take_it_away(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert tip(page).is_visible()
    page.keyboard.press("Escape")
    assert tip(page).count() == 0
    assert page.evaluate("document.activeElement.textContent") == "GAN"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert tip(page).is_visible()
    page.keyboard.press("Tab")
    assert tip(page).count() == 0


def test_a_screen_reader_is_told_which_words_belong_to_the_link(opened):
    page = opened()
    link = page.locator(TERM)
    assert link.count() == 1 and link.get_attribute("title") is None
    told = page.locator(f"#{link.get_attribute('aria-describedby')}")
    assert told.get_attribute("role") == "tooltip" and told.text_content() == "GAN: Two <b> networks."


def test_a_citation_shows_its_reference(opened):
    page = opened("cites")
    links = page.locator(TERM)
    assert links.count() == 2 and page.locator(".glossary-tip").count() == 1
    for link in links.all():
        link.focus()
        assert tip(page).inner_text() == "Ada Zech. Shortcuts. 2018." and link.get_attribute("title") is None
        assert link.get_attribute("aria-describedby") == tip(page).get_attribute("id")
        page.keyboard.press("Escape")
        assert tip(page).count() == 0
    links.last.hover()
    tip(page).wait_for()
    page.mouse.move(5, 600)
    tip(page).wait_for(state="hidden")


def test_it_opens_upwards_where_there_is_no_room_below(opened):
    page = opened("low")
    page.focus(TERM)
    box, link = tip(page).bounding_box(), page.locator(TERM).bounding_box()
    assert box["y"] + box["height"] <= link["y"]
    other = opened()
    other.focus(TERM)
    assert tip(other).bounding_box()["y"] >= other.locator(TERM).bounding_box()["y"]


def test_without_a_script_the_link_is_a_link(chromium, site):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "lessons" / "page.html").as_uri())
    page.click("text=GAN")
    assert page.url.endswith("glossary.html#term-GAN")
    context.close()
