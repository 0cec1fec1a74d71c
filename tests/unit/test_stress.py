"""`medimgen stress`: requirements decide the exit code, the report stands alone, a stop loses nothing."""

import json
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_robustness import dimmed, grainy, kind

from medimgen import passport, perturb, requirements
from medimgen._schema import validate
from medimgen.cli import main
from medimgen.errors import CourseError

MODEL = """
import os
import numpy as np
def model(x):
    return x.reshape(len(x), -1).mean(1).astype(float)
def stops(x):
    if os.path.exists("stop") and len(list(os.scandir("out/resume") if os.path.exists("out/resume") else [])):
        raise KeyboardInterrupt
    return model(x)
stops.sha256 = "1" * 64
def broken(x):
    raise ValueError("no weights <here>")
"""


def line(id, metric, op, value, critical=False):
    threshold = {"op": op, "value": value, "unit": None}
    return {"id": id, "statement": f"The {id} holds.", "metric": metric, "threshold": threshold, "critical": critical,
            "why": "w"}  # fmt: skip


TRIAGE = [
    line("sensitivity", "sensitivity_low95", ">=", 0.7, critical=True),
    line("ranking", "auc_low95", ">=", 0.95),
    line("site-b", "sensitivity[site=B]_low95", ">=", 0.3, critical=True),
    line("robustness", "flips[dim]_high95", "<=", 0.2),
    line("latency", "latency_ms", "<=", 5000),
]


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder with a model, 80 films, what is known of them, two perturbations. At site B all ill films score 0.45:
    above every healthy film, so that AUC is 1, and below the threshold, so that all are missed.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(passport, "write", partial(passport.write, draws=300))
    monkeypatch.setattr(
        perturb, "PERTURBATIONS", {k.name: k for k in (kind(plausible=0.05), kind(grainy, "grain", 0.04))}
    )
    (tmp_path / "own_model.py").write_text(MODEL, encoding="utf-8")
    ill, site = np.arange(80) % 2 == 1, np.where(np.arange(80) % 20 < 2, "B", "A")
    grey = np.where(~ill, 0.1, np.where(site == "B", 0.45, 0.95)) * 255
    (tmp_path / "films").mkdir()
    for k, value in enumerate(grey):
        Image.fromarray(np.full((16, 16), round(value), np.uint8)).save(tmp_path / "films" / f"{k:02d}.png")
    names = [f"{k:02d}.png" for k in range(80)]
    known = pd.DataFrame({"film": names, "label": ill.astype(int), "patient": np.arange(80) // 2, "site": site})
    known.to_csv(tmp_path / "known.csv", index=False)
    yield tmp_path
    import sys

    sys.modules.pop("own_model", None)


def stress(room, asked=None, model="own_model:model", *more):
    arguments = ["stress", model, "films", "--size", "16", "--table", "known.csv", "--out", "out", *more]
    if asked is not None:
        text = yaml.safe_dump({"title": "Asked", "requirements": asked})
        (room / "asked.yml").write_text(text, encoding="utf-8")
        arguments += ["--requirements", "asked.yml"]
    code = main(arguments)
    passport = room / "out" / "passport.json"
    return code, json.loads(passport.read_text(encoding="utf-8")) if passport.exists() else None


def statuses(document):
    return {v["id"]: v["status"] for v in document["requirements"]["verdicts"]}


def test_a_failure_that_auc_hides_fails_exactly_its_requirement(room, capsys):
    code, document = stress(room, TRIAGE)
    assert code == 1
    assert statuses(document) == {x["id"]: "fail" if x["id"] == "site-b" else "pass" for x in TRIAGE}
    assert document["measured"]["auc"] == 1 and document["measured"]["sensitivity[site=B]"] == 0
    assert document["measured"]["worst_slice_sensitivity"] == 0
    assert document["requirements"]["sha256"] == requirements.load(room / "asked.yml").file_hash
    verdict = document["requirements"]["verdicts"][2]
    assert verdict["critical"] and verdict["evidence"].startswith("0, 95 % interval 0 to ")
    said = capsys.readouterr().out
    assert "FAIL         The site-b holds." in said and "report.html" in said


def test_what_is_asked_depends_on_the_use(room):
    """The same model: good enough to put likely pneumonias first, not to send the others home."""
    sorting = [x for x in TRIAGE if x["id"] != "site-b"]
    assert stress(room, sorting)[0] == 0
    code, document = stress(room, [*sorting, line("alone", "sensitivity_low95", ">=", 0.95, critical=True)])
    assert code == 1 and [k for k, v in statuses(document).items() if v != "pass"] == ["alone"]
    assert stress(room)[0] == 0  # nothing asked


def test_an_unmeasured_requirement_is_not_met(room):
    code, document = stress(room, [line("elsewhere", "sensitivity[site=C]_low95", ">=", 0)])
    assert code == 1 and statuses(document) == {"elsewhere": "not measured"}


def test_the_report_stands_alone_and_can_be_read_aloud(room):
    stress(room, TRIAGE)
    page = (room / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:)|https?://|@import|<script|<link|url\(", page)
    assert page.count("<img ") == len(re.findall(r"<img [^>]*alt=\"[^\"]+\"", page))
    assert page.count("<svg") == len(re.findall(r'<svg role="img" aria-label="[^"]+"', page)) == 2
    assert page.startswith('<!doctype html><html lang="en">') and "not a medical device" in page
    assert "1 of 5 requirements are not met, 1 of them safety-critical" in page
    assert re.search(r"surely and\s+rightly,\s+0.0% \(0.0% to \d+.\d%\) get the other", page) and "$" not in page
    for name in ("How model was tested", "80 films of 40 patients", "site=B", "How to repeat it"):
        assert name in page


def test_flips_are_shown_with_their_pictures(room):
    grey = {"05.png": 0.52}  # sure enough to be positive, not sure enough to stay so
    for name, value in grey.items():
        Image.fromarray(np.full((16, 16), round(255 * value), np.uint8)).save(room / "films" / name)
    _, document = stress(room, TRIAGE)
    film = next(f for f in document["films"] if f["film"].endswith("05.png"))
    assert film["flips"][0]["plausible"] and len(film["sha256"]) == 64 and film["patient"] == 2
    page = (room / "out" / "report.html").read_text(encoding="utf-8")
    assert "05.png" in page and "Other answer: dim, 0.0" in page and page.count("<img ") >= 3
    assert len(document["curves"]) == 2 * 21
    assert {s["slice"] for s in document["slices"]} >= {"site=A", "site=B", "exposure=dark", "exposure=light"}


def test_what_to_collect_is_listed_for_lesson_2(room):
    for k in range(1, 40, 2):
        Image.fromarray(np.full((16, 16), 230, np.uint8)).save(room / "films" / f"{k:02d}.png")
    perturb.PERTURBATIONS["dim"].plausible = 0.6
    code, document = stress(room)
    listed = yaml.safe_load((room / "out" / "collection.yml").read_text(encoding="utf-8"))
    validate(listed, "collection", where="collection.yml")
    assert code == 0 and listed["items"] == document["collection"] and listed["model"] == document["model"]
    item = listed["items"][0]
    assert (item["label"], item["perturbation"]) == ("positive", "dim") and 1 <= item["how_many"] <= 97
    assert "dim turns 100% of the surely read films" in item["why"]
    page = (room / "out" / "report.html").read_text(encoding="utf-8")
    assert "Films to collect next" in page and item["why"] in page
    listed["items"][0]["how_many"] = 0
    with pytest.raises(CourseError, match="items/0/how_many"):
        validate(listed, "collection", where="collection.yml")


def test_nothing_to_collect_is_an_empty_list(room):
    stress(room)
    assert yaml.safe_load((room / "out" / "collection.yml").read_text(encoding="utf-8"))["items"] == []


def test_aspect_comes_from_width_and_height(room):
    known = pd.read_csv(room / "known.csv").assign(width=np.arange(80) + 100, height=100)
    known.to_csv(room / "known.csv", index=False)
    _, document = stress(room)
    names = {s["slice"] for s in document["slices"]}
    assert {"aspect=tall", "aspect=middle", "aspect=wide"} <= names and not any("width" in name for name in names)
    assert document["films"][10]["aspect"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["own_model:none", "films"], "none"),
        (["no_such_module:model", "films"], "no_such_module"),
        (["missing.onnx", "films"], "missing.onnx is no ONNX file"),
        (["films", "films"], "holds no config.json"),
        (["own_model:model", "nowhere"], "holds no PNG"),
        (["own_model:model", "course:nosplit"], "no split is called"),
        (["own_model:model", "films", "--requirements", "none.yml"], "no requirements file"),
        (["own_model:broken", "films"], "no weights <here>"),
        (["own_model:model", "films", "--table", "half.csv"], "one row for each film"),
    ],
)
def test_errors_say_what_to_do_and_exit_with_2(room, capsys, arguments, said):
    (room / "half.csv").write_text("film,label\n00.png,1\n", encoding="utf-8")
    assert main(["stress", *arguments, "--size", "16", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Next: " in error
    assert not (room / "out" / "report.html").exists()


def test_usage_errors_exit_with_2_too(room):
    with pytest.raises(SystemExit, match="2"):
        main(["stress", "own_model:model"])


def test_ctrl_c_says_how_to_resume_and_the_next_run_does(room, capsys):
    (room / "stop").touch()
    code, _ = stress(room, TRIAGE, "own_model:stops")
    said = capsys.readouterr().err
    assert code == 130 and "1 tasks are kept in" in said and "the same command goes on" in said
    (room / "stop").unlink()
    assert stress(room, TRIAGE, "own_model:stops")[0] == 1


def test_faults_are_reported(room):
    (room / "films" / "07.png").write_bytes(b"no picture")
    code, document = stress(room, [line("whole", "faults", "==", 0)])
    assert code == 1 and document["measured"]["faults"] == 1 and document["measured"]["films"] == 79
    assert "What went wrong" in (room / "out" / "report.html").read_text(encoding="utf-8")


def test_hostile_names_are_escaped(room, monkeypatch):
    monkeypatch.setitem(perturb.PERTURBATIONS, "<b>dim</b>", kind(dimmed, "<b>dim</b>"))
    stress(room, TRIAGE)
    page = (room / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>dim" not in page and "&lt;b&gt;dim" in page


def test_the_courses_own_films(room, tier):
    assert main(["stress", "own_model:model", "course:pocket", "--size", "16", "--out", "out"]) == 0
    document = json.loads((room / "out" / "passport.json").read_text(encoding="utf-8"))
    assert document["measured"]["films"] == 16 and document["films"][0]["film"].endswith(".jpeg")
    names = {s["slice"] for s in document["slices"]}
    assert names >= {"subtype=bacterial", "subtype=normal", "exposure=dark", "exposure=light"}


def test_test_films_are_never_looked_at_unrecorded(room, monkeypatch):
    from medimgen import report
    from medimgen.data import radiographs

    lines, load = [], radiographs.load
    monkeypatch.setattr(radiographs, "load", lambda split, size: load("pocket", size, tier="pocket"))
    monkeypatch.setattr(report, "log_test_use", lambda *what: lines.append(what))
    assert main(["stress", "own_model:model", "course:test", "--size", "16", "--out", "out"]) == 0 and len(lines) == 1
