"""Tables and other HTML of the pages: scopes, captions, escaped texts, and words that search sees one by one."""

import json
import re
from pathlib import Path

import browser_generator
import numpy as np
import pytest

from medimgen import balance, claims, dossier, markup, passport, requirements, widgets
from medimgen.check import load, show_quiz
from medimgen.data import manifest
from medimgen.metrics import Interval
from medimgen.paths import ROOT
from medimgen.report import RESULTS
from medimgen.safety import checking, rules

EVIL = "<script>alert(1)</script>"
FRAMES = [("one", np.zeros((8, 8), np.uint8)), ("two", np.ones((8, 8), np.uint8))]
ASKED = requirements.Requirement(EVIL, EVIL, "m", ">=", 0.9, EVIL, True, EVIL, EVIL)


def together(html):
    """Words that Sphinx's search, which leaves the tags out, would take for one."""
    bare = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    apart = re.findall(r"\w+", re.sub(r"<[^<]+?>", " ", bare))
    return set(re.findall(r"\w+", re.sub(r"<[^<]+?>", "", bare))) - set(apart)


def shown():
    """HTML by name: each table of the package with a script for every text, and what the pages show besides."""
    rule = rules.Rule(EVIL, EVIL, EVIL, EVIL, (EVIL,), EVIL, EVIL)
    wrong = checking.Finding("rights", EVIL, EVIL, EVIL)
    recorded = claims.result("L2a") | {"claim": EVIL, "primary": EVIL, "n": {EVIL: 1}}
    plan = balance.Plan((balance.Item((EVIL,), "chest x-ray", 1, EVIL),), (EVIL,), 1.0)
    found = {
        "requirements": requirements.Table(EVIL, (requirements.Verdict(ASKED, 0.5, "fail", "0" * 64),))._repr_html_(),
        "rules": rules.Table((rule,))._repr_html_(),
        "safety check": checking.Report(Path(EVIL), 1, (wrong,), {EVIL: 1})._repr_html_(),
        "plan": plan.edit().static(),
        "claim": claims.Shown(EVIL, recorded, Interval(0.8, 0.7, 0.9), EVIL)._repr_html_(),
        "licences": manifest.show_licences()._repr_html_(),
        "passport": passport._table(EVIL, f"Film|{EVIL}", [(EVIL, 1)]),
        "frames": widgets.show_frames(EVIL, FRAMES, answers=[EVIL, "two"]),
        "no generator": browser_generator.note(False),
    }
    document = json.loads((RESULTS / "dossier" / "dossier.json").read_text(encoding="utf-8"))
    document["sections"][EVIL] = [dict.fromkeys(dossier.KEYS, None) | {"what": EVIL, "unit": EVIL, "how": EVIL}]
    document["sections"][EVIL][0]["source"] = EVIL
    found |= {f"dossier {name}": part for name, part in dossier.parts(document, RESULTS / "dossier").items()}
    found |= {f"quiz {name}": show_quiz(name)._repr_html_() for name in load()}
    page = first_cell("02-prompts-and-balance")
    found |= {"lesson 2 films": page["film"]("spelling-xay").data}
    found |= {"lesson 2 text": page["show"](["A", EVIL], [[EVIL, 1]], EVIL).data}
    page = first_cell("your-progress")
    return found | {"progress": f"<table><caption></caption>{page['heads']}{page['rows']}</table>"}


def first_cell(name):
    """Names that the first code cell of a page defines."""
    text = (ROOT / "lessons" / f"{name}.md").read_text(encoding="utf-8")
    exec(re.search(r"```\{code-cell\} python3\n:tags: [^\n]+\n(.*?)```", text, re.DOTALL)[1], page := {})
    return page


SHOWN = shown()


@pytest.mark.parametrize("name", SHOWN)
def test_search_sees_words_one_by_one_and_no_text_becomes_a_tag(name):
    page = SHOWN[name]
    assert together(page) == set()
    assert "<script" not in page
    assert page.count("<table") == page.count("<caption>") and len(re.findall(r"<th\b(?! scope=)", page)) == 0


def test_the_checks_above_can_fail():
    assert together("<tr><td>one</td><td>two</td></tr>") == {"onetwo"}
    assert together("<p>unbroken</p>") == set()
    assert sum("<table" in page for page in SHOWN.values()) > 15 and sum("&lt;script" in p for p in SHOWN.values()) > 8


def test_a_table_has_scopes_and_a_caption_and_takes_html_only_where_it_is_told():
    made = markup.table("a < b", ["A"], [["<i>", markup.Html("<i>x</i>")]], named=True, kind="wide", cell="top:0")
    assert made.replace("\n", "") == (
        '<table class="wide"><caption>a &lt; b</caption><thead><tr><th scope="col" style="top:0">A</th></tr></thead>'
        '<tbody><tr><th scope="row" style="top:0">&lt;i&gt;</th><td style="top:0"><i>x</i></td></tr></tbody></table>'
    )
    assert markup.spaced(made) == made, "twice is as good as once"


def test_punctuation_stays_beside_its_word():
    assert markup.spaced("<b>stop</b>, <b>go</b>on") == "<b>stop</b>, <b>go</b>\non"
