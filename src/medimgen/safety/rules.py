"""The course's nine safety rules, and what a check that finds one broken has to say.

>>> rules.load()["rights"].sentence
>>> rules.show()                              # the table: rule, why, what checks it, what a failure means
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from medimgen import markup
from medimgen.errors import CourseError

FILE = Path(__file__).with_name("rules.yml")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. rule: an id of rules.yml; where: file, cell or attribute; severity: "stop" (do not
    go on) or "look" (a person must decide); next: the next action.
    """

    rule: str
    where: str
    what: str
    next: str
    severity: str = "stop"


@dataclass(frozen=True)
class Rule:
    """One rule. `check` names the functions that check or stop; `failure` says what it means when they do."""

    id: str
    sentence: str
    why: str
    source: str
    check: tuple[str, ...]
    failure: str
    next: str


@cache
def load(path: Path = FILE) -> dict[str, Rule]:
    """The rules by id, in order. Raises CourseError for a file that breaks schemas/rules.json or repeats an id."""
    import yaml

    from medimgen._schema import validate

    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    validate(document, "rules", path.name)
    rules = {r["id"]: Rule(**r | {"check": tuple(r["check"])}) for r in document["rules"]}
    if len(rules) < len(document["rules"]):
        raise CourseError(f"{path.name}: an id stands twice", next="give each rule its own id")
    return rules


def find(name: str) -> object:
    """What a rule's `check` names, e.g. "medimgen.safety.rights.require"."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class Table:
    """The rules for a notebook (HTML) or a terminal (text)."""

    rules: tuple[Rule, ...]

    def __repr__(self) -> str:
        return "\n".join(f"{r.id}: {r.sentence}\n  If it fails: {r.failure}\n  Next: {r.next}" for r in self.rules)

    def _repr_html_(self) -> str:
        heads = ("Rule", "Why", "What checks it", "What a failure means", "Source")
        cells = ((r.sentence, r.why, ", ".join(r.check), r.failure, r.source) for r in self.rules)
        return markup.table("Nine rules", heads, cells)


def show() -> Table:
    """The rules as a table."""
    return Table(tuple(load().values()))
