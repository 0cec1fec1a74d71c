"""check() and show_quiz: kind, never raising on an answer, and pages that need no JavaScript."""

import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from medimgen import check as module
from medimgen import claims
from medimgen._schema import validate
from medimgen.check import QUIZZES, check, load, show_quiz
from medimgen.errors import CourseError
from medimgen.metrics import auc

NAME = "00-meet-the-films"


def shape_auc(table, column, positive, negative, by):
    two = table[table[by].isin([positive, negative])].dropna(subset=[column])
    return auc(two[by] == positive, two[column])


def swapped(table, column, positive, negative, by):
    return shape_auc(table, column, negative, positive, by)


def folded(table, column, positive, negative, by):
    value = shape_auc(table, column, positive, negative, by)
    return max(value, 1 - value)


def all_others_negative(table, column, positive, negative, by):
    return auc(table[by] == positive, table[column].fillna(0))


def unknown_is_zero(table, column, positive, negative, by):
    two = table[table[by].isin([positive, negative])]
    return auc(two[by] == positive, two[column].fillna(0))


def keeps_missing(table, column, positive, negative, by):
    two = table[table[by].isin([positive, negative])]
    return auc(two[by] == positive, two[column])


def ties_lose(table, column, positive, negative, by):
    two = table.dropna(subset=[column])
    a, b = (two.loc[two[by] == name, column].to_numpy() for name in (positive, negative))
    return (a[:, None] > b[None]).mean()


def test_schema_good_and_bad():
    document = yaml.safe_load((QUIZZES / f"{NAME}.yml").read_text(encoding="utf-8"))
    validate(document, "quiz", where="00.yml")
    for change, place in (
        (lambda d: d["items"][1]["options"][0].pop("feedback"), r"00\.yml, items/1/options/0: .*feedback"),
        (lambda d: d["items"][0]["options"][1].update(correct=False), r"00\.yml, items/0/options"),
        (lambda d: d["items"][2].update(kind="essay"), r"00\.yml, items/2"),
        (lambda d: d["items"][5]["cases"][0].pop("hint"), r"00\.yml, items/5/cases/0"),
        (lambda d: d["items"][6]["expected"].update(call="os:system"), r"00\.yml, items/6/expected"),
    ):
        bad = copy.deepcopy(document)
        change(bad)
        with pytest.raises(CourseError, match=place):
            validate(bad, "quiz", where="00.yml")


def test_ids_are_unique_and_of_their_lesson(tmp_path):
    document = yaml.safe_load((QUIZZES / f"{NAME}.yml").read_text(encoding="utf-8"))
    document["items"].append(document["items"][0])
    (tmp_path / "00-a.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(CourseError, match="00-q1 is used twice"):
        load(tmp_path)
    document["items"].pop()["options"][0]["correct"] = True
    (tmp_path / "00-a.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(CourseError, match="00-q1 needs one right option"):
        load(tmp_path)


def test_unknown_names_list_the_known():
    with pytest.raises(CourseError, match="00-1"):
        check("99-1", 3)
    with pytest.raises(CourseError, match=NAME):
        show_quiz("../../claims")


@pytest.mark.parametrize("id", [i["id"] for quiz in load().values() for i in quiz["items"]])
@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_no_error(id, answer):
    feedback = check(id, answer)
    assert feedback.status == "unanswered" and "..." in feedback.message and "Not answered yet" in repr(feedback)


@pytest.mark.parametrize("id", [i["id"] for quiz in load().values() for i in quiz["items"]])
@pytest.mark.parametrize(
    "answer", ["", "zz", 3, True, float("nan"), [[1]], {}, object(), np.zeros(3), len, lambda: 1, 1j]
)
def test_no_wrong_answer_is_an_error(id, answer):
    feedback = check(id, answer)
    assert feedback.status == "wrong" and len(feedback.message) > 20 and not feedback.right


def test_solution_is_right_and_each_misconception_is_named():
    assert check("00-1", shape_auc).right
    for function, told in (
        (swapped, "swapped"),
        (folded, "turned round"),
        (all_others_negative, "third group was counted as negative"),
        (unknown_is_zero, "read as 0"),
        (keeps_missing, "stopped with `CourseError"),
        (ties_lose, "ties"),
        (lambda *_: None, "returned nothing"),
        (lambda table: 1.0, "TypeError"),
        (shape_auc.__name__, "Hand over the function itself"),
    ):
        feedback = check("00-1", function)
        assert feedback.status == "wrong" and told in feedback.message, feedback


def test_unfinished_stub_is_unanswered():
    def returns(table, column, positive, negative, by):
        return ...

    def uses(table, column, positive, negative, by):
        two = ...
        return auc(two[by] == positive, two[column])

    assert check("00-1", returns).status == check("00-1", uses).status == "unanswered"


def test_a_function_cannot_spoil_the_next_case():
    def greedy(table, column, positive, negative, by):
        value = shape_auc(table, column, positive, negative, by)
        del table[column]
        return value

    assert check("00-1", greedy).right and check("00-1", shape_auc).right


def test_number_is_computed_and_directions_are_told():
    truth = claims.recorded("L0", "pixels_normal")
    for answer in (truth, np.float64(truth), np.array([truth]), truth + 0.0019):
        assert check("00-2", answer).right
    for answer, told in (
        (1 - truth, "swapped"),
        (claims.recorded("L0"), "ratio, width / height"),
        (1 - claims.recorded("L0"), "other class"),
        (claims.recorded("L0", "pixels_viral"), "viral"),
        (claims.recorded("L0", "aspect_viral"), "viral"),
        (0.93, "too high"),
        (0.7, "too low"),
        (12, "between 0 and 1"),
    ):
        assert told in check("00-2", answer).message


def test_figures_quoted_in_the_quiz_and_claims_are_the_recorded_ones():
    quoted = {f"{claims.recorded('L0'):.2f}", f"{claims.recorded('L0', 'pixels_normal'):.2f}"}
    text = (QUIZZES / f"{NAME}.yml").read_text(encoding="utf-8") + str(claims.get("L0")["known_before"])
    assert set(re.findall(r"about (0\.\d\d)", " ".join(text.split()))) == quoted


def made(monkeypatch, item):
    monkeypatch.setattr(module, "_find", lambda _: item)


def test_set_kind(monkeypatch):
    item = {"kind": "set", "expected": ["age", "sex"], "right": "Both.", "wrong": {"film": "A film is no person."}}
    made(monkeypatch, item)
    assert check("x", {"sex", "age"}).right and check("x", ["age", "sex", "age"]).right
    assert "1 of 2 is missing" in check("x", ["age"]).message
    assert "`film` does not belong. A film is no person." in check("x", {"age", "sex", "film"}).message
    assert "list or a set" in check("x", "age").message


def test_function_may_return_a_list(monkeypatch):
    case = {"name": "n", "args": [{"array": [1, 2]}], "expected": [2, 4], "hint": "twice"}
    made(monkeypatch, {"kind": "function", "cases": [case], "right": "Yes."})
    assert check("x", lambda a: a * 2).right
    assert "some values differ" in check("x", lambda a: a * 3).message
    assert "shape" in check("x", lambda a: a[:1]).message
    assert "list of numbers" in check("x", lambda a: "no").message


def test_choice_by_letter_or_text():
    assert check("00-q5", "A").right and check("00-q5", " a ").right
    text = load()[NAME]["items"][4]["options"][1]["text"]
    assert "dose was given" in check("00-q5", text).message


def test_feedback_is_spoken_and_escaped(monkeypatch):
    made(monkeypatch, {"kind": "number", "expected": 1, "tolerance": 0, "right": "a < b, see `x`"})
    page = check("<id>", 1)._repr_html_()
    assert 'role="status"' in page and "Right." in page and "a &lt; b" in page and "<code>x</code>" in page
    assert "<id>" not in page and 'aria-hidden="true"' in page


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", load())
def test_quiz_page_is_whole_static_and_complete(name):
    quiz = show_quiz(name)
    parser = Tags()
    parser.feed(page := quiz._repr_html_())
    options = [option for question in quiz.questions for option in question["options"]]
    assert parser.open == [] and not {"script", "link", "img", "iframe"} & set(parser.seen)
    assert "http" not in page and "onclick" not in page
    assert parser.seen.count("fieldset") == parser.seen.count("legend") == len(quiz.questions) >= 3
    assert parser.seen.count("details") == parser.seen.count("summary") == len(options)
    assert page.count("<strong>Right.</strong>") == len(quiz.questions)


def test_right_options_are_not_always_in_one_place():
    places = [next(k for k, o in enumerate(q["options"]) if o["correct"]) for q in show_quiz(NAME).questions]
    assert len(set(places)) > 1 and len(places) == 5
    assert "check(" in repr(show_quiz(NAME))
