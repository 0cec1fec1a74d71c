"""Check a YAML or JSON document against one of the course's schemas (folder `schemas/`).

By fastjsonschema, which Jupyter's own nbformat brings along: the other common library takes three seconds to
import where Jupyter's optional format checkers are installed.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from medimgen.errors import CourseError


@cache
def _checker(name: str) -> Callable:
    import fastjsonschema

    return fastjsonschema.compile(
        json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    )


def validate(document: object, name: str, where: str) -> None:
    """Raise CourseError, naming the place in `where`, if `document` does not follow schema `name`."""
    import fastjsonschema

    try:
        _checker(name)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        place = "/".join(str(p) for p in error.path[1:]) or "top level"
        problem = error.message.removeprefix(error.name).strip()
        raise CourseError(
            f"{where}, {place}: {problem} (found {_short(error.value)})",
            next=f"correct that entry; the rules are in src/medimgen/schemas/{name}.json",
        ) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
