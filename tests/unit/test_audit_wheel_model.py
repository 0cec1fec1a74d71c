"""The audit of somebody else's network reads a plan and numbers, and refuses whatever could be code."""

import io
import json
import zipfile

import audit_wheel_model
import pytest


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
