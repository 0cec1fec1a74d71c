"""The page that generates: the same pictures as Python, nothing sent, all by keyboard, and what it says when it cannot.

Where ONNX Runtime Web could not be had, the tests of drawing look at what the page says then, and are skipped.
"""

import base64
import io
import json
import re
import shutil

import browser_generator
import numpy as np
import pages
import pytest
import tiny_site
from PIL import Image

from medimgen import generate
from medimgen.data.fetch import is_fetched
from medimgen.paths import ROOT

pytestmark = pytest.mark.browser
HERE = f"{browser_generator.PAGE}.html"
TOLERANCE = 1  # grey levels of 255, between this page and ONNX Runtime in Python
IDLE = "() => document.querySelector('button[name=go]').ariaDisabled !== 'true'"
STATUS, WORDS = "#maker [data-part=status]", "#maker [data-part=words]"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Folder of the built pages."""
    return tiny_site.build(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def address(html):
    with tiny_site.served(html) as base:
        yield base


@pytest.fixture
def asked(chromium):
    """A fresh page and the list of addresses that it, its frames and its workers ask for."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.asked = []
    context.on("request", lambda request: context.asked.append(request.url))
    yield context.new_page(), context.asked
    context.close()


@pytest.fixture
def page(asked, address):
    """The page, ready to generate if it can."""
    page, _ = asked
    page.goto(f"{address}/{HERE}")
    page.wait_for_load_state("networkidle")
    return page


def can_draw(page):
    """Wait until the page can draw. Where the program for it is missing the page must say so; the test is skipped."""
    if not is_fetched(browser_generator.PROGRAM):
        says_that_it_is_off(page)
        pytest.skip(f"ONNX Runtime Web is not here: run `{browser_generator.NEXT}` with a network")
    page.wait_for_function("() => !document.querySelector('#maker fieldset').disabled", timeout=60_000)


def says_that_it_is_off(page):
    note = page.locator(".admonition.warning", has_text="Generation is off in this build")
    assert browser_generator.NEXT in note.inner_text() and "make book" in note.inner_text()
    page.wait_for_selector("#maker", state="hidden")
    assert page.locator(".made-before img").count() == len(browser_generator.SAMPLES)


def generate_here(page, prompt, seed, steps=None):
    """Fill the form, press Generate, wait; what the status says then."""
    page.fill("#maker-prompt", prompt)
    page.fill("#maker-seed", str(seed))
    if steps:
        page.select_option("#maker-steps", str(steps))
    page.click("button[name=go]")
    page.wait_for_function(IDLE, timeout=240_000)
    return page.locator(STATUS).inner_text()


def shown(page):
    """uint8 (128, 128): what stands on the canvas."""
    code = "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).filter((_, i) => i % 4 == 0)"
    return np.array(page.eval_on_selector("#maker canvas", code), np.uint8).reshape(128, 128)


# Drawing


CASES = [("chest x-ray, normal", 0, 4), ("viral pneumonia, bright", 4294967295, 4), ("x-ray of a cat", 12, 1),
         ("chest x-ray, bacterial pneumonia, dark", 3, 10)]  # fmt: skip


@pytest.mark.parametrize(("prompt", "seed", "steps"), CASES)
def test_the_same_seed_gives_the_same_picture_as_python(page, runtime, monkeypatch, prompt, seed, steps):
    can_draw(page)
    said = generate_here(page, prompt, seed, steps)
    assert re.search(r"Drawn in \d+\.\d s on this computer, after \d+\.\d s of loading", said)
    monkeypatch.setitem(runtime.facts, "steps", steps)
    wanted = runtime(prompt, [seed])[0]
    assert np.abs(shown(page).astype(int) - wanted).max() <= TOLERANCE
    assert np.abs(shown(page).astype(int) - runtime(prompt, [(seed + 1) % 2**32])[0]).max() > 50


def test_a_picture_made_beforehand_is_drawn_again(page):
    """Its button fills the form and draws; the page itself compares the two."""
    can_draw(page)
    page.locator(".made-before button").nth(2).click()
    prompt, seed = browser_generator.SAMPLES[2]
    assert (page.input_value("#maker-prompt"), page.input_value("#maker-seed")) == (prompt, str(seed))
    page.wait_for_function(IDLE, timeout=240_000)
    said = page.locator(STATUS).inner_text()
    assert "pixel for pixel" in said or f"at most {TOLERANCE} of 255" in said
    assert "Python" not in generate_here(page, prompt, seed + 1)


def test_one_image_costs_five_seconds_of_a_processor_at_most(chromium, page):
    """Processor time of all the browser's processes, which waiting for a busy core does not lengthen; loading apart."""
    can_draw(page)
    generate_here(page, "chest x-ray, normal", 1)
    session = chromium.new_browser_cdp_session()

    def spent():
        return sum(p["cpuTime"] for p in session.send("SystemInfo.getProcessInfo")["processInfo"])

    before = spent()
    for seed in range(3):
        generate_here(page, "chest x-ray, normal", seed)
    seconds = (spent() - before) / 3
    print(f"{seconds:.2f} s of processor time an image")
    assert 0.05 < seconds <= 5


def test_no_request_leaves_this_machine(asked, address):
    page, urls = asked
    page.goto(f"{address}/{HERE}")
    can_draw(page)
    generate_here(page, "chest x-ray, normal", 5)
    page.context.set_offline(True)  # the plug pulled: the next image and its file need nothing more
    generate_here(page, "chest x-ray, normal", 6)
    with page.expect_download():
        page.click("[data-part=save]")
    page.context.set_offline(False)
    assert any(url.endswith("unet.onnx") for url in urls) and any(url.endswith(".wasm") for url in urls)
    assert [url for url in urls if not url.startswith((f"{address}/", f"blob:{address}/", "data:"))] == []
    assert not [url for url in urls if "normal" in url]
    page.evaluate("fetch('http://other.invalid/').catch(() => 0)")
    assert urls[-1] == "http://other.invalid/"  # the list would have noticed


def test_nothing_is_loaded_from_another_host(html):
    assert pages.external_loads(html) == []
    assert pages.without_alt(html / HERE) == []
    assert pages.broken_links(html) == []


def test_stop(page):
    """Stopped while it loads, and while it draws; nothing is shown then, and the next image comes all the same."""
    can_draw(page)
    page.select_option("#maker-steps", "50")
    page.click("button[name=go]")
    page.click("[data-part=stop]")
    page.wait_for_function(IDLE, timeout=120_000)
    assert "Stopped" in page.locator(STATUS).inner_text()
    page.click("button[name=go]")
    page.wait_for_function("() => document.querySelector('#maker progress').max == 51", timeout=120_000)
    page.click("[data-part=stop]")
    page.wait_for_function(IDLE, timeout=120_000)
    assert "Stopped" in page.locator(STATUS).inner_text() and not shown(page).any()
    assert page.locator("[data-part=save]").is_disabled()
    assert "Drawn" in generate_here(page, "chest x-ray, normal", 5, 4) and shown(page).any()


def test_a_saved_image_says_that_it_is_synthetic(page, tmp_path):
    can_draw(page)
    generate_here(page, "chest x-ray of a cat – normal", 5)
    with page.expect_download() as download:
        page.click("[data-part=save]")
    download.value.save_as(tmp_path / "a.png")
    assert download.value.suggested_filename == "synthetic-5.png"
    image = Image.open(tmp_path / "a.png")
    image.load()
    assert image.mode == "L" and np.array_equal(np.asarray(image), shown(page))
    assert image.text["Synthetic"] == "true" and "not for diagnosis" in image.text["Warning"]
    assert image.text["Prompt"] == "chest x-ray of a cat – normal" and image.text["Seed"] == "5"
    record = json.loads(image.text["Record"])
    assert record["weights_sha256"] == image.text["Weights-SHA256"] == generate.weights_sha256(generate.FOLDER)
    assert record["unseen"] == ["cat"] and record["steps"] == 4 and record["synthetic"] is True


def test_an_image_too_like_a_film_is_not_saved(page, html):
    """With every distance called too near."""
    can_draw(page)
    about = json.loads((html / "generator" / "about.json").read_text(encoding="utf-8"))
    page.route("**/about.json", lambda route: route.fulfill(json=about | {"threshold": 1.0}))
    page.reload()
    can_draw(page)
    generate_here(page, "chest x-ray, normal", 5)
    page.click("[data-part=save]")
    page.wait_for_function(f"() => document.querySelector('{STATUS}').textContent.startsWith('Not saved')")


# The form


def test_unseen_words_are_named_and_identifiers_refused(asked, page):
    can_draw(page)
    page.fill("#maker-prompt", "chest x-ray of a cat")
    assert "“cat”" in page.locator(WORDS).inner_text()
    page.fill("#maker-prompt", "chest x-ray of Mr Braithwaite")
    page.click("button[name=go]")
    said = page.locator(WORDS).inner_text()
    assert "a name" in said and "164.514(b)(2)(i)(A)" in said and "Braithwaite" not in said
    assert page.locator(STATUS).inner_text() == "Not generated."
    assert not [url for url in asked[1] if ".onnx" in url]  # nothing was even loaded
    page.fill("#maker-prompt", "lungs " * 30)
    assert "the last 8 words are not read" in page.locator(WORDS).inner_text()
    page.fill("#maker-prompt", "chest x-ray, normal")
    assert page.locator(WORDS).inner_text() == ""


def test_by_keyboard_alone(page):
    """Every control is reached by Tab in reading order, and Enter in the prompt generates."""
    can_draw(page)
    page.focus("#maker-prompt")
    names = []
    for _ in range(5):
        names.append(page.evaluate("document.activeElement.name || document.activeElement.dataset.part"))
        page.keyboard.press("Tab")
    assert names == ["prompt", "seed", "dice", "steps", "go"]
    before = page.input_value("#maker-seed")
    page.focus("[data-part=dice]")
    page.keyboard.press("Enter")
    assert page.input_value("#maker-seed") != before
    page.focus("button[name=go]")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.part") == "stop"  # Generate kept the focus, Stop is next
    page.wait_for_function(IDLE, timeout=240_000)
    assert page.evaluate("document.activeElement.name") == "go"
    page.focus("#maker-prompt")
    page.keyboard.press("Enter")
    page.wait_for_function(IDLE, timeout=240_000)
    assert "Drawn" in page.locator(STATUS).inner_text()
    assert "Synthetic" in page.get_attribute("#maker canvas", "aria-label")


def test_every_control_has_a_name_and_news_are_announced(page):
    controls = page.locator("#maker").locator("input, select, progress, canvas, button")
    for control in controls.all():
        name = control.evaluate("e => e.labels?.[0]?.innerText || e.ariaLabel || e.innerText")
        assert name and name.strip(), control.evaluate("e => e.outerHTML")
    assert page.locator(STATUS).get_attribute("role") == page.locator(WORDS).get_attribute("role") == "status"
    assert page.get_attribute("#maker-prompt", "spellcheck") == "false"  # some browsers send words out to check them
    assert "Not a medical device" in page.locator("article").inner_text()


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_can_be_read(page, width, theme):
    """No sideways scrolling, and text of the form stands out from its ground by 4.5 to 1 in both themes (WCAG 2.2)."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    can_draw(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('#maker :disabled').forEach(e => e.disabled = false)")
    for selector in (
        "label",
        "input",
        "button.first",
        "button:not(.first)",
        STATUS,
        "#maker figcaption",
        ".made-before figcaption",
    ):
        assert contrast(page, selector if selector[0] in "#." else f"#maker {selector}") >= 4.5, selector


CONTRAST = """e => {
    const numbers = c => c.match(/[\\d.]+/g).map(Number);
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = c => numbers(c).slice(0, 3).reduce((s, v, i) => s + [0.2126, 0.7152, 0.0722][i] * linear(v / 255), 0);
    let ground = e;
    while ((numbers(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def contrast(page, selector):
    return page.locator(selector).first.evaluate(CONTRAST)


def test_contrast_can_fail(page):
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<p id=bad style=\"color:#999;background:#fff\">a</p>')"
    )
    assert contrast(page, "#bad") < 4.5


# Without


def test_opened_as_a_file_it_says_what_to_do(asked, html):
    page, _ = asked
    page.goto((html / HERE).as_uri())
    page.wait_for_timeout(500)
    assert "make serve" in page.locator(STATUS).inner_text()
    assert page.locator("button[name=go]").is_disabled()
    widths = page.eval_on_selector_all(".made-before img", "all => all.map(e => e.naturalWidth)")
    assert widths == [128] * len(browser_generator.SAMPLES)


def test_a_build_without_the_program_says_so(asked, html, tmp_path, monkeypatch):
    """As on a machine that could not fetch ONNX Runtime Web: pictures, a command, no form, nothing broken."""
    monkeypatch.setattr(browser_generator, "program", lambda: (None, "npm: no network"))
    (tmp_path / "lessons").mkdir()
    text = (html / HERE).read_text(encoding="utf-8")
    if is_fetched(browser_generator.PROGRAM):
        assert "Generation is off" not in text
        text = text.replace("<section", browser_generator.note(on=False) + "<section", 1)
    (tmp_path / HERE).write_text(text, encoding="utf-8")
    shutil.copytree(html / "_static", tmp_path / "_static")
    assert "browser_generator.note()" in (ROOT / f"{browser_generator.PAGE}.md").read_text(encoding="utf-8")
    assert browser_generator.install(tmp_path) is False
    assert not list(tmp_path.rglob("*.onnx"))
    with tiny_site.served(tmp_path) as base:
        page, _ = asked
        page.goto(f"{base}/{HERE}")
        says_that_it_is_off(page)


def test_a_broken_build_says_what_failed(asked, html, address):
    """The form stays shut, and a sentence names the file."""
    page, _ = asked
    page.route("**/about.json", lambda route: route.fulfill(status=404))
    page.goto(f"{address}/{HERE}")
    page.wait_for_function(f"() => document.querySelector('{STATUS}').textContent.includes('about.json')")
    assert page.locator("button[name=go]").is_disabled()


def test_pictures_made_beforehand_are_marked_and_are_what_the_generator_draws(html, runtime):
    for figure, (prompt, seed) in zip(
        pages.soup(html / HERE).select(".made-before figure"), browser_generator.SAMPLES, strict=True
    ):
        image = Image.open(io.BytesIO(base64.b64decode(figure.img["src"].split(",")[1])))
        image.load()
        assert image.text["Synthetic"] == "true" and image.text["Prompt"] == prompt
        assert np.abs(np.asarray(image).astype(int) - runtime(prompt, [seed])[0]).max() <= TOLERANCE
        assert prompt in figure.img["alt"]
