"""`medimgen safety check`: each rule has something that breaks it and something that does not; the exit code tells."""

import json
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from medimgen import cli, dicom
from medimgen.errors import CourseError
from medimgen.generate import save_png
from medimgen.safety import checking, rules, weights
from medimgen.safety.rules import Finding

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
HOME = "/ho" + "me/jdoe/films"


def notebook(source="1", *outputs, kind="code"):
    cell = {"cell_type": kind, "source": source, "metadata": {}} | (
        {"outputs": list(outputs)} if kind == "code" else {}
    )
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def shown(**data):
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {key.replace("_", "/"): v for key, v in data.items()},
    }


def crash(text):
    return {"output_type": "error", "ename": "E", "evalue": "", "traceback": [text]}


BROKEN = {  # name: (file, content, rule, severity, words of the finding)
    "prompt with a name": ("prompts.txt", "chest x-ray of Mrs Jane Doe", "no-identified-data", "stop", "a name"),
    "prompt with a date": ("plan.yml", "items:\n  - prompt: film of 12/03/1961\n", "no-identified-data", "stop",
                           "a date"),
    "name in a text": ("notes.md", "Seen: DOE^JANE, pneumonia.", "no-identified-data", "look", "a name"),
    "record number in a script": ("a.py", "WHO = 'MRN 4711'\n", "no-identified-data", "look", "record"),
    "folder in a script": ("a.py", f"PATH = '{HOME}'\n", "no-identified-data", "look", "somebody's folder"),
    "date in an output": ("a.ipynb", notebook("x", printed("born 12/03/1961\n")), "no-identified-data", "look",
                          "a date"),
    "folder in a traceback": ("a.ipynb", notebook("x", crash(f"File {HOME}")), "no-identified-data", "look", "folder"),
    "picture in an output": ("a.ipynb", notebook("x", shown(image_png="iVBOR")), "no-identified-data", "look",
                             "1 pictures"),
    "name in a text cell": ("a.ipynb", notebook("Mr Smith", kind="markdown"), "no-identified-data", "look", "a name"),
    "table of names": ("a.csv", "patient_name,finding\nJ,1\n", "no-identified-data", "stop", "patient_name"),
    "broken notebook": ("a.ipynb", "{", "no-identified-data", "look", "cannot be read"),
    "broken DICOM": ("a.dcm", "hello", "no-identified-data", "look", "cannot be read"),
    "service in a script": ("a.py", "import openai\nopenai.x()\n", "no-online-tools", "stop", "import openai"),
    "service in a cell": ("a.ipynb", notebook("from anthropic import A\nA()"), "no-online-tools", "stop", "anthropic"),
    "network in a script": ("a.py", "import requests\nrequests.x()\n", "local-first", "look", "import requests"),
    "curl in a cell": ("a.ipynb", notebook("!curl -T film.png x"), "local-first", "look", "!curl"),
    "picture from the web": ("a.ipynb", notebook("x", shown(text_html="<img src='https://a.b/c'>")),
                             "tools-connectivity", "look", "from the web"),
    "script in a page": ("a.html", "<script>fetch('x')</script>", "tools-connectivity", "look", "request by script"),
    "unknown reference": ("a.md", "See doi 10.9999/no.such.paper.", "outputs-wrong", "look", "10.9999/no.such.paper"),
    "shell in a script": ("a.py", "import os\nos.system('x')\n", "generated-code", "look", "S605"),
    "pickle in a cell": ("a.ipynb", notebook("import pickle\npickle.load(open('a', 'rb'))"), "generated-code", "look",
                         "S301"),
    "no Python": ("a.py", "def (\n", "generated-code", "look", "not valid Python"),
    "labels without people": ("a.tsv", "file\tlabel\n1\tx\n", "bias", "look", "not sex, age, view"),
    "hardly any women": ("a.csv", "label,sex,age,view\n" + "x,M,1,PA\n" * 19 + "x,F,1,PA\n", "bias", "look",
                         "sex: F 5%"),
}  # fmt: skip
FINE = {
    "prompt": ("prompts.txt", "chest x-ray, viral pneumonia, 8 years old\nnormal chest x-ray"),
    "plan with seeds": ("plan.yml", "seed: 4123456789\nitems:\n  - prompt: viral pneumonia\n    number: 100000\n"),
    "code that looks like a name": ("a.py", "def f(name: Exception):\n    '''2.1.0 of 20260311'''\n    return name\n"),
    "relative path": ("a.py", "PATH = 'films/a.png'\n"),
    "word in a string": ("a.py", "TOLD = 'import openai'\n"),
    "notebook": ("a.ipynb", notebook("print(1)", printed("1\n"))),
    "known reference": ("a.md", "doi 10.1038/s41591-021-01595-0"),
    "even table": ("a.csv", "label,sex,age,view\n" + "x,M,1,PA\nx,F,2,AP\n" * 5),
    "other table": ("a.csv", "step,loss\n1,2\n"),
}


def look(folder, **options):
    return checking.check(folder, **{"pixels": False} | options)


def write(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8", newline="\n")


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_a_rule_is_found(case, tmp_path):
    name, content, rule, severity, words = BROKEN[case]
    write(tmp_path, name, content)
    report = look(tmp_path)
    found = [f for f in report.findings if f.rule == rule and f.severity == severity and words in f.what]
    assert found and all(f.where.startswith(name) and f.next for f in found), report
    assert report.code >= {"look": 1, "stop": 2}[severity] and report.ok == (report.code < 2)


@pytest.mark.parametrize("case", FINE)
def test_what_breaks_no_rule_is_not(case, tmp_path):
    write(tmp_path, *FINE[case])
    report = look(tmp_path)
    assert report.findings == () and (report.code, report.ok) == (0, True)


def test_no_finding_repeats_the_identifier(tmp_path):
    for number, (name, content, *_) in enumerate(BROKEN.values()):
        write(tmp_path, f"{number}{name}", content)
    report = look(tmp_path)
    assert report.files == len(BROKEN) <= len({f.where.partition(",")[0] for f in report.findings})
    told = repr(report) + report.html()
    assert not any(word in told for word in ("Jane", "Doe", "JANE", "4711", "1961", "jdoe", "Smith")), told


def sample(path, nested=False, **values):
    """A DICOM file with some attributes set."""
    ds = pydicom.dcmread(dicom.write(path, PIXELS, synthetic=False, description="made for a test", overwrite=True))
    for name, value in values.items():
        setattr(ds, name, value)
    if nested:
        ds.RequestAttributesSequence = [pydicom.Dataset()]
        ds.RequestAttributesSequence[0].RequestingPhysician = "Roe^Richard"
    ds.save_as(path)
    return path


def test_dicom_is_judged_by_what_it_says_of_a_person(tmp_path):
    def found(**values):
        report = look(sample(tmp_path / "a.dcm", **values))
        assert "Jane" not in repr(report) and "Roe" not in repr(report)
        return [(f.severity, f.what) for f in report.findings]

    assert [s for s, _ in found(PatientName="Doe^Jane")] == ["stop"]
    assert "(nested)" in found(nested=True)[0][1]
    assert [s for s, _ in found(PatientIdentityRemoved="NO", PatientAge="034Y")] == ["look"]
    assert [s for s, _ in found(PatientName="P7", PatientIdentityRemoved="YES")] == ["look"]
    assert found(PatientIdentityRemoved="YES") == []
    assert [s for s, _ in found(SyntheticData="YES", PatientName="Doe^Jane")] == ["stop"]


def test_what_the_generator_writes_passes(tmp_path):
    save_png(tmp_path / "a.png", PIXELS, {"prompt": "normal", "seed": 1, "weights_sha256": "a" * 64})
    dicom.write(tmp_path / "a.dcm", PIXELS, synthetic=True, description="drawn for a test")
    assert look(tmp_path).findings == ()


def test_an_unmarked_picture_beside_a_synthetic_one(tmp_path):
    save_png(tmp_path / "a.png", PIXELS, {"prompt": "normal"})
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    (found,) = look(tmp_path).findings
    assert (found.rule, found.severity) == ("outputs-wrong", "look") and "1 of 2" in found.what


def test_a_pickle_stops_and_does_not_run_whatever_it_is_called(tmp_path):
    (tmp_path / "README.md").write_text("A card.", encoding="utf-8")
    weights.make_harmless_payload(tmp_path / "innocent.dat")
    before = sorted(p.name for p in tmp_path.iterdir())
    found = look(tmp_path).findings
    assert {(f.rule, f.severity, f.where) for f in found} == {("generated-code", "stop", "innocent.dat")}
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_weights_want_a_card(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "unet").mkdir()
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "unet" / "a.safetensors")
    assert [(f.rule, f.where) for f in look(tmp_path).findings] == [("document", "unet")]
    write(tmp_path, "README.md", "What it learnt from.")
    assert look(tmp_path).findings == ()


def test_a_film_of_the_course_is_a_matter_of_rights():
    from medimgen.data.fetch import fetch

    (found,) = look(min(fetch("kermany-pocket").glob("*.jpeg"))).findings
    assert (found.rule, found.severity) == ("rights", "look") and "kermany" in found.next


def test_text_in_the_pixels_is_read_where_the_networks_are(tmp_path):
    from medimgen.data.fetch import fetch

    fetch("rapidocr-models")
    picture = Image.new("L", (400, 300), 40)
    ImageDraw.Draw(picture).text((30, 40), "DOE JANE 4711", fill=230, font_size=32)
    picture.save(tmp_path / "a.png")
    found = look(tmp_path, pixels=True).findings
    assert ("no-identified-data", "stop") in {(f.rule, f.severity) for f in found}
    assert {f.where for f in found} == {"a.png"} and "JANE" not in repr(found)
    assert look(tmp_path).findings == ()


def test_missing_networks_are_admitted(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_pixels", lambda: None)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    report = look(tmp_path, pixels=True)
    assert report.findings == () and "Not looked into: text in pixels" in repr(report)


def test_what_no_check_reads_is_counted_and_tool_folders_are_left_out(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"\0\1\2")
    (tmp_path / ".venv").mkdir()
    write(tmp_path / ".venv", "prompts.txt", "Mrs Jane Doe")
    report = look(tmp_path)
    assert report.files == 1 and report.unread == {".xyz": 1} and "may still be there" in repr(report)


def test_code_is_never_run(tmp_path):
    write(tmp_path, "a.py", f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    look(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_machine_is_asked_on_request(tmp_path, monkeypatch):
    from medimgen.safety import tools

    monkeypatch.setattr(tools, "check", lambda: iter([Finding("tools-connectivity", "editor", "x", "y", "look")]))
    assert look(tmp_path).code == 0 and look(tmp_path, machine=True).code == 1


def test_the_report_names_rule_meaning_and_next_and_escapes(tmp_path):
    write(tmp_path, "a<b.py", "import openai\nopenai.x()\n")
    report, rule = look(tmp_path), rules.load()["no-online-tools"]
    for text in (repr(report), report.html()):
        assert rule.sentence in text and rule.failure in text and rule.next in text
    assert "a<b.py" in repr(report) and "a<b" not in report.html() and report.html().startswith("<!doctype html>")
    assert report.findings[0].severity == "stop" and 'scope="col"' in report._repr_html_()


@pytest.mark.parametrize(
    ("content", "code"),
    [("normal chest x-ray", 0), ("cites 10.9999/no.such.paper", 1), ("chest film of Mrs Jane Doe", 2)],
)
def test_exit_codes(content, code, tmp_path, capsys):
    write(tmp_path, "prompts.txt", content)
    page = tmp_path.parent / f"{tmp_path.name}.html"
    assert cli.main(["safety", "check", str(tmp_path), "--no-pixels", "--html", str(page)]) == code
    assert "files" in capsys.readouterr().out and page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_missing_path_is_an_error_not_a_pass(tmp_path, capsys):
    assert cli.main(["safety", "check", str(tmp_path / "nowhere")]) == 2
    assert "nothing at" in capsys.readouterr().err
    with pytest.raises(CourseError):
        look(tmp_path / "nowhere")


def test_asking_for_help_loads_nothing_heavy():
    code = "import sys; from medimgen import cli; cli.parser(); sys.exit(bool({'pandas', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("fourth", [0xDB, 0xE0, 0xE1, 0xE2, 0xEE])
def test_a_jpeg_is_a_picture_whatever_its_first_segment(tmp_path, fourth):
    file = tmp_path / "film.jpg"
    file.write_bytes(bytes([0xFF, 0xD8, 0xFF, fourth]) + bytes(200))
    assert checking._kind(file) == "picture"
