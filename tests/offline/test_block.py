"""Tests run without a network, in notebooks' kernels too, and we would notice if they did not."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import offline
import probe
import pytest
from nbval_runner import run_nbval, verdict

from medimgen.errors import CourseError
from medimgen.paths import ROOT

HERE = Path(__file__).resolve().parent
OFFLINE = [sys.executable, str(ROOT / "recipes" / "offline.py")]
BY_HAND = "the network is not blocked: run `make test`, or start with `python recipes/offline.py`"
BLOCKS = ["guard", "namespace"] if offline.namespace_works() else ["guard"]


@pytest.fixture
def blocked():
    """Nothing, if this run is blocked; by hand a skip with its reason, in CI a failure."""
    if os.environ.get("MEDIMGEN_OFFLINE"):
        return
    if os.environ.get("CI"):
        raise CourseError("MEDIMGEN_OFFLINE is not set", next=BY_HAND)
    pytest.skip(BY_HAND)


def facts_under(*how, environment=None):
    """The facts a fresh Python sees when it is started in the given way."""
    code = f"import sys, json; sys.path.insert(0, {str(HERE)!r}); import probe; print(json.dumps(probe.gather()))"
    done = subprocess.run(
        [*how, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def free_environment():
    """This environment without any trace of a block."""
    dropped = {"MEDIMGEN_OFFLINE", "PYTHONPATH"}
    return {k: v for k, v in os.environ.items() if k not in dropped and not k.lower().endswith("_proxy")}


def test_this_process_is_blocked(blocked):
    assert probe.verdict(probe.gather()) == ""


def test_a_notebook_kernel_is_blocked(blocked, tmp_path, monkeypatch):
    """By the tests' own block, whatever the course's guard does: so that is off here."""
    monkeypatch.setenv("MEDIMGEN_EGRESS", "off")
    cells = [
        f"import json, sys\nsys.path.insert(0, {str(HERE)!r})\nimport probe",
        f"with open({str(tmp_path / 'facts.json')!r}, 'w') as file:\n    json.dump(probe.gather(), file)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run = run_nbval(notebook, tmp_path, "pocket", tmp_path)
    assert verdict(notebook, run) == ""
    assert probe.verdict(json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))) == ""


def test_curl_is_there_to_be_blocked():
    assert shutil.which("curl") or not os.environ.get("CI")


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_holds(block):
    facts = facts_under(*OFFLINE, "--block", block, environment=free_environment())
    assert facts["block"] == block
    assert probe.verdict(facts) == ""


def test_a_process_that_only_claims_the_guard_is_noticed():
    facts = facts_under(environment=free_environment() | {"MEDIMGEN_OFFLINE": "guard"})
    assert "did not refuse" in probe.verdict(facts)


def test_what_an_open_machine_looks_like_is_noticed():
    shut = {"block": "namespace", "interfaces": ["lo"], "loopback": True, "curl": [7, ""]}
    shut["socket"] = [errno.ENETUNREACH, "Network is unreachable"]
    assert probe.verdict(shut) == ""
    for wrong in (
        {"interfaces": ["eth0", "lo"]},
        {"interfaces": None},
        {"socket": [None, "timed out"]},
        {"socket": [None, "connected"]},
        {"curl": [0, ""]},
        {"loopback": False},
        {"block": None},
        {"block": "guard"},
    ):
        assert probe.verdict(shut | wrong), wrong


@pytest.mark.parametrize("block", BLOCKS)
def test_files_keep_their_owner_and_the_exit_code_comes_through(block, tmp_path):
    code = f"import sys; open({str(tmp_path / 'made')!r}, 'w').close(); sys.exit(7)"
    command = [*OFFLINE, "--block", block, sys.executable, "-c", code]
    done = subprocess.run(command, env=free_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert (tmp_path / "made").stat().st_uid == tmp_path.stat().st_uid


def test_the_block_in_use_is_printed():
    done = subprocess.run(
        [*OFFLINE, sys.executable, "-c", ""],
        env=free_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith("offline: network blocked by")
    assert ("namespace" in done.stderr) == ("namespace" in BLOCKS)


def test_a_missing_program_is_named():
    done = subprocess.run([*OFFLINE, "no-such-program"], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr


GUARDED = """
import socket, ssl, urllib.request
def says(action):
    try:
        action()
    except OSError as error:
        return str(error)
    return "passed"
tcp = lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for action in (
    lambda: tcp().connect(("192.0.2.1", 80)),
    lambda: tcp().connect_ex(("192.0.2.1", 80)),
    lambda: udp().sendto(b"x", ("192.0.2.1", 53)),
    lambda: udp().sendto(b"x", 0, ("192.0.2.1", 53)),
    lambda: socket.getaddrinfo("example.org", 443),
    lambda: socket.create_connection(("example.org", 443)),
):
    assert "network blocked by the course's tests" in says(action), says(action)
assert issubclass(ssl.SSLSocket, socket.socket)
assert "refused" in says(lambda: urllib.request.urlopen("http://192.0.2.1"))
with socket.create_server(("127.0.0.1", 0)) as server:
    assert says(lambda: socket.create_connection(("localhost", server.getsockname()[1]))) == "passed"
"""


def test_every_way_out_of_python_meets_the_guard():
    done = subprocess.run(
        [*OFFLINE, "--block", "guard", sys.executable, "-c", GUARDED],
        env=free_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_guard_reaches_grandchildren_and_keeps_pythonpath():
    new = offline.guard_environment({"PYTHONPATH": "elsewhere", "X": "1"})
    assert new["PYTHONPATH"].split(os.pathsep) == [str(offline.GUARD), "elsewhere"]
    assert new["X"] == "1"
    assert new["https_proxy"] == "http://127.0.0.1:9"


def test_sockets_here_are_real():
    """The guard must not leak into a run that has a namespace."""
    if os.environ.get("MEDIMGEN_OFFLINE") != "guard":
        assert socket.socket.__name__ == "socket"
