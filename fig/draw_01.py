"""Draw the four diagrams of lesson 1: `python fig/draw_01.py` (standard library only, same bytes each time).

Schematic, like everything here: no patient's image, no trained model. Colours and chest are those of `draw.py`.
Alternative texts stand in `alt.yml` beside this file.
"""

from __future__ import annotations

import random
from pathlib import Path

from draw import BONE, EDGE, FONT, HEART, INK, LUNG, PANEL, TEXT, chest, dots, svg

HERE = Path(__file__).resolve().parent
WIDTH = 680


def sheet(height: float) -> str:
    """The dark ground of a diagram."""
    return f"<rect width='{WIDTH}' height='{height}' rx='10' fill='{INK}'/>"


def label(x: float, y: float, words: str, colour: str = TEXT, size: float = 15, anchor: str = "middle") -> str:
    """One line of text."""
    return f"<text x='{x}' y='{y}' fill='{colour}' font-size='{size}' text-anchor='{anchor}' {FONT}>{words}</text>"


def block(x: float, y: float, w: float, words: str, line: str, colour: str, h: float = 64) -> str:
    """A box with a name and a line below it."""
    mid, place = x + w / 2, f"x='{x}' y='{y}' width='{w}' height='{h}' rx='9'"
    frame = f"<rect {place} fill='{PANEL}' stroke='{colour}' stroke-width='1.8'/>"
    name = label(mid, y + 28, words, size=16).replace("<text ", "<text font-weight='600' ")
    return frame + name + label(mid, y + 48, line, BONE, 13)


def path(points: list[tuple[float, float]], colour: str = TEXT, dashed: bool = False) -> str:
    """A line through points with an arrow head at its end; the last piece is horizontal or vertical."""
    (x0, y0), (x1, y1) = points[-2:]
    dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    line = "L".join(f"{x} {y}" for x, y in points)
    dash = " stroke-dasharray='5 4'" if dashed else ""
    left = (x1 - 7 * dx - 4.5 * dy, y1 - 7 * dy - 4.5 * dx)
    right = (x1 - 7 * dx + 4.5 * dy, y1 - 7 * dy + 4.5 * dx)
    head = f"M{left[0]} {left[1]}L{x1} {y1}L{right[0]} {right[1]}"
    return (
        f"<path d='M{line}' stroke='{colour}' fill='none' stroke-width='1.6'{dash}/>"
        f"<path d='{head}' stroke='{colour}' fill='none' stroke-width='1.6'/>"
    )


def film(x: float, y: float, side: float, keep: float = 0.0, edge: str = EDGE, seed: int = 7) -> str:
    """A small panel with the schematic chest; keep 0 is the chest, 1 is scattered dots."""
    rng = random.Random(seed)
    colours = {"bone": BONE, "lung": LUNG, "heart": HEART}
    body = f"<rect width='100' height='100' rx='6' fill='{PANEL}' stroke='{edge}' stroke-width='{180 / side:.2f}'/>"
    for name, target in chest().items():
        start = [(rng.uniform(4, 96), rng.uniform(4, 96)) for _ in target]
        here = [
            (tx + keep * (sx - tx), ty + keep * (sy - ty)) for (tx, ty), (sx, sy) in zip(target, start, strict=True)
        ]
        body += dots(here, colours[name], 1.5)
    return f"<g transform='translate({x} {y}) scale({side / 100})'>{body}</g>"


def gan() -> str:
    """A generator and a discriminator that train each other."""
    body = [sheet(262), film(22, 34, 70, 1.0), label(57, 124, "noise", BONE, 13)]
    body += [path([(96, 69), (122, 69)]), block(124, 37, 136, "generator", "makes an image", LUNG)]
    body += [path([(262, 69), (290, 69)]), film(292, 34, 70, 0.03, LUNG), label(327, 124, "synthetic", BONE, 13)]
    body += [film(292, 156, 70, 0, HEART), label(327, 246, "real", BONE, 13)]
    body += [
        path([(366, 69), (392, 69), (392, 114), (418, 114)]),
        path([(366, 191), (392, 191), (392, 146), (418, 146)]),
    ]
    body += [block(420, 98, 146, "discriminator", "real or made?", HEART), path([(568, 130), (598, 130)])]
    body += [label(604, 125, "a guess,", TEXT, 14, "start"), label(604, 143, "in %", TEXT, 14, "start")]
    body += [path([(493, 96), (493, 18), (192, 18), (192, 35)], HEART, dashed=True)]
    body += [label(484, 38, "what gave it away", HEART, 13, "end")]
    return svg(WIDTH, 262, "".join(body))


def vae() -> str:
    """An encoder to a mean and a spread, a draw, a decoder."""
    body = [sheet(240), film(20, 30, 76, 0, HEART), label(58, 128, "film", BONE, 13), path([(100, 68), (124, 68)])]
    body += [block(126, 36, 112, "encoder", "squeezes", LUNG), path([(240, 68), (268, 68)])]
    body += [f"<ellipse cx='332' cy='68' rx='60' ry='46' fill='{PANEL}' stroke='{HEART}' stroke-width='1.8'/>"]
    body += [f"<ellipse cx='332' cy='68' rx='30' ry='23' fill='none' stroke='{HEART}' stroke-dasharray='3 4'/>"]
    body += [f"<circle cx='332' cy='68' r='3.4' fill='{TEXT}'/><circle cx='349' cy='54' r='4.2' fill='{HEART}'/>"]
    body += [label(332, 134, "a mean and a spread", BONE, 13), path([(394, 68), (422, 68)])]
    body += [block(424, 36, 112, "decoder", "rebuilds", LUNG), path([(538, 68), (564, 68)])]
    body += [film(566, 30, 76, 0.02), label(604, 128, "film, blurred", BONE, 13)]
    body += [path([(352, 190), (480, 190), (480, 102)], LUNG, dashed=True)]
    body += [f"<circle cx='344' cy='190' r='4.2' fill='{LUNG}'/>"]
    body += [label(332, 195, "to make a new one: draw a point,", LUNG, 14, "end")]
    body += [label(500, 195, "and only decode", LUNG, 14, "start")]
    body += [label(340, 226, "training: come back as you were, and keep the points close together", BONE, 13)]
    return svg(WIDTH, 240, "".join(body))


def autoregressive() -> str:
    """Tokens so far, a transformer, chances for the next token, one is taken and appended."""
    body = [sheet(262)]
    for k, word in enumerate(("both", "lungs", "are")):
        body.append(f"<rect x='{20 + 68 * k}' y='84' width='62' height='40' rx='7' fill='{PANEL}' stroke='{LUNG}'/>")
        body.append(label(51 + 68 * k, 109, word))
    body += [label(119, 72, "tokens so far", BONE, 13), path([(222, 104), (254, 104)])]
    body += [block(256, 72, 150, "transformer", "weighs all of them", LUNG), path([(408, 104), (446, 104)])]
    for k, (word, width) in enumerate((("clear", 120), ("normal", 66), ("full", 28), ("green", 3))):
        y = 50 + 29 * k
        body.append(f"<rect x='520' y='{y}' width='{width}' height='18' rx='3' fill='{HEART if k == 0 else BONE}'/>")
        body.append(label(512, y + 14, word, TEXT, 14, "end"))
    body.append(label(570, 188, "chance of each next token", BONE, 13))
    body.append(path([(570, 198), (570, 216), (154, 216)], HEART, dashed=True))
    body.append(f"<rect x='88' y='196' width='62' height='40' rx='7' fill='none' stroke='{HEART}' stroke-width='1.6'/>")
    body += [label(119, 221, "clear", HEART), path([(119, 194), (119, 128)], HEART, dashed=True)]
    body.append(label(360, 206, "take one, append it, begin again", HEART, 14))
    body.append(label(340, 30, "it asks what usually follows; nobody looked at a film", BONE, 13))
    return svg(WIDTH, 262, "".join(body))


def diffusion() -> str:
    """From noise to a chest in steps steered by words; training runs the other way."""
    side, gap = 104, 70
    body = [sheet(284)]
    for k, keep in enumerate((1.0, 0.42, 0.12, 0.0)):
        x = 27 + k * (side + gap)
        body.append(film(x, 96, side, keep, LUNG if k == 3 else EDGE))
        if k < 3:
            body.append(path([(x + side + 6, 148), (x + side + gap - 6, 148)]))
    body.append(block(216, 10, 248, "the words of the prompt", "steer every step", HEART, 60))
    for k in range(3):
        x = 27 + side + gap / 2 + k * (side + gap)
        start = min(max(x, 236), 444)
        points = [(start, 70), (start, 84), (x, 84), (x, 138)] if start != x else [(x, 70), (x, 138)]
        body.append(path(points, HEART, dashed=True))
    body += [label(79, 222, "pure noise", BONE, 13), label(601, 222, "an image", BONE, 13)]
    body.append(label(340, 222, "generating: remove a little noise, again and again", TEXT, 14))
    body += [path([(590, 246), (90, 246)], LUNG, dashed=True)]
    body.append(label(340, 270, "training: add noise to a film and learn to tell which noise it was", LUNG, 14))
    return svg(WIDTH, 284, "".join(body))


FIGURES = {
    "01-gan.svg": gan,
    "01-vae.svg": vae,
    "01-autoregressive.svg": autoregressive,
    "01-diffusion.svg": diffusion,
}


def main(folder: Path = HERE) -> None:
    """Write the four diagrams into `folder`."""
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
