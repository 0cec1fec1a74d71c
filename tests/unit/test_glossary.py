"""The glossary is whole, each term with two sentences and a link that leads somewhere; definitions at the pointer."""

import re
import shutil

import glossary_hover
import nbformat
import pytest
import yaml

from medimgen._schema import validate
from medimgen.paths import ROOT

LESSONS = ROOT / "lessons"
TEXT = (LESSONS / "glossary.md").read_text(encoding="utf-8")
HEADINGS = ("training data", "training paradigms", "capabilities", "evaluation")


def groups(text):
    """Heading -> [(term, entry), ...] of every list of the page, in order."""
    found = {}
    for heading, body in re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```\{glossary\}\n(.*?)\n```$", text, re.M | re.S):
        entries = found.setdefault(heading, [])
        entries += [tuple(part.split("\n", 1)) for part in re.split(r"\n\n(?=\S)", body.strip("\n"))]
    return found


def anchors(path):
    """Anchors of the headings of a page or notebook, to the third level, as the book makes them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(c.source for c in nbformat.reads(text, 4).cells if c.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    heads = re.findall(r"^#{1,3} (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def complaints(text):
    """What is wrong with a glossary page, one line each."""
    bad, seen = [], set()
    for heading, entries in groups(text).items():
        terms = [term for term, _ in entries]
        bad += [f"{heading}: not in order" for _ in [0] if terms != sorted(terms, key=str.lower)]
        for term, entry in entries:
            bad += [f"{term}: twice"] * (term.lower() in seen)
            seen.add(term.lower())
            plain, _, rest = entry.partition("*Exactly:*")
            exact, _, met = rest.partition("*In the course:*")
            bad += [f"{term}: no {what}" for what, part in (("plain words", plain), ("exact words", exact))
                    if len(part.split()) < 4 or not re.search(r"[.?)]$", part.strip())]  # fmt: skip
            links = re.findall(r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", met)
            bad += [f"{term}: no link"] * (not links)
            for file, anchor in links:
                path = (LESSONS / file).resolve()
                if not path.is_file() or (anchor and anchor not in anchors(path)):
                    bad.append(f"{term}: {file}#{anchor} is not there")
    for term in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        bad += [f"{term}: is linked and has no entry"] * (term.lower() not in seen)
    bib = (LESSONS / "references.bib").read_text(encoding="utf-8")
    keys = {key for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text) for key in keys.split(",")}
    return bad + [f"{key}: not in the bibliography" for key in sorted(keys) if f"{{{key}," not in bib]


def test_every_entry_is_whole_and_its_links_resolve():
    assert complaints(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("\n\ncache\n", "\n\nzebra\n", "not in order"),
        ("\n\ncache\n", "\n\nAdapter\n", "Adapter: twice"),
        ("*Exactly:* the operating system's", "The operating system's", "cache: no exact words"),
        ("04-safety-rules.md#where-it-goes", "04-safety-rules.md#lost", "#lost is not there"),
        ("04-safety-rules.md#where-it-goes", "lost.md", "lost.md# is not there"),
        ("{term}`embeddings <embedding>`", "{term}`lost`", "lost: is linked"),
        ("{cite:p}`zech2018`", "{cite:p}`lost2020`", "lost2020: not in the bibliography"),
    ],
)
def test_a_fault_is_noticed(old, new, told):
    assert old in TEXT
    assert [line for line in complaints(TEXT.replace(old, new, 1)) if told in line]


def test_sixty_terms_and_the_four_headings_of_the_review():
    found = groups(TEXT)
    assert sum(map(len, found.values())) >= 60
    assert list(found)[1:] == [f"Foundation models: {name}" for name in HEADINGS]
    assert all(len(found[f"Foundation models: {name}"]) >= 8 for name in HEADINGS)
    assert TEXT.count("```{glossary}") == len(found)


def test_quiz_stands_at_the_end_and_asks_for_pairs():
    quiz = yaml.safe_load((LESSONS / "quizzes" / "glossary.yml").read_text(encoding="utf-8"))
    validate(quiz, "quiz", where="glossary.yml")
    assert 8 <= len(quiz["items"]) <= 10
    assert all(sum(o["correct"] for o in q["options"]) == 1 for q in quiz["items"])
    places = [next(k for k, o in enumerate(q["options"]) if o["correct"]) for q in quiz["items"]]
    assert max(places.count(k) for k in set(places)) <= len(places) / 2 and len(set(places)) == 3
    assert TEXT.rstrip().endswith('show_quiz("glossary")\n```')
    assert all(len(o["feedback"].split()) > 5 for q in quiz["items"] for o in q["options"])


PAGE = """<html><head><title>x</title></head><body><nav><p>recall and calibration</p></nav>
<article class="bd-article"><h1>Calibration</h1><p>Code <code>calibration</code>,
a <a href="x">calibration</a>, &amp; then
Calibration, and calibration again. A cluster bootstrap, and a bootstrap.</p><pre>gan</pre>
<table><tr><td>GAN</td></tr></table>
<section class="medimgen-quiz"><p>A GAN?</p></section><div class="cell_output"><p>A GAN.</p></div>
<ul><li>two GANs, no began, a seed</li></ul></article></body></html>
"""
KNOWN = {
    "term-calibration": ("calibration", "Whether 90 % is right nine times of ten."),
    "term-bootstrap": ("bootstrap", "Drawing again."),
    "term-cluster-bootstrap": ("cluster bootstrap", "Drawing patients again."),
    "term-GAN": ("GAN", "Two networks."),
    "term-seed": ("seed", "A number."),
}


def test_first_mention_in_running_text_is_linked_and_nothing_else_changes():
    page = glossary_hover.linked(PAGE, KNOWN, "../g.html")
    links = re.findall(r'<a class="reference internal term-found" href="\.\./g\.html#([\w-]+)">([^<]+)</a>', page)
    assert links == [
        ("term-calibration", "Calibration"),
        ("term-cluster-bootstrap", "cluster bootstrap"),
        ("term-bootstrap", "bootstrap"),
        ("term-GAN", "GANs"),
    ]
    assert re.sub(r'<a class="reference internal term-found"[^>]*>([^<]+)</a>', r"\1", page) == PAGE
    assert "&amp; then\n<a class" in page


@pytest.fixture
def site(tmp_path):
    """A site as Sphinx leaves it: a glossary and a page in a folder beside it."""
    (tmp_path / "_static").mkdir()
    for name, text in {
        "lessons/glossary": '<head></head><dl class="glossary"><dt id="term-GAN">GAN<a class="headerlink">#</a></dt>'
        "<dd><p>Two networks (see <a>above</a>) .\n <em>Exactly:</em> a game. <em>In the course:</em> x.</p></dd></dl>",
        "notebooks/research/a": PAGE,
        "lessons/references": PAGE,
        "lessons/own": '<head></head><article class="bd-article"><p><a href="glossary.html#term-GAN">GAN</a>, GAN</p>',
        "search": "<head></head><p>GAN</p>",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    return tmp_path


def test_install_dresses_the_pages_that_mention_a_term(site):
    assert glossary_hover.install(site) == 3  # the glossary, the notebook, the page with a link of its own
    data = (site / "_static" / glossary_hover.DATA).read_text(encoding="utf-8")
    assert data == 'window.courseGlossary = {"term-GAN": ["GAN", "Two networks (see above)."]};\n'
    notebook = (site / "notebooks/research/a.html").read_text(encoding="utf-8")
    assert 'href="../../lessons/glossary.html#term-GAN">GANs</a>' in notebook
    assert 'src="../../_static/glossary-hover.js"></script>\n</head>' in notebook
    own = (site / "lessons/own.html").read_text(encoding="utf-8")
    assert own.count("<a ") == 1 and "glossary-hover.css" in own
    assert "script" not in (site / "search.html").read_text(encoding="utf-8")
    assert (site / "lessons/references.html").read_text(encoding="utf-8") == PAGE


def test_install_leaves_a_book_without_a_glossary_alone(site):
    shutil.rmtree(site / "lessons")
    assert glossary_hover.install(site) == 0
    assert (site / "notebooks/research/a.html").read_text(encoding="utf-8") == PAGE


def test_everyday_words_are_left_to_the_authors():
    terms = {term for entries in groups(TEXT).values() for term, _ in entries}
    assert glossary_hover.EVERYDAY - terms == set()
    assert {"view", "finding", "window", "agent", "ablation"} <= glossary_hover.EVERYDAY


def test_build_puts_the_definitions_in(monkeypatch, tmp_path):
    """`make book` calls install with the folder of pages (the builder itself is tested in tests/site)."""
    import build_book

    class Done:
        returncode = 0

    called = []
    html = tmp_path / "_build" / "html"

    def sphinx(*args, **kwargs):
        html.mkdir(parents=True)
        for name in ("page", "index", "search", "genindex"):
            (html / f"{name}.html").write_text("x", encoding="utf-8")
        return Done

    monkeypatch.setattr(build_book.subprocess, "run", sphinx)
    monkeypatch.setattr(build_book.glossary_hover, "install", called.append)
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "page"}), encoding="utf-8")
    assert build_book.build(tmp_path, tmp_path) == html and called == [html]
