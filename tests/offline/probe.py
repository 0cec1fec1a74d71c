"""What a process can see of the network, and whether that proves that the tests' block is on."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

OUTSIDE = ("192.0.2.1", 80)
"""An address set aside for documentation (RFC 5737): nobody answers there, so only the error tells."""

GUARD_MESSAGE = "network blocked by the course's tests"


def interfaces() -> list[str] | None:
    """Names of the network interfaces this process has, or None where the system does not list them."""
    table = Path("/proc/net/dev")
    if not table.exists():
        return None
    return sorted(line.split(":")[0].strip() for line in table.read_text(encoding="ascii").splitlines()[2:])


def loopback_works() -> bool:
    """Whether a connection from this process to itself carries a byte."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"x")
        peer, _ = server.accept()
        with peer:
            return peer.recv(1) == b"x"


def socket_error() -> tuple[int | None, str]:
    """Error number and text of a connection to the outside; (None, "connected") if there is none."""
    try:
        socket.create_connection(OUTSIDE, timeout=3).close()
    except OSError as error:
        return error.errno, str(error)
    return None, "connected"


def curl_result() -> tuple[int | None, str]:
    """Exit code and text of curl asking the outside; (None, "") where there is no curl."""
    if shutil.which("curl") is None:
        return None, ""
    command = ["curl", "-v", "--max-time", "3", f"http://{OUTSIDE[0]}/"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stderr


def gather() -> dict:
    """All facts, as plain values that fit into JSON."""
    number, text = socket_error()
    code, said = curl_result()
    return {
        "block": os.environ.get("MEDIMGEN_OFFLINE"),
        "platform": sys.platform,
        "interfaces": interfaces(),
        "loopback": loopback_works(),
        "socket": [number, text],
        "curl": [code, said],
    }


def verdict(facts: dict) -> str:
    """Empty if the facts prove that the block is on and is the reason for the failures; else what is wrong."""
    number, text = facts["socket"]
    code, said = facts["curl"]
    if not facts["loopback"]:
        return "loopback does not work"
    if text == "connected" or code == 0:
        return "the outside answered"
    if facts["block"] == "namespace":
        if facts["interfaces"] != ["lo"]:
            return f"this is no namespace with only lo: {facts['interfaces']}"
        return "" if number == errno.ENETUNREACH else f"the socket failed for another reason: {text}"
    if facts["block"] == "guard":
        if GUARD_MESSAGE not in text:
            return f"the guard did not refuse the socket: {text}"
        refused = code is None or (code == 7 and "127.0.0.1" in said)
        return "" if refused else f"curl did not go to the dead proxy: {said}"
    return "MEDIMGEN_OFFLINE is not set, nothing blocks the network"
