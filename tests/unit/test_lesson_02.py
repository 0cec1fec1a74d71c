"""Lesson 2: the page says what was recorded, the recording is what the recipe asks; quiz, figures, terms are whole."""

import ast
import copy
import inspect
import json
import re
import runpy

import draws
import owndata
import pandas as pd
import pytest
import rebalance
import record_answers
import yaml

from medimgen import balance, claims, prompts, report
from medimgen.balance import analyse, plan
from medimgen.check import LETTERS, check, load
from medimgen.data import manifest, radiographs
from medimgen.errors import CourseError
from medimgen.generate import FOLDER, weights_sha256
from medimgen.paths import ROOT

PAGE = ROOT / "lessons" / "02-prompts-and-balance.md"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())
RECORDED = json.loads(record_answers.FILE.read_text(encoding="utf-8"))
FILMS = {row["name"]: row for row in RECORDED["films"]["rows"]}
TALKS = {row["name"]: row for row in RECORDED["talks"]["rows"]}
FACTS = RECORDED["talks"]["facts"]


@pytest.fixture(scope="module")
def drawn():
    """What fig/draw_02.py defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "fig")
        return runpy.run_path(str(ROOT / "fig" / "draw_02.py"))


def said_yes(true: bool, role: bool) -> int:
    """How many of the eight sentences were called true."""
    return sum(f["verdict"] == "yes" for f in FACTS if (f["true"], f["role"]) == (true, role))


def faults(recorded: dict) -> list[str]:
    """Where a recording is not what the recipe asks today, or counts otherwise than the recipe does."""
    talks, films = recorded["talks"], recorded["films"]
    asked = [(r["name"], r["tip"], r["system"], tuple(r["asked"]), r["rule"]) for r in talks["rows"]]
    drawn = [(r["name"], r["tip"], r["before"]["prompt"], r["after"]["prompt"], r["kind"]) for r in films["rows"]]
    wanted = [
        (s, t, r)
        for r in (False, True)
        for pair in record_answers.FACTS
        for s, t in zip(pair, (True, False), strict=True)
    ]
    rules = {
        "talks": asked == list(record_answers.TALKS),
        "films": drawn == list(record_answers.FILMS),
        "facts": [(f["sentence"], f["true"], f["role"]) for f in talks["facts"]] == wanted,
        "verdicts": all(f["verdict"] == record_answers.verdict(f["answer"]) for f in talks["facts"]),
        "counts": all(r["counted"] == record_answers.counted(r["rule"], r["answers"][0]) for r in talks["rows"]),
        "answers": all(len(r["answers"]) == len(r["asked"]) and all(r["answers"]) for r in talks["rows"]),
        "eight films": all(
            sum(r[side]["taken_for"].values()) == films["each"] for r in films["rows"] for side in ("before", "after")
        ),
        "texts": [r["text"] for r in recorded["pieces"]["rows"]] == list(record_answers.TEXTS),
    }
    return [name for name, good in rules.items() if not good]


def test_recording_is_what_the_recipe_asks():
    assert faults(RECORDED) == []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda d: d["talks"]["rows"].pop(), "talks"),
        (lambda d: d["talks"]["rows"][0].update(system="You are clever."), "talks"),
        (lambda d: d["talks"]["facts"].reverse(), "facts"),
        (lambda d: d["talks"]["facts"][0].update(verdict="maybe"), "verdicts"),
        (lambda d: d["talks"]["rows"][5].update(answers=["- a\n- b\n- c"]), "counts"),
        (lambda d: d["talks"]["rows"][2].update(answers=[]), "answers"),
        (lambda d: d["films"]["rows"][0]["after"].update(prompt="chest x-ray"), "films"),
        (lambda d: d["films"]["rows"][0]["after"]["taken_for"].update(normal=9), "eight films"),
        (lambda d: d["pieces"]["rows"].pop(), "texts"),
    ],
)
def test_a_spoilt_recording_is_found(spoil, named):
    spoilt = copy.deepcopy(RECORDED)
    try:
        spoil(spoilt)
        found = faults(spoilt)
    except IndexError:  # no answer to count
        found = ["answers"]
    assert named in found


def test_recording_names_its_weights_and_runs():
    assert RECORDED["command"] == record_answers.COMMAND and record_answers.COMMAND in TEXT
    (file,) = manifest.registry("smollm2-135m")
    assert RECORDED["talks"]["inputs"] == {file.path: file.sha256} == {RECORDED["talks"]["model"]["file"]: file.sha256}
    runs = {run.id: run for run in report.read(report.RUNS)}
    for part in record_answers.PARTS:
        run = runs[RECORDED[part]["run"]]
        assert (run.what, run.outcome, run.inputs) == (f"record_answers {part}", "ok", RECORDED[part]["inputs"])


def test_films_were_drawn_with_the_shipped_weights():
    now = weights_sha256(FOLDER)
    assert RECORDED["films"]["model"]["weights_sha256"] == now, (
        "run `python recipes/record_answers.py films`, read the page"
    )


@pytest.mark.parametrize(
    ("rule", "answer", "kept"),
    [
        ("sentence", "It is an illness. You cough. You get well.", True),
        ("sentence", "It is an illness. You cough.", False),
        ("bullets", "- a\n- b\n\n- c", True),
        ("bullets", "Here it is:\n- a\n- b\n- c", False),
        ("json", '{"lungs": "", "heart": "", "fluid": ""}', True),
        ("json", 'Sure! {"lungs": ""}', False),
        ("three", "It has three lobes.", True),
        ("doi", "doi: 10.1136/thorax.57.5.438", True),
        ("doi", "DOI: not known", False),
        ("causes", "Pneumonia or fluid.", None),
    ],
)
def test_rules_count_what_they_say(rule, answer, kept):
    assert record_answers.counted(rule, answer)["kept"] is kept


def test_verdict_is_the_first_word():
    told = ["Yes.", "No, it is not.", "It is true.", "Nose"]
    assert [record_answers.verdict(x) for x in told] == ["yes", "no", "neither", "neither"]


def test_an_unknown_part_is_refused_before_anything_runs():
    with pytest.raises(CourseError, match=r"no part is called 'film'(.|\n)*films, pieces"):
        record_answers.main("film")


def test_page_quotes_the_films_as_recorded():
    shift = {name: f"{row['difference']:.1f}" for name, row in FILMS.items()}
    count = {name: [row[s]["taken_for"][row["kind"]] for s in ("before", "after")] for name, row in FILMS.items()}
    apart = f"{FILMS['spelling-xay']['seeds_apart']:.0f} apart"
    assert f"{shift['spelling-xay']} grey levels, where two seeds of one prompt are {apart}" in TEXT
    assert "moved the films by {}, and those taken for bacterial went from {} of eight to {}".format(
        shift["spelling-class"], *count["spelling-class"]
    ) in TEXT  # fmt: skip
    vague, clear = count["detail"]
    assert f"{clear} of eight films were taken for normal instead of {vague}" in TEXT
    assert f"the films hardly differ ({shift['wording']} grey levels)" in TEXT
    assert "{} of eight instead of {}".format(*reversed(count["wording-negation"])) in TEXT
    assert f"another film: {FILMS['spelling-xay']['seeds_apart']:.0f} grey levels away" in TEXT
    assert FILMS["wording-negation"]["after"]["unseen"] == ["or"]
    far = max(row["difference"] for row in FILMS.values())
    assert far < min(row["seeds_apart"] for row in FILMS.values())
    assert "more than any change of wording did above" in TEXT


def test_page_tells_the_answers_as_they_were():
    first = {name: row["answers"][0] for name, row in TALKS.items()}
    goal = TALKS["goal-after"]["counted"]
    assert goal["sentences"] == 2 and "two plain sentences" in TEXT and "can't be cured" in first["goal-after"]
    assert first["goal-before"].count("weakened immune systems") == 3 and "three times over" in TEXT
    assert [TALKS[f"check-{name}"]["counted"]["kept"] for name in ("lobes", "side")] == [False, True]
    assert "viewer's left" in first["check-side"]
    assert [TALKS[f"check-{name}"]["answers"][1] for name in ("lobes", "side")] == ["Yes.", "Yes."]
    assert first["reference"].count("Elena Martinez") == 2 and not TALKS["reference"]["counted"]["kept"]
    assert [TALKS[f"format-{form}"]["counted"]["kept"] for form in ("bullets", "json")] == [False, False]
    assert "congenital condition" in first["format-before"] and "capacity for healing" in first["format-bullets"]
    assert all(TALKS[f"role-{side}"]["counted"]["named"] == [] for side in ("before", "after"))
    assert "aplastic anemia" in first["role-before"].lower() and "normal finding" in first["role-after"]


def test_page_counts_the_yes_as_recorded():
    assert (
        f"yes to {said_yes(True, False)} of 8 true sentences, and to {said_yes(False, False)} of 8 false ones" in TEXT
    )
    assert f"1. {said_yes(True, False)} of 8, and {said_yes(False, False)} of 8." in TEXT
    right = {
        role: sum(f["verdict"] == ("yes" if f["true"] else "no") for f in FACTS if f["role"] is role)
        for role in (False, True)
    }
    assert f"it gets {right[True]} of 16 right, without a role it was {right[False]}" in TEXT
    assert said_yes(True, True) == said_yes(False, True) == 0


def test_what_the_page_says_of_fine_tuning_is_what_was_measured():
    found = json.loads((report.RESULTS / "finetune.json").read_text(encoding="utf-8"))["sections"]["control"]
    known = {row["id"]: row for row in found}
    change = known["finetune_change"]
    assert change["low"] < 0 < change["high"] and change["estimate"] < 0
    assert known["finetune_folder"]["high"] < known["finetune_after"]["low"]
    assert "44 adult films" in change["how"] and "at most 3 minutes" in change["how"]
    assert "for three minutes on 44 films of adults" in TEXT


def test_figure_shows_the_tokens_as_recorded(drawn):
    readers = {"cxr-mini": "cxr-mini", "MiniLM": "all-MiniLM-L6-v2", "SmolLM2": "SmolLM2-135M-Instruct"}
    rows = {row["text"]: row for row in RECORDED["pieces"]["rows"]}
    for written, reader, shown, _ in drawn["READINGS"]:
        found = [piece.strip() for piece in rows[written][readers[reader]]]
        assert [piece.replace("&lt;", "<").replace("&gt;", ">") for piece in shown] == found


def test_page_quotes_the_ambiguous_words_as_measured():
    words = {
        row["word"]: row for row in json.loads((report.RESULTS / "ambiguous_words.json").read_text("utf-8"))["words"]
    }
    assert f"({words['CAT']['margin']:+.2f}" in TEXT and f"({words['CAT']['contexts']['x-ray']:+.2f})" in TEXT
    shipped = sum(r["ambiguous"] and not r["control"] for r in words.values())
    assert f"holds the {shipped} words of radiology" in TEXT


def test_page_quotes_the_label_table_as_counted():
    (nih,) = (row for row in RECORDED["tables"]["rows"] if row["table"] == "nih")
    rare = nih["fewest"]
    assert f"Of the {nih['films']:,} films of the NIH table" in TEXT
    assert f"{rare['films']} carry the rarest finding, *{rare['finding']}*" in TEXT
    assert f"and {nih['most']['films']:,} carry none" in TEXT and nih["most"]["finding"] == "No Finding"


def test_the_paper_stands_there_with_its_figures():
    for figure in ("up to +0.150", "0.099 to 0.202", "0.0031", "up to +0.146", "0.0064", "one-tailed", "Bonferroni"):
        assert figure in TEXT
    error = (0.202 - 0.099) / (2 * 1.96)
    assert round(error, 3) == 0.026 and round(1.87 * 0.026, 3) == 0.049 and round(0.150 / error, 1) == 5.7
    assert "0.049" in TEXT and "5.7 standard errors" in TEXT


def test_largest_of_twenty_is_as_large_as_the_page_says():
    import numpy as np

    drawn = np.random.default_rng(0).standard_normal((200_000, 20)).max(1)
    assert drawn.mean() == pytest.approx(1.87, abs=0.01)


def test_counts_of_clinic_are_those_of_quiz_and_page():
    table = radiographs.labels()
    found = analyse(table[table["split"] == "clinic"], by=["subtype"])
    wanted = plan(found, target="even", seconds=0.2)
    viral = next(item for item in wanted.items if item.label == ("viral",))
    (item,) = (i for i in load()["02-prompts-and-balance"]["items"] if i["id"] == "02-q4")
    counts = found.counts()
    assert f"{counts['bacterial',]} bacterial and {counts['viral',]} viral" in item["question"]
    assert f"{viral.number} generated viral films" in item["question"]


def test_calls_that_the_page_only_shows_fit_the_functions():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    calls = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert {call.func.id for call in calls} == {"fill", "review", "export"}
    for call in calls:
        named = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(getattr(balance, call.func.id)).bind(*call.args, **named)


FOUND = PAGE.read_text(encoding="utf-8").split("### What we found")[1].split("\n## ")[0]


def quoted(value: dict, sign: int = 1) -> str:
    """How the page tells a figure: "0.056 (0.028 to 0.084)"."""
    middle, low, high = (
        f"{sign * x:.3f}".replace("-0.000", "0.000") for x in (value["estimate"], *value["ci95"][::sign])
    )
    return f"{middle} ({low} to {high})"


def test_page_quotes_claim_l2a_as_recorded():
    text, found = " ".join(FOUND.split()), claims.result("L2a")
    more, after = found["exploratory"], json.loads((report.RESULTS / "L2a_after.json").read_text("utf-8"))["figures"]
    assert found["verdict"] == "holds" and "**holds** as it was stated" in text
    assert f"{found['estimate']:.3f} higher ({found['ci95'][0]:.3f} to {found['ci95'][1]:.3f})" in text
    assert f"{more['f1_filtered']['estimate']:.3f} against {more['f1_weights']['estimate']:.3f}" in text
    assert f"It gains {more['gain_shuffled']['estimate']:.3f} as well" in text
    told = [after[name] for name in ("content_f1", "auc_shuffled_minus_weights", "auc_donor_minus_weights")]
    told += [after[name] for name in ("auc_filtered_minus_shuffled", "auc_donor_minus_filtered")]
    told += [more[name] for name in ("tuned", "auc_viral", "filter", "adults_filtered")]
    for value in told:
        assert quoted(value) in text
    assert f"by {quoted(more['rich_words'], -1)}" in text
    assert f"{more['gain_four']['estimate']:.3f}, ten times as many {more['gain_ten']['estimate']:.3f}" in text
    assert f"{100 * after['called_viral_weights']['estimate']:.0f} % of the test films viral" in text


def test_figures_of_the_control_follow_from_the_recorded_rows():
    recorded = json.loads((report.RESULTS / "L2a_after.json").read_text("utf-8"))
    assert recorded["rows_sha256"] == report.file_sha256(report.RESULTS / "L2a.rows.csv")
    again = rebalance.after(claims.read_rows("L2a"), draws=200)
    for name, value in recorded["figures"].items():
        assert abs(again[name].estimate - value["estimate"]) < 1e-5
        assert abs(again[name].low - value["ci95"][0]) < 0.02


def test_page_quotes_claim_l2b_as_recorded():
    text, found = " ".join(FOUND.split()), claims.result("L2b")
    more = found["exploratory"]
    assert f"**L2b.** This one **{found['verdict']}** too" in text
    assert f"{found['estimate']:.3f} ({found['ci95'][0]:.3f} to {found['ci95'][1]:.3f})" in text
    for name in ("gain_made_16", "gain_made_32", "gain_donor_8", "gain_shuffled_8"):
        assert quoted(more[name]) in text


def test_page_quotes_the_estimate_on_own_data():
    text, found = " ".join(FOUND.split()), json.loads(owndata.RESULT.read_text("utf-8"))["figures"]
    assert quoted(found["gain"]) in text and found["gain"]["ci95"][1] < 0.0055
    for arm, words in (("own", "films of its own"), ("weights", "class weights alone")):
        assert f"{words}: {found[f'f1_{arm}']['estimate']:.3f}" in text


def test_own_data_follow_from_the_draws_that_were_kept():
    recorded = json.loads(owndata.RESULT.read_text("utf-8"))
    rows = pd.read_csv(owndata.RESULT.with_suffix(".rows.csv"))
    assert recorded["rows_sha256"] == report.file_sha256(owndata.RESULT.with_suffix(".rows.csv"))
    for k, draw in enumerate(owndata.DRAWS):
        both, near = owndata.cell(draw, owndata.WORK, owndata.STEPS)
        assert near == recorded["nearest_film_of_the_draw"][k]
        for arm in ("own", "weights"):
            assert [draws.LETTERS.index(word[k]) for word in rows[arm]] == both[arm].to_numpy().argmax(1).tolist()
    again = owndata.figures(rows, 200)
    for name, value in recorded["figures"].items():
        assert abs(again[name].estimate - value["estimate"]) < 1e-5
        assert abs(again[name].low - value["ci95"][0]) < 0.02


def test_quiz_answers_every_option_and_gives_no_position_away():
    items = load()["02-prompts-and-balance"]["items"]
    choices = [item for item in items if item["kind"] == "choice"]
    assert len(choices) >= 6
    for item in choices:
        right = [option["correct"] for option in item["options"]].index(True)
        assert check(item["id"], LETTERS[right]).right
        assert all(len(option["feedback"]) > 40 for option in item["options"])
    assert len({[o["correct"] for o in item["options"]].index(True) for item in choices}) == 3


def test_prompts_of_quiz_and_challenge_do_what_is_said_of_them():
    def kinds(prompt):
        return {remark.kind for remark in prompts.check(prompt)}

    options = [o["text"] for i in load()["02-prompts-and-balance"]["items"] if i["id"] == "02-q8" for o in i["options"]]
    assert ["identifier" in kinds(text) for text in options] == [False, True, False]
    assert kinds(options[0]) == set()
    assert "identifier" in kinds("chest film of Mr Braun, 12.03.1951, bacterial pneumonia")
    assert "identifier" not in kinds("chest film, Braun, bacterial pneumonia")
    assert [r.message for r in prompts.check("chest x-ray, no normal lungs, vrial")] == [
        '"vrial": did you mean "viral"?'
    ]
    role = prompts.check("You are an expert radiologist. Make a perfect chest x-ray with rib fracture.")
    assert "eight words were never read" in TEXT and [r.kind for r in role] == ["unseen"] * 8
    assert kinds("chest x-ray, viral pneumonia") == kinds("chest x-ray, bacterial pneumonia") == set()


def test_figures_use_their_alternative_text_and_their_script(drawn):
    notes = yaml.safe_load((ROOT / "fig" / "alt.yml").read_text(encoding="utf-8"))
    used = re.findall(r"\{figure\} \.\./fig/(\S+)\n(?::(?!alt)[^\n]*\n)*:alt: ([^\n]+)", PAGE.read_text("utf-8"))
    assert {name for name, _ in used} == set(drawn["FIGURES"])
    for name, alt in used:
        assert " ".join(notes[name]["alt"].split()) == alt and notes[name]["made_by"] == "fig/draw_02.py"
        assert (ROOT / "fig" / name).read_text("utf-8") == drawn["FIGURES"][name]()


def test_terms_and_citations_of_the_page_exist():
    text = PAGE.read_text(encoding="utf-8")
    glossary = (ROOT / "lessons" / "glossary.md").read_text(encoding="utf-8")
    for term in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        assert f"\n{term}\n" in glossary, term
    bib = (ROOT / "lessons" / "references.bib").read_text(encoding="utf-8")
    for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text):
        assert all(f"{{{key}," in bib for key in keys.split(",")), keys
