"""Run records: complete, safe from two processes, readable after a crash, and the same hash on Windows."""

import dataclasses
import json
import subprocess
import sys

import pytest

from medimgen import report
from medimgen._schema import validate
from medimgen.errors import CourseError
from medimgen.paths import ROOT


def test_context_manager_records_time_inputs_and_facts(tmp_path):
    data = tmp_path / "a.bin"
    data.write_bytes(b"abc")
    with report.run("demo", seed=3, inputs={"a": data}, parameters={"k": 1}, tier="pocket", note="x") as run:
        assert run.record is None
        run.facts["rows"] = 7
    record = run.record
    assert record.inputs == {"a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert (record.seed, record.outcome, record.facts) == (3, "ok", {"note": "x", "rows": 7})
    assert record.peak_mb > 5 and 0 <= record.seconds < 5
    assert dataclasses.is_dataclass(record)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.what = "other"


def test_failure_is_recorded_and_passed_on():
    with pytest.raises(ZeroDivisionError), report.run("demo") as run:
        1 / 0  # noqa: B018
    assert run.record.outcome.startswith("failed: ZeroDivisionError")


def test_versions_name_loaded_packages_only():
    code = "from medimgen import report; import json; print(json.dumps(report.run_record('x').versions))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "torch" not in json.loads(done.stdout)


def test_schema_names_the_place_of_an_error():
    good = dataclasses.asdict(report.run_record("demo"))
    validate(good, "run", where="runs.jsonl")
    with pytest.raises(CourseError, match=r"runs\.jsonl, seconds"):
        validate({**good, "seconds": -1}, "run", where="runs.jsonl")
    with pytest.raises(CourseError, match="inputs/a"):
        report.run_record("demo", inputs={"a": "no hash"})


def test_append_and_read_round_trip_and_torn_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert report.read(path) == []
    first, second = report.run_record("één"), report.run_record("two", seed=1)
    report.append(first, path)
    with path.open("ab") as file:
        file.write(b'{"id": "2026')  # a process that died while writing
    with pytest.warns(UserWarning, match=r"runs\.jsonl, line 2"):
        assert report.read(path) == [first]
    report.append(second, path)
    with pytest.warns(UserWarning, match="line 2"):
        assert report.read(path) == [first, second]
    assert b"\r" not in path.read_bytes()


def test_a_wrong_record_in_the_file_is_an_error(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"id": "x"}\n', encoding="utf-8")
    with pytest.raises(CourseError, match="line 1"):
        report.read(path)


def test_two_processes_append_without_loss(tmp_path):
    path = tmp_path / "runs.jsonl"
    code = (
        "import sys, pathlib; from medimgen import report\n"
        "r = report.run_record(sys.argv[2], pad='x' * 20000)\n"
        "[report.append(r, pathlib.Path(sys.argv[1])) for _ in range(40)]"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b")]
    assert [job.wait(timeout=60) for job in jobs] == [0, 0]
    what = [record.what for record in report.read(path)]
    assert what.count("a") == what.count("b") == 40


def test_ledger_says_who_what_why(tmp_path):
    path = tmp_path / "ledger.jsonl"
    report.log_test_use("recipes/demo.py", "AUC of the classifier", "claim L9", path=path)
    (record,) = report.read(path)
    assert (record.what, record.facts) == ("AUC of the classifier", {"who": "recipes/demo.py", "why": "claim L9"})
    with pytest.raises(CourseError, match="who, what and why"):
        report.log_test_use("", "x", "y", path=path)


def test_text_hash_ignores_line_endings_and_binary_does_not(tmp_path):
    for name, same in (("a.tsv", True), ("a.bin", False)):
        path = tmp_path / name
        path.write_bytes(b"a\nb\n")
        unix = report.file_sha256(path)
        path.write_bytes(b"a\r\nb\r\n")
        assert (report.file_sha256(path) == unix) is same


def test_combined_hash():
    assert report.combined_sha256({"a": "1"}) == "1"
    both = report.combined_sha256({"a": "1", "b": "2"})
    assert both == report.combined_sha256({"b": "2", "a": "1"}) != report.combined_sha256({"a": "2", "b": "1"})


def test_code_version_without_git(tmp_path, monkeypatch):
    plain = report.code_version(tmp_path)
    assert "+" not in plain
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert report.code_version(tmp_path) == plain


def test_recorded_runs_of_the_project_are_readable():
    runs = report.read(report.RUNS)
    assert any(run.what == "confounder" and run.outcome == "ok" for run in runs)
    report.read(report.LEDGER)
