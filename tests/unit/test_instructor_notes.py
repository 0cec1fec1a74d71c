"""Instructor notes: every clock adds up and fits the notebooks' core paths, every quoted message is a real one."""

import re
from itertools import accumulate, pairwise

import pytest
from test_core_path import NOTEBOOKS, core, minutes, read

from medimgen.check import load
from medimgen.paths import ROOT

LESSONS = ROOT / "lessons"
NOTES = (LESSONS / "instructor-notes.md").read_text(encoding="utf-8")
CORE = {path.name.split("-")[0]: [minutes(cell) for cell in core(read(path))] for path in NOTEBOOKS}
PLANS = {"Forty minutes": 40, "Half a day": 210, "A day": 480}
ROW = re.compile(r"^\| (\d+)[-–](\d+) \| (.+) \|$", re.MULTILINE)


def parts(text, level):
    """Heading -> what stands below it, up to the next heading of that level or above."""
    found = re.split(rf"^#{{{level}}} (.+)$", text, flags=re.MULTILINE)[1:]
    pairs = zip(found[::2], found[1::2], strict=True)
    return {head: re.split(rf"^#{{1,{level}}} ", body, flags=re.MULTILINE)[0] for head, body in pairs}


def clock(text):
    """(from, to, what) of each row of a timetable."""
    return [(int(start), int(end), what) for start, end, what in ROW.findall(text)]


def gaps(rows, length):
    """What is wrong with a timetable that should fill so many minutes."""
    bad = [] if rows and rows[0][0] == 0 else ["does not start at 0"]
    bad += [f"{a[1]} is followed by {b[0]}" for a, b in pairwise(rows) if a[1] != b[0]]
    bad += [f"{start}-{end} takes no time" for start, end, _ in rows if end <= start]
    total = sum(end - start for start, end, _ in rows)
    return bad + ([] if total == length else [f"{total} minutes, not {length}"])


CLOCKS = {head: int(head.split(": ")[1].split()[0]) for head in parts(NOTES, 2) if re.search(r": \d+ minutes$", head)}


@pytest.mark.parametrize(("plan", "length"), PLANS.items())
def test_a_plan_adds_up_and_says_what_to_cut(plan, length):
    text = parts(NOTES, 3)[plan]
    rows = clock(text)
    assert gaps(rows, length) == []
    assert "**Cut" in text
    for start, end, what in rows:
        if what.endswith("core path"):
            notebook = re.search(r"notebooks/(\w+)-", what).group(1)
            assert end - start == sum(CORE[notebook]), what


@pytest.mark.parametrize(("head", "length"), CLOCKS.items())
def test_the_clock_of_a_lesson_adds_up(head, length):
    rows = clock(parts(NOTES, 2)[head])
    assert gaps(rows, length) == []
    if head.startswith("Notebook"):
        times = CORE[head.split(":")[0].split()[1]]
        assert length == sum(times)
        between_cells = {0, *accumulate(times)}
        assert {edge for row in rows for edge in row[:2]} <= between_cells, "a row ends within a cell"
    else:
        page = next(LESSONS.glob(f"{head.split(':')[0].split()[1]}-*.md")).read_text(encoding="utf-8")
        assert length == sum(map(int, re.search(r"Teaching (\d+) min · exercises (\d+) min", page).groups()))


def test_every_notebook_has_its_clock():
    assert {head.split(":")[0].split()[1] for head in CLOCKS if head.startswith("Notebook")} == set(CORE)


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        ("| 0-4 | a |\n| 5-10 | b |", "4 is followed by 5"),
        ("| 1-10 | a |", "does not start"),
        ("| 0-4 | a |\n| 4-9 | b |", "9 minutes"),
        ("| 0-10 | a |\n| 10-10 | b |", "takes no time"),
        ("nothing", "0 minutes"),
    ],
)
def test_a_clock_that_does_not_add_up_is_noticed(spoilt, told):
    assert any(told in line for line in gaps(clock(spoilt), 10))


def quoted():
    table = parts(NOTES, 2)["Common failures and cures"].split("| What something else says")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def sources():
    """The package's code as one text, with strings that run over two lines joined."""
    files = sorted((ROOT / "src" / "medimgen").rglob("*.py"))
    return re.sub(r'"\n\s*f?"', "", "\n".join(file.read_text(encoding="utf-8") for file in files))


def test_each_message_is_one_that_the_course_says():
    found, code = quoted(), sources()
    assert len(found) >= 12
    assert [message for message in found if message not in code] == []
    assert "the moon is not in the manifest" not in code, "a message of nobody's would be noticed"


def test_mail_and_room_say_what_they_must():
    mail, room = parts(NOTES, 2)["A week before: the mail"], parts(NOTES, 2)["A room without Wi-Fi"]
    assert all(word in mail for word in ("medimgen preflight", "READY", "Bring no patient data", "Binder", "Subject:"))
    assert all(word in room for word in ("recipes/make_kit.py", "make book", "medimgen fetch", "network once"))
    assert (ROOT / "recipes" / "make_kit.py").is_file()


def test_the_two_tests_match_and_give_no_answer_away():
    before, after = (load()[name]["items"] for name in ("pretest", "posttest"))
    assert len(before) == len(after) == 8
    for first, second in zip(before, after, strict=True):
        assert first["id"].split("-")[1] == second["id"].split("-")[1]
        assert first["question"] != second["question"]
    for items in (before, after):
        places = [[option["correct"] for option in item["options"]].index(True) for item in items]
        assert min(map(places.count, range(3))) >= 2
        lengths = [[len(option["text"]) for option in item["options"]] for item in items]
        longest = sum(each.index(max(each)) == place for each, place in zip(lengths, places, strict=True))
        assert longest <= 4, "whoever always takes the longest option should not do better than chance"
        assert all(len(option["feedback"]) > 40 for item in items for option in item["options"])
    shown = re.findall(r'show_quiz\("(\w+)"\)', (LESSONS / "before-and-after.md").read_text(encoding="utf-8"))
    assert shown == ["pretest", "posttest"]
