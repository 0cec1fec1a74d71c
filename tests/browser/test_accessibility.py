"""Every page of the site, served: whom it asks, axe-core in both themes, widths; and keyboard, motion, print.

axe-core comes by the manifest (`medimgen fetch axe-core`, before the network is blocked). It finds what a program can
find; what it cannot is listed in the manifest's entry. Everything folded is opened before it looks.
"""

import build_book
import pytest
import tiny_site

from medimgen.data.fetch import fetch, is_reachable
from medimgen.paths import ROOT

pytestmark = pytest.mark.browser
NAMES = [*build_book.pages(ROOT / "_toc.yml"), "404", "genindex", "search"]
QUIZ = "lessons/00-setup"
# Left out is what no serious barrier comes of: the rule "region", moderate at most, and style sheets read once more.
SERIOUS = """async () => {
    const options = {resultTypes: ['violations'], rules: {region: {enabled: false}}, preload: false};
    const found = (await axe.run(document, options)).violations;
    return found.filter(v => ['serious', 'critical'].includes(v.impact))
        .flatMap(v => v.nodes.map(n => `${v.id}: ${n.target.join(' ')} ${n.html.slice(0, 120)}`));
}"""
FOCUSED = """() => {
    const e = document.activeElement, look = getComputedStyle(e), box = e.getBoundingClientRect();
    const ring = (look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 2) || look.boxShadow !== 'none';
    const name = e.textContent.trim() || e.ariaLabel || e.title || e.placeholder;
    return {name, tag: e.tagName, ring, seen: box.width > 0 && box.top >= 0};
}"""
MOVING = """() => [...document.querySelectorAll('*')].filter(e => {
    const look = getComputedStyle(e);
    const lasts = times => times.split(',').some(t => parseFloat(t) > 0);
    return lasts(look.transitionDuration) || (look.animationName !== 'none' && lasts(look.animationDuration));
}).length"""


@pytest.fixture(scope="module")
def axe():
    """The program, as text."""
    if not is_reachable("axe-core"):
        pytest.skip("axe-core is not here: run `medimgen fetch axe-core` with a network")
    return (fetch("axe-core") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def page(chromium):
    """A page of a reader who wants no motion, so that no colour is caught half-way."""
    with tiny_site.noting(chromium, reduced_motion="reduce") as page:
        yield page


@pytest.fixture(scope="module", params=NAMES)
def opened(request, chromium, address):
    """Each page of the site, everything folded open, once for all tests that look at every page."""
    with tiny_site.noting(chromium, reduced_motion="reduce") as page:
        visit(page, address, request.param)
        yield page


def visit(page, address, name, axe=None):
    """Open a page, everything folded open, axe-core in it."""
    page.goto(f"{address}/{name}.html")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    if axe:
        page.evaluate(axe)


def paint(page, theme):
    page.evaluate("t => { const d = document.documentElement.dataset; d.theme = d.mode = t; }", theme)


def test_a_page_asks_this_machine_only(opened, address):
    opened.wait_for_load_state("networkidle")
    assert len(opened.asked) > 5
    assert [url for url in opened.asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    assert opened.evaluate("[...document.fonts].every(font => font.status !== 'error')")
    assert opened.said == []


def test_no_serious_barrier(opened, axe):
    """Light on a desktop's width, dark on a telephone's."""
    opened.evaluate(axe)
    paint(opened, "light")
    assert opened.evaluate(SERIOUS) == []
    paint(opened, "dark")
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.wait_for_timeout(400)  # the theme looks again at what scrolls 300 ms after a change of size
    assert opened.evaluate(SERIOUS) == []


def test_nothing_makes_a_page_scroll_sideways(opened):
    for width in (390, 768, 1440):
        opened.set_viewport_size({"width": width, "height": 900})
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, width


@pytest.mark.parametrize(
    ("planted", "rule"),
    [
        ("<button></button>", "button-name"),
        ("<p style='color: #999; background: #fff'>pale</p>", "color-contrast"),
        ("<details><summary>a</summary><img src='../_static/logo.svg'></details>", "image-alt"),
    ],
)
def test_a_planted_barrier_turns_red(page, site, address, axe, planted, rule):
    """In a copy of a page that the browser gets in its place."""
    text = (site / "lessons" / "policies.html").read_text(encoding="utf-8")
    assert text.count("</article>") == 1
    spoilt = text.replace("</article>", planted + "</article>")
    page.route("**/policies.html", lambda route: route.fulfill(body=spoilt, content_type="text/html; charset=utf-8"))
    visit(page, address, "lessons/policies", axe)
    paint(page, "light")
    found = page.evaluate(SERIOUS)
    assert [line.split(":")[0] for line in found] == [rule]


def test_no_serious_barrier_after_an_answer(page, address, axe):
    """Every option of a quiz opened or chosen, one after the other."""
    page.goto(f"{address}/{QUIZ}.html")
    options = page.locator(".medimgen-quiz :is(summary, input)")
    assert options.count() >= 9
    hidden = page.locator(".medimgen-quiz").inner_text()
    for option in options.all():
        option.click()
    assert len(page.locator(".medimgen-quiz").inner_text()) > len(hidden) + 40  # the feedback stands there now
    page.evaluate(axe)
    for theme in ("light", "dark"):
        paint(page, theme)
        assert page.evaluate(SERIOUS) == []


def test_no_serious_barrier_in_a_menu_and_in_the_search_window(page, address, axe):
    page.set_viewport_size({"width": 390, "height": 844})
    for opener, window in ((".primary-toggle", "#pst-primary-sidebar-modal"), (None, "#pst-search-dialog")):
        visit(page, address, QUIZ, axe)
        page.wait_for_load_state("networkidle")
        page.click(opener) if opener else page.keyboard.press("Control+k")
        page.wait_for_selector(f"{window}[open]")
        for theme in ("light", "dark"):
            paint(page, theme)
            assert page.evaluate(SERIOUS) == []


def test_no_serious_barrier_after_a_change_of_theme(page, address, axe):
    """By the page's own button, which says which theme is on."""
    visit(page, address, QUIZ, axe)
    page.wait_for_load_state("networkidle")
    button, seen = page.locator(".theme-switch-button:visible"), set()
    for _ in range(3):
        button.click()
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
        mode = page.evaluate("document.documentElement.dataset.mode")
        name = {"light": "Light", "dark": "Dark", "auto": "System"}[mode]
        page.wait_for_function("n => document.querySelector('.theme-switch-button').ariaLabel.includes(n)", arg=name)
        assert page.evaluate(SERIOUS) == []
    assert seen == {"light", "dark"}


def test_sideways_scrolling_is_noticed(page, address):
    visit(page, address, QUIZ)
    page.set_viewport_size({"width": 390, "height": 900})
    page.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<div style=width:600px>a</div>')")
    assert page.evaluate("document.documentElement.scrollWidth") > 390


# Keyboard, motion, print


def test_by_keyboard(page, address):
    """The first stop leads past the menu, and every stop is seen."""
    visit(page, address, "lessons/index")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    first = page.evaluate(FOCUSED)
    assert first["name"] == "Skip to main content" and first["seen"] and first["ring"]
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")
    tags = []
    for _ in range(25):
        page.keyboard.press("Tab")
        now = page.evaluate(FOCUSED)
        tags.append(now["tag"])
        assert now["ring"] and now["name"], now
        assert page.evaluate("!!document.activeElement.closest('main, footer')"), "back in the menu"
    assert tags.count("A") > 10
    bare = "e => ['outline', 'box-shadow'].forEach(name => e.style.setProperty(name, 'none', 'important'))"
    page.locator(":focus").evaluate(bare)
    assert not page.evaluate(FOCUSED)["ring"]


def test_who_wants_no_motion_gets_none(page, address):
    visit(page, address, "lessons/index")
    assert page.evaluate(MOVING) == 0
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.add_style_tag(content="p { transition: color 2s !important }")
    assert page.evaluate(MOVING) > 0


def test_a_dark_page_prints_ink_on_white(page, address):
    """The page alone, without menus; the theme comes back afterwards."""
    visit(page, address, "lessons/03-robustness")
    paint(page, "dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    ink, ground = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert ground == "rgb(255, 255, 255)" and sum(int(n) for n in ink[4:-1].split(",")) < 200
    for gone in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
        assert page.locator(gone).first.is_hidden(), gone
    assert page.locator("h1:visible").count() == 1 and page.locator("article p:visible").count() > 10
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
