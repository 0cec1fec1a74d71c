"""Claims: stated in `claims.yml` before they are measured, recorded by their recipe, checked from the rows.

>>> claims.load()["L0"]["claim"]
'The width-to-height ratio of the original film alone, without a single pixel ...'
>>> claims.result("L0")["verdict"]        # recipes/results/L0.json, schema `result.json`
>>> claims.verify("L0")                   # [] when every recorded figure follows from L0.rows.csv
>>> claims.show("L0", live=interval)      # the recorded result beside one measured here

A recipe offers `measure(rows, draws, seed) -> Interval` and, for exploratory figures,
`explore(rows, draws, seed) -> dict[str, Interval]`; both work from the rows file alone. That is what lets
`verify` recompute the figures, the interval, p and the verdict, and lets an edited file be caught.
"""

import html
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd
import yaml

from medimgen import markup
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.metrics import Interval
from medimgen.paths import ROOT
from medimgen.report import RESULTS, Record, combined_sha256, file_sha256

ROWS_LIMIT = 200_000
DIGITS = 6


def load(path: Path = ROOT / "claims.yml") -> dict[str, dict]:
    """All claims by id, as plain dicts that follow schema `claims`. Raises CourseError for a bad file."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    validate(document, "claims", where=path.name)
    claims = {claim["id"]: claim for claim in document["claims"]}
    if len(claims) < len(document["claims"]):
        raise CourseError(f"{path.name}: an id occurs twice", next="give every claim its own id")
    return claims


def get(id: str) -> dict:
    """One claim of `claims.yml`; CourseError lists the known ids."""
    claims = load()
    if id not in claims:
        raise CourseError(f"no claim is called {id!r}", next=f"use one of {', '.join(claims)}")
    return claims[id]


def result(id: str, folder: Path = RESULTS) -> dict:
    """The recorded result of a claim, following schema `result`."""
    path = folder / f"{id}.json"
    if not path.exists():
        raise CourseError(f"claim {id} has no recorded result", next=f"run `python {get(id)['recipe']}`")
    document = json.loads(path.read_text(encoding="utf-8"))
    validate(document, "result", where=path.name)
    return document


def recorded(id: str, name: str = "estimate") -> float:
    """One recorded figure: "estimate", or the name of an exploratory one. Quizzes take answers from here."""
    document = result(id)
    if name == "estimate":
        return document["estimate"]
    if name not in document["exploratory"]:
        known = ", ".join(["estimate", *document["exploratory"]])
        raise CourseError(f"claim {id} records no {name!r}", next=f"use one of {known}")
    return document["exploratory"][name]["estimate"]


def verdict(estimate: float | None, ci95: tuple[float, float] | None, null: float, direction: str) -> str:
    """The verdict that follows from the interval, and from nothing else.

    holds: the 95 % interval lies wholly on the claimed side of the null value ("different": on either side).
    contradicts: it lies wholly on the other side. null: it includes the null value.
    not testable here: there is no estimate.
    """
    if direction not in ("greater", "less", "different"):
        raise CourseError(f"unknown direction {direction!r}", next="use greater, less or different")
    if estimate is None or ci95 is None:
        return "not testable here"
    low, high = ci95
    if not low <= high:
        raise CourseError(f"interval {low} to {high} is not an interval", next="give the lower bound first")
    if low <= null <= high:
        return "null"
    above = low > null
    return "holds" if direction == "different" or above == (direction == "greater") else "contradicts"


def record(
    id: str,
    interval: Interval | None,
    *,
    n: Mapping[str, int],
    run: Record,
    rows: pd.DataFrame | None = None,
    exploratory: Mapping[str, Interval] | None = None,
    reason: str | None = None,
    folder: Path = RESULTS,
) -> dict:
    """Write `<id>.json` and `<id>.rows.csv`; only a claim's recipe calls this. Returns the result.

    n names what was counted, e.g. {"films": 3530, "patients": 2129}. interval None, with a reason, means
    "not testable here". Statement, test, unit and seed come from `claims.yml`.
    """
    claim = get(id)
    if interval is None and not reason:
        raise CourseError(f"claim {id} has no estimate and no reason", next="say why it is not testable here")
    if exploratory is not None and set(exploratory) != set(claim["exploratory"]):
        raise CourseError(f"claim {id}: exploratory figures differ from claims.yml", next="name the same ones")
    document = {
        **_stated(claim),
        "n": dict(n),
        **_figures(claim, interval),
        "reason": reason,
        "exploratory": {name: _pair(value) for name, value in (exploratory or {}).items()},
        "tier": run.tier,
        "data_sha256": combined_sha256(run.inputs),
        "code_version": run.code_version,
        "minutes": round(run.seconds / 60, 3),
        "peak_mb": run.peak_mb,
        "run": run.id,
        "rows": _write_rows(rows, folder / f"{id}.rows.csv"),
    }
    validate(document, "result", where=f"{id}.json")
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / f"{id}.json").write_text(text, encoding="utf-8", newline="\n")
    return document


def read_rows(id: str, folder: Path = RESULTS) -> pd.DataFrame:
    """The per-case rows a result was computed from."""
    return pd.read_csv(folder / f"{id}.rows.csv", keep_default_na=False, na_values=[""])


def verify(id: str, folder: Path = RESULTS) -> list[str]:
    """Recompute a recorded result from its rows; one sentence for each figure that does not follow."""
    claim, document = get(id), result(id, folder)
    wrong = [f"{k} differs from claims.yml" for k, v in _stated(claim).items() if document[k] != v]
    if document["rows"] is None:
        return wrong + ([] if document["estimate"] is None else ["an estimate without rows"])
    if file_sha256(folder / document["rows"]["file"]) != document["rows"]["sha256"]:
        wrong.append(f"{document['rows']['file']} is not the file that was recorded")
    recipe, rows = load_recipe(claim["recipe"]), read_rows(id, folder)
    draws, seed = claim["primary"]["draws"], claim["primary"]["seed"]
    again = _figures(claim, recipe.measure(rows, draws, seed))
    wrong += [f"{k}: recorded {document[k]}, recomputed {v}" for k, v in again.items() if not _same(document[k], v)]
    if len(rows) not in document["n"].values():
        wrong.append(f"n: recorded {document['n']}, but there are {len(rows)} rows")
    explore = getattr(recipe, "explore", None)
    explored = {k: _pair(v) for k, v in explore(rows, draws, seed).items()} if explore else {}
    if explored.keys() != document["exploratory"].keys():
        return [*wrong, "exploratory figures are missing or added"]
    for name, value in explored.items():
        kept = document["exploratory"][name]
        wrong += [f"{name}/{k}: recorded {kept[k]}, recomputed {v}" for k, v in value.items() if not _same(kept[k], v)]
    return wrong


def load_recipe(path: str) -> ModuleType:
    """A recipe of this checkout as a module (recipes are scripts, not part of the package)."""
    file = ROOT / path
    if not file.is_file():
        raise CourseError(f"there is no recipe {path}", next="correct `recipe` in claims.yml")
    if str(ROOT / "recipes") not in sys.path:  # as when the recipe is run as a script
        sys.path.append(str(ROOT / "recipes"))
    spec = importlib.util.spec_from_file_location(f"recipe_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Shown:
    """A recorded result beside a live one; Jupyter shows the table, a terminal the text."""

    id: str
    recorded: dict
    live: Interval | None
    live_n: str

    def lines(self) -> list[tuple[str, str, str, str]]:
        """(what, estimate, 95 % interval, cases) of each row of the table."""
        kept = self.recorded
        cases = ", ".join(f"{v:,} {k}" for k, v in kept["n"].items())
        interval = (kept["estimate"], *kept["ci95"]) if kept["ci95"] else None
        table = [("recorded", *_format(interval), cases)]
        if self.live is not None:
            table.append(("measured here", *_format(tuple(self.live)), self.live_n))
        return table

    def __repr__(self) -> str:
        head = f"Claim {self.id}: {self.recorded['claim']}\nVerdict: {self.recorded['verdict']}"
        return "\n".join([head, *(f"{what}: {e} ({ci}); {n}" for what, e, ci, n in self.lines())])

    def _repr_html_(self) -> str:
        id, claim, primary = (html.escape(text) for text in (self.id, self.recorded["claim"], self.recorded["primary"]))
        said = f"Claim {id}: {claim}<br>{primary}. Verdict: <strong>{self.recorded['verdict']}</strong>"
        return markup.table(markup.Html(said), ("Run", "Estimate", "95 % interval", "Cases"), self.lines(), named=True)


def show(id: str, live: Interval | None = None, n: str = "", folder: Path = RESULTS) -> Shown:
    """The recorded result of a claim, beside `live` (an Interval measured here on `n`, in words)."""
    return Shown(id, result(id, folder), live, n)


def _stated(claim: dict) -> dict:
    primary = claim["primary"]
    return {
        "id": claim["id"],
        "claim": claim["claim"],
        "primary": f"{primary['metric']}; {primary['contrast']}",
        **{key: primary[key] for key in ("direction", "test", "unit", "seed")},
    }


def _figures(claim: dict, interval: Interval | None) -> dict:
    null, primary = claim["null_value"], claim["primary"]
    if interval is None:
        empty = dict.fromkeys(("estimate", "ci95", "p", "p_adjusted"))
        return {"draws": 0, **empty, "verdict": verdict(None, None, null, primary["direction"])}
    pair, p = _pair(interval), interval.p
    return {
        "draws": interval.draws,
        **pair,
        "p": None if p is None else round(p, DIGITS),
        "p_adjusted": None if p is None else round(min(1.0, p * primary["family"]), DIGITS),
        "verdict": verdict(pair["estimate"], pair["ci95"], null, primary["direction"]),
    }


def _pair(interval: Interval) -> dict:
    estimate, low, high = (round(value, DIGITS) for value in interval)
    return {"estimate": estimate, "ci95": [low, high]}


def _same(kept: object, value: object) -> bool:
    if isinstance(kept, list) and isinstance(value, list):
        return len(kept) == len(value) and all(map(_same, kept, value))
    if isinstance(kept, int | float) and isinstance(value, int | float):
        return abs(kept - value) <= 2 * 10**-DIGITS
    return kept == value


def _format(interval: tuple[float, float, float] | None) -> tuple[str, str]:
    if interval is None:
        return "none", "none"
    return f"{interval[0]:.3f}", f"{interval[1]:.3f} to {interval[2]:.3f}"


def _write_rows(rows: pd.DataFrame | None, path: Path) -> dict | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows is None:
        return None
    data = rows.to_csv(index=False, lineterminator="\n").encode("utf-8")
    if len(data) > ROWS_LIMIT:
        raise CourseError(
            f"{path.name} would have {len(data):,} bytes; {ROWS_LIMIT:,} are allowed",
            next="keep fewer columns, or fewer digits",
        )
    path.write_bytes(data)
    return {"file": path.name, "sha256": file_sha256(path)}
