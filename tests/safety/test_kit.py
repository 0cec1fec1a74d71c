"""A kit for a room without a network holds what may be passed on, and nothing else."""

import make_kit
import pytest

from medimgen.data import manifest
from medimgen.data.fetch import fetch
from medimgen.errors import CourseError
from medimgen.report import file_sha256

FREE, BOUND = "kermany-pocket", "nlm-reports"


@pytest.fixture
def small_course(monkeypatch, tmp_path):
    """A repository of two files and no site."""
    root = tmp_path / "course"
    (root / "lessons").mkdir(parents=True)
    (root / "README.md").write_text("a course", encoding="utf-8")
    (root / "lessons" / "one.md").write_text("a lesson", encoding="utf-8")
    monkeypatch.setattr(make_kit, "ROOT", root)
    monkeypatch.setattr(make_kit, "tracked", lambda: ["README.md", "lessons/one.md"])
    return root


def test_the_kit_holds_course_films_and_credits(small_course, tmp_path):
    kit = tmp_path / "kit"
    assert make_kit.pack(kit, [FREE]) == {"in": [FREE], "refused": []}
    assert (kit / "course" / "lessons" / "one.md").read_text(encoding="utf-8") == "a lesson"
    for file in manifest.registry(FREE):
        assert file_sha256(kit / "course" / "mirror" / FREE / file.path) == file.sha256
    assert manifest.entry(FREE).citation in (kit / "CREDITS.md").read_text(encoding="utf-8")
    assert not list(kit.rglob("*.part"))


def test_what_may_not_be_passed_on_stops_the_kit_before_a_byte_is_written(small_course, tmp_path):
    with pytest.raises(CourseError, match="nlm-reports"):
        make_kit.pack(tmp_path / "kit", [FREE, BOUND])
    assert not (tmp_path / "kit").exists()


def test_by_default_it_is_left_out_and_named(small_course, tmp_path, monkeypatch):
    monkeypatch.setattr(make_kit, "is_reachable", lambda id: id in (FREE, BOUND))
    kit = tmp_path / "kit"
    assert make_kit.pack(kit) == {"in": [FREE], "refused": [BOUND]}
    assert [p.name for p in (kit / "course" / "mirror").iterdir()] == [FREE]
    outside = (kit / "CREDITS.md").read_text(encoding="utf-8").split("# What may not")[1]
    assert BOUND in outside and manifest.entry(BOUND).source in outside


def test_a_report_that_hides_in_the_course_is_found_by_its_content(small_course, tmp_path):
    report = next(f for f in manifest.registry(BOUND))
    (small_course / "lessons" / "one.md").write_bytes((fetch(BOUND) / report.path).read_bytes())
    with pytest.raises(CourseError, match=BOUND):
        make_kit.pack(tmp_path / "kit", [])
    assert not (tmp_path / "kit").exists()


def test_a_full_stick_loses_nothing_and_the_second_try_goes_on(small_course, tmp_path, monkeypatch):
    kit, real = tmp_path / "kit", make_kit.shutil.copyfile

    def full(source, target):
        if str(source).endswith("one.md"):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(make_kit.shutil, "copyfile", full)
    with pytest.raises(CourseError, match="make room"):
        make_kit.pack(kit, [])
    assert not list(kit.rglob("*.part")) and not (kit / "course" / "lessons" / "one.md").exists()
    asked = []
    monkeypatch.setattr(make_kit.shutil, "copyfile", lambda a, b: asked.append(a.name) or real(a, b))
    make_kit.pack(kit, [])
    assert asked == ["one.md"]
