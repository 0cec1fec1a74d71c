"""Draw the two diagrams of lesson 2: `python fig/draw_02.py` (standard library only, same bytes each time).

Schematic: the films are nobody's. The tokens are those recorded in recipes/transcripts/answers-02.json (a test compares
them). Parts come from `draw.py` and `draw_01.py`; alternative texts stand in `alt.yml` beside this file.
"""

from __future__ import annotations

from pathlib import Path

from draw import BONE, HEART, LUNG, PANEL, TEXT, svg
from draw_01 import WIDTH, block, label, path, sheet

HERE = Path(__file__).resolve().parent
STEPS = (
    ("1 count", "films by label"),
    ("2 describe", "the short ones"),
    ("3 prompt", "words and number"),
    ("4 generate", "seeds on record"),
    ("5 check", "gates, then people"),
    ("6 retrain", "same steps"),
)
READINGS = (  # what is written, who reads it, its tokens, what follows
    ("X-ray", "cxr-mini", ("xray",), "a word from its captions"),
    ("X-ay", "cxr-mini", ("&lt;unknown&gt;",), "the word is gone; a film comes anyway"),
    ("X-ay", "SmolLM2", ("X", "-", "ay"), "pieces it knows, of a word it does not"),
    ("CAT scan", "MiniLM", ("cat", "scan"), "capitals are gone:"),
    ("cat scan", "MiniLM", ("cat", "scan"), "the very same tokens"),
)


def recipe() -> str:
    """Six steps of balancing, two ways back, and what stays outside."""
    body = [sheet(300)]
    places = [(24 + 222 * (k % 3), 34 + 118 * (k // 3)) for k in range(6)]
    for k, ((name, line), (x, y)) in enumerate(zip(STEPS, places, strict=True)):
        body.append(block(x, y, 188, name, line, HEART if k == 4 else LUNG))
    for k in (0, 1, 3, 4):
        x, y = places[k]
        body.append(path([(x + 190, y + 32), (x + 220, y + 32)]))
    body.append(path([(562, 100), (562, 125), (118, 125), (118, 150)]))
    body.append(path([(340, 218), (340, 240), (118, 240), (118, 220)], HEART, dashed=True))
    body.append(label(229, 258, "turned away: draw again, up to a cap", HEART, 13))
    body.append(f"<rect x='430' y='236' width='226' height='50' rx='9' fill='{PANEL}' stroke='{TEXT}'/>")
    body += [label(543, 257, "measure", TEXT, 15), label(543, 276, "real films of other patients only", BONE, 13)]
    body.append(path([(562, 218), (562, 234)]))
    return svg(WIDTH, 300, "".join(body))


def tokens() -> str:
    """Five readings of two slips: what is written, and the tokens that a model gets."""
    body = [sheet(292)]
    heads = ((24, "written"), (126, "read by"), (222, "tokens"), (404, "so"))
    body += [label(x, 30, words, BONE, 13, "start") for x, words in heads]
    for k, (written, reader, found, then) in enumerate(READINGS):
        y = 44 + 48 * k
        body += [label(24, y + 25, written, TEXT, 16, "start"), label(126, y + 25, reader, BONE, 14, "start")]
        x = 222
        for piece in found:
            width = 20 + (8 * (11 if piece.startswith("&") else len(piece)))
            colour = HEART if piece.startswith("&") else LUNG
            place = f"x='{x}' y='{y + 3}' width='{width}' height='34' rx='7'"
            body.append(f"<rect {place} fill='{PANEL}' stroke='{colour}' stroke-width='1.6'/>")
            body.append(label(x + width / 2, y + 25, piece, TEXT, 15))
            x += width + 8
        body.append(label(404, y + 25, then, TEXT, 13, "start"))
    return svg(WIDTH, 292, "".join(body))


FIGURES = {"02-recipe.svg": recipe, "02-tokens.svg": tokens}


def main(folder: Path = HERE) -> None:
    """Write the two diagrams into `folder`."""
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
