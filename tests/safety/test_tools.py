"""What phones home on this machine: each state is read from the setting that counts, and two are measured."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from medimgen import egress
from medimgen.safety import tools

LISTED = yaml.safe_load(tools.TOOLS.read_text(encoding="utf-8"))
TELEMETRY = "HF_HUB_DISABLE_TELEMETRY"


def now(tool):
    """The state of a tool, by a word of its name."""
    table = tools.inventory()
    (state,) = table["now"][table["tool"].str.contains(tool)]
    return state


def test_inventory_says_of_each_tool_what_when_and_how():
    table = tools.inventory()
    assert len(table) == len(LISTED["tools"]) >= 15
    assert table.drop(columns="installed").map(bool).all(axis=None)
    assert set(table["now"]) <= {"on", "off", "not here", "look"}
    assert (table["installed"] != "")[table["now"].isin(["on", "off"])].all()
    assert now("Flower") == "not here" or table.set_index("tool")["installed"]["Flower"]


def test_ways_say_which_were_measured():
    table = tools.ways()
    assert table["stopped"].sum() >= 10 and (~table["stopped"]).sum() >= 5
    assert table["measured"].sum() >= 20
    assert (table["help"] != "")[~table["stopped"]].all()


@pytest.mark.parametrize(("value", "state"), [("1", "off"), ("TRUE", "off"), ("0", "on"), ("", "on")])
def test_state_of_a_variable(value, state, monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    monkeypatch.setenv(TELEMETRY, value)
    assert now("huggingface_hub telemetry") == state


def test_once_imported_the_constant_counts(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv(TELEMETRY, "1")
    monkeypatch.setattr(huggingface_hub.constants, TELEMETRY, False)
    assert now("huggingface_hub telemetry") == "on"
    monkeypatch.setattr(huggingface_hub.constants, TELEMETRY, True)
    monkeypatch.setenv(TELEMETRY, "0")
    assert now("huggingface_hub telemetry") == "off"


@pytest.mark.parametrize(
    ("setting", "state"),
    [({"LabApp": {"extension_manager": "pypi"}}, "on"), ({"LabApp": {"extension_manager": "readonly"}}, "off")],
)
def test_state_of_the_extension_manager(setting, state, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    (tmp_path / "jupyter_lab_config.json").write_text(json.dumps(setting), encoding="utf-8")
    assert now("extension manager") == state


def test_this_environment_is_quiet():
    """What recipes/setup_env.py wrote; without it JupyterLab asks."""
    assert now("news and update check") == now("extension manager") == "off"


def test_check_names_what_is_on_and_how_to_stop_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for tool in LISTED["tools"]:
        if "variable" in tool:
            monkeypatch.setenv(tool["variable"]["name"], tool["variable"]["quiet"][0])
    monkeypatch.setitem(sys.modules, "IPython", sys)
    monkeypatch.setenv(egress.SWITCH, "on")
    assert list(tools.check()) == []
    monkeypatch.setenv(TELEMETRY, "0")
    monkeypatch.setenv(egress.SWITCH, "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    found = {finding.where: finding for finding in tools.check()}
    assert set(found) == {"huggingface_hub telemetry", "medimgen.egress", "http_proxy"}
    assert all(f.rule == "tools-connectivity" and f.severity == "look" and f.next for f in found.values())
    assert found["huggingface_hub telemetry"].next == f"{TELEMETRY}=1"


def test_the_switches_of_the_kernels_are_those_of_the_table():
    import setup_env

    switches = {t["variable"]["name"]: t["variable"]["quiet"] for t in LISTED["tools"] if "variable" in t}
    assert set(setup_env.SWITCHES) - {"DO_NOT_TRACK"} == set(switches)
    assert [n for n, off in switches.items() if setup_env.SWITCHES[n].lower() not in off] == []


def attempts_of(code, **switches):
    """Destinations that a Python under the guard tried to reach."""
    code = f"from medimgen import egress\negress.guard()\n{code}\nprint([a.destination for a in egress.attempts()])"
    known = {t["variable"]["name"] for t in LISTED["tools"] if "variable" in t} | {"DO_NOT_TRACK", egress.LOG}
    environment = {k: v for k, v in os.environ.items() if k not in known and not k.lower().endswith("_proxy")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment | switches, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("switch", ["HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "DO_NOT_TRACK"])
def test_huggingface_hub_phones_home_unless_it_is_switched_off(switch):
    code = (
        "from huggingface_hub.utils import _telemetry as t\nt.send_telemetry('examples/course')\n"
        "t._TELEMETRY_QUEUE.join() if t._TELEMETRY_THREAD else None"
    )
    if switch == "HF_HUB_OFFLINE":  # once is enough
        assert attempts_of(code) in ("['huggingface.co']", "['huggingface.co', 'huggingface.co']")  # it tries again
    assert attempts_of(code, **{switch: "1"}) == "[]"


def test_the_quiet_ones_are_quiet():
    code = (
        "import matplotlib; matplotlib.use('agg')\n"
        "import matplotlib.pyplot as p, numpy, pydicom, torch, skimage.filters\n"
        "p.plot([1, 2]); p.gcf().canvas.draw(); skimage.filters.gaussian(numpy.eye(9)); torch.zeros(3).sum()"
    )
    assert attempts_of(code) == "[]"
