"""Reading level: what is counted, and no page far above the others."""

import pytest
import reading_level

PAGE = """---
file_format: mystnb
---

# Extraordinarily complicated heading

A cat sat. It saw {term}`dogs <dog>`, **not** birds {cite:p}`zech2018incomprehensible`:
[see here](https://example.org/unpronounceable).

```{code-cell} python3
incomprehensible = "Unpronounceable nonsense. Everywhere."
```

| table | unpronounceable |

- Et al. counts: Kermany et al. wrote it.

```{warning}
Not a medical device.
```
"""


def test_running_text_alone_is_counted():
    assert reading_level.sentences(reading_level.plain(PAGE)) == [
        "A cat sat.",
        "It saw dogs , not birds : see here.",
        "Et al. counts:",
        "Kermany et al wrote it.",
        "Not a medical device.",
    ]


def test_lix_by_hand():
    """Ten words, two sentences, two long words: 10 / 2 + 100 * 2 / 10."""
    found = reading_level.level("Children cough at night and in the cold. Nobody listens.")
    assert (found.words, found.length, found.long) == (10, 5, pytest.approx(0.2))
    assert found.lix == pytest.approx(25)


def too_hard(root=reading_level.ROOT):
    found = reading_level.levels(root)
    limit = reading_level.middle(found) + reading_level.FURTHER
    return {name: one.lix for name, one in found.items() if one.lix > limit}


def test_no_page_reads_much_harder_than_the_others():
    assert len(reading_level.levels()) > 15
    assert too_hard() == {}


def test_a_page_like_an_official_letter_turns_red(tmp_path):
    (tmp_path / "lessons").mkdir()
    easy = "A film of a chest shows the lungs, the heart and the ribs. "
    official = "Notwithstanding organisational considerations, representatives acknowledge responsibility. "
    for name, text in {"a": easy, "b": easy, "c": official}.items():
        (tmp_path / "lessons" / f"{name}.md").write_text(text * 60, encoding="utf-8")
    assert list(too_hard(tmp_path)) == ["lessons/c"]
    assert "hardest lessons/c" in reading_level.summary(tmp_path)
