"""The lesson tables of README.md and of the first page tell what notebooks, badges and pages say of themselves."""

import re

import build_book
import lesson_table

ROOT = build_book.ROOT
TAUGHT = re.compile(r"\*\*Teaching (\d+) min · exercises (\d+) min\*\*")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """Cells of the rows that link to a notebook."""
    lines = [line for line in read(name).splitlines() if line.startswith("|") and ".ipynb)" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_memory_and_download_follow_the_badges():
    assert lesson_table.renewed(read("README.md")) == read("README.md"), "run `python recipes/lesson_table.py`"


def test_a_stale_figure_is_noticed():
    first = rows("README.md")[0]
    assert re.fullmatch(r"\d\.\d GB", first[-2]) and re.fullmatch(r"\d+ MB", first[-1])
    stale = read("README.md").replace(f"| {first[-2]} | {first[-1]} |", "| 9.9 GB | 1 MB |", 1)
    assert stale != read("README.md") and lesson_table.renewed(stale) == read("README.md")


def test_both_tables_ask_the_same_questions_for_as_long():
    both = [[[*row[:2], row[4]] for row in rows(name)] for name in ("README.md", "lessons/index.md")]
    assert both[0] == both[1] and len(both[0]) >= 6


def test_minutes_are_those_that_the_pages_and_notebooks_give():
    """A lesson's own page counts, further pages on top; a notebook's minutes where its metadata gives them."""
    for row in rows("README.md"):
        before = row[4].partition("+")[0]
        for url in re.findall(r"\((lessons/\d[^)]+\.md)\)", row[2]):
            needed = sum(int(n) for n in TAUGHT.search(read(url)).groups())
            assert needed <= int(before) <= needed + 15, (url, row[4])
