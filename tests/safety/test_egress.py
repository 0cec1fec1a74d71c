"""Ways out of a kernel: what the guard stops, what it does not, measured with a listener that plays another machine."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread

import pytest

from medimgen import egress
from medimgen.paths import ROOT
from medimgen.safety import tools

REFUSED = "was stopped: the course's guard keeps this kernel on this machine"
CURL = "['curl', '-s', '--max-time', '5', '--noproxy', '*', f'http://127.0.0.1:{port}/']"
CALL = "import socket; socket.create_connection((\\'127.0.0.1\\', {port}), 5).sendall(b\\'x\\')"

# way -> what to run; `before` runs before the guard is on. The ids are those of tools.yml.
WAYS = {
    "socket": "import socket; socket.create_connection(('127.0.0.1', port)).sendall(b'x')",
    "raw-socket": "import _socket; s = _socket.socket(2, 1); s.connect(('127.0.0.1', port)); s.send(b'x')",
    "asyncio": """
import asyncio
async def go():
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    writer.write(b'x'); await writer.drain(); writer.close()
asyncio.run(go())""",
    "udp": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "urllib": "import urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{port}/').read()",
    "urllib3": "import urllib3; urllib3.PoolManager().request('GET', f'http://127.0.0.1:{port}/', retries=False)",
    "requests": "import requests; requests.get(f'http://127.0.0.1:{port}/')",
    "httpx": "import httpx; httpx.get(f'http://127.0.0.1:{port}/')",
    "open-session": "session.get(f'http://127.0.0.1:{port}/late')",
    "subprocess": f"import subprocess; subprocess.run({CURL}, check=True)",
    "os.system": f"import os; assert os.system(' '.join({CURL})) == 0",
    "script": "import subprocess; subprocess.run(['sh', script], check=True)",
    "child": f"import subprocess, sys; subprocess.run([sys.executable, '-c', f'{CALL}'], check=True)",
    "child-I": f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', f'{CALL}'], check=True)",
    "child-S": f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', f'{CALL}'], check=True)",
    "worker": """
import multiprocessing
if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        pool.apply(exec, (f'import socket; socket.create_connection(("127.0.0.1", {port})).sendall(b"x")', {}))""",
    "ctypes": """
import ctypes, socket, struct
libc = ctypes.CDLL(None)
address = struct.pack('=HHI8x', 2, socket.htons(port), int.from_bytes(bytes([127, 0, 0, 1]), 'little'))
s = socket.socket()
assert libc.connect(s.fileno(), address, 16) == 0
s.send(b'x')""",
    "syscall": """
import ctypes, platform, socket, struct
address = struct.pack('=HHI8x', 2, socket.htons(port), int.from_bytes(bytes([127, 0, 0, 1]), 'little'))
s = socket.socket()
number = {'x86_64': 42, 'aarch64': 203}[platform.machine()]
assert ctypes.CDLL(None).syscall(number, s.fileno(), address, 16) == 0
s.send(b'x')""",
    "compiled": """
import zmq
with zmq.Context() as context, context.socket(zmq.STREAM) as s:
    s.connect(f'tcp://127.0.0.1:{port}')
    s.send_multipart([s.recv_multipart()[0], b'x'])
    s.recv_multipart()""",
    "tunnel": "import urllib.request as u; u.build_opener(u.ProxyHandler({'http': relay})).open('http://example.org/').read()",
}
BEFORE = {
    "open-session": "import requests; session = requests.Session(); session.get(f'http://127.0.0.1:{port}/early')"
}
RUN = """
import json, os, sys
from medimgen import egress
port, script, relay = json.loads(sys.argv[1])
{before}
if {guarded}:
    egress.guard()
error = ''
try:
    exec({code!r}, globals())
except BaseException as e:
    error = f'{{type(e).__name__}}: {{e}}'
if __name__ == '__main__':
    print(json.dumps([error, [a.way for a in egress.attempts()]]))
"""


def free():
    """This environment without proxies and guards, so that nothing but what a test switches on stops anything."""
    dropped = {"PYTHONPATH", egress.SWITCH, egress.LOG, egress.CELL, egress.PROXIES}
    return {k: v for k, v in os.environ.items() if k not in dropped and not k.lower().endswith("_proxy")}


def run(code, tmp_path, guarded, before="", extra=(0, "", ""), **more):
    """(error, ways of the attempts) of code in a Python of its own."""
    file = tmp_path / "run.py"
    file.write_text(RUN.format(code=code, before=before, guarded=guarded), encoding="utf-8")
    command = [sys.executable, str(file), json.dumps(extra)]
    done = subprocess.run(command, env=free() | more, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def relay_to(port):
    """Address of a program on this machine that carries what it gets on to `port`: a local proxy, a tunnel."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def carry():
            with server.accept()[0] as caller, socket.create_connection(("127.0.0.1", port)) as further:
                further.sendall(caller.recv(4096))
                caller.sendall(further.recv(4096))

        Thread(target=carry, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def try_way(way, tmp_path, guarded):
    """What the listener heard of a way, the error, the ways of the attempts."""
    host = "127.0.0.2" if way == "script" else "127.0.0.1"  # programs spare 127.0.0.1 the proxy
    with tools.stand_in(host) as (port, heard), relay_to(port) if way == "tunnel" else nullcontext() as relay:
        script = tmp_path / "talk.sh"
        script.write_text(f"curl -s --max-time 5 http://{host}:{port}/\n", encoding="utf-8")
        error, noted = run(WAYS[way], tmp_path, guarded, BEFORE.get(way, ""), (port, str(script), relay))
        time.sleep(0.1)
        return [said for said in heard if b"early" not in said], error, noted


def listed():
    """id -> stopped, as the table says."""
    import yaml

    return {w["id"]: w["stopped"] for w in yaml.safe_load(tools.TOOLS.read_text(encoding="utf-8"))["ways"]}


def test_what_the_table_calls_measured_is_measured_here():
    import yaml

    rows = yaml.safe_load(tools.TOOLS.read_text(encoding="utf-8"))["ways"]
    assert {row["id"] for row in rows if row["measured"]} <= set(WAYS) | set(ASKED) | {"javascript"}
    assert set(WAYS) <= {row["id"] for row in rows if row["measured"]}


@pytest.mark.parametrize("way", WAYS)
def test_way_out_is_stopped_or_not_as_the_table_says(way, tmp_path):
    assert try_way(way, tmp_path, guarded=False)[0], "the way does not work even without the guard"
    heard, error, noted = try_way(way, tmp_path, guarded=True)
    assert bool(heard) is not listed()[way], (heard, error, noted)
    if listed()[way]:
        assert error
        assert noted or way == "script"  # of the script nobody knows: it ran into the dead proxy


ASKED = {
    "look-up": "import socket; socket.getaddrinfo('example.org', 443)",
    "gethostbyname": "import socket; socket.gethostbyname('example.org')",
    "ipv6": "import socket; socket.create_connection(('2001:db8::1', 80), timeout=1)",
    "ipv6-mapped": "import socket; socket.create_connection(('::ffff:192.0.2.1', 80), timeout=1)",
    "connect_ex": "import socket; socket.socket().connect_ex(('192.0.2.1', 80))",
    "sendmsg": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 9))",
    "browser": "import webbrowser; webbrowser.GenericBrowser('true').open('http://192.0.2.1/?name=x')",
    "pip": "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'download', 'x'])",
    "git": "import os; os.system('cd / && git clone ssh://git@192.0.2.1/x')",
    "in-a-shell": "import subprocess; subprocess.run('true; sudo -n env A=1 /usr/bin/wget example.org', shell=True)",
}


@pytest.mark.parametrize("way", ASKED)
def test_request_is_refused_before_it_is_made(way, tmp_path):
    error, noted = run(ASKED[way], tmp_path, guarded=True)
    assert error.startswith("Refused: ") and REFUSED in error and "Next: " in error
    assert len(noted) == 1


@pytest.mark.parametrize("way", ["look-up", "gethostbyname", "ipv6"])
def test_request_goes_ahead_without_the_guard(way, tmp_path):
    error, noted = run(ASKED[way], tmp_path, guarded=False)
    assert "Refused" not in error and noted == []


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (r'"C:\Program Files\Git\cmd\git.exe" clone ssh://git@192.0.2.1/x', ["git"]),
        (r'"C:\Program Files (x86)\Git\cmd\git.exe" clone ssh://git@192.0.2.1/x', ["git"]),
        (r'cmd.exe /c "C:\Program Files\nodejs\npm.cmd" install left-pad', ["npm"]),
        (r'"C:\A B\python.exe" -m pip download x', ["pip"]),
        ("'/opt/my tools/curl' example.org", ["curl"]),
        ("""sh -c "curl -O 'http://192.0.2.1/a b'" """, ["curl"]),
        (r'"C:\Program Files\Git\cmd\git.exe" log --oneline', []),
        (r'"C:\Program Files\notes\see curl.txt" example.org', []),
        ('echo "a blank, curl"', []),
    ],
)
def test_a_program_is_known_by_a_path_with_blanks(command, names):
    assert list(dict.fromkeys(name for _, name, _ in egress._program("os.system", (command,)))) == names


HARMLESS = """
import os, socket, subprocess, sys, tempfile
with socket.create_server(('localhost', 0)) as server:
    socket.create_connection(('localhost', server.getsockname()[1])).close()
    here = f'http://127.0.0.1:{server.getsockname()[1]}/'
    assert subprocess.run(['curl', '-sf', '--max-time', '1', here]).returncode
if hasattr(socket, 'AF_UNIX'):
    with tempfile.TemporaryDirectory() as folder:
        s, t = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        s.bind(f'{folder}/s'); s.listen(); t.connect(f'{folder}/s')
socket.getaddrinfo(None, 80); socket.getaddrinfo('::1', 80); socket.gethostbyname('127.0.0.1'); socket.getfqdn()
subprocess.run(['echo', 'see https://example.org; curl it'], check=True, stdout=-3)
subprocess.run('echo curl | grep -c curl', shell=True, check=True, stdout=-3)
subprocess.run([sys.executable, '-m', 'pip', '--version'], check=True, stdout=-3)
assert os.system('exit 0') == 0
"""


def test_what_stays_here_passes(tmp_path):
    assert run(HARMLESS, tmp_path, guarded=True) == ["", []]


STAYS = [None, "", b"localhost", "127.8.9.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", socket.gethostname()]
LEAVES = ["192.168.1.4", "10.0.0.1", "fe80::1%eth0", "<broadcast>", "224.0.0.1", "localhost.example.org", "2130706433"]


def test_is_local():
    assert [host for host in STAYS if not egress.is_local(host)] == []
    assert [host for host in [*LEAVES, "127.0.0.1.example.org", "pacs.hospital.example"] if egress.is_local(host)] == []


SWITCHING = """
import os, socket, subprocess, sys, pickle
from threading import Thread
def stopped(name='example.org'):
    try:
        socket.getaddrinfo(name, 80)
    except egress.Refused:
        return True
    except OSError:
        return False
egress.guard(False)
assert not stopped()
with egress.local_only():
    assert stopped()
    with egress.local_only(), egress.allowing('example.org'):
        assert stopped()
    assert stopped()
assert not stopped() and os.environ.get(egress.SWITCH) == ''
egress.guard()
with egress.allowing('example.org'):
    assert not stopped() and not stopped('www.example.org')
    assert stopped('badexample.org') and stopped('example.org.evil.net')
    seen = []
    thread = Thread(target=lambda: seen.append(stopped())); thread.start(); thread.join()
    assert seen == [True]
assert stopped()
assert [a.destination for a in egress.attempts() if not a.stopped] == ['example.org', 'www.example.org']
child = 'import os; print(os.environ.get("https_proxy"), os.environ.get("MEDIMGEN_EGRESS"))'
def said(*how, **more):
    return subprocess.run([sys.executable, *how, '-c', child], capture_output=True, text=True, **more).stdout.split()
assert said() == ['http://proxy.example:1', 'on'], said()
assert said('-S') == ['http://127.0.0.1:9', 'on'], said('-S')
assert said(env=egress.open_environment()) == ['http://proxy.example:1', 'None']
try:
    socket.getaddrinfo('example.org', 80)
except OSError as e:
    assert pickle.loads(pickle.dumps(e)).next == e.next and e.errno == 13
egress.guard(False)
assert said('-S')[0] == 'http://proxy.example:1'
"""


def test_switching_nesting_and_allowing(tmp_path):
    assert run(SWITCHING, tmp_path, guarded=True, https_proxy="http://proxy.example:1")[0] == ""


def test_a_strict_block_holds_in_a_child_whatever_it_allows(tmp_path):
    child = "import socket\nfrom medimgen import egress\n"
    child += "with egress.allowing('example.org'): socket.gethostbyname('example.org')"
    code = "import subprocess, sys\nwith egress.local_only(): "
    code += f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    error, noted = run(code, tmp_path, guarded=False)
    assert "CalledProcessError" in error and noted == ["look-up"]


@pytest.fixture
def guarded():
    """This process guarded, and afterwards as it was."""
    egress.guard()
    yield
    egress.guard(False)


def test_fetch_gets_through_the_guard_and_not_out_of_a_strict_block(guarded, tmp_path, monkeypatch):
    from medimgen.data import fetch
    from medimgen.data.manifest import Entry, File
    from medimgen.errors import CourseError

    empty = File("a.txt", 0, hashlib.sha256(b"").hexdigest())
    monkeypatch.setattr(fetch, "registry", lambda id: [empty])
    monkeypatch.setenv("MEDIMGEN_CACHE", str(tmp_path))
    with tools.stand_in() as (port, heard):
        ways = {"https": {"folder": f"http://127.0.0.1:{port}/"}}
        what = Entry("mini", "t", "full", 0, "0" * 64, ways, "CC0", "yes", True, "x", "https://x", (), ())
        with egress.local_only(), pytest.raises(CourseError, match="nothing leaves a local_only"):
            fetch._bring(what, tmp_path, False, False)
        assert heard == []
        fetch._bring(what, tmp_path, False, False)
    assert b"GET /a.txt" in heard[0] and (tmp_path / "a.txt").is_file()


KERNEL = [
    "import os, socket, subprocess, sys, threading\ndef go(): socket.create_connection(('192.0.2.1', 80), 1)",
    "go()",
    "try: go()\nexcept OSError: pass",
    "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"x.org\")'], stderr=-3).returncode",
    "import asyncio\nawait asyncio.open_connection('example.org', 80)",
    "!curl -s http://192.0.2.1/",
    "%pip install nothing-at-all",
    "os.environ['HF_HUB_OFFLINE'], os.environ['HF_HUB_DISABLE_TELEMETRY']",
    "from IPython.display import HTML\nHTML('<img src=http://192.0.2.1/x.png>')",
    "from medimgen import egress\nprint([(a.cell, a.way) for a in egress.attempts()])",
]


def execute(cells, scratch, **more):
    """What the cells put out in a kernel of this Python, with its own configuration and no user's."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    manager = AsyncKernelManager()
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, km=manager, timeout=200, allow_errors=True)
    client.execute(env=free() | {"IPYTHONDIR": str(scratch)} | more)
    return [" ".join(o.get("text", o.get("evalue", str(o.get("data")))) for o in c.outputs) for c in notebook.cells]


def test_every_kernel_of_this_environment_is_guarded(tmp_path):
    out = execute(KERNEL, tmp_path)
    assert out[1].startswith("In [2] tried to reach 192.0.2.1:80 (connect) and was stopped")
    assert out[2] == "In [3]: 192.0.2.1:80 (connect) stopped\n"
    assert out[4].startswith("something that In [5] started tried to reach example.org (look-up)")
    assert out[5].startswith("In [6] tried to reach 192.0.2.1 by curl")
    assert "In [7] tried to reach another machine by pip" in out[6]
    assert out[7] == "{'text/plain': \"('1', '1')\"}"
    assert "'text/html'" in out[8]  # what the browser does with it, no kernel knows
    cells = [(f"In [{n}]", "connect") for n in (2, 3)] + [
        (f"something that In [{n}] started", "look-up") for n in (4, 5)
    ]
    assert out[9].strip() == str([*cells, ("In [6]", "program"), ("In [7]", "program")])


def test_the_kernel_switch_can_be_left_off(tmp_path):
    out = execute(
        ["from medimgen import egress", "egress._state.on, egress.attempts()"], tmp_path, MEDIMGEN_EGRESS="off"
    )
    assert out[1] == "{'text/plain': '(False, [])'}"


def test_this_environment_is_set_up_as_the_recipe_says():
    import setup_env

    for file, text in setup_env.files_that_keep_quiet(Path(sys.prefix), Path(sysconfig.get_path("purelib"))).items():
        assert file.is_file() and file.read_text(encoding="utf-8") == text, f"{file}: run recipes/setup_env.py here"


@pytest.mark.serial
def test_the_guard_costs_a_kernel_less_than_30_ms():
    code = (
        "import ipykernel.ipkernel, time; from IPython.core.interactiveshell import InteractiveShell as S; s = S(); "
        "t = time.process_time(); s.extension_manager.load_extension('medimgen.egress'); print(time.process_time() - t)"
    )
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, env=free(), capture_output=True, check=True).stdout) for _ in range(3)]
    assert 0 < min(times) < 0.030, times


PAGE = "<img src='http://127.0.0.1:{port}/img?name=x'><script>fetch('http://127.0.0.1:{port}/fetch?name=x')</script>"
WALL = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline'\">"


@pytest.mark.browser
@pytest.mark.parametrize("wall", ["", WALL], ids=["as it is", "with a content security policy"])
def test_javascript_and_pictures_of_an_output_leave_by_the_browser(wall):
    """Not stopped by the guard, which lives in the kernel; a page that forbids its parts to ask elsewhere does it."""
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from lab import find_browser, open_page

    if (browser := find_browser()) is None:
        pytest.skip("no browser on this machine")
    with tools.stand_in() as (port, heard), open_page(browser) as page, egress.local_only():
        page.set_content(wall + PAGE.format(port=port))
        page.wait_for_timeout(500)
        asked = b" ".join(heard)
    assert (b"/img?name=x" in asked, b"/fetch?name=x" in asked) == ((False, False) if wall else (True, True))
