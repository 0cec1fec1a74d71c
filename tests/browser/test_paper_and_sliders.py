"""Pages on paper, sliders over pictures drawn beforehand, by keyboard, and slides that are too full; as files."""

import make_slides
import nbformat
import pytest

pytestmark = pytest.mark.browser
PAGES = ["lessons/claims", "notebooks/03-robustness"]
WITH_SLIDERS = ["00-meet-the-films", "03-robustness"]
DEAD = ".bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer, button, input, .headerlink"
FOLDED = "e => !e.open && !/^\\s*solution/i.test(e.querySelector('summary').textContent)"
SHOWN = "e => [...e.querySelectorAll('figure')].filter(f => !f.hidden).map(f => [f.dataset.name, f.innerHTML])"


@pytest.fixture
def sheet(chromium):
    """A page as wide as the print of an A4 sheet (178 mm), in the dark theme."""
    context = chromium.new_context(viewport={"width": 673, "height": 1000}, color_scheme="dark")
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_on_paper(sheet, site, name):
    sheet.goto((site / f"{name}.html").as_uri())
    sheet.emulate_media(media="print")
    assert sheet.evaluate("document.documentElement.dataset.theme") == "dark"
    sheet.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert sheet.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert sheet.locator(DEAD).filter(visible=True).all_inner_texts() == [], "what does nothing on paper"
    solid = "[...document.querySelectorAll('article :is(p, li, pre, td, img, svg)')]"
    wide = f"{solid}.filter(e => e.getBoundingClientRect().right > innerWidth + 2)"
    assert sheet.evaluate(f"{wide}.map(e => e.tagName + '.' + e.className)") == [], "wider than the sheet"
    beyond = sheet.locator(".tag_beyond details, details.sd-dropdown")
    assert [fold for fold in beyond.element_handles() if fold.evaluate(FOLDED)] == []
    assert sheet.locator(".tag_solution details[open]").count() == 0, "an exercise sheet does not solve itself"
    options = sheet.locator(".medimgen-quiz summary")
    assert options.filter(visible=True).count() == options.count()
    sheet.evaluate("dispatchEvent(new Event('afterprint'))")
    assert sheet.evaluate("document.documentElement.dataset.theme") == "dark"
    assert sheet.locator(".tag_beyond details[open]").count() == 0


@pytest.mark.parametrize("name", WITH_SLIDERS)
def test_every_slider_goes_from_end_to_end(sheet, site, name):
    sheet.emulate_media(reduced_motion="reduce")
    sheet.goto((site / "notebooks" / f"{name}.html").as_uri())
    sheet.eval_on_selector_all("details", "all => all.forEach(e => e.open = true)")
    boxes = sheet.locator("article [data-frames]")
    assert boxes.count() >= 1
    for box in boxes.all():
        slider, seen = box.locator("input[type=range]"), []
        assert box.locator("label").inner_text().strip() and slider.bounding_box()["height"] >= 24
        slider.focus()
        for key in ("Home", "ArrowRight", "End"):
            sheet.keyboard.press(key)
            shown = box.evaluate(SHOWN)
            assert len(shown) == 1 and box.locator("output").inner_text() == " ".join(shown[0][0].split())
            assert slider.get_attribute("aria-valuetext") == shown[0][0]
            seen.append(shown[0][1])
        assert len(set(seen)) == 3, "the picture did not change"
        assert slider.evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)") >= 2


REVEAL = """window.RevealNotes = 0; window.Reveal = { on() {}, initialize() {}, isReady: () => true,
  getCurrentSlide: () => document.querySelector(".slides section section") };
document.head.append(Object.assign(document.createElement("style"), { textContent:
  ".slides, .slides section { width: 1100px; height: 680px; display: block } .fragment { visibility: hidden }" }));"""


@pytest.mark.parametrize(("lines", "smaller"), [(4, False), (18, True)])
def test_a_slide_that_is_too_full_is_drawn_smaller(chromium, tmp_path, lines, smaller):
    """With a stand-in for reveal.js, which sets the size of a slide and says which one is shown."""
    tall = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="2000"><rect width="9" height="9"/></svg>'
    source = "\n".join(f"line_{k} = {'9' * 80}" for k in range(lines))
    cell = nbformat.v4.new_code_cell(source, metadata={"slideshow": {"slide_type": "slide"}})
    cell.outputs = [
        nbformat.v4.new_output("display_data", data={"text/html": f"<img src='data:image/svg+xml,{tall}'>"})
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title"), cell])
    (tmp_path / "reveal" / "dist").mkdir(parents=True)
    (tmp_path / "reveal" / "dist" / "reveal.js").write_text(REVEAL, encoding="utf-8")
    (tmp_path / "slides.html").write_text(make_slides.slides(notebook), encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "slides.html").as_uri())
    slide = page.locator(".slides section section").first
    assert slide.evaluate("e => e.scrollHeight <= e.clientHeight + 1")
    assert (float(slide.evaluate("e => e.style.zoom")) < 1) == smaller
    assert slide.locator("img").evaluate("e => e.offsetHeight") <= 380
    page.close()
