"""The nine rules: complete, each with a check that exists, and a file that breaks its schema is refused."""

import re

import pytest

from medimgen import safety
from medimgen.errors import CourseError
from medimgen.safety import rules

IDS = ["no-identified-data", "no-online-tools", "tools-connectivity", "local-first", "outputs-wrong", "generated-code"]
IDS += ["rights", "document", "bias"]


def test_nine_rules_in_the_lessons_order():
    assert list(rules.load()) == IDS


@pytest.mark.parametrize("id", IDS)
def test_each_rule_names_checks_that_exist(id):
    for name in rules.load()[id].check:
        assert callable(rules.find(name)), name


def test_a_check_that_does_not_exist_is_noticed():
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        rules.find("medimgen.safety.rights.no_such_check")


def test_the_table_says_all_and_escapes_html(tmp_path):
    table = rules.show()
    assert all(rule.sentence in repr(table) and rule.failure in repr(table) for rule in rules.load().values())
    assert table._repr_html_().count("<tr>") == 10
    odd = rules.Table((rules.Rule("x", "<script>", "why", "source", ("a",), "failure", "next"),))
    assert "<script>" not in odd._repr_html_()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("id: rights", "id: Rights", 1), "rules/6/id"),
        (lambda text: re.sub(r"(?m)^    failure: A tool on .*\n", "", text), "failure"),
        (
            lambda text: text.replace("check: [medimgen.safety.rights", "check: [os.system, medimgen.safety.rights"),
            "check",
        ),
        (lambda text: text.replace("id: bias", "id: rights"), "twice"),
    ],
)
def test_a_broken_file_is_refused(change, says, tmp_path):
    text = rules.FILE.read_text(encoding="utf-8")
    assert change(text) != text
    (tmp_path / "rules.yml").write_text(change(text), encoding="utf-8")
    with pytest.raises(CourseError, match=says):
        rules.load(tmp_path / "rules.yml")


def test_the_package_offers_its_names_late():
    assert safety.check.__module__ == "medimgen.safety.checking"
    assert safety.require.__module__ == "medimgen.safety.rights"
    with pytest.raises(AttributeError, match="no_such_thing"):
        safety.no_such_thing  # noqa: B018
