"""What is missing from a table, as prompts with numbers and a price in minutes, before anything is drawn.

>>> wanted = plan(table, target="even")                     # viral: 400 x "chest x-ray, viral pneumonia"
>>> wanted = wanted.change(0, number=200)                   # or wanted.edit(), a widget that does the same
>>> wanted.minutes, wanted.save("plan.yml")
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import yaml

from medimgen._schema import validate
from medimgen.balance.counting import Balance, analyse
from medimgen.errors import CourseError

DESCRIBE = {"normal": "chest x-ray, normal", "pneumonia": "chest x-ray, pneumonia"}
DESCRIBE |= {kind: f"chest x-ray, {kind} pneumonia" for kind in ("bacterial", "viral")}


@dataclass(frozen=True)
class Item:
    """`number` films of `prompt`; `label` holds a value for each column the plan counted by; `why` says whence."""

    label: tuple[str, ...]
    prompt: str
    number: int
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """Items to draw. `seconds`: time of one image. `cap`: at most so many times the number wanted are drawn.

    Image j of item i is drawn from seed + 1,000,000 i + j, so a plan and a model fix every image. A prompt with
    something that looks like an identifier raises CourseError.
    """

    items: tuple[Item, ...]
    by: tuple[str, ...]
    seconds: float
    source: str = ""
    seed: int = 0
    cap: float = 4.0

    def __post_init__(self):
        from medimgen import prompts

        validate(self.document(), "plan", "plan")
        for item in self.items:
            prompts.refuse_identifiers(item.prompt)

    @property
    def total(self) -> int:
        """Films wanted."""
        return sum(item.number for item in self.items)

    @property
    def minutes(self) -> float:
        """Time to draw `total` images; up to `cap` times that where the gates turn many away."""
        return self.total * self.seconds / 60

    def change(self, k: int, **new) -> "Plan":
        """The plan with another `prompt` or `number` for item `k`; what the widget calls."""
        return replace(self, items=(*self.items[:k], replace(self.items[k], **new), *self.items[k + 1 :]))

    def edit(self):
        """A widget with a prompt and a number for each item, the total and the minutes; its `plan` is the plan now."""
        from medimgen.balance.reviewing import editor

        return editor(self)

    def document(self) -> dict:
        """The plan as schema plan.json has it."""
        items = [asdict(item) | {"label": list(item.label)} for item in self.items]
        return vars(self) | {"by": list(self.by), "items": items}

    def save(self, path: str | Path) -> Path:
        """Write the plan as YAML."""
        text = yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True, width=110)
        Path(path).write_text(text, encoding="utf-8", newline="\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read a plan that `save` wrote or somebody typed. Raises CourseError, naming the entry, for what is wrong."""
        document = _yaml(path, "plan")
        items = tuple(Item(**item | {"label": tuple(item["label"])}) for item in document["items"])
        return cls(**document | {"items": items, "by": tuple(document["by"])})


def plan(
    table: pd.DataFrame | Balance | str | Path, target: str | float | Mapping = "even", *, by: Sequence[str] = (
        "subtype",), describe: Mapping | None = None, seconds: float | None = None, generator=None, seed=0, cap=4.0,
) -> Plan:  # fmt: skip
    """Which films a table lacks, and the prompts that ask for them.

    Parameters
    ----------
    table : films, one row each; what `analyse` counted; or the path of a collection list that Lesson 3 wrote
        (collection.yml), which says itself how many of what and needs no target.
    target : "even" fills every cell up to the largest; a whole number up to that many; a share from 0.0 to 1.0 up to
        that share of the largest; {"viral": 300} or {("viral", "dev"): 300} the named cells alone.
    describe : words for each value of `by`, beside DESCRIBE; a cell's prompt joins those of its values with ", " (""
        adds nothing), unless the cell itself, a tuple, has words.
    seconds : time of one image; measured now with `generator` (models/cxr-mini if not given) where it is left out.

    Raises CourseError for a value without words, a target that is none of these, an identifier in a prompt.
    """
    words = {**DESCRIBE, **(describe or {})}
    if isinstance(table, str | Path):
        by, source = ("label",), f"collection list {Path(table).name}"
        listed = _yaml(table, "collection")["items"]
        items = [((x["label"],), f", {x['words']}", x["how_many"], x["why"]) for x in listed]
    else:
        found = table if isinstance(table, Balance) else analyse(table, by)
        counts, by, source = found.counts(), found.by, str(found)
        wanted = _wanted(counts, target).items()
        items = [(c, "", n - counts[c], f"{counts[c]} films, {n} wanted") for c, n in wanted if n > counts[c]]
    items = tuple(Item(cell, _prompt(cell, words) + more, n, why) for cell, more, n, why in items)
    return Plan(items, tuple(by), time_of_one(generator) if seconds is None else seconds, source, seed, cap)


def time_of_one(generator=None) -> float:
    """Seconds that one image takes on this computer in a batch of eight, by the second of two batches."""
    from medimgen.generate import Generator

    generator, marks = generator or Generator.load(), []
    for _ in range(2):
        marks.append(time.perf_counter())
        generator.make(generator.settings(DESCRIBE["normal"], 8, 0, None, None, ""))
    return max(round((time.perf_counter() - marks[-1]) / 8, 6), 1e-6)


def _wanted(counts: dict, target) -> dict:
    """Films wanted in each cell."""
    if isinstance(target, Mapping):
        named = {(cell,) if isinstance(cell, str) else tuple(cell): n for cell, n in target.items()}
        if unknown := [cell for cell in named if cell not in counts]:
            raise CourseError(f"no cell {', '.join(unknown[0])}", next=f"choose from {list(counts)[:8]}")
        return named
    whole = isinstance(target, int) and not isinstance(target, bool) and target >= 0
    if target != "even" and not whole and not (isinstance(target, float) and 0 <= target <= 1):
        raise CourseError(f"target={target!r}", next='use "even", a number of films, a share from 0 to 1, or {cell: n}')
    largest = max(counts.values())
    return dict.fromkeys(counts, largest if target == "even" else target if whole else round(target * largest))


def _prompt(cell: tuple[str, ...], words: Mapping) -> str:
    missing = [value for value in cell if value not in words]
    if missing and cell not in words:
        raise CourseError(f"no words for {missing[0]!r}", next=f'describe={{"{missing[0]}": "chest x-ray, ..."}}')
    return words.get(cell) or ", ".join(words[value] for value in cell if words[value])


def _yaml(path: str | Path, schema: str) -> dict:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CourseError(f"{path} cannot be read: {error}", next="check the name, and that it is YAML") from None
    validate(document, schema, Path(path).name)
    return document
