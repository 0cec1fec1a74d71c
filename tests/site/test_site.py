"""The rendered site: complete, self-contained, described, linked. Each check is shown to be able to fail."""

import re
import shutil

import build_book
import pages
import pytest

TOC = build_book.pages(build_book.ROOT / "_toc.yml")
EMPTY_VIEWS = ("application/vnd.jupyter.widget-view+json", "Error displaying widget")


@pytest.fixture
def copy(site, tmp_path):
    """A small copy of the site: one page with what it needs, to be spoilt."""
    shutil.copytree(site / "_static", tmp_path / "site" / "_static")
    shutil.copytree(site / "_images", tmp_path / "site" / "_images")
    shutil.copy(site / "lessons" / "index.html", tmp_path / "site" / "index.html")
    return tmp_path / "site"


def spoil(copy, old, new):
    page = copy / "index.html"
    text = page.read_text(encoding="utf-8")
    assert old in text
    page.write_text(text.replace(old, new, 1), encoding="utf-8")
    return page


def test_every_page_of_the_contents_is_there(site):
    assert len(TOC) >= 8
    assert build_book.missing(site, TOC) == []


def test_a_lost_page_is_noticed(tmp_path):
    assert build_book.missing(tmp_path, TOC)[: len(TOC)] == TOC


def test_nothing_is_loaded_from_another_host(site):
    assert pages.external_loads(site) == []


@pytest.mark.parametrize(
    "planted",
    [
        "<script src='https://cdn.example.org/x.js'></script>",
        "<script src='//cdn.example.org/x.js'></script>",
        "<script type='module'>import x from 'https://cdn.example.org/x.js';</script>",
        "<link rel='stylesheet' href='https://cdn.example.org/x.css'>",
        "<style>@import 'https://cdn.example.org/x.css';</style>",
        "<style>@font-face { src: url(https://cdn.example.org/x.woff2); }</style>",
        "<p style='background: url(//cdn.example.org/x.png)'></p>",
        "<img alt='x' srcset='a.png 1x, https://cdn.example.org/x.png 2x'>",
        "<iframe src='https://example.org'></iframe>",
    ],
)
def test_a_load_from_another_host_turns_red(copy, planted):
    assert pages.external_loads(copy) == []
    spoil(copy, "</article>", planted + "</article>")
    assert len(pages.external_loads(copy)) == 1


def test_a_style_sheet_that_loads_from_another_host_turns_red(copy):
    sheet = copy / "_static" / "medimgen.css"
    sheet.write_text("@import url('https://cdn.example.org/font.css');", encoding="utf-8")
    assert len(pages.external_loads(copy)) == 1


def test_every_image_has_alternative_text(site):
    bad = [line for page in pages.html_files(site) for line in pages.without_alt(page)]
    assert bad == []


def test_an_image_without_alternative_text_turns_red(copy):
    page = spoil(copy, "</article>", "<img src='x.png'><img src='y.png' alt='../y.png'></article>")
    assert len(pages.without_alt(page)) == 2


def test_internal_links_and_anchors_resolve(site):
    assert pages.broken_links(site) == []


def test_a_broken_link_and_a_broken_anchor_turn_red(copy):
    before = pages.broken_links(copy)
    spoil(copy, "</article>", "<a href='lost.html'>a</a><a href='#lost'>b</a></article>")
    assert len(pages.broken_links(copy)) == len(before) + 2


@pytest.mark.parametrize("name", TOC)
def test_page(site, name):
    """Language, one search field, one title, the notice; no trace of a crash, an empty widget or this machine."""
    page = site / f"{name}.html"
    text, tree = page.read_text(encoding="utf-8"), pages.soup(page)
    assert tree.html["lang"] == "en-GB"
    visible = [form for form in tree.select("form.bd-search") if not form.find_parent("dialog")]
    assert len(visible) + len(tree.select("button.search-button-field")) == 1
    assert len(tree.select("article.bd-article h1")) == 1
    assert "Not a medical device" in tree.find("footer", class_="bd-footer-content").get_text()
    assert "Traceback" not in text
    assert not [view for view in EMPTY_VIEWS if view in text]
    assert str(build_book.ROOT) not in text
    assert "/home/" not in text


def test_index_shows_the_three_doors(site):
    titles = [t.get_text(strip=True) for t in pages.soup(site / "lessons/index.html").select(".door .sd-card-title")]
    assert titles == ["Learn", "Teach", "Run it here"]


def test_root_leads_to_the_first_page(site):
    assert "lessons/index.html" in (site / "index.html").read_text(encoding="utf-8")


def test_glossary_has_sixty_terms(site):
    terms = pages.soup(site / "lessons/glossary.html").select("dl.glossary dt")
    assert len(terms) >= 60


def test_setup_page_ends_in_a_quiz_with_feedback(site):
    quiz = pages.soup(site / "lessons/00-setup.html").select_one("section.medimgen-quiz")
    assert len(quiz.select("fieldset")) >= 3
    assert all(option.p.get_text(strip=True) for option in quiz.select("details"))


def test_every_quiz_of_the_progress_table_stands_on_its_page(site):
    page = site / "lessons" / "your-progress.html"
    rows = pages.soup(page).select("#progress-table tbody tr")
    assert len(rows) >= 10
    for row in rows:
        shown = pages.soup(page.parent / row.a["href"]).select("section.medimgen-quiz fieldset")
        assert set(row["data-items"].split()) <= {tag["data-item"] for tag in shown}, row.a["href"]


def test_licences_page_names_every_data_set(site):
    from medimgen.data import manifest

    text = " ".join(pages.article(site / "lessons/licences.html").split())
    assert [e.id for e in manifest.entries().values() if e.title not in text] == []


def test_references_page_lists_the_whole_bibliography(site):
    bib = (build_book.ROOT / "lessons/references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", bib, re.MULTILINE)
    shown = pages.soup(site / "lessons/references.html").select("div.citation")
    assert len(shown) == len(keys)


def test_search_index_finds_a_word(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "confound" in index


def test_no_instructor_note_reaches_the_site(site):
    import editions

    kept = editions.withheld(build_book.ROOT, "solution")
    assert kept, "no lesson has an instructor note: nothing is tested"
    for name, blocks in kept.items():
        page = " ".join(pages.article((site / name).with_suffix(".html")).split())
        for block in blocks:
            words = " ".join(re.findall(r"[\w ,]{25,}", block)[-1].split())
            assert words not in page
            assert words not in (site / "searchindex.js").read_text(encoding="utf-8")
