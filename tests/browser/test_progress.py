"""Progress in a real browser: the first option counts, it stays, it is saved, forgotten and printed, and never sent."""

import json
import re
from pathlib import Path

import pytest
from tiny_site import served

from medimgen.check import LETTERS, load, show_quiz
from medimgen.paths import ROOT

pytestmark = pytest.mark.browser
LESSONS = ROOT / "lessons"


def table():
    """The page's own part, as its one code cell makes it."""
    text = (LESSONS / "your-progress.md").read_text(encoding="utf-8")
    cell = re.search(r"```\{code-cell\} python3\n:tags: \[remove-input\]\n(.*?)\n```", text, re.DOTALL).group(1)
    code, _, last = cell.rpartition("\nHTML(")
    names = {}
    exec(f"{code}\nmade = HTML({last}", names)
    return names["made"].data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "lessons").mkdir()
    (folder / "_static").mkdir()
    for name in ("progress.js", "progress.css"):
        (folder / "_static" / name).write_bytes((LESSONS / "assets" / name).read_bytes())
    for name, body in (("quiz", show_quiz("pretest")._repr_html_()), ("your-progress", table())):
        head = f'<meta charset="utf-8"><title>{name}</title><script defer src="../_static/progress.js"></script>'
        page = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><main>{body}</main></body></html>'
        (folder / "lessons" / f"{name}.html").write_text(page, encoding="utf-8")
    with served(folder) as address:
        yield address


@pytest.fixture
def page(chromium, site):
    context = chromium.new_context(accept_downloads=True)
    opened, asked = context.new_page(), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: asked.append(f"error: {error}"))
    yield opened
    context.close()
    assert [url for url in asked if not url.startswith((site, "blob:"))] == []


def answer(page, number, letter):
    page.locator("fieldset").nth(number).locator("summary").nth(LETTERS.index(letter)).click()


def kept(page):
    return json.loads(page.evaluate("localStorage['medimgen-progress'] ?? 'null'"))


def test_nothing_answered_yet(page, site):
    page.goto(f"{site}/lessons/your-progress.html")
    assert "No question has been answered" in page.inner_text("#progress-sum")
    assert page.locator("#progress-save").is_disabled() and page.locator("#progress-print").is_enabled()
    rows = page.locator("#progress-table tbody tr")
    assert rows.count() == len(shown()) and "0 of 8" in rows.first.inner_text()


def shown():
    """Quiz -> the page of the site that shows it, from the folder of the lessons."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in LESSONS.glob("*.md")}
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        texts[f"../{name}"] = "\n".join("".join(cell["source"]) for cell in cells)
    return {quiz: stem for stem, text in texts.items() for quiz in re.findall(r'show_quiz\("([\w-]+)"\)', text)}


def test_the_table_leads_to_every_quiz_that_is_shown():
    rows = re.findall(r'<tr data-items="([^"]+)"><th scope="row"><a href="([^"]+)\.html"', table())
    items = {quiz: " ".join(i["id"] for i in load()[quiz]["items"] if i["kind"] == "choice") for quiz in shown()}
    assert sorted(rows) == sorted((items[quiz], stem) for quiz, stem in shown().items())


def test_every_quiz_is_shown():
    choices = {name for name, quiz in load().items() if any(item["kind"] == "choice" for item in quiz["items"])}
    assert choices == set(shown())


def test_the_first_option_counts_and_the_page_tells(page, site):
    items = load()["pretest"]["items"]
    right = LETTERS[[o["correct"] for o in items[0]["options"]].index(True)]
    wrong = LETTERS[[o["correct"] for o in items[1]["options"]].index(False)]
    page.goto(f"{site}/lessons/quiz.html")
    answer(page, 0, right)
    answer(page, 1, wrong)
    answer(page, 1, LETTERS[[o["correct"] for o in items[1]["options"]].index(True)])  # reading on changes nothing
    page.wait_for_function("document.querySelector('.medimgen-quiz-progress').textContent.startsWith('2 of 8')")
    assert "1 right at once" in page.inner_text(".medimgen-quiz-progress[role=status]")
    answers = kept(page)["answers"]
    assert {id: (a["first"], a["right"]) for id, a in answers.items()} == {
        items[0]["id"]: (right, True),
        items[1]["id"]: (wrong, False),
    }
    page.click(".medimgen-quiz-progress a")
    assert page.inner_text("#progress-sum").startswith("2 of ")
    assert "2 of 8" in page.locator("#progress-table tbody tr").first.inner_text()
    with page.expect_download() as download:
        page.click("#progress-save")
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8")) == kept(page)
    page.click("#progress-forget")
    page.click("#progress-sure button[value=keep]")
    assert kept(page) is not None
    page.click("#progress-forget")
    page.click("#progress-sure button[value=forget]")
    page.wait_for_function("document.getElementById('progress-sum').textContent.startsWith('No question')")
    assert kept(page) is None


@pytest.mark.parametrize("stored", ["{broken", "null", '{"version": 2}', '{"version": 1, "answers": 3}', "[]"])
def test_what_cannot_be_read_counts_as_nothing(page, site, stored):
    page.goto(f"{site}/lessons/your-progress.html")
    page.evaluate("text => localStorage.setItem('medimgen-progress', text)", stored)
    page.reload()
    assert "No question has been answered" in page.inner_text("#progress-sum")


def test_a_browser_that_keeps_nothing_says_so(page, site):
    page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); }")
    page.goto(f"{site}/lessons/quiz.html")
    answer(page, 0, "a")
    page.wait_for_function("document.querySelector('.medimgen-quiz-progress').textContent.includes('keeps nothing')")


def test_the_printed_page_has_the_name_and_no_buttons(page, site):
    page.goto(f"{site}/lessons/your-progress.html")
    page.get_by_label("Name").fill("A. Reader")
    page.emulate_media(media="print")
    assert not page.locator("#progress-tools").is_visible()
    assert page.locator("#progress-table").is_visible() and page.input_value("#progress-name") == "A. Reader"
