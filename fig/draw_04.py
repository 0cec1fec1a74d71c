"""Draw the diagram of lesson 4: `python fig/draw_04.py` (standard library only, same bytes each time).

Schematic; no patient behind it. Parts come from `draw.py` and `draw_01.py`; its alternative text stands in `alt.yml`.
"""

from __future__ import annotations

from pathlib import Path

from draw import BONE, HEART, LUNG, TEXT, svg
from draw_01 import WIDTH, block, label, path, sheet

HERE = Path(__file__).resolve().parent
LAYERS = (  # what still leads to a patient, an example, what takes it away or finds it
    ("the name", "header, one attribute", "every tool", LUNG),
    ("the rest of the header", "dates, numbers, comments, nested ones", "a full table, and a search", LUNG),
    ("private attributes", "added by the maker of the machine", "removal, and a search", LUNG),
    ("letters in the pixels", "name plate, side marker, date", "a text reader, then you", LUNG),
    ("the picture itself", "a face, a chest seen before", "nothing here", HEART),
    ("everything around it", "file name, screenshot, the story", "only you", HEART),
)


def layers() -> str:
    """Six layers from the name outwards, each a little wider, with what reaches it."""
    body = [
        sheet(482),
        label(222, 30, "what leads to a patient", TEXT, 15),
        label(464, 30, "what helps", TEXT, 15, "start"),
    ]
    for k, (what, example, remedy, colour) in enumerate(LAYERS):
        width, y = 270 + 28 * k, 46 + 70 * k
        body.append(block(222 - width / 2, y, width, what, example, colour, 58))
        body.append(path([(222 + width / 2, y + 29), (456, y + 29)], colour, colour == HEART))
        body.append(label(464, y + 34, remedy, colour if colour == HEART else BONE, 14, "start"))
    return svg(WIDTH, 482, "".join(body))


FIGURES = {"04-layers.svg": layers}


def main(folder: Path = HERE) -> None:
    """Write the diagram into `folder`."""
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
