"""The three programs of lesson 4: each has the fault that is told, and the linters see what the table says they see."""

import io
import json
import logging
import runpy
import urllib.request

import lint_snippets
import numpy as np
import pydicom
import pytest

from medimgen import dicom

RECORDED = json.loads(lint_snippets.RESULT.read_text(encoding="utf-8"))["snippets"]


def program(name):
    return runpy.run_path(str(lint_snippets.FOLDER / name))


def test_first_writes_the_name_into_the_log(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    film = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = dicom.write(tmp_path / "in/a.dcm", film, synthetic=True, description="a ramp for a test")
    header = pydicom.dcmread(path)
    header.PatientName, header.StudyDate = "Okafor^Lena", "20260102"
    header.save_as(path)
    with caplog.at_level(logging.INFO, logger="conversion"):
        assert program("1.py")["convert"](tmp_path / "in", tmp_path / "out") == 1
    assert (tmp_path / "out/0001.png").is_file()
    assert "Okafor^Lena" in caplog.text and "20260102" in caplog.text


def test_second_leaves_out_the_last_slice():
    volume = program("2.py")["volume"]
    mask = np.zeros((5, 10, 10), bool)
    mask[:4, 2:7, 2:7] = True
    assert volume(mask, (10, 1, 1)) == pytest.approx(4 * 25 * 10 / 1000)
    mask[4] = mask[3]
    assert volume(mask, (10, 1, 1)) == pytest.approx(4 * 25 * 10 / 1000), "mended: then the lesson's sentence is wrong"


def test_third_sends_the_whole_film(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda r, **_: sent.append(r) or io.BytesIO(b'{"score": 0.9}'))
    (tmp_path / "film.png").write_bytes(b"every pixel")
    assert program("3.py")["is_sharp"](tmp_path / "film.png")
    assert sent[0].data == b"every pixel" and sent[0].host.endswith(".example")


@pytest.mark.parametrize("name", lint_snippets.FAULTS)
def test_linters_say_what_is_recorded(name):
    assert lint_snippets.look(lint_snippets.FOLDER / name) == RECORDED[name]


def test_one_fault_in_three_is_named_and_for_another_reason():
    named = {name: [row[linter]["named"] for linter in ("ruff", "bandit")] for name, row in RECORDED.items()}
    assert named == {"1.py": [False, False], "2.py": [False, False], "3.py": [True, True]}
    assert all("file:" in text for linter in ("ruff", "bandit") for text in RECORDED["3.py"][linter]["on_the_line"])
    assert RECORDED["2.py"]["ruff"]["on_the_line"] == []
    (style,) = RECORDED["1.py"]["ruff"]["on_the_line"]
    assert style.startswith("E501")


def test_a_linter_can_see_something(tmp_path):
    """The linters do run: a fault of the kind they know is named."""
    (tmp_path / "a.py").write_text("import subprocess\nsubprocess.run('ls ' + name, shell=True)\n", encoding="utf-8")
    assert {"S602", "F821"} <= {rule for _, rule, _ in lint_snippets.by_ruff(tmp_path / "a.py")}
    assert "B602" in {rule for _, rule, _ in lint_snippets.by_bandit(tmp_path / "a.py")}
