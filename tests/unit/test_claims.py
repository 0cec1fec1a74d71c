"""Claims: stated properly, recorded by the recipe, and every recorded figure follows from the rows."""

import copy
import json
import shutil

import pandas as pd
import pytest
import yaml

from medimgen import claims, report
from medimgen._schema import validate
from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.metrics import Interval, detectable_auc
from medimgen.paths import ROOT

RECORDED = sorted(id for id in claims.load() if (report.RESULTS / f"{id}.json").is_file())


@pytest.fixture(scope="module")
def recipe():
    return claims.load_recipe("recipes/confounder.py")


@pytest.fixture
def once(monkeypatch, recipe):
    """The recipe with its measurements made once: editing the JSON does not change what the rows say."""
    kept = claims.result("L0")
    interval = Interval(kept["estimate"], *kept["ci95"], kept["p"], kept["draws"])
    explored = {k: Interval(v["estimate"], *v["ci95"]) for k, v in kept["exploratory"].items()}
    monkeypatch.setattr(recipe, "measure", lambda *_: interval)
    monkeypatch.setattr(recipe, "explore", lambda *_: explored)
    monkeypatch.setattr(claims, "load_recipe", lambda _: recipe)


@pytest.fixture
def copied(tmp_path):
    for name in ("L0.json", "L0.rows.csv"):
        shutil.copy(report.RESULTS / name, tmp_path)
    return tmp_path


def edited(folder, **changes):
    path = folder / "L0.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return claims.verify("L0", folder)


def test_schema_good_and_bad():
    document = yaml.safe_load((ROOT / "claims.yml").read_text(encoding="utf-8"))
    validate(document, "claims", where="claims.yml")
    bad = copy.deepcopy(document)
    bad["claims"][0]["primary"]["direction"] = "bigger"
    with pytest.raises(CourseError, match=r"claims\.yml, claims/0/primary/direction"):
        validate(bad, "claims", where="claims.yml")


def test_result_schema_good_and_bad():
    document = claims.result("L0")
    with pytest.raises(CourseError, match=r"L0\.json, verdict"):
        validate({**document, "verdict": "proven"}, "result", where="L0.json")
    with pytest.raises(CourseError, match=r"L0\.json, ci95"):
        validate({**document, "ci95": [0.5, "high"]}, "result", where="L0.json")


def test_double_and_unknown_ids(tmp_path):
    document = yaml.safe_load((ROOT / "claims.yml").read_text(encoding="utf-8"))
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"claims": document["claims"] * 2}), encoding="utf-8")
    with pytest.raises(CourseError, match="twice"):
        claims.load(path)
    with pytest.raises(CourseError, match="use one of L0"):
        claims.get("L99")
    with pytest.raises(CourseError, match="confounder"):
        claims.result("L0", tmp_path)


@pytest.mark.parametrize(
    ("ci95", "direction", "says"),
    [
        ((0.6, 0.7), "greater", "holds"),
        ((0.6, 0.7), "less", "contradicts"),
        ((0.6, 0.7), "different", "holds"),
        ((0.3, 0.4), "greater", "contradicts"),
        ((0.3, 0.4), "less", "holds"),
        ((0.3, 0.4), "different", "holds"),
        ((0.4, 0.6), "greater", "null"),
        ((0.5, 0.6), "greater", "null"),
        ((0.4, 0.5), "less", "null"),
    ],
)
def test_verdict_follows_from_the_interval(ci95, direction, says):
    assert claims.verdict(sum(ci95) / 2, ci95, 0.5, direction) == says


def test_verdict_edges():
    assert claims.verdict(None, None, 0.5, "greater") == "not testable here"
    with pytest.raises(CourseError, match="not an interval"):
        claims.verdict(0.5, (0.7, 0.6), 0.5, "greater")
    with pytest.raises(CourseError, match="direction"):
        claims.verdict(0.5, (0.4, 0.6), 0.5, "up")


@pytest.mark.parametrize("id", RECORDED)
def test_recorded_results_follow_from_their_rows(id):
    assert claims.verify(id) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"estimate": 0.87},
        {"ci95": [0.85, 0.8707]},
        {"p": 0.04},
        {"p_adjusted": 0.04},
        {"verdict": "null"},
        {"draws": 1999},
        {"n": {"films": 3531, "patients": 2129}},
        {"claim": "Something easier."},
        {"direction": "different"},
        {"seed": 1},
        {"exploratory": {}},
        {"rows": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_result_is_caught(once, copied, changes):
    assert claims.verify("L0", copied) == []
    assert edited(copied, **changes)


def test_edited_exploratory_figure_and_rows_are_caught(once, copied):
    kept = claims.result("L0")["exploratory"]
    kept["aspect_viral"]["estimate"] += 0.01
    assert any("aspect_viral/estimate" in line for line in edited(copied, exploratory=kept))
    rows = copied / "L0.rows.csv"
    rows.write_bytes(rows.read_bytes().replace(b",viral,", b",bacterial,", 1))
    assert any("not the file" in line for line in claims.verify("L0", copied))


def test_rows_are_the_label_table_of_today(recipe):
    rows = recipe.make_rows()
    pd.testing.assert_frame_equal(rows, claims.read_rows("L0"), check_dtype=False)
    kept = claims.result("L0")
    assert kept["data_sha256"] == report.file_sha256(radiographs.LABELS)
    assert kept["n"] == {"films": len(rows), "patients": rows["number"].nunique()}


def test_stated_detectable_effect(recipe):
    rows = recipe.make_rows()
    normal = int((rows["subtype"] == "normal").sum())
    effect = detectable_auc(normal, len(rows) - normal, rows["number"].value_counts())
    assert claims.get("L0")["detectable"]["effect"] == pytest.approx(effect, abs=0.001)


def test_recipe_writes_result_rows_and_run(tmp_path, monkeypatch, recipe):
    plan = copy.deepcopy(claims.get("L0"))
    plan["primary"]["draws"] = 40
    monkeypatch.setattr(claims, "get", lambda _: plan)
    first = recipe.main(tmp_path)
    again = recipe.main(tmp_path)
    varies = {"minutes", "peak_mb", "run"}
    assert {k: v for k, v in first.items() if k not in varies} == {k: v for k, v in again.items() if k not in varies}
    assert claims.verify("L0", tmp_path) == []
    runs = report.read(tmp_path / "runs.jsonl")
    assert [run.id for run in runs] == [first["run"], again["run"]]
    assert runs[0].parameters == {"draws": 40}


def test_record_refuses_what_was_not_planned(tmp_path):
    run, interval = report.run_record("demo", tier="both", inputs={"a": "0" * 64}), Interval(0.6, 0.55, 0.65)
    with pytest.raises(CourseError, match="exploratory"):
        claims.record("L0", interval, n={"films": 3}, run=run, exploratory={"fished": interval}, folder=tmp_path)
    with pytest.raises(CourseError, match="no reason"):
        claims.record("L0", None, n={"films": 3}, run=run, folder=tmp_path)
    large = pd.DataFrame({"x": range(60_000)})
    with pytest.raises(CourseError, match="200,000"):
        claims.record("L0", interval, n={"films": 3}, run=run, rows=large, folder=tmp_path)


def test_not_testable_here(tmp_path):
    run = report.run_record("demo", tier="pocket", inputs={"a": "0" * 64})
    done = claims.record("L0", None, n={"films": 16}, run=run, reason="no viral film", folder=tmp_path)
    assert (done["verdict"], done["estimate"]) == ("not testable here", None)
    assert claims.verify("L0", tmp_path) == []
    assert "none" in repr(claims.show("L0", folder=tmp_path))


def test_show_sets_live_beside_recorded():
    shown = claims.show("L0", Interval(0.8, 0.7, 0.9), n="100 films")
    page = shown._repr_html_()
    assert "measured here" in page and "0.700 to 0.900" in page and "holds" in page and "<caption>" in page
    assert "100 films" in repr(shown)
    assert "measured here" not in repr(claims.show("L0"))


def test_recorded_figures_by_name():
    assert claims.recorded("L0") == claims.result("L0")["estimate"]
    assert 0.5 < claims.recorded("L0", "pixels_normal") < 1
    with pytest.raises(CourseError, match="pixels_normal"):
        claims.recorded("L0", "fished")


def test_run_claims_hands_recipes_their_own_arguments_only(monkeypatch):
    """A recipe that parses a command line must not find the claim's name in it, and the caller's comes back."""
    import sys

    import run_claims

    seen, before = [], sys.argv[:]
    monkeypatch.setattr(run_claims.runpy, "run_path", lambda path, run_name: seen.append(sys.argv[:]))
    run_claims.main(["L1g", "L1d"])
    run_claims.main(["L2a", "--draw", "3"])
    assert seen == [["recipes/shape.py"], ["recipes/quality.py"], ["recipes/rebalance.py", "--draw", "3"]]
    assert sys.argv == before
    with pytest.raises(SystemExit):
        run_claims.main(["--draw", "3"])
    with pytest.raises(SystemExit):
        run_claims.main(["L0", "--draw", "3"])
    assert len(seen) == 3
