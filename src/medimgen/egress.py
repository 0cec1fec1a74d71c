"""Nothing leaves this machine unasked: a guard inside Python, on in every kernel of the course.

>>> with local_only(): requests.get("https://example.org")     # stopped; the error names cell, destination, what to do
>>> attempts()                                                 # what was tried, by this kernel and what it started

Before Python looks up a name, connects, sends a datagram or starts a program it tells its audit hooks (PEP 578), and a
hook may refuse. Unlike a replaced `socket.socket`, a hook meets what was imported or opened earlier, and code of this
process cannot take it away again. What it refuses, and what it never hears of (a browser, a compiled library with
sockets of its own, a Python started with -S), is listed and measured: `medimgen.safety.tools.ways()`. It guards against
slips and talkative libraries. It is **not a sandbox**: against code that wants to get out, pull the plug.

MEDIMGEN_EGRESS=off, set before JupyterLab starts, leaves the guard off.
"""

import ipaddress
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

from medimgen.errors import CourseError

SWITCH, LOG, CELL, PROXIES = "MEDIMGEN_EGRESS", "MEDIMGEN_EGRESS_LOG", "MEDIMGEN_CELL", "MEDIMGEN_PROXIES"
STAND_IN = "MEDIMGEN_EGRESS_STAND_IN"  # a port of this machine that counts as another machine: safety.tools.stand_in
DEAD = dict.fromkeys(
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"], "http://127.0.0.1:9"
)
DEAD |= dict.fromkeys(["no_proxy", "NO_PROXY"], "localhost,127.0.0.1,::1")
ALWAYS = "aria2c curl dig ftp lftp lynx nc ncat netcat nmap nslookup ping rsync scp sftp ssh telnet w3m wget"
PROGRAMS = dict.fromkeys(ALWAYS.split(), "") | {  # name -> the words with which it reaches out; "": whatever it is told
    "git": "clone fetch pull push ls-remote submodule",
    "pip": "install download index",
    "conda": "install create update",
    "npm": "install ci publish",
    "powershell": "iwr irm invoke-webrequest invoke-restmethod start-bitstransfer",
}
SHELLS = r"(?:.*[/\\])?(?:(?:ba|da|z|k)?sh|cmd(?:\.exe)?)"
BEFORE = rf"{SHELLS}|\w+=.*|-\S*|/c|[\d.]+[smh]?|!|sudo|env|nohup|exec|time|command|timeout|nice|xargs|then|do|if"
URL = r"\b(?!file:)[a-z][\w+.-]*://(?:[^/\s'\"@]*@)?(\[[^\]]*\]|[^/:\s'\"?#]*)(?::(\d+))?"
SYMBOLS = {"connect", "WSAConnect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "system", "popen"}
Asked = Iterator[tuple[str, str, str]]  # way, name, destination


class Refused(CourseError, PermissionError):
    """A way out that was stopped. Also a PermissionError, so that libraries take it for a missing network."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to reach another machine; `when` in local time, `stopped` is False where `allowing` let it pass."""

    when: str
    way: str
    destination: str
    cell: str
    stopped: bool


@dataclass
class _State:
    on: bool = False
    reasons: list[str] = field(default_factory=list)  # of the local_only blocks that are running
    hooked: bool = False
    lock: Lock = field(default_factory=Lock)


_state = _State()
_allowed: ContextVar[tuple[frozenset[str], set[str]] | None] = ContextVar("allowed", default=None)


def guard(on: bool = True) -> None:
    """Switch the guard of this process, and of the programs that it starts from now on, on or off."""
    with _changing() as was:
        _state.on = on
    if on and not was:
        _hang_up()


@contextmanager
def local_only(why: str = "nothing leaves a local_only() block") -> Iterator[None]:
    """Nothing leaves while the block runs, from no thread: not even what `allowing` would let pass."""
    with _changing() as was:
        _state.reasons.append(why)
    try:
        None if was else _hang_up()
        yield
    finally:
        with _changing():
            _state.reasons.remove(why)


@contextmanager
def allowing(*names: str) -> Iterator[None]:
    """Let this thread reach these hosts and start these programs while the block runs; for `medimgen.data.fetch` alone.

    A name covers what lies below it (github.com: codeload.github.com) and the proxy that is set. It is compared before
    it is looked up; the number it stands for is not known, so after a look-up this thread may connect to any number.
    """
    from urllib.request import getproxies

    proxies = re.findall(URL, " ".join(url for name, url in getproxies().items() if name != "no"))
    token = _allowed.set((frozenset([*names, *(host for host, _ in proxies)]), set()))
    try:
        yield
    finally:
        _allowed.reset(token)


def attempts() -> list[Attempt]:
    """Every attempt so far, oldest first, of this process and of the guarded programs that it started."""
    log = Path(os.environ.get(LOG, "no log"))
    return [Attempt(**json.loads(line)) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []


def open_environment() -> dict[str, str]:
    """The environment for a program that may reach out (fetch's pip): without guard and dead proxies."""
    return {name: value for name, value in os.environ.items() if name != SWITCH}


def start() -> None:
    """Take over the guard of the process that started this one; called by the .pth file of the course's Python."""
    for name, value in json.loads(os.environ.pop(PROXIES, "{}")).items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    with _changing():
        _state.on = True
        if os.environ.get(SWITCH) == "strict":
            _state.reasons.append("it was started in a local_only() block")


def load_ipython_extension(shell) -> None:
    """Guard this kernel, and say after a cell what was tried in it unnoticed (ipython_config.py asks for this)."""
    if os.environ.get(SWITCH) == "off":
        return
    seen = [0]

    def before(info) -> None:
        number = shell.execution_count - info.store_history  # counted up just before
        os.environ[CELL], seen[0] = f"In [{number}]", len(attempts())

    def after(result) -> None:
        for a in attempts()[seen[0] :] if result.success else ():
            print(f"{a.cell}: {a.destination} ({a.way}) {'stopped' if a.stopped else 'allowed'}", file=sys.stderr)

    shell.events.register("pre_run_cell", before)
    shell.events.register("post_run_cell", after)
    with _changing():  # without looking for open connections: 16 ms of a kernel's start, and there are none
        _state.on = True


@contextmanager
def _changing() -> Iterator[bool]:
    """Change the state; tell the programs that this process starts, through their environment."""
    with _state.lock:
        was = _state.on or bool(_state.reasons)
        yield was
        now = _state.on or bool(_state.reasons)
        if now and not _state.hooked:
            sys.addaudithook(_hook)
            _state.hooked = True
        if now and LOG not in os.environ:
            os.environ[LOG] = _new_log()
        if now or was:
            os.environ[SWITCH] = "strict" if _state.reasons else "on" if now else ""
        if was != now:
            _point_programs(now)


def _new_log() -> str:
    """The name of a file for `attempts`, which goes when this process ends."""
    import atexit
    import tempfile

    mine, path = os.getpid(), Path(tempfile.gettempdir()) / f"medimgen-egress-{os.getpid()}-{time.time_ns()}.jsonl"
    atexit.register(lambda: os.getpid() == mine and path.unlink(missing_ok=True))
    return str(path)


def _point_programs(at_nothing: bool) -> None:
    """Proxies for the programs that are started: dead, or those of `os.environ`, which itself stays as it is."""
    own = {name: os.environ.get(name) for name in DEAD}
    for name, value in (DEAD | {PROXIES: json.dumps(own)} if at_nothing else own | {PROXIES: None}).items():
        os.unsetenv(name) if value is None else os.putenv(name, value)


def _hang_up() -> None:
    """Shut the connections to other machines that were opened before the guard."""
    import gc

    for one in [o for o in gc.get_objects() if issubclass(type(o), socket.SocketType)]:
        try:
            if not _here(one, peer := one.getpeername()):
                socket.SocketType.shutdown(one, socket.SHUT_RDWR)
                _note("opened before the guard", f"{peer[0]}:{peer[1]}", True)
        except OSError:  # never connected, or closed
            continue


def is_local(host: object, port: object = None) -> bool:
    """Whether a name or address, as `socket` takes it, stays on this machine; nothing is looked up."""
    host = _text(host).lower().strip("[]")
    if port and str(port) == os.environ.get(STAND_IN):
        return False
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host in ("", "localhost", "localhost.localdomain", socket.gethostname().lower())
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def outside(text: str) -> list[str]:
    """The host:port of every address (scheme://…) in a text that is not on this machine."""
    return [f"{h}:{p}".rstrip(":") for h, p in re.findall(URL, text, re.IGNORECASE) if not is_local(h, p)]


def _text(value: object) -> str:
    return "" if value is None else os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)


def _numeric(host: str) -> bool:
    return bool(re.fullmatch(r"[\d.]+|[\da-f:.]*:[\da-f:.]*(%.*)?", host.lower()))


def _here(one: socket.SocketType, address: object) -> bool:
    """Whether a socket with this address stays on this machine; Bluetooth and raw frames do not."""
    if address is None or one.family in (socket.AF_INET, socket.AF_INET6):
        return address is None or is_local(*address[:2])
    return one.family in [getattr(socket, name, None) for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG")]


def _hook(event: str, args: tuple) -> None:
    look = _WATCHED.get(event)
    if look is not None and (_state.on or _state.reasons):
        for way, name, destination in look(event, args):
            _stop_unless_allowed(way, name, destination)


def _address(event: str, args: tuple) -> Asked:
    one, address = args[:2]
    if not _here(one, address):
        host = _text(address[0]) if isinstance(address, tuple) else str(one.family)
        yield event.removeprefix("socket."), host, f"{host}:{address[1]}" if isinstance(address, tuple) else host


def _name(event: str, args: tuple) -> Asked:
    host = _text(args[0][0] if event == "socket.getnameinfo" else args[0])
    if not is_local(host) and not (_numeric(host) and event == "socket.getaddrinfo"):  # a number is not looked up
        yield "look-up", host, host


def _symbol(event: str, args: tuple) -> Asked:
    if args[1] in SYMBOLS:
        yield "ctypes", "", f"another machine, by {args[1]}() of a compiled library"


def _page(event: str, args: tuple) -> Asked:
    yield from (("browser", place, place) for place in outside(_text(args[0])))


def _program(event: str, args: tuple) -> Asked:
    for words in _commands(args[{"os.system": 0, "os.spawn": 2}.get(event, 1)]):
        name = re.sub(r"\.(exe|cmd|bat)$", "", re.split(r"[/\\]", words[0].lower())[-1])
        if re.fullmatch(r"pyw?|pythonw?[\d.]*", name) and "-m" in words[:-1]:
            words = words[words.index("-m") + 1 :]
            name = words[0]
        name = re.sub(r"[\d.]+$", "", name.replace("pwsh", "powershell"))
        verbs, text = PROGRAMS.get(name), " ".join(words)
        reaches = verbs == "" or not {w.lower() for w in words}.isdisjoint((verbs or "").split())
        if reaches and (outside(text) or not re.search(URL, text, re.IGNORECASE)):
            yield "program", name, f"{(outside(text) or ['another machine'])[0]} by {name}"


def _commands(command: object) -> Iterator[list[str]]:
    r"""The words of each program that a command line, or a list of arguments, starts.

    What stands in quotes is read twice: as a command of its own (sh -c "curl …") and as one word, the path of a program
    with a blank in it ("C:\Program Files\…", which is how Windows hands on every list of arguments).
    """
    parts = [_text(p) for p in ([command] if isinstance(command, str | bytes | os.PathLike) else command)]
    by_shell = len(parts) == 1 or re.fullmatch(SHELLS, parts[0])
    for piece in re.split(r"[;&|\n(){}`]|\$\(", " ".join(parts)) if by_shell else [parts]:
        plain = re.findall(r"[^\s'\"]+", piece) if by_shell else list(piece)
        quoted = [w.strip("'\"") for w in re.findall(r"\"[^\"]*\"|'[^']*'|[^\s'\"]+", piece)] if by_shell else plain
        for words in [plain, quoted] if quoted != plain else [plain]:
            while words and re.fullmatch(BEFORE, words[0]):
                words.pop(0)
            yield from [words] if words else []


def _stop_unless_allowed(way: str, name: str, destination: str) -> None:
    """Note an attempt; raise Refused, unless `allowing` covers it and no local_only block is running."""
    names, used = (not _state.reasons and _allowed.get()) or ((), set())
    if used and _numeric(name):
        return
    if any(name == n or name.endswith(f".{n}") for n in names):
        if name not in used:
            _note(way, destination, False)
        used.add(name)
        return
    why = "; ".join(dict.fromkeys(_state.reasons)) or "the course's guard keeps this kernel on this machine"
    error = Refused(
        f"{_note(way, destination, True)} tried to reach {destination} ({way}) and was stopped: {why}",
        next="take the address out; a data set comes by `medimgen.data.fetch.fetch(ID)`, a package from a terminal; if "
        "nothing private is in this kernel and you mean it: `medimgen.egress.guard(False)`",
    )
    error.errno = 13  # EACCES, for those who look
    raise error


def _note(way: str, destination: str, stopped: bool) -> str:
    """Append an attempt to the log, in one write; returns the cell that tried."""
    attempt = Attempt(time.strftime("%Y-%m-%dT%H:%M:%S"), way, destination, _cell(), stopped)
    line = json.dumps(asdict(attempt), ensure_ascii=False) + "\n"
    with suppress(KeyError, OSError):  # no log is no reason to let it pass
        handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, line.encode())
        os.close(handle)
    return attempt.cell


def _cell() -> str:
    """The notebook cell whose code is running: found on the stack, else the one that ran last."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    frame, found = sys._getframe() if shell else None, None
    while frame:
        found = shell.compile.format_code_name(frame.f_code.co_filename) or found
        frame = frame.f_back
    if found:
        return found[1].replace("[", " [")
    return f"something that {os.environ[CELL]} started" if CELL in os.environ else "a program outside any notebook"


_WATCHED = (
    dict.fromkeys(("socket.connect", "socket.sendto", "socket.sendmsg"), _address)
    | dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"), _name)
    | dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"), _program)
    | {"ctypes.dlsym": _symbol, "webbrowser.open": _page, "os.startfile": _page}
)
