"""The run record: complete, redacted, local, cheap, and what is written out of it is true of it."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace as Some

import pytest

from medimgen import calls, finetune, report
from medimgen.errors import CourseError
from medimgen.generate import Generator
from medimgen.paths import ROOT
from medimgen.safety import record

SHA = "ab" * 32


class Tokenizer:
    unk_token_id = 0

    def __call__(self, word, add_special_tokens):
        return {"input_ids": [0 if word == "zebra" else 1]}


def generator(**stamp):
    return Generator(Some(tokenizer=Tokenizer(), scheduler=object()), {"steps": 4, "guidance": 1.0}, SHA, stamp)


def draw(made, prompt="chest x-ray, normal", n=1, seed=0, seconds=2.0, **more):
    """What a call of the generator records, without drawing."""
    return made._record(made.settings(prompt, n, seed, None, None, "") | more, seconds)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(calls.SWITCH, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_every_generation_leaves_a_line_in_the_working_folder(folder):
    draw(generator(), n=3, seed=5)
    draw(generator(), "chest x-ray, zebra")
    first, second = calls.calls()
    assert folder / "calls.jsonl" == calls.log_file().absolute()
    assert first.what == "generate" and first.inputs == {"weights": SHA} and first.seconds == 2.0
    assert first.parameters["seeds"] == [5, 6, 7] and first.parameters["steps"] == 4
    assert second.facts["unseen"] == ["zebra"]
    assert "+" in first.code_version and first.python.startswith("3.")


def test_git_ignores_the_log():
    done = subprocess.run(
        ["git", "check-ignore", "runs/calls.jsonl", "notebooks/runs/calls.jsonl"], cwd=ROOT, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("word", ["no", "off", "0", "False"])
def test_the_switch_turns_it_off(word, folder, monkeypatch):
    monkeypatch.setenv(calls.SWITCH, word)
    draw(generator())
    assert not folder.exists()
    with pytest.raises(CourseError, match="log is off"):
        record.methods()


def test_the_switch_moves_it(folder, monkeypatch, tmp_path):
    monkeypatch.setenv(calls.SWITCH, str(tmp_path / "elsewhere"))
    draw(generator())
    assert (tmp_path / "elsewhere" / "calls.jsonl").is_file() and not folder.exists()


def test_a_refused_prompt_is_not_recorded(folder):
    with pytest.raises(CourseError, match="no patient data"):
        generator()("chest x-ray of Mrs Jane Doe")
    assert not folder.exists()


def test_identifiers_are_blotted_out_of_what_other_models_are_asked(folder):
    with calls.call("a language model", SHA, "Report on Mrs Jane Doe, born 12/03/1961: white patch."):
        pass
    line = calls.log_file().read_text(encoding="utf-8")
    assert not any(word in line for word in ("Jane", "Doe", "1961"))
    assert "white patch" in line and "••/••/••••" in line
    calls.note("generate", {"prompt": ["normal", "film of Mr Smith"], "seeds": [1, 2]})
    assert calls.calls()[1].parameters["prompt"] == ["normal", "film of •• •••••"]


def test_a_failing_call_is_recorded_and_goes_on_up(folder, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"abc")
    with pytest.raises(ZeroDivisionError), calls.call("model", tmp_path / "weights.bin", temperature=0):
        1 / 0  # noqa: B018
    (only,) = calls.calls()
    assert only.outcome == "failed: ZeroDivisionError"
    assert only.inputs["weights"] == report.file_sha256(tmp_path / "weights.bin")


def test_an_adapter_is_named_but_its_films_are_not_listed(folder):
    made = generator(patient_derived=True, adapter_sha256="cd" * 32, adapter_films=9)
    draw(made)
    calls.note("finetune", {"films": ["ef" * 32] * 200, "base_sha256": SHA, "rank": 8, "seconds": 60.0, "seed": 0})
    first, second = calls.calls()
    assert first.parameters["patient_derived"] and first.parameters["adapter_sha256"] == "cd" * 32
    assert "ef" * 32 not in calls.log_file().read_text(encoding="utf-8") and second.inputs == {"weights": SHA}
    assert "1 of them are patient-derived" in record.methods()


def test_fine_tuning_is_recorded(folder, monkeypatch):
    training = Some(run=lambda *_: True, finish=lambda: None, step=3, seconds=12.5)
    lora = Some(OWN=24, RANK=8, images=lambda *_: None, Training=lambda *_: training, layers=lambda _: None)
    lora.sha256 = lambda _: "cd" * 32
    monkeypatch.setattr(finetune, "load_lora", lambda: lora)
    monkeypatch.setattr(finetune, "_films", lambda *_: ([], ["ef" * 32], ["chest x-ray"]))
    monkeypatch.setattr(finetune, "adapted", lambda *_: generator())
    finetune.finetune("films", generator=generator())
    (only,) = calls.calls()
    assert (only.what, only.seconds, only.parameters["adapter_sha256"]) == ("finetune", 12.5, "cd" * 32)


def test_a_log_that_cannot_be_written_warns_and_stops_nobody(folder):
    folder.write_text("in the way", encoding="utf-8")
    with pytest.warns(UserWarning, match="not recorded"):
        assert draw(generator())["seed"] == 0
    folder.unlink()
    with pytest.warns(UserWarning, match="not recorded"):
        calls.note("model", {"steps": object()})


def test_energy_is_watts_times_seconds_with_a_range(folder):
    assert calls.energy(3600) == [5.0, 15.0, 30.0] and calls.energy(1800, 2) == [5.0, 15.0, 30.0]
    draw(generator(), seconds=7200.0)
    found = calls.calls()[0].facts
    assert found["energy_wh"] == calls.energy(7200, found["cores"])


def test_methods_says_what_the_log_says(folder):
    draw(generator(), n=3, seed=5, seconds=1800)
    draw(generator(), "chest x-ray, viral pneumonia", seed=40, seconds=1800)
    with calls.call("SmolLM2-135M", SHA, "What is pneumonia?"):
        pass
    text = record.methods("to teach")
    cores = calls.cores()
    for part in ("4 synthetic images", "seeds 5 to 40", "2 prompts", SHA, "4 steps", '"chest x-ray, viral pneumonia"',
                 "SmolLM2-135M (1 call)", "3 calls, 0 of them failed", "took 3600 s", f"{15 * cores:.2g} Wh",
                 f"({5 * cores:.2g} to {30 * cores:.2g} Wh", f"{15 * cores * 3.142:.2g} ml",
                 "used to teach"):  # fmt: skip
        assert part in text, part
    assert record.OWN in record.methods() and record.OWN not in text
    assert "patient-derived" not in text
    with pytest.raises(CourseError, match="holds no call"):
        record.methods(since="2999-01-01")
    assert record.methods(since="2000-01-01") == record.methods()


def test_no_log_is_an_error_with_a_next_action(folder):
    with pytest.raises(CourseError, match="make an image first"):
        record.methods()


def test_claim_2024_has_44_items_and_fills_in_what_the_log_knows(folder):
    draw(generator(), n=2, seed=3)
    table = record.claim2024()
    assert table.index.tolist() == list(range(1, 45))
    assert SHA in table.loc[22, "answer"] and "numpy" in table.loc[23, "answer"]
    assert table.loc[24, "answer"].endswith("seeds 3 to 4") and "2 images" in table.loc[21, "answer"]
    assert "10.17632" in table.loc[7, "answer"] and "0 of 1" in table.loc[39, "answer"]
    own = (table["answer"] == record.OWN).sum()
    assert 15 <= own <= 30, "neither empty nor claiming to know the reader's study"
    assert not table["answer"].str.contains(r"[{}]").any() and (table["page"] == "").all()


def test_recording_costs_under_two_per_cent_of_an_image(folder):
    speed = json.loads((report.RESULTS / "generation_speed.json").read_text(encoding="utf-8"))["rows"]
    image = min(row["ms_an_image"] * row["batch"] for row in speed if row["way"].startswith("torch"))
    made = draw(generator(), n=8)
    start = time.process_time()
    for _ in range(200):
        calls.note("generate", made)
    assert (time.process_time() - start) / 200 * 1000 < 0.02 * image


def test_it_needs_neither_pytorch_nor_the_network(tmp_path):
    code = "import sys, medimgen.safety.record; from medimgen import calls; calls.note('x', {}); "
    code += "assert 'torch' not in sys.modules"
    environment = os.environ | {calls.SWITCH: str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert len(report.read(tmp_path / "calls.jsonl")) == 1
