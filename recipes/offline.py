"""Run a command with the network blocked, loopback apart: `python recipes/offline.py CMD [ARG...]`.

On Linux the command gets a network namespace of its own that holds nothing but `lo`
(`MEDIMGEN_OFFLINE=namespace`). Where the system does not allow that (macOS, Windows, a locked-down
container) a guard stands in (`MEDIMGEN_OFFLINE=guard`): Python refuses to connect anywhere but to this
machine, in every child process too, and other programs are pointed at a proxy that does not exist.
The guard is the weaker of the two: a program that ignores proxy settings is not stopped.

Standard library only; `--block namespace` or `--block guard` asks for one of the two.
"""

import argparse
import ctypes
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
NO_PROXY_HERE = "http://127.0.0.1:9"
GUARD = Path(__file__).resolve().parents[1] / "tests" / "offline" / "guard"


def loopback_up() -> None:
    """Switch on `lo` in this process's network namespace. Raises OSError without the right to do so."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def unshare(flags: int) -> None:
    """Leave the parent's namespaces (Linux). Raises OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def enter_namespace() -> None:
    """Move this process into a network namespace with only `lo`; files keep their owner.

    An administrator needs no user namespace. Anybody else gets one in which their own ids are mapped to
    themselves; the rights it gives (needed to switch on `lo`) are lost again when the command starts.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNET)
    except PermissionError:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    loopback_up()


def guard_environment(environment: dict[str, str]) -> dict[str, str]:
    """A copy of `environment` with the guard switched on for Python and a dead proxy for everything else."""
    new = dict(environment, MEDIMGEN_OFFLINE="guard")
    old = new.get("PYTHONPATH")
    new["PYTHONPATH"] = os.pathsep.join([str(GUARD), *([old] if old else [])])
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        new[name] = NO_PROXY_HERE
    new["no_proxy"] = new["NO_PROXY"] = "127.0.0.1,localhost,::1"
    return new


def namespace_environment(environment: dict[str, str]) -> dict[str, str]:
    """A copy of `environment` for the namespace: proxies, which cannot be reached, are removed."""
    new = {k: v for k, v in environment.items() if not k.lower().endswith("_proxy")}
    return dict(new, MEDIMGEN_OFFLINE="namespace")


def namespace_works() -> bool:
    """Whether this system lets us make the namespace; tried in a child process, so nothing changes here."""
    if not sys.platform.startswith("linux"):
        return False
    trial = [sys.executable, __file__, "--block", "namespace", sys.executable, "-c", ""]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def run(command: list[str], environment: dict[str, str]) -> int:
    """Become the command where the system can do that, else start it and hand on its exit code."""
    try:
        if os.name == "posix":
            os.execvpe(command[0], command, environment)
        return subprocess.run(command, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"offline: there is no program called {command[0]}", file=sys.stderr)
        return 127


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, set up the block, run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", choices=["namespace", "guard"], help="default: namespace where possible")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("give a command to run, for example: python -m pytest")
    if os.environ.get("MEDIMGEN_OFFLINE") == "namespace":  # already inside: do not stack namespaces
        return run(options.command, dict(os.environ))
    if options.block == "guard" or (options.block is None and not namespace_works()):
        print("offline: network blocked by a guard inside Python (the weaker block)", file=sys.stderr)
        return run(options.command, guard_environment(dict(os.environ)))
    enter_namespace()
    if options.block is None:
        print("offline: network blocked by a namespace that holds only loopback", file=sys.stderr)
    return run(options.command, namespace_environment(dict(os.environ)))


if __name__ == "__main__":
    sys.exit(main())
