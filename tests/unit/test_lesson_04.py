"""Lesson 4: its figures are those recorded, every name in its table leads somewhere; quiz and pages are whole."""

import copy
import importlib
import json
import re
import runpy

import nbformat
import numpy as np
import pandas as pd
import pytest
import record_answers
import who_is_missing
import yaml

from medimgen import claims, prompts, report
from medimgen.check import LETTERS, check, load
from medimgen.data import manifest, tables
from medimgen.generate import FOLDER, weights_sha256
from medimgen.paths import ROOT
from medimgen.safety import rules

LESSONS = ROOT / "lessons"
PAGE = LESSONS / "04-safety-rules.md"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())
NOTEBOOK = ROOT / "notebooks" / "04-safety-rules.ipynb"
CHECKS = json.loads(record_answers.CHECKED.read_text(encoding="utf-8"))["checks"]
FIGURES = json.loads(record_answers.FIGURES.read_text(encoding="utf-8"))
MISSING = json.loads(who_is_missing.RESULT.read_text(encoding="utf-8"))
PRINTED = ("may-i-paste-this.md", "vendor-questions.md")
OURS = (PAGE.name, "policies.md", *PRINTED)


# --- the table of nine rules ------------------------------------------------------------------------------------------


def table(text: str) -> dict[str, dict[str, list[str]]]:
    """The lesson's rows: rule -> checks, tests and cells, as they are written between backticks."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| `[a-z-]+` \|", line)]
    parts = ("checks", "tests", "cells")
    return {r[0].strip("`"): dict(zip(parts, (re.findall("`([^`]+)`", c) for c in r[2:]), strict=True)) for r in rows}


def tags() -> set[str]:
    """Tags of the notebook's cells."""
    return {tag for cell in nbformat.read(NOTEBOOK, 4).cells for tag in cell.metadata.get("tags", [])}


def wanted_tags() -> set[str]:
    """What the table may name: the notebook's own tags, or before there is one, a tag for each rule."""
    return tags() if NOTEBOOK.is_file() else {f"rule:{rule}" for rule in rules.load()}


def lost(written: dict) -> list[str]:
    """Names of the table that lead nowhere."""
    out = [rule for rule in rules.load() if rule not in written] + [r for r in written if r not in rules.load()]
    for rule, row in written.items():
        known = {name.removeprefix("medimgen.").removeprefix("safety.") for name in rules.load()[rule].check}
        out += [name for name in row["checks"] if name not in known]
        out += [n for n in row["tests"] if not any(defines(ROOT / "tests" / d / n) for d in ("safety", "unit"))]
        out += [name for name in row["cells"] if name not in wanted_tags()]
        out += [f"{rule}: no {part}" for part, names in row.items() if not names]
    return out


def defines(path) -> bool:
    """Whether a file is there and holds a test."""
    return path.is_file() and re.search(r"^def test_\w+\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_every_name_in_the_table_leads_somewhere():
    assert lost(table(PAGE.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`rights.require`", "`rights.demand`"),
        ("`test_rights.py`", "`test_wrongs.py`"),
        ("`rule:rights`", "`rule:right`"),
        ("| `rights` |", "| `duties` |"),
    ],
)
def test_a_name_that_leads_nowhere_is_found(old, new, monkeypatch):
    text = PAGE.read_text(encoding="utf-8").replace(old, new)
    known = rules.load() | {"duties": rules.load()["rights"]} if "duties" in new else rules.load()
    monkeypatch.setattr(rules, "load", lambda: known)
    assert lost(table(text))


@pytest.mark.parametrize("rule", rules.load())
def test_what_a_rule_names_as_its_check_can_be_called(rule):
    for name in rules.load()[rule].check:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


# --- a model's check of itself ----------------------------------------------------------------------------------------


def faults(part: dict) -> list[str]:
    """Where the recording is not what the recipe asks today, or is marked otherwise than the rules say."""
    asked, known, rows = record_answers.questions(), record_answers.entries(), part["rows"]
    good = {
        "questions": [r["ask"] for r in rows] == [q["ask"] for q in asked],
        "marks": all(r["right"] == record_answers.marked(q, r["answer"]) for q, r in zip(asked, rows, strict=False)),
        "answers": all(r["answer"] for r in rows),
        "entries": all(set(r["found"]) <= set(known) and len(r["found"]) == 3 for r in rows),
        "checks": all(
            r["checks"].keys() == {"own", "right", "wrong"} and c.keys() == {"alone", "glossary"}
            for r in rows
            for c in r["checks"].values()
        ),
        "words": part["asked"] == [record_answers.CHECK, record_answers.BESIDE],
    }
    return [name for name, fine in good.items() if not fine]


def test_recording_is_what_the_recipe_asks():
    assert faults(CHECKS) == []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda p: p["rows"][3].update(ask="Which film?"), "questions"),
        (lambda p: p["rows"][0].update(right=not p["rows"][0]["right"]), "marks"),
        (lambda p: p["rows"][5].update(answer=""), "answers"),
        (lambda p: p["rows"][7].update(found=["AUC", "seed", "no such entry"]), "entries"),
        (lambda p: p["rows"][9]["checks"].pop("wrong"), "checks"),
        (lambda p: p.update(asked=["Sure?", ""]), "words"),
    ],
)
def test_a_spoilt_recording_is_found(spoil, named):
    spoilt = copy.deepcopy(CHECKS)
    spoil(spoilt)
    assert named in faults(spoilt)


def test_figures_follow_from_the_recording():
    assert record_answers.figures(CHECKS["rows"]) == FIGURES["figures"]


def test_figures_notice_a_model_that_can_check():
    """Were the yes kept for right answers, the AUC would say so."""
    rows = copy.deepcopy(CHECKS["rows"])
    for row in rows:
        row["checks"]["right"]["alone"] = {"verdict": "yes", "margin": 2.0}
        row["checks"]["wrong"]["alone"] = {"verdict": "no", "margin": -2.0}
    found = record_answers.figures(rows)["alone"]
    assert found["auc"]["estimate"] == 1 and found["yes to a wrong"]["of"] == [0, len(rows)]
    assert found["right one ahead of the wrong"]["share"] == 1


def test_recording_names_its_weights_and_its_run():
    (file,) = manifest.registry("smollm2-135m")
    assert CHECKS["inputs"][file.path] == file.sha256
    assert CHECKS["inputs"][record_answers.QUESTIONS.name] == report.file_sha256(record_answers.QUESTIONS)
    runs = {run.id: run for run in report.read(report.RUNS)}
    assert runs[CHECKS["run"]].what == "record_answers checks" and runs[CHECKS["run"]].outcome == "ok"
    assert runs[CHECKS["run"]].inputs == CHECKS["inputs"] == FIGURES["inputs"] and FIGURES["run"] == CHECKS["run"]


@pytest.mark.parametrize("question", record_answers.questions(), ids=lambda q: q["ask"][:40])
def test_rules_tell_the_right_answer_from_the_wrong_one(question):
    assert record_answers.marked(question, question["right"])
    assert not record_answers.marked(question, question["wrong"])
    assert question["entry"] in record_answers.entries()


def test_glossary_is_read_without_marks_of_the_page():
    known = record_answers.entries()
    assert len(known) > 60 and not any("{" in text or "`" in text for text in known.values())
    assert record_answers.look_up("Which network is made of layers of attention?", known)[0] == "transformer"
    assert record_answers.look_up("What removes burned-in letters?", known)[0] == "burned-in text"


def test_page_says_whether_the_glossary_is_still_the_one_of_the_recording():
    same = FIGURES["inputs"]["glossary.md"] == report.file_sha256(record_answers.GLOSSARY)
    assert same != ("Entries of the glossary have been reworded since" in TEXT)
    assert 'kept["inputs"]["glossary.md"]' in TEXT


def test_page_quotes_the_checks_as_recorded():
    found, said = FIGURES["figures"], "{} of 26 right {}and to {} of 26 wrong ones"
    for way, word in (("alone", "answers "), ("glossary", "ones ")):
        (right, n), (wrong, m) = (found[way][f"yes to a {kind}"]["of"] for kind in ("right", "wrong"))
        assert n == m == 26 and said.format(right, word, wrong) in TEXT
        assert f"{right} of 26 against {wrong} of 26, a ratio of {right / wrong:.2f}" in TEXT
        low, high = found[way]["auc"]["ci95"]
        assert low < 0.5 < high and f"{found[way]['auc']['estimate']:.2f}" in TEXT
    assert "{} of the {} answers of its own are right".format(*found["answers right"]["of"]) in TEXT
    first, three = (found[f"search finds it in {k}"]["of"] for k in (1, 3))
    assert "at once for {} of {} questions".format(*first) in TEXT and three[0] == three[1]
    answers = {row["ask"]: row for row in CHECKS["rows"]}
    assert "Peripheral Nervous System Rescuer" in answers["What does the abbreviation PSNR stand for?"]["answer"]
    formula = answers["Which AUC does a perfect score give?"]
    assert formula["right"] and "AUC = (1 + AUC)" in formula["answer"]


def test_page_counts_the_remarks_of_the_linters_as_recorded():
    snippets = json.loads((report.RESULTS / "generated_code.json").read_text(encoding="utf-8"))["snippets"]
    said = {tool: sum(s[tool]["messages"] for s in snippets.values()) for tool in ("ruff", "bandit")}
    assert f"ruff makes {said['ruff']} remarks on the three programs and bandit {said['bandit']}." in TEXT
    assert [any(s[tool]["named"] for tool in said) for s in snippets.values()] == [False, False, True]
    assert any("Line too long" in told for told in snippets["1.py"]["ruff"]["on_the_line"])


# --- who is missing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.read_csv(who_is_missing.ROWS, dtype={"unit": str})


def test_summary_follows_from_the_rows(rows):
    assert who_is_missing.summary(rows) == MISSING["generator"]


def test_page_tells_who_is_missing_as_counted():
    sets, drawn = MISSING["tables"], MISSING["generator"]
    assert sets["nih"]["view"]["from the side"]["films"] == 0 and sets["nih"]["age"]["80 and over"]["films"] < 1100
    assert sets["chexpert"]["age"]["under 18"]["films"] == 3 and "the three films that are given age 0" in TEXT
    assert round(sets["padchest"]["films"] / sets["padchest"]["age"]["under 18"]["films"]) == 22
    normal = drawn["open"]["nothing"]["normal"]
    assert f"{100 * normal['drawn']:.0f} % are taken for normal, where donor has {100 * normal['donor']:.0f}" in TEXT
    ill = drawn["open"]["pneumonia"]["normal"]
    assert round(1 / ill["drawn"]) == 10 and round(1 / ill["donor"]) == 45 and ill["difference"]["ci95"][0] > 0


def test_page_tells_which_ends_are_missing():
    ends = MISSING["generator"]["named"]
    rare = [ends[name][side] for name in ("sharpness", "opacity") for side in ("below", "above")]
    rare += [ends["lung_size"]["below"], ends["exposure"]["above"]]
    assert all(end["ci95"][1] < 0.05 for end in rare)
    assert ends["opacity"]["above"]["estimate"] == 0 and "0 of 360" in TEXT
    assert ends["exposure"]["below"]["ci95"][0] > 0.05
    as_they_should = [ends["tilt"]["below"], ends["tilt"]["above"], ends["lung_size"]["above"]]
    assert all(end["ci95"][0] < 0.05 < end["ci95"][1] for end in as_they_should)


def test_films_are_as_many_as_the_recipe_says(rows):
    count = rows["set"].value_counts()
    assert count["open: nothing"] == count["open: pneumonia"] == who_is_missing.EACH
    assert abs(count["named"] - who_is_missing.NAMED) <= 1
    assert count["donor"] == -(-2799 // who_is_missing.STEP)


def test_films_were_drawn_with_the_shipped_weights():
    assert MISSING["inputs"]["cxr-mini"] == weights_sha256(FOLDER), f"run `{MISSING['command']}`, read the page"


def test_tails_tell_a_narrow_model_from_a_faithful_one():
    rng = np.random.default_rng(0)
    unit = [str(k) for k in range(4000)]
    donor = pd.DataFrame({"set": "donor", "unit": unit, "x": rng.normal(size=4000)})
    for spread, expected in ((1.0, 0.10), (0.5, 0.001), (2.0, 0.41)):
        drawn = pd.DataFrame({"set": "named", "unit": [f"s{u}" for u in unit], "x": rng.normal(0, spread, 4000)})
        found = who_is_missing.tails(pd.concat([donor, drawn]), "x")
        assert found["outside"]["estimate"] == pytest.approx(expected, abs=0.02)
        assert found["spread"] == pytest.approx(spread, rel=0.05)


def test_subtypes_are_held_against_films_seen_by_the_same_judge():
    """A judge that calls everything normal makes donor's shares all normal, too; the difference is 0."""
    units, kinds = [str(k) for k in range(60)], ["normal", "bacterial", "viral"] * 20
    donor = pd.DataFrame({"set": "donor", "unit": units, "label": kinds, "judged": "normal"})
    drawn = pd.DataFrame({"set": "open: nothing", "unit": [f"s{u}" for u in units], "label": "", "judged": "normal"})
    found = who_is_missing.subtypes(pd.concat([donor, drawn]), "open: nothing", ("normal", "bacterial", "viral"))
    assert found["normal"]["difference"]["estimate"] == 0 and found["normal"]["donor"] == 1
    assert found["normal"]["donor_label"] == pytest.approx(1 / 3, abs=1e-3)


def test_ages_are_read_and_the_impossible_ones_dropped(monkeypatch):
    held = {
        "nih": pd.DataFrame({"Patient Age": [3, 64, 412]}),
        "padchest": pd.DataFrame(
            {"StudyDate_DICOM": [20140605, 20140605, 20140605], "PatientBirth": [1950, 2020, None]}
        ),
    }
    monkeypatch.setattr(tables, "load", lambda name, columns: held[name][columns])
    assert who_is_missing.ages("nih").tolist()[:2] == [3, 64] and np.isnan(who_is_missing.ages("nih")[2])
    assert who_is_missing.ages("padchest")[0] == 64 and np.isnan(who_is_missing.ages("padchest")[1:]).all()


def test_counts_add_up_and_name_the_empty_cells():
    table = pd.DataFrame(
        [
            ("a", "female", "under 18", "PA"),
            ("a", "female", "under 18", "AP"),
            ("b", "male", "unknown", "from the side"),
        ],
        columns=["patient", "sex", "age", "view"],
    )
    found = who_is_missing.count(table)
    assert found["films"] == 3 and found["patients"] == 2 and found["empty_cells"] == 18
    assert found["sex"]["female"] == {"films": 2, "patients": 1} and found["age"]["80 and over"]["films"] == 0
    for name, recorded in MISSING["tables"].items():
        for column in ("sex", "age", "view"):
            assert sum(kind["films"] for kind in recorded[column].values()) == recorded["films"], (name, column)


# --- quiz, pages, law -------------------------------------------------------------------------------------------------

ITEMS = load()["04-safety-rules"]["items"]


def test_quiz_answers_every_option_and_gives_no_position_away():
    choices = [item for item in ITEMS if item["kind"] == "choice"]
    places = [[option["correct"] for option in item["options"]].index(True) for item in choices]
    assert len(choices) >= 9 and min(map(places.count, range(3))) >= 2
    for item, place in zip(choices, places, strict=True):
        assert check(item["id"], LETTERS[place]).right
        assert all(len(option["feedback"]) > 40 for option in item["options"])


def survivors(planted, text):
    text = text.lower()
    return sum(any(len(p) > 2 and p in text for p in re.split(r"[\^ ]", value.lower())) for value in planted)


def test_exercises_take_the_solution_and_name_the_usual_slips():
    assert check("04-1", survivors).right
    assert "turned round" in check("04-1", lambda planted, text: sum(v in text for v in planted)).message
    assert "counts what was planted" in check("04-1", lambda planted, text: len(planted)).message
    assert check("04-2", lambda a, b, c, d: (a / b) / (c / d)).right
    assert "upside down" in check("04-2", lambda a, b, c, d: (c / d) / (a / b)).message
    assert "divided the counts" in check("04-2", lambda a, b, c, d: 9 if c == 2 else a / c).message
    assert check("04-2", lambda a, b, c, d: ...).status == "unanswered"


@pytest.mark.parametrize("name", OURS)
def test_terms_citations_and_links_exist(name):
    text = (LESSONS / name).read_text(encoding="utf-8")
    glossary, bib = ((LESSONS / n).read_text(encoding="utf-8") for n in ("glossary.md", "references.bib"))
    for term in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        assert f"\n{term}\n" in glossary, term
    for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text):
        assert all(f"{{{key}," in bib for key in keys.split(",")), keys
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (LESSONS / link).resolve().is_file() or link.endswith("04-safety-rules.ipynb"), link


def test_figure_uses_its_alternative_text_and_its_script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "fig")
    drawn = runpy.run_path(str(ROOT / "fig" / "draw_04.py"))["FIGURES"]
    notes = yaml.safe_load((ROOT / "fig" / "alt.yml").read_text(encoding="utf-8"))
    used = re.findall(r"\{figure\} \.\./fig/(\S+)\n(?::(?!alt)[^\n]*\n)*:alt: ([^\n]+)", PAGE.read_text("utf-8"))
    assert [name for name, _ in used] == list(drawn)
    for name, alt in used:
        assert " ".join(notes[name]["alt"].split()) == alt and notes[name]["made_by"] == "fig/draw_04.py"
        assert (ROOT / "fig" / name).read_text("utf-8") == drawn[name]()


def test_glossary_stays_sorted_and_each_term_stands_once():
    terms = list(record_answers.entries())
    assert terms == sorted(terms, key=str.lower) and len(terms) == len(set(terms))


@pytest.mark.parametrize("name", PRINTED)
def test_printed_pages_fit_a_sheet(name):
    """About 800 words in small print and one table fit a sheet of A4; the page says when it was checked."""
    text = (LESSONS / name).read_text(encoding="utf-8")
    assert len(text.split()) <= 800 and "2026-11-22" in text and "Not legal advice" in text and "CC BY 4.0" in text


def test_policies_name_every_text_with_its_monday():
    text = (LESSONS / "policies.md").read_text(encoding="utf-8")
    law = text.split("## Law and guidelines")[1].split("## Conduct")[0]
    parts = law.split("\n### ")[1:]
    assert "2026-11-22" in law and "Not legal advice" in law
    assert parts.pop().startswith("How far this was checked")
    names = ("2024/1689", "164.514(b)(2)", "4(5)", "117", "44 items", "27 items", "four parts", "17 items")
    for part, wanted in zip(parts, names, strict=True):
        assert wanted in part and part.count("*On Monday:*") == 1, part[:40]


def test_the_moving_dates_are_the_same_wherever_they_stand():
    law = (LESSONS / "policies.md").read_text(encoding="utf-8")
    for date in ("2 August 2026", "2 December 2026", "2 December 2027", "2 August 2028", "27 July 2026"):
        assert date in law, date


def test_challenge_examples_do_what_the_solution_says():
    """The file's name is caught by the course's patterns; the story of the anniversary is not, which is the point."""
    kinds = [{r.kind for r in prompts.check(text)} for text in ("KeyError: 'BRAUN_ANNA_19510312.dcm'", STORY)]
    assert "identifier" in kinds[0] and "identifier" not in kinds[1]
    assert STORY in TEXT


STORY = "84-year-old, collapsed at the town's anniversary, tension pneumothorax, three ribs."


def test_page_quotes_claim_l4_as_recorded():
    text, found = TEXT, claims.result("L4")
    share = {name: value["estimate"] for name, value in found["exploratory"].items()}
    assert found["verdict"] == "holds" and share["survive_course"] == 0
    for name, told in {"dicom_anonymizer": "dicom-anonymizer", "dicognito": "dicognito", "deid": "deid"}.items():
        assert f"{100 * share[f'survive_{name}']:.0f} % ({told})" in text
    assert f"{100 * share['top_dicom_anonymizer']:.0f} % are left" in text and share["top_dicom_anonymizer_2026c"] == 0
