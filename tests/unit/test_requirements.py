"""Requirements: the file, the comparison, and that a missing or failed critical line is never a pass."""

import copy
import math

import pytest
import yaml

from medimgen import requirements
from medimgen._schema import validate
from medimgen.errors import CourseError

LINE = {
    "id": "sensitivity",
    "statement": "Few ill children <b>missed</b>.",
    "metric": "sensitivity",
    "threshold": {"op": ">=", "value": 0.9, "unit": None},
    "critical": True,
    "why": "A missed pneumonia goes home.",
}
LATENCY = {**LINE, "id": "latency", "metric": "ms", "critical": False, "threshold": dict(LINE["threshold"])}
GOOD = {"title": "Demo", "requirements": [LINE, LATENCY]}


def written(tmp_path, document):
    path = tmp_path / "requirements.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def one(op, value, unit=None):
    item = requirements.Requirement("r", "s", "m", op, value, unit, True, "w")
    return requirements.Requirements("t", (item,), "0" * 64)


def status(asked, measured):
    return requirements.evaluate(asked, {"m": measured})[0].status


def test_schema_good_and_bad():
    validate(GOOD, "requirements", where="demo.yml")
    bad = copy.deepcopy(GOOD)
    bad["requirements"][1]["threshold"]["op"] = "=>"
    with pytest.raises(CourseError, match=r"demo\.yml, requirements/1/threshold/op"):
        validate(bad, "requirements", where="demo.yml")


def test_load_hashes_the_file_and_refuses_doubles(tmp_path):
    path = written(tmp_path, GOOD)
    first = requirements.load(path)
    assert [item.id for item in first.items] == ["sensitivity", "latency"] and len(first.file_hash) == 64
    path.write_text(path.read_text(encoding="utf-8").replace("0.9", "0.8"), encoding="utf-8")
    assert requirements.load(path).file_hash != first.file_hash
    with pytest.raises(CourseError, match="occurs twice"):
        requirements.load(written(tmp_path, {"title": "x", "requirements": [LINE, LINE]}))
    with pytest.raises(CourseError, match="no requirements file"):
        requirements.load(tmp_path / "missing.yml")


def test_verdicts_and_the_critical_rule(tmp_path):
    asked = requirements.load(written(tmp_path, GOOD))
    verdicts = requirements.evaluate(asked, {"sensitivity": 0.95, "ms": 0.1})
    assert [v.status for v in verdicts] == ["pass", "fail"] and requirements.passed(verdicts)
    assert {v.file_hash for v in verdicts} == {asked.file_hash}
    assert not requirements.passed(requirements.evaluate(asked, {"sensitivity": 0.89, "ms": 5}))
    missing = requirements.evaluate(asked, {"ms": 5})
    assert missing[0].status == "not measured" and not requirements.passed(missing)


@pytest.mark.parametrize(
    ("op", "value", "unit", "passes", "fails"),
    [
        (">=", 2, "GB", 2, 1.99),
        (">", 2, None, 2.1, 2),
        ("<=", 2, None, 2, 2.1),
        ("<", 2, None, 1, 2),
        ("==", "none", None, "none", "numpy"),
        ("!=", "none", None, "full", "none"),
        ("==", True, None, True, False),
        (">=", "3.11", "version", "3.12.1", "3.9.18"),
        (">=", "2.13.0", "version", "2.13.0+cpu", "2.12.9+cpu"),
        (">=", 0.5, None, 0.6, math.nan),
    ],
)
def test_comparisons(op, value, unit, passes, fails):
    assert status(one(op, value, unit), passes) == "pass"
    assert status(one(op, value, unit), fails) == "fail"


def test_apples_and_pears_are_refused():
    with pytest.raises(CourseError, match="both text or both numbers"):
        status(one(">=", 2), "three")
    with pytest.raises(CourseError, match="text cannot"):
        status(one(">=", "a"), "b")


def test_table_shows_words_and_escapes(tmp_path):
    asked = requirements.load(written(tmp_path, GOOD))
    table = requirements.show_verdicts(requirements.evaluate(asked, {"sensitivity": 0.5}), title="Demo")
    page = table._repr_html_()
    assert "<td>fail</td>" in page and "<td>not measured</td>" in page and "&lt;b&gt;" in page
    assert asked.file_hash[:12] in page and 'scope="col"' in page
    assert "FAIL" in repr(table) and "0.5, asked >= 0.9" in repr(table)
