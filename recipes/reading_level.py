"""How hard the pages read: `python recipes/reading_level.py [COUNT]` prints a line a page, and the hardest sentences.

LIX (Björnsson 1968): words a sentence, plus the share of words of more than six letters in per cent; a colon ends a
sentence too. Children's books lie below 30, novels to 40, newspapers to 50, official texts to 60. It counts letters, so
it works without a dictionary, which Flesch's syllables need in English. Counted is running text: no code, table,
heading, caption or citation.
"""

import json
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FURTHER = 10  # a step of Björnsson's scale: no page may lie further above the middle one
FEWEST = 300  # words; fewer say little
NO_PROSE = re.compile(r"^(`{3,}|:{3,})(?:\w*|\{(?:code-cell|bibliography|figure|image)\}.*)$")
OUT = re.compile(r"^\s*(?:\||#|:[\w-]+:|[`:]{3,}|<|\(\S+\)=$)")
BULLET = re.compile(r"^\s*(?:[-*+]|\d+\.|:)\s+")
TERM = re.compile(r"\{(?:term|doc|ref)\}`([^`<]*)[^`]*`")
MARKUP = re.compile(r"\{cite:\w+\}`[^`]*`|\]\([^)]*\)|!?\[|\{[\w:-]+\}|<[^>]*>|\*+|\]")
WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


@dataclass(frozen=True)
class Level:
    """words in all, words a sentence, share of long words (0..1)."""

    words: int
    length: float
    long: float

    @property
    def lix(self) -> float:
        return self.length + 100 * self.long


def plain(text: str) -> str:
    """Running text of a page in MyST: a paragraph or list item a line, code in the text as the word "code"."""
    lines, shut = [""], ""
    for line in re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).split("\n"):
        bare = line.strip()
        if shut:
            shut = "" if bare == shut else shut
        elif opening := NO_PROSE.match(bare):
            shut = opening[1] if bare.startswith("`") or len(bare) > len(opening[1]) else ""
        elif OUT.match(line) or not bare:
            lines.append("")
        elif BULLET.match(line):
            lines.append(BULLET.sub("", line))
        else:
            lines[-1] += " " + bare
    return re.sub(r"`[^`\n]*`", "code", MARKUP.sub("", TERM.sub(r"\1", "\n".join(lines))))


def sentences(text: str) -> list[str]:
    """Sentences of running text with two words or more; the full stop of "et al." and the like ends none."""
    text = re.sub(r"\b(e\.g|i\.e|et al|vs|No|Mrs|Mr|Dr)\.", r"\1", text)
    found = re.split(r"\n|(?<=[.!?:])[\"”)]*\s+(?=[\"“(A-Z0-9]|code)", text)
    return [one.strip() for one in found if len(WORD.findall(one)) > 1]


def level(text: str) -> Level:
    """Level of running text."""
    said = sentences(text)
    words = [word for one in said for word in WORD.findall(one)]
    return Level(len(words), len(words) / max(1, len(said)), sum(len(w) > 6 for w in words) / max(1, len(words)))


def pages(root: Path = ROOT) -> dict[str, str]:
    """Running text of every page of lessons and notebooks, by its name."""
    found = {}
    for file in sorted([*root.glob("lessons/*.md"), *root.glob("notebooks/**/*.ipynb")]):
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found[file.relative_to(root).with_suffix("").as_posix()] = plain(text)
    return found


def levels(root: Path = ROOT) -> dict[str, Level]:
    """Level of every page with enough running text to tell, the hardest first."""
    found = {name: level(text) for name, text in pages(root).items()}
    enough = [item for item in found.items() if item[1].words >= FEWEST]
    return dict(sorted(enough, key=lambda item: -item[1].lix))


def middle(found: dict[str, Level]) -> float:
    """LIX of the middle page."""
    return statistics.median(one.lix for one in found.values())


def summary(root: Path = ROOT) -> str:
    """One line for the end of `make book`."""
    found = levels(root)
    first = next(iter(found))
    return f"Reading level (LIX, recipes/reading_level.py): {middle(found):.0f}, hardest {first} {found[first].lix:.0f}"


def main(most: int = 0) -> None:
    """Print the table, and the hardest sentences."""
    print("LIX  words/sentence  long words  words")
    for name, one in (found := levels()).items():
        print(f"{one.lix:3.0f}  {one.length:14.1f}  {one.long:10.0%}  {one.words:5}  {name}")
    print(f"{middle(found):3.0f}  the middle page; none may lie above {middle(found) + FURTHER:.0f}")
    every = [(name, one) for name, text in pages().items() for one in sentences(text) if len(one.split()) > 11]
    for name, one in sorted(every, key=lambda item: -level(item[1]).lix)[:most]:
        print(f"\n{level(one).lix:.0f}  {name}: {one}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 0)
