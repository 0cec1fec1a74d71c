"""The recorded transcript of the small language model: whole, consistent, and what the recipe makes again."""

import copy
import json
import warnings
from importlib.util import find_spec

import pytest
import record_tokens

from medimgen import report
from medimgen.data import manifest
from medimgen.data.fetch import is_fetched
from medimgen.errors import CourseError
from medimgen.research import smollm

RECORDED = json.loads((record_tokens.TRANSCRIPTS / "tokens-01.json").read_text(encoding="utf-8"))
FIELDS = {"title", "command", "run", "code_version", "model", "versions", "how", "chosen", "prompts"}
ROW = {"id", "prompt", "verdict", "true", "why", "next", "continuation"}


def faults(document: dict) -> list[str]:
    """What is wrong with a transcript, one sentence each."""
    found = [] if set(document) == FIELDS else ["fields of the file"]
    for row in document["prompts"]:
        chances = [n["probability"] for n in row["next"]]
        true = row["true"]
        rules = {
            "fields": set(row) == ROW,
            "ten": len(chances) == len({n["token"] for n in row["next"]}) == record_tokens.TOP,
            "order": chances == sorted(chances, reverse=True) and chances[-1] > 0,
            "sum": sum(chances) <= 1,
            "verdict": row["verdict"] == record_tokens.judge(true),
            "true": true is None or agrees(true, row["next"]),
            "continuation": row["continuation"].startswith(row["next"][0]["token"]),
        }
        found += [f"{row['id']}: {name}" for name, good in rules.items() if not good]
    return found


def agrees(true: dict, listed: list[dict]) -> bool:
    """Whether the rank and probability of the true token fit the list of the ten."""
    if true["rank"] > len(listed):
        return true["probability"] <= listed[-1]["probability"]
    here = listed[true["rank"] - 1]
    return here == {"token": true["token"], "probability": true["probability"]}


def test_recorded_transcript_is_whole():
    assert faults(RECORDED) == []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda d: d.pop("command"), "fields of the file"),
        (lambda d: d["prompts"][0]["next"].reverse(), "france: order"),
        (lambda d: d["prompts"][1]["next"].pop(), "australia: ten"),
        (lambda d: d["prompts"][0]["next"][0].update(probability=1.0), "france: sum"),
        (lambda d: d["prompts"][3].update(verdict="right"), "side: verdict"),
        (lambda d: d["prompts"][2]["true"].update(probability=0.9), "ribs: true"),
        (lambda d: d["prompts"][5].update(continuation=" viral."), "cause: continuation"),
    ],
)
def test_a_spoilt_transcript_is_found(spoil, named):
    spoilt = copy.deepcopy(RECORDED)
    spoil(spoilt)
    assert named in faults(spoilt)


def test_it_is_what_the_recipe_asks_today():
    asked = [(name, beginning, why) for name, beginning, _, why in record_tokens.BEGINNINGS]
    assert [(row["id"], row["prompt"], row["why"]) for row in RECORDED["prompts"]] == asked
    words = [row["true"] and row["true"]["word"] for row in RECORDED["prompts"]]
    assert words == [word for _, _, word, _ in record_tokens.BEGINNINGS]


def test_it_holds_the_cases_that_the_lesson_tells():
    verdicts = [row["verdict"] for row in RECORDED["prompts"]]
    assert 4 <= len(verdicts) <= 6
    assert verdicts.count("right") >= 1 and verdicts.count("wrong") >= 2 and verdicts.count("open") == 1


def test_it_names_its_command_its_weights_and_its_run():
    assert RECORDED["command"] == record_tokens.COMMAND
    (file,) = manifest.registry(record_tokens.WEIGHTS)
    assert (RECORDED["model"]["file"], RECORDED["model"]["sha256"]) == (file.path, file.sha256)
    (run,) = [r for r in report.read(report.RUNS) if r.id == RECORDED["run"]]
    assert (run.what, run.outcome) == ("record_tokens", "ok")
    assert run.inputs == {file.path: file.sha256}
    assert set(record_tokens.NEEDED) < set(RECORDED["versions"])


def test_a_missing_package_names_the_next_action(monkeypatch):
    monkeypatch.setattr(smollm, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(CourseError, match=r"needs gguf(.|\n)*setup_env\.py research(.|\n)*pip install.*conda"):
        record_tokens.load()


@pytest.mark.slow
def test_the_recipe_gives_it_again():
    """Compared where weights and packages are; elsewhere the run says that it was not."""
    lacking = [name for name in record_tokens.NEEDED if find_spec(name) is None]
    if lacking or not is_fetched(record_tokens.WEIGHTS):
        warnings.warn(f"tokens-01.json was not made again: lacking {lacking or record_tokens.WEIGHTS}", stacklevel=1)
        return
    assert_same(record_tokens.measure(), RECORDED["prompts"])


def assert_same(made: list[dict], kept: list[dict]) -> None:
    """Same texts; same probabilities within 0.001, which is more than processors differ in float32."""
    for new, old in zip(made, kept, strict=True):
        listed = {n["token"]: n["probability"] for n in new["next"]}
        assert listed == pytest.approx({n["token"]: n["probability"] for n in old["next"]}, abs=1e-3)
        assert new["true"] == pytest.approx(old["true"], abs=1e-3) if old["true"] else new["true"] is None
        same = ("id", "prompt", "verdict", "why", "continuation")
        assert [new[k] for k in same] == [old[k] for k in same]


def test_the_comparison_can_fail():
    other = copy.deepcopy(RECORDED["prompts"])
    assert_same(other, RECORDED["prompts"])
    other[1]["next"][0]["probability"] += 0.01
    with pytest.raises(AssertionError):
        assert_same(other, RECORDED["prompts"])
