"""Requirements: agree first on what counts as good enough, then measure, then read the verdicts.

A requirements file (schema `requirements.json`):

title: Triage helper for children's chest films
requirements:
  - id: sensitivity
    statement: Few ill children are missed.
    metric: sensitivity_low95              # key of the dict of measured values
    threshold: {op: ">=", value: 0.90, unit: null}
    critical: true                         # nothing else makes up for a failure here
    why: A missed pneumonia goes home untreated.
    next: Do not use the model; collect the films it missed.      # optional

>>> asked = requirements.load("requirements.yml")          # its sha256 is taken here, before the run
>>> verdicts = requirements.evaluate(asked, {"sensitivity_low95": 0.87})
>>> requirements.passed(verdicts)
False
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from medimgen import markup
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.report import file_sha256

Value = float | int | str | bool


@dataclass(frozen=True)
class Requirement:
    """One line of a requirements file; `op`, `value` and `unit` are its threshold."""

    id: str
    statement: str
    metric: str
    op: str
    value: Value
    unit: str | None
    critical: bool
    why: str
    next: str = ""


@dataclass(frozen=True)
class Requirements:
    """A whole file: its title, its requirements, and the sha256 it had when it was read."""

    title: str
    items: tuple[Requirement, ...]
    file_hash: str


@dataclass(frozen=True)
class Verdict:
    """status is "pass", "fail" or "not measured"; file_hash names the requirements file it was judged by."""

    requirement: Requirement
    measured: Value | None
    status: str
    file_hash: str


def load(path: str | Path) -> Requirements:
    """Read and check a requirements file. Raises CourseError for a missing or malformed one."""
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"there is no requirements file {path}", next="give the path of a .yml file")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise CourseError(f"{path.name} is not valid YAML: {error}", next="correct the line it names") from error
    validate(document, "requirements", where=path.name)
    items = tuple(Requirement(**_flat(item)) for item in document["requirements"])
    ids = [item.id for item in items]
    if repeated := {i for i in ids if ids.count(i) > 1}:
        raise CourseError(f"{path.name}: {', '.join(repeated)} occurs twice", next="give each its own id")
    return Requirements(document["title"], items, file_sha256(path))


def evaluate(requirements: Requirements, measured: Mapping[str, Value | None]) -> list[Verdict]:
    """One verdict a requirement, in the file's order. A metric that is missing or None is "not measured".

    NaN fails: a figure that could not be computed is no evidence. Raises CourseError when a measured value
    is of another kind than its threshold (text against number).
    """
    verdicts = []
    for item in requirements.items:
        value = measured.get(item.metric)
        status = "not measured" if value is None else "pass" if _meets(value, item) else "fail"
        verdicts.append(Verdict(item, value, status, requirements.file_hash))
    return verdicts


def passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether every critical requirement was measured and met."""
    return all(v.status == "pass" for v in verdicts if v.requirement.critical)


def show_verdicts(verdicts: Sequence[Verdict], title: str = "Requirements") -> "Table":
    """The verdicts as a table for a notebook or a report."""
    return Table(title, tuple(verdicts))


@dataclass(frozen=True)
class Table:
    """Shown as an HTML table in Jupyter and as lines of text elsewhere; colour carries no meaning."""

    title: str
    verdicts: tuple[Verdict, ...]

    def __repr__(self) -> str:
        return "\n".join(
            [self.title] + [f"{v.status.upper():12} {v.requirement.statement} [{describe(v)}]" for v in self.verdicts]
        )

    def _repr_html_(self) -> str:
        heads = ("Verdict", "Requirement", "Asked", "Measured", "Safety-critical", "Why")
        digest = self.verdicts[0].file_hash[:12] if self.verdicts else ""
        return markup.table(f"{self.title} (requirements file {digest})", heads, map(_cells, self.verdicts))


def describe(verdict: Verdict) -> str:
    """Measured value against threshold in words, e.g. "0.87, asked >= 0.9"."""
    measured = "not measured" if verdict.measured is None else _number(verdict.measured)
    return f"{measured}, asked {_asked(verdict.requirement)}"


def _cells(v: Verdict) -> tuple[str, ...]:
    measured = "" if v.measured is None else _number(v.measured)
    critical = "yes" if v.requirement.critical else "no"
    return v.status, v.requirement.statement, _asked(v.requirement), measured, critical, v.requirement.why


def _asked(item: Requirement) -> str:
    unit = f" {item.unit}" if item.unit and item.unit != "version" else ""
    return f"{item.op} {_number(item.value)}{unit}"


def _number(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(item: dict) -> dict:
    return {**{k: v for k, v in item.items() if k != "threshold"}, **item["threshold"]}


def _meets(value: Value, item: Requirement) -> bool:
    asked = item.value
    if isinstance(value, str) != isinstance(asked, str):
        raise CourseError(
            f"{item.id}: {item.metric} is {value!r}, the threshold {asked!r}",
            next="make both text or both numbers",
        )
    if item.unit == "version":
        value, asked = (tuple(map(int, re.findall(r"\d+", str(v).split("+")[0]))) for v in (value, asked))
    elif isinstance(value, str) and item.op not in ("==", "!="):
        raise CourseError(f"{item.id}: text cannot be compared with {item.op}", next="use == or !=")
    elif isinstance(value, float) and math.isnan(value):
        return False
    return {
        ">=": value >= asked,
        ">": value > asked,
        "<=": value <= asked,
        "<": value < asked,
        "==": value == asked,
        "!=": value != asked,
    }[item.op]
