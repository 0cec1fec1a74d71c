"""Questions and exercises: `check` an answer, `show_quiz` the multiple-choice questions of a lesson.

>>> check("00-1", shape_auc)          # kind function: called on small constructed cases
>>> check("00-q2", "b")               # kind choice
>>> show_quiz("00-meet-the-films")

One YAML a lesson, `lessons/quizzes/NN-name.yml` (schema `quiz.json`):

lesson: "00"
title: Meet the films
items:
  - id: 00-2
    kind: number                      # or choice, set, function
    question: What is the AUC of the pixel count?
    expected: {call: "medimgen.claims:recorded", args: [L0, pixels_normal]}   # computed; or a plain value
    tolerance: 0.002
    right: A number that a file browser shows nearly sorts the ill from the healthy.
    wrong:
      - {from: 0.098, to: 0.108, text: the classes are swapped.}

An answer that is still `...` is "not answered yet", never an error: a notebook runs from top to bottom.
"""

import copy
import html
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import yaml

from medimgen import markup
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.paths import ROOT

QUIZZES = ROOT / "lessons" / "quizzes"
HEADS = {"right": "Right.", "wrong": "Not yet.", "unanswered": "Not answered yet."}
MARKS = {"right": "✓", "wrong": "✗", "unanswered": "…"}
LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Feedback:
    """What `check` answers. status is "right", "wrong" or "unanswered"; the words carry it, not a colour."""

    exercise: str
    status: str
    message: str

    @property
    def right(self) -> bool:
        return self.status == "right"

    def __repr__(self) -> str:
        return f"{self.exercise}: {HEADS[self.status]} {self.message}"

    def _repr_html_(self) -> str:
        head = f'<strong><span aria-hidden="true">{MARKS[self.status]} </span>{HEADS[self.status]}</strong>'
        return f'<p role="status">Exercise {html.escape(self.exercise)}: {head} {_inline(self.message)}</p>'


@dataclass(frozen=True)
class Quiz:
    """The multiple-choice questions of a lesson, shown as HTML that needs neither JavaScript nor a kernel."""

    name: str
    title: str
    questions: tuple[dict, ...]

    def __repr__(self) -> str:
        lines = [f"Quiz: {self.title}"]
        for number, item in enumerate(self.questions, start=1):
            lines.append(f"{number}. {item['question'].strip()}")
            lines += [f"   {key}) {o['text']}" for key, o in zip(LETTERS, item["options"], strict=False)]
            lines.append(f'   Answer with check("{item["id"]}", "a").')
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = "".join(_question(item, number) for number, item in enumerate(self.questions, start=1))
        label = html.escape(f"Quiz: {self.title}")
        intro = "<p>Open an option to see its answer.</p>"
        return markup.spaced(f'<section class="medimgen-quiz" aria-label="{label}">{intro}{body}</section>')


def check(exercise: str, answer: object = ...) -> Feedback:
    """Judge an answer: right (and why), wrong (in which direction, or by which misconception), or unanswered.

    answer is a number, an option's letter or text, a list or set, or the learner's function, by the kind of
    the exercise. Raises CourseError for an unknown exercise only; an error in the learner's function is told.
    """
    item = _find(exercise)
    if answer is None or answer is ...:
        status, message = "unanswered", "Replace the `...` with your answer and run the cell again."
    else:
        judge = {"choice": _choice, "number": _number, "set": _set, "function": _function}[item["kind"]]
        status, message = judge(item, answer)
    return Feedback(exercise, status, " ".join(message.split()))


def show_quiz(name: str, folder: Path = QUIZZES) -> Quiz:
    """The choice questions of `lessons/quizzes/<name>.yml`. Raises CourseError listing the known names."""
    quizzes = load(folder)
    if name not in quizzes:
        raise CourseError(f"no quiz is called {name!r}", next=f"use one of {', '.join(quizzes)}")
    quiz = quizzes[name]
    return Quiz(name, quiz["title"], tuple(i for i in quiz["items"] if i["kind"] == "choice"))


def load(folder: Path = QUIZZES) -> dict[str, dict]:
    """All quizzes by file name without `.yml`. Raises CourseError for a bad file or an id used twice."""
    quizzes, seen = {}, set()
    for path in sorted(folder.glob("*.yml")):
        quiz = yaml.safe_load(path.read_text(encoding="utf-8"))
        validate(quiz, "quiz", where=path.name)
        for item in quiz["items"]:
            if item["id"] in seen or not item["id"].startswith(quiz["lesson"] + "-"):
                raise CourseError(
                    f"{path.name}: id {item['id']} is used twice or is not of lesson {quiz['lesson']}",
                    next="give every item its own id, beginning with the lesson's number",
                )
            seen.add(item["id"])
            if item["kind"] == "choice" and sum(option["correct"] for option in item["options"]) != 1:
                raise CourseError(f"{path.name}: {item['id']} needs one right option", next="mark one correct")
        quizzes[path.stem] = quiz
    return quizzes


def expected(value: object) -> object:
    """An expected answer: the value itself, or what the named function of the package returns."""
    if not (isinstance(value, dict) and "call" in value):
        return value
    module, name = value["call"].split(":")
    return getattr(importlib.import_module(module), name)(*value["args"])


def _find(exercise: str) -> dict:
    items = {item["id"]: item for quiz in load().values() for item in quiz["items"]}
    if exercise not in items:
        raise CourseError(f"no exercise is called {exercise!r}", next=f"use one of {', '.join(items)}")
    return items[exercise]


def _choice(item: dict, answer: object) -> tuple[str, str]:
    options = item["options"]
    by_answer = dict(zip(LETTERS, options, strict=False)) | {o["text"].casefold(): o for o in options}
    option = by_answer.get(answer.strip().casefold()) if isinstance(answer, str) else None
    if option is None:
        last = LETTERS[len(options) - 1]
        return "wrong", f"Answer with a letter from a to {last}, e.g. `'a'`; got `{_short(answer)}`."
    return "right" if option["correct"] else "wrong", option["feedback"]


def _number(item: dict, answer: object) -> tuple[str, str]:
    problem = _compare(answer, expected(item["expected"]), item["tolerance"], item.get("wrong", []))
    return ("wrong", problem) if problem else ("right", item["right"])


def _set(item: dict, answer: object) -> tuple[str, str]:
    if isinstance(answer, str) or not hasattr(answer, "__iter__"):
        return (
            "wrong",
            f"Answer with a list or a set of items, e.g. `{{'one', 'two'}}`; got `{_short(answer)}`.",
        )
    wanted, why = {str(v) for v in expected(item["expected"])}, item.get("wrong", {})
    given = {str(v) for v in answer}
    extra, absent = sorted(given - wanted), sorted(wanted - given)
    if not extra and not absent:
        return "right", item["right"]
    told = [f"`{name}` does not belong. {why.get(name, '')}" for name in extra]
    told += [why[name] for name in absent if name in why]
    if absent:
        told.append(f"{len(absent)} of {len(wanted)} {'is' if len(absent) == 1 else 'are'} missing.")
    return "wrong", " ".join(told)


def _function(item: dict, answer: object) -> tuple[str, str]:
    if not callable(answer):
        return "wrong", f"Hand over the function itself, without brackets; got `{_short(answer)}`."
    code = getattr(answer, "__code__", None)
    unfinished = code is not None and ... in code.co_consts
    for number, case in enumerate(item["cases"], start=1):
        problem = _case(answer, case)
        if problem and unfinished:
            return (
                "unanswered",
                f"There is still a `...` in `{code.co_name}`: replace it and run both cells again.",
            )
        if problem:
            return (
                "wrong",
                f"Case {number} of {len(item['cases'])}, {case['name']}: {problem} Hint: {case['hint']}",
            )
    return "right", item["right"]


def _case(function: Callable, case: dict) -> str:
    """What is wrong with the function in this case, or an empty string."""
    try:
        got = function(*map(_built, copy.deepcopy(case["args"])))
    except Exception as error:  # the learner's code may raise anything; it is told, not raised
        return f"your function stopped with `{type(error).__name__}: {_short(error)}`."
    if got is None:
        return "your function returned nothing. Is there a `return`?"
    wanted = expected(case["expected"])
    if isinstance(wanted, str | bool):
        return "" if got == wanted else f"your function returned `{_short(got)}`."
    if isinstance(wanted, list):
        return _compare_list(got, wanted, case.get("tolerance", 1e-6))
    return _compare(got, wanted, case.get("tolerance", 1e-6), case.get("wrong", []))


def _compare_list(got: object, wanted: list, tolerance: float) -> str:
    import numpy as np

    try:
        got = np.asarray(got, dtype=float)
    except (TypeError, ValueError):
        return f"a list of numbers is expected, got `{_short(got)}`."
    if got.shape != np.shape(wanted):
        return f"the shape is {got.shape}, expected is {np.shape(wanted)}."
    return "" if np.allclose(got, wanted, rtol=0, atol=tolerance) else "some values differ from the expected ones."


def _compare(got: object, wanted: float, tolerance: float, wrong: list[dict]) -> str:
    """What is wrong with a number: a misconception whose range fits, else the direction; "" if right."""
    got = got.item() if hasattr(got, "item") and getattr(got, "size", 1) == 1 else got
    if isinstance(got, bool) or not isinstance(got, Real):
        return f"a number is expected, got `{_short(got)}`."
    if got != got:
        return "the value is NaN (not a number); somewhere a missing value came in."
    if abs(got - wanted) <= tolerance:
        return ""
    for case in wrong:
        if case["from"] <= got <= case["to"]:
            return f"{got:.4g}: {case['text']}"
    return f"{got:.4g} is too {'high' if got > wanted else 'low'}."


def _built(argument: object) -> object:
    """{table: columns} as a DataFrame, {array: values} as an array, anything else as it is."""
    if isinstance(argument, dict) and argument.keys() == {"table"}:
        import pandas as pd

        return pd.DataFrame(argument["table"])
    if isinstance(argument, dict) and argument.keys() == {"array"}:
        import numpy as np

        return np.asarray(argument["array"])
    return argument


def _short(value: object, limit: int = 80) -> str:
    text = " ".join(str(value).split()).replace("`", "'")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _inline(text: str) -> str:
    """Text as safe HTML; words between backticks become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text.strip()))


def _question(item: dict, number: int) -> str:
    options = "".join(
        f"<li><details><summary>{_inline(o['text'])}</summary><p><strong>"
        f"{HEADS['right'] if o['correct'] else 'No.'}</strong> {_inline(o['feedback'])}</p></details></li>"
        for o in item["options"]
    )
    legend = f"<legend><strong>{number}.</strong> {_inline(item['question'])}</legend>"
    answers = f'<ol style="list-style-type: lower-alpha">{options}</ol>'
    return f'<fieldset data-item="{item["id"]}">{legend}{answers}</fieldset>'
