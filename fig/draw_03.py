"""Draw the two diagrams of lesson 3: `python fig/draw_03.py` (standard library only, same bytes each time).

Schematic: the curve is that of no model, the chest that of no patient. Parts come from `draw.py` and `draw_01.py`;
alternative texts stand in `alt.yml` beside this file.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from draw import BONE, EDGE, HEART, LUNG, PANEL, TEXT, svg
from draw_01 import WIDTH, block, film, label, path, sheet

HERE = Path(__file__).resolve().parent
KNOTS = ((0.0, 0.94), (0.12, 0.86), (0.25, 0.34), (0.36, 0.66), (0.62, 0.68), (1.0, 0.08))


def answer(s: float) -> float:
    """The invented chance of pneumonia at severity s: cosines between the knots."""
    for (s0, p0), (s1, p1) in pairwise(KNOTS):
        if s <= s1:
            return p1 + (p0 - p1) * (1 + math.cos(math.pi * (s - s0) / (s1 - s0))) / 2
    return KNOTS[-1][1]


def flip() -> str:
    """A model's answer along one perturbation, the smallest severity that flips it, and the plausible range."""
    left, right, top, bottom, limit = 98, 652, 124, 282, 0.5
    width, height = right - left, bottom - top
    points = [(left + width * k / 200, bottom - height * answer(k / 200)) for k in range(201)]
    first = next(k for k in range(201) if answer(k / 200) < 0.5)
    x, half, end = points[first][0], (top + bottom) / 2, left + width * limit
    body = [sheet(330), f"<rect x='{left}' y='{top}' width='{end - left}' height='{height}' fill='{PANEL}'/>"]
    for where, keep, words in ((left + 33, 0.0, "as it is"), (x, 0.05, "at the flip"), (right - 33, 0.3, "at 1")):
        body += [film(where - 33, 14, 66, keep, LUNG if keep == 0.05 else EDGE), label(where, 96, words, BONE, 13)]
    body.append(path([(left, bottom), (right + 8, bottom)], BONE))
    body.append(f"<path d='M{left} {half}H{right}' stroke='{TEXT}' stroke-dasharray='5 4'/>")
    body.append(f"<path d='M{end} {top - 8}V{bottom}' stroke='{HEART}' stroke-width='1.8'/>")
    body.append(f"<path d='M{x:.1f} {half}V{bottom}' stroke='{LUNG}' stroke-width='1.6' stroke-dasharray='3 3'/>")
    curve = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    body.append(f"<path d='M{curve}' stroke='{LUNG}' stroke-width='2.4' fill='none'/>")
    body.append(f"<circle cx='{x:.1f}' cy='{half}' r='5.5' fill='{LUNG}'/>")
    body += [
        label(left - 10, top + 12, "pneumonia", TEXT, 13, "end"),
        label(left - 10, bottom, "normal", TEXT, 13, "end"),
    ]
    body.append(label(right, half - 8, "threshold", TEXT, 13, "end"))
    body.append(label(end + 8, top + 4, "plausible up to here", HEART, 14, "start"))
    body.append(label(x, bottom + 20, "smallest flipping severity", LUNG, 14))
    body += [label(left, bottom + 40, "0", BONE, 13), label(right, bottom + 40, "1", BONE, 13)]
    body.append(label((left + right) / 2, bottom + 40, "severity, in degrees, pixels, dose …", BONE, 13))
    return svg(WIDTH, 330, "".join(body))


LEAVES = (  # what for, by which figure, threshold, safety-critical
    ("few ill children missed", "sensitivity, lower end", "at least …", True),
    ("no group left behind", "sensitivity of the worst slice", "at least …", False),
    ("answers that hold", "plausible flips, upper end", "at most …", False),
    ("few false alarms", "specificity, lower end", "at least …", False),
    ("in time", "milliseconds a film", "at most …", False),
)


def requirements() -> str:
    """One use, five requirements of which one is safety-critical, thresholds before results."""
    body = [sheet(426), block(18, 178, 150, "good enough", "for this use?", TEXT, 66)]
    body += [label(498, 26, "agreed first,", LUNG, 14), label(498, 44, "file hashed", LUNG, 14)]
    body += [label(608, 26, "filled in", BONE, 14), label(608, 44, "by the run", BONE, 14)]
    for k, (aim, figure, asked, critical) in reversed(list(enumerate(LEAVES))):
        y, colour = 60 + 72 * k, HEART if critical else LUNG
        body.append(path([(168, 211), (186, 211), (186, y + 29), (206, y + 29)], colour))
        body.append(block(208, y, 224, aim, figure, colour, 58))
        box = f"y='{y + 9}' width='96' height='40' rx='7' fill='none'"
        body.append(f"<rect x='450' {box} stroke='{colour}' stroke-width='1.6'/>" + label(498, y + 34, asked))
        body.append(f"<rect x='560' {box} stroke='{BONE}' stroke-dasharray='4 4'/>" + label(608, y + 34, "?", BONE))
    body += [label(93, 62, "safety-critical:", HEART, 14), label(93, 81, "if it fails,", HEART, 14)]
    body += [label(93, 100, "the model fails", HEART, 14)]
    return svg(WIDTH, 426, "".join(body))


FIGURES = {"03-flip.svg": flip, "03-requirements.svg": requirements}


def main(folder: Path = HERE) -> None:
    """Write the two diagrams into `folder`."""
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
