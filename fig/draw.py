"""Draw every figure in this folder: `python fig/draw.py` (standard library only, fixed seed, same bytes each time).

Nothing here is made from a patient's image. The chests are schematic: a few arcs and two closed curves.
Alternative texts and captions stand in `alt.yml` beside this file.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
INK, PANEL, EDGE = "#0e1b24", "#13242f", "#2b4656"
BONE, LUNG, HEART, TEXT = "#8fa9b8", "#5ec4c4", "#f0a868", "#dfeaf0"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, sans-serif'"


def bezier(points: list[tuple[float, float]], n: int) -> list[tuple[float, float]]:
    """n points along one cubic Bezier curve, in a 100 x 100 box."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
    out = []
    for i in range(n):
        t = i / (n - 1)
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        out.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return out


def chest() -> dict[str, list[tuple[float, float]]]:
    """The schematic chest as three lists of points: bone, lung, heart."""
    lung = []
    for side in (-1, 1):
        base = 78 if side < 0 else 82
        outer = [(50 + side * 15, 16), (50 + side * 34, 20), (50 + side * 41, 52), (50 + side * 39, base)]
        floor = [(50 + side * 39, base), (50 + side * 30, 68), (50 + side * 17, 66), (50 + side * 8, 74)]
        inner = [(50 + side * 8, 74), (50 + side * 12, 56), (50 + side * 6, 28), (50 + side * 15, 16)]
        lung += bezier(outer, 46) + bezier(floor, 26) + bezier(inner, 38)
    bone = [(50 + dx, 8 + 3.1 * i) for i in range(28) for dx in (-2.2, 2.2)]
    for side in (-1, 1):
        bone += bezier([(50 + side * 4, 14), (50 + side * 16, 8), (50 + side * 26, 14), (50 + side * 36, 10)], 22)
        for row in range(6):
            y = 20 + 9.4 * row
            end = (50 + side * (33 + 1.2 * row), y + 11)
            bone += bezier([(50 + side * 4, y), (50 + side * 16, y - 7), (50 + side * 30, y - 4), end], 20)
    heart = bezier([(47, 42), (40, 56), (42, 68), (52, 74)], 20) + bezier([(52, 74), (66, 78), (73, 70), (57, 46)], 34)
    return {"bone": bone, "lung": lung, "heart": heart}


def dots(points: list[tuple[float, float]], colour: str, width: float) -> str:
    """One path of round dots."""
    marks = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f"<path d='{marks}' stroke='{colour}' stroke-width='{width}' stroke-linecap='round' fill='none'/>"


def svg(width: float, height: float, body: str) -> str:
    """Wrap a body into a stand-alone SVG file."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}'>{body}</svg>\n"
    )


def logo() -> str:
    """A film: left half still scattered dots, right half already ribs and a lung."""
    rng = random.Random(3)
    scatter = []
    while len(scatter) < 30:
        p = (rng.uniform(10, 30), rng.uniform(10, 54))
        if all(math.dist(p, q) > 4.2 for q in scatter):
            scatter.append(p)
    ribs = "".join(
        f"<path d='M33 {y}C40 {y - 5} 49 {y - 3} 54 {y + 6}' stroke='{LUNG}' stroke-width='3.4' fill='none' "
        "stroke-linecap='round'/>"
        for y in (18, 28, 38, 48)
    )
    spine = f"<path d='M32 10V54' stroke='{TEXT}' stroke-width='3.4' stroke-linecap='round'/>"
    film = f"<rect x='1' y='1' width='62' height='62' rx='13' fill='{INK}' stroke='{EDGE}' stroke-width='1.5'/>"
    return svg(64, 64, film + dots(scatter, HEART, 2.6) + ribs + spine)


def box(x: float, y: float, w: float, title: str, line: str, colour: str) -> str:
    """One labelled box of a flow diagram."""
    mid = x + w / 2
    return (
        f"<rect x='{x}' y='{y}' width='{w}' height='62' rx='9' fill='{PANEL}' stroke='{colour}' "
        f"stroke-width='1.6'/><text x='{mid}' y='{y + 27}' fill='{TEXT}' font-size='15' font-weight='600' "
        f"text-anchor='middle' {FONT}>{title}</text><text x='{mid}' y='{y + 46}' fill='{BONE}' font-size='11.5' "
        f"text-anchor='middle' {FONT}>{line}</text>"
    )


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """A straight arrow from left to right."""
    return (
        f"<path d='M{x0} {y0}L{x1} {y1}' stroke='{TEXT}' stroke-width='1.4'/>"
        f"<path d='M{x1 - 6} {y1 - 4}L{x1} {y1}L{x1 - 6} {y1 + 4}' stroke='{TEXT}' fill='none' stroke-width='1.4'/>"
    )


def ways_in() -> str:
    """Three ways in for a data set, one check, one cache."""
    body = [f"<rect width='760' height='276' rx='10' fill='{INK}'/>"]
    rows = [
        ("1  mirror", "a folder or a USB stick", LUNG),
        ("2  https", "the public address", LUNG),
        ("3  wheel", "inside a Python package", LUNG),
    ]
    for i, (title, line, colour) in enumerate(rows):
        y = 20 + i * 84
        body.append(box(24, y, 196, title, line, colour))
        body.append(f"<path d='M220 {y + 31}H262V138' stroke='{TEXT}' stroke-width='1.4' fill='none'/>")
    body.append(arrow(262, 138, 296, 138))
    body.append(box(298, 107, 190, "SHA-256", "equal to the manifest?", HEART))
    body.append(arrow(488, 138, 540, 138))
    body.append(f"<text x='513' y='128' fill='{LUNG}' font-size='12' text-anchor='middle' {FONT}>yes</text>")
    body.append(box(542, 107, 194, "cache", "used, now and offline", LUNG))
    body.append(f"<path d='M393 169V222' stroke='{HEART}' stroke-width='1.4' stroke-dasharray='4 4'/>")
    body.append(f"<text x='405' y='198' fill='{HEART}' font-size='12' {FONT}>no</text>")
    refused = "refused, thrown away, and you are told what to do next"
    body.append(f"<text x='298' y='243' fill='{TEXT}' font-size='13' {FONT}>{refused}</text>")
    return svg(760, 276, "".join(body))


FIGURES = {"logo.svg": logo, "favicon.svg": logo, "ways-in.svg": ways_in}


def main(folder: Path = HERE) -> None:
    """Write every figure into `folder`."""
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
