"""The page of claims: made of results alone, nulls as large as the rest, and right for claims that come later."""

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import combinations

import claims_page
import pytest
import yaml
from test_markup import together

from medimgen import claims
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.report import RESULTS

PAGE = ROOT / "lessons" / "claims.md"
ROWS = claims_page.rows()
RECORDED = [row for row in ROWS if row.result]


@pytest.fixture
def house(tmp_path):
    """A copy of claims.yml and of the results, to be changed; and what the page makes of them."""
    shutil.copy(ROOT / "claims.yml", tmp_path)
    for row in RECORDED:
        shutil.copy(RESULTS / f"{row.id}.json", tmp_path)

    class House:
        def result(self, id, **changes):
            file = tmp_path / f"{id}.json"
            document = json.loads(file.read_text(encoding="utf-8")) | changes
            file.write_text(json.dumps(document), encoding="utf-8")

        def claim(self, id, *, copy=None, **changes):
            file = tmp_path / "claims.yml"
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
            found = next(c for c in document["claims"] if c["id"] == (copy or id)) | {"id": id} | changes
            document["claims"] = [c for c in document["claims"] if c["id"] != id] + [found]
            file.write_text(yaml.safe_dump(document), encoding="utf-8")

        def lose(self, id):
            (tmp_path / f"{id}.json").unlink()

        def parts(self):
            return claims_page.parts(tmp_path / "claims.yml", tmp_path)

    return House()


def card(parts, id):
    return re.search(rf'<article[^>]*><h3 id="{id}">.*?</article>', parts["cards"], re.DOTALL)[0]


def table(parts):
    code = re.search(r"base64,([^\"]+)", parts["download"])[1]
    return {line["id"]: line for line in csv.DictReader(io.StringIO(base64.b64decode(code).decode("utf-8")))}


def test_every_claim_stands_on_the_page_with_what_was_recorded():
    parts = claims_page.parts()
    assert re.findall(r'<h3 id="(\w+)"', parts["cards"]) == list(claims.load())
    for row in RECORDED:
        text, result = card(parts, row.id).replace("−", "-"), row.result
        estimate, (low, high) = result["estimate"], result["ci95"]
        assert f"{estimate:.3f} ({low:.3f} to {high:.3f})" in text
        assert f"{result['draws']:,} draws" in text and result["code_version"] in text and row.date in text
        assert f"</svg>{result['verdict']}</p>" in text
        day = result["run"]
        assert row.date == f"{day[:4]}-{day[4:6]}-{day[6:8]}"
    papers = [row for row in ROWS if row.claim["paper"]]
    assert papers and all(row.claim["paper"]["citation"] in card(parts, row.id) for row in papers)


def test_csv_holds_the_figures_as_recorded():
    lines = table(claims_page.parts())
    assert list(lines) == [row.id for row in ROWS]
    for row in RECORDED:
        line = lines[row.id]
        figures = [float(line[k]) for k in ("estimate", "ci95_low", "ci95_high", "p")]
        assert figures == [row.result["estimate"], *row.result["ci95"], row.result["p"]]
        assert line["sentence_tested"] == row.result["claim"] and line["verdict"] == row.result["verdict"]


def test_a_changed_result_changes_the_page(house):
    before = house.parts()
    house.result("L2a", estimate=-0.5, ci95=[-0.625, -0.25], verdict="contradicts", run="20300102T000000Z-abcd0123")
    after = house.parts()
    assert all(before[name] != after[name] for name in ("lead", "plot", "download", "cards"))
    assert "−0.500 (−0.625 to −0.250)" in card(after, "L2a") and "2030-01-02" in card(after, "L2a")
    assert card(after, "L2b") == card(before, "L2b")
    count = sum(row.verdict == "contradicts" for row in RECORDED if row.id != "L2a")
    assert f"contradicts: {count + 1}<" in after["lead"]


def test_a_claim_without_a_result_is_not_run_yet(house):
    house.lose("L4")
    house.claim("R09", copy="L2a")
    parts = house.parts()
    for id in ("L4", "R09"):
        assert "not run yet" in card(parts, id) and f"make claims ID={id}" in card(parts, id)
        assert table(parts)[id]["verdict"] == "not run yet" and table(parts)[id]["estimate"] == ""
        assert "<dd>Not run yet.</dd>" in card(parts, id) and "Recorded</dt>" not in card(parts, id)
    assert "Research R09" in parts["plot"]


def test_withdrawn_and_not_testable_claims_stay_in_sight(house):
    house.claim("L4", status="withdrawn")
    house.result(
        "L3a", estimate=None, ci95=None, p=None, p_adjusted=None, verdict="not testable here", reason="No film."
    )
    parts = house.parts()
    assert "withdrawn: 1" in parts["lead"] and "not testable here: 1" in parts["lead"]
    assert "None. No film." in card(parts, "L3a") and "not testable here" in parts["plot"]


def test_a_broken_result_stops_the_page(house):
    house.result("L4", verdict="splendid")
    with pytest.raises(CourseError, match=r"L4\.json"):
        house.parts()


def test_the_lead_counts_what_is_recorded():
    lead = claims_page.parts()["lead"]
    text = re.sub(r"<[^>]+>", "", lead.split("</style>")[1])
    for verdict in ("holds", "null", "contradicts"):
        group = [row.id for row in RECORDED if row.result["verdict"] == verdict]
        assert f"{verdict}: {len(group)} {' '.join(group) or 'none'}" in text
    assert f"written down {len(ROWS)} claims, and has run {len(RECORDED)}" in text
    assert re.findall(r'<a href="#(\w+)">', lead) and set(re.findall(r'href="#(\w+)"', lead)) == {r.id for r in ROWS}


def test_plot_says_in_words_what_it_shows():
    plot = claims_page.parts()["plot"]
    alt = re.search(r'role="img" aria-label="([^"]+)"', plot)[1]
    assert alt.startswith("Forest plot") and all(row.id in alt for row in ROWS)
    assert all(f"{row.verdict}: " in alt for row in ROWS)
    assert "<figcaption><p>Each claim against its own limit" in plot
    assert plot.count('class="claims-strip') == len(ROWS)


def test_a_place_on_the_plot_agrees_with_the_verdict():
    """Right of the line is the side claimed, whatever the direction; 1 is the effect that the design could detect."""
    for row in RECORDED:
        middle, low, high = row.place
        assert low <= middle <= high
        assert row.verdict == ("holds" if low > 0 else "contradicts" if high < 0 else "null"), row.id
    directions = {row.claim["primary"]["direction"] for row in RECORDED}
    assert {"greater", "less"} <= directions
    for row in RECORDED:
        effect = row.claim["detectable"]["effect"]
        there = claims_page.Row(row.claim, row.result | {"estimate": effect, "ci95": [effect, effect]})
        assert there.place == pytest.approx((1, 1, 1)), row.id


def test_figures_beyond_the_edge_get_an_arrowhead(house):
    house.result("L2b", estimate=9.0, ci95=[8.0, 10.0])
    row = re.search(r"<b>L2b</b>.*?</div>", house.parts()["plot"], re.DOTALL)[0]
    assert row.count("<path") == 1
    assert "<path" not in re.search(r"<b>L2b</b>.*?</div>", claims_page.parts()["plot"], re.DOTALL)[0]


def test_verdicts_differ_in_shape_and_are_written_out():
    shapes = {verdict: mark.split()[0] + mark[mark.index("class") :] for verdict, mark in claims_page.MARKS.items()}
    assert all(shapes[a] != shapes[b] or a == b for a, b in combinations(shapes, 2) if "not" not in a + b)
    assert set(claims_page.MARKS) >= {"holds", "null", "contradicts", "not testable here"}


class Tags(HTMLParser):
    """Every tag is closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["lead", "plot", "download", "cards"])
def test_search_sees_the_words_one_by_one(name):
    assert together(claims_page.parts()[name]) == set()


def test_search_leads_from_an_id_to_its_card(tmp_path):
    index = {"docnames": ["a", "lessons/claims"], "indexentries": {"gan": [[0, "term-GAN", True]]}}
    file = tmp_path / "searchindex.js"
    file.write_text(f"Search.setIndex({json.dumps(index)})", encoding="utf-8")
    claims_page.install(tmp_path)  # a book without the page stays as it is
    assert json.loads(file.read_text(encoding="utf-8")[16:-1]) == index
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "claims.html").write_text("x", encoding="utf-8")
    claims_page.install(tmp_path)
    found = json.loads(file.read_text(encoding="utf-8")[16:-1])["indexentries"]
    assert found["l1e"] == [[1, "L1e", True]] and len(found) == len(ROWS) + 1 and "gan" in found


@pytest.mark.parametrize("name", ["lead", "plot", "download", "cards"])
def test_pieces_are_whole_and_load_nothing(name):
    text = claims_page.parts()[name]
    assert Tags(text).open == []
    assert not re.search(r'(?:src|href)="(?:https?:)?//|url\(|@import', text)


def test_page_shows_every_piece_and_types_no_figure(monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    prose = re.sub(r"```\{code-cell\}.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"\d[.,]\d", prose)
    shown, scope = [], {}
    for code in re.findall(r"```\{code-cell\} python3\n:tags: \[remove-input\]\n(.*?)```", text, re.DOTALL):
        *head, last = code.strip().splitlines()
        exec("\n".join(head), scope)
        shown.append(eval(last, scope).data)
    assert shown == [claims_page.parts()[name] for name in ("lead", "plot", "download", "cards")]
