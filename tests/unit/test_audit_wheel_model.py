"""The audit of somebody else's network reads a plan and numbers, and refuses whatever could be code."""

import io
import json
import zipfile

import audit_wheel_model
import pytest

from medimgen.paths import ROOT


def plan(kind="Conv2D", **config):
    inner = {"class_name": kind, "name": "inner", "config": config}
    return {
        "class_name": "Functional",
        "config": {"layers": [{"class_name": "Functional", "config": {"layers": [inner]}}]},
    }


def wheel(path, kind="Conv2D", **members):
    inner, members = io.BytesIO(), {"config.json": json.dumps(plan(kind)), "model.weights.h5": "numbers", **members}
    with zipfile.ZipFile(inner, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("package/models/net.keras", inner.getvalue())
    return path


def test_a_plain_network_is_read(tmp_path):
    assert audit_wheel_model.read(wheel(tmp_path / "a.whl")) == (plan(), b"numbers")


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Lambda", {"function": "marshal"}),
        ("MyLayer", {}),
        ("Dense", {"activation": "softmax"}),
        ("Conv2D", {"dilation_rate": [2, 2]}),
        ("Conv2D", {"data_format": "channels_first"}),
    ],
)
def test_code_and_what_is_not_written_out_is_refused(kind, config):
    with pytest.raises(SystemExit, match=f"inner \\({kind} .*refused"):
        audit_wheel_model.refuse(plan(kind, **config))


def test_a_lambda_deep_in_a_file_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="Lambda"):
        audit_wheel_model.read(wheel(tmp_path / "a.whl", "Lambda"))


def test_pickles_are_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"weights.pkl, neither plan nor weights"):
        audit_wheel_model.read(wheel(tmp_path / "a.whl", **{"weights.pkl": "x"}))


def test_the_lesson_quotes_the_recorded_figures():
    found = json.loads((ROOT / "recipes" / "results" / "audit_wheel_model.json").read_text("utf-8"))
    text = " ".join((ROOT / "lessons" / "03-robustness.md").read_text("utf-8").split())
    auc, ill, well, flips = (found["figures"][k] for k in ("auc", "sensitivity", "specificity", "plausible_flips"))
    assert "AUC is {:.2f} ({:.2f} to {:.2f})".format(*auc) in text
    for middle, low, high in (ill, well):
        assert f"{100 * middle:.0f} % of the" in text and f"({100 * low:.0f} to {100 * high:.0f})" in text
    assert f"Of {found['surely_and_rightly_read']} films" in text and f"{100 * flips[0]:.0f} % flip plausibly" in text
    assert f"from {100 * flips[1]:.0f} to {100 * flips[2]:.0f} %" in text
