"""Preflight: true on this machine, quick and light, and NOT READY with the right advice when something lacks."""

import json
import subprocess
import sys
import time

import pytest

from medimgen import preflight, requirements
from medimgen.errors import CourseError
from medimgen.paths import ROOT

FINE = {
    "python": "3.12.1",
    "packages_missing": "none",
    "versions_differing": "none",
    "memory_total_gb": 8.0,
    "memory_free_gb": 4.0,
    "disk_free_gb": 20.0,
    "data_tier": "full",
    "jupyterlab": True,
    "jupyterlab_quiet": True,
}


def judged(**changes):
    verdicts = requirements.evaluate(requirements.load(preflight.REQUIREMENTS), FINE | changes)
    return requirements.passed(verdicts), preflight.report(verdicts)


def test_every_asked_metric_is_measured():
    asked = {item.metric for item in requirements.load(preflight.REQUIREMENTS).items}
    assert asked == set(FINE) == set(preflight.measure())


def test_a_good_machine_is_ready():
    ok, text = judged()
    assert ok and text.endswith("READY") and "FAIL" not in text and "NOTE" not in text


@pytest.mark.parametrize(
    ("changes", "todo"),
    [
        ({"python": "3.9.18"}, "install Python 3.11"),
        ({"packages_missing": "torch"}, "make lab"),
        ({"memory_total_gb": 1.0}, "another machine"),
        ({"disk_free_gb": 0.2}, "MEDIMGEN_CACHE"),
        ({"data_tier": "none"}, "medimgen fetch"),
        ({"data_tier": None}, "medimgen fetch"),
        ({"jupyterlab": False}, "make lab"),
    ],
)
def test_each_critical_lack_says_what_to_do(changes, todo):
    ok, text = judged(**changes)
    last = text.splitlines()[-1]
    assert not ok and last.startswith("NOT READY: ") and todo in last and text.count("FAIL") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"versions_differing": "numpy 2.5.0 (tested: 2.4.6)"},
        {"versions_differing": None},
        {"memory_free_gb": 0.5},
        {"data_tier": "pocket"},
        {"jupyterlab_quiet": False},
    ],
)
def test_a_note_does_not_stop_anyone(changes):
    ok, text = judged(**changes)
    assert ok and text.endswith("READY") and text.count("NOTE") == 1 and "Next:" in text


def test_this_machine_fast_and_without_torch():
    code = "import sys; from medimgen import preflight; ok, text = preflight.run(); print(text)\n"
    code += "assert not {'torch', 'diffusers'} & set(sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert time.perf_counter() - start < 3 * 1.5  # 3 s is the budget; a busy machine may take half as much again
    assert "PASS  Python is 3.11 or newer" in done.stdout and "READY" in done.stdout.splitlines()[-1]


def test_versions_against_constraints(tmp_path):
    path = tmp_path / "constraints.txt"
    assert preflight.differing(path) is None
    versions = {name: preflight._version(name) for name in preflight.PACKAGES}
    pins = {name: version.split("+")[0] for name, version in versions.items()}
    path.write_text("# pins\n" + "".join(f"{n}=={v}\n" for n, v in pins.items()), encoding="utf-8")
    assert preflight.differing(path) == "none"
    path.write_text("numpy==1.0\nother==3\n", encoding="utf-8")
    assert preflight.differing(path) == f"numpy {pins['numpy']} (tested: 1.0)"


def test_missing_package(monkeypatch):
    monkeypatch.setattr(preflight, "PACKAGES", ("numpy", "no-such-package"))
    assert preflight.missing() == ["no-such-package"]


def test_memory_limit_of_a_container_counts(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("2147483648\n", encoding="utf-8")
    total, free = preflight.memory_gb((str(limit),))
    assert total == pytest.approx(2.147, abs=0.001) and free <= total
    limit.write_text("max\n", encoding="utf-8")
    assert preflight.memory_gb((str(limit),))[0] == preflight.memory_gb(())[0]


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert preflight.disk_free_gb(tmp_path / "a" / "b") == pytest.approx(preflight.disk_free_gb(tmp_path), rel=0.1)


def test_a_broken_manifest_does_not_crash_the_preflight(monkeypatch):
    from medimgen.data import radiographs

    def broken():
        raise CourseError("data_manifest.yml is torn", next="restore it")

    monkeypatch.setattr(radiographs, "available_tier", broken)
    assert preflight.data_tier() is None
    monkeypatch.setattr(radiographs, "available_tier", lambda: None)
    assert preflight.data_tier() == "none"


def test_announcements_switched_off_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("jupyter_core.paths.jupyter_config_path", lambda: [str(tmp_path)])
    assert preflight.jupyterlab_quiet() is False
    page = tmp_path / "labconfig" / "page_config.json"
    page.parent.mkdir()
    page.write_text(json.dumps({"disabledExtensions": {preflight.ANNOUNCEMENTS: False}}), encoding="utf-8")
    assert preflight.jupyterlab_quiet() is False
    page.write_text(json.dumps({"disabledExtensions": {preflight.ANNOUNCEMENTS: True}}), encoding="utf-8")
    assert preflight.jupyterlab_quiet() is True
