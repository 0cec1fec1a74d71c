"""How often is a name drawn into a film found, read, covered; and how much of a clean film is covered for nothing?

    python recipes/burned_in_text.py           writes results/burned_in.json (about 6 minutes of one core)
    python recipes/burned_in_text.py small     that arm alone; --peer: how far rapidocr-onnxruntime itself agrees
                                               (it must be installed, with OpenCV)

Invented names are added to film texture in DejaVu Sans, in grey levels above or below what lies under them, whichever
has room. Size is the height of a capital letter in pixels, contrast the share of the 255 levels. Three names at a time,
one of each size, in thirds of the height, at places drawn by lot; one film a patient (two for one of the large).

- small: 30 dev films of 224 x 224 (the copies that the course uses), sizes 8, 12 and 16.
- small_read: the same, counting only boxes in which two letters or more were read (Box.kind "text").
- large: the 16 pocket films at full size, sizes 8, 16 and 32.
- large_zoom_2: every second of those, the lowest contrast, looked at with zoom 2.

Found: at least half of the letters' pixels lie in boxes. Read: the name without spaces and commas, to within one
letter. Covered: every pixel of the letters lies under the mask. Again: the masked film is looked at anew, and two
letters or more are read at a place that touches the name's. Clean: the same films with nothing planted; a real side
marker (L, R) is text, so it is counted apart. Settings were chosen on other dev films. Three of the large films were
looked at for it too (for the zoom), so theirs are no independent test. Intervals: Wilson's for a cell (one film a
patient, near enough), and the bootstrap over patients for all cells of an arm.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from medimgen import metrics, prompts, report
from medimgen.data import radiographs
from medimgen.data.manifest import registry
from medimgen.safety import burned_in

RESULT = report.RESULTS / "burned_in.json"
COMMAND = "python recipes/burned_in_text.py"
CONTRASTS = (0.1, 0.25, 0.5)
SMALL, LARGE = (8, 12, 16), (8, 16, 32)
FILMS = 30
ARMS = ("small", "small_read", "large", "large_zoom_2")
COLUMNS = ("patient", "size", "contrast", "found", "read", "covered", "again")
GIVEN = "Lena Ines Hugo Tomas Amal Petra Odd Rei Awa Judit Milo Noor Kwame"  # codespell:ignore
FAMILY = "Okafor Brandt Moreau Silva Haddad Novak Larsen Kimura Ndiaye Varga Rossi"


def font(size: int):
    """DejaVu Sans, which comes with matplotlib, with capitals `size` pixels high."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), round(size / 0.729))


def plant(film: np.ndarray, sizes: tuple[int, ...], contrast: float, seed: int) -> tuple[np.ndarray, list]:
    """A film (h, w) with one invented name of each size, and [(size, name, its pixels (h, w) bool)]."""
    from PIL import Image, ImageDraw

    rng, (height, width) = np.random.default_rng(seed), film.shape
    planted, names = film.astype(np.float64), []
    for slot, size in enumerate(rng.permutation(sizes)):
        name, letters = f"{rng.choice(FAMILY.split())}, {rng.choice(GIVEN.split())}", font(size)
        left, top, right, bottom = letters.getbbox(name)
        third, high, wide = height // 3, bottom - top, right - left
        y, x = slot * third + rng.integers(2, third - high - 2), rng.integers(2, max(3, width - wide - 2))
        sheet = Image.new("L", (width, height))
        ImageDraw.Draw(sheet).text((x - left, y - top), name, fill=255, font=letters)
        ink = np.asarray(sheet) / 255
        sign = 1 if film[y : y + high, x : x + wide].mean() < 128 else -1
        planted += sign * contrast * 255 * ink
        names.append((int(size), name, ink > 0.5))
    return np.clip(np.rint(planted), 0, 255).astype(np.uint8), names


def touches(box: burned_in.Box, pixels: np.ndarray) -> bool:
    return bool(pixels[box.top : box.bottom, box.left : box.right].any())


def same(read: str, name: str) -> bool:
    """Whether a reading is the name to within one letter, spaces, commas and case apart."""
    a, b = (re.sub(r"[ ,.]", "", text).lower() for text in (read, name))
    return a == b or prompts.one_slip(a, b)


def area(shape: tuple[int, int], boxes: list) -> np.ndarray:
    """Where boxes lie, bool (h, w)."""
    inside = np.zeros(shape, bool)
    for box in boxes:
        inside[box.top : box.bottom, box.left : box.right] = True
    return inside


def look(film, patient: str, sizes, contrast: float, seed: int, arm: str) -> list[list]:
    """One row of COLUMNS for each name planted into a film; `again` is looked at in the first arm, else None."""
    picture, names = plant(film, sizes, contrast, seed)
    again, zoom = arm == "small", 2 if arm == "large_zoom_2" else None
    boxes = [b for b in burned_in.find(picture, zoom) if b.kind == "text" or arm != "small_read"]
    inside, masked = area(film.shape, boxes), burned_in.mask(np.ones_like(film), boxes) == 0
    left = [b for b in burned_in.find(burned_in.mask(picture, boxes)) if b.kind == "text"] if again else []
    rows = []
    for size, name, pixels in names:
        read = any(same(b.text, name) for b in boxes if touches(b, pixels))
        seen = any(touches(b, pixels) for b in left) if again else None
        found, covered = bool(inside[pixels].mean() >= 0.5), bool(masked[pixels].all())
        rows.append([patient, size, contrast, found, read, covered, seen])
    return rows


def clean(film: np.ndarray, patient: str) -> dict:
    """What is covered in a film with nothing planted: shares of its pixels, and what was read."""
    boxes = burned_in.find(film)
    kinds = {kind: [b for b in boxes if b.kind == kind] for kind in ("side", "text", "unread")}
    shares = {k: round(float((burned_in.mask(np.ones_like(film), v) == 0).mean()), 5) for k, v in kinds.items()}
    return {"patient": patient, "boxes": {k: len(v) for k, v in kinds.items()}, "share_masked": shares,
            "text": [b.text for b in kinds["text"]]}  # fmt: skip


def table(rows: list[list]) -> dict:
    """Cells of size and contrast with Wilson's interval of "found", and all cells with the patients' bootstrap."""
    values = np.array([row[3:6] for row in rows], float)
    cells = []
    for size, contrast in sorted({(row[1], row[2]) for row in rows}):
        here = [row for row in rows if (row[1], row[2]) == (size, contrast)]
        hits = {name: sum(bool(row[COLUMNS.index(name)]) for row in here) for name in COLUMNS[3:]}
        hits["again"] = None if here[0][6] is None else hits["again"]
        found = metrics.proportion(hits["found"], len(here))
        cells.append({"size": size, "contrast": contrast, "n": len(here), **hits,
                      "found_ci95": [round(found.low, 3), round(found.high, 3)]})  # fmt: skip
    whole = {}
    for k, name in enumerate(COLUMNS[3:6]):
        interval = metrics.cluster_bootstrap(np.mean, np.array([row[0] for row in rows]), values[:, k], seed=0)
        whole[name] = [round(float(v), 3) for v in (interval.estimate, interval.low, interval.high)]
    return {"cells": cells, "all": whole, "rows": rows}


def films(arm: str) -> list[tuple[str, np.ndarray]]:
    """(patient, film) of an arm; the small ones spread over dev, leaving out those on which settings were tried."""
    if arm == "large":
        table = radiographs.load("pocket", tier="pocket").table
        return [(str(row.number), radiographs.original(row.file)) for row in table.itertuples()]
    dev = radiographs.load("dev", size=224, tier="full")
    first = [i for k, i in enumerate(dev.table.drop_duplicates("number").index) if k % 39 and (k - 3) % 23]
    return [(str(dev.table["number"][k]), dev.images[k]) for k in first[:: len(first) // FILMS][:FILMS]]


def measure(arm: str) -> dict:
    """One arm, without writing anything."""
    kept, sizes = films(arm[:5]), SMALL if arm.startswith("small") else LARGE
    step, contrasts = (2, CONTRASTS[:1]) if arm == "large_zoom_2" else (1, CONTRASTS)
    rows = [
        row
        for k, (patient, film) in list(enumerate(kept))[::step]
        for c in contrasts
        for row in look(film, patient, sizes, c, 1000 * k + round(100 * c), arm)
    ]
    whole = arm in ("small", "large")
    return table(rows) | ({"clean": [clean(film, patient) for patient, film in kept]} if whole else {})


def peer() -> dict:
    """The same ten small films, contrast 0.25, by rapidocr-onnxruntime and by the course."""
    from rapidocr_onnxruntime import RapidOCR

    theirs, hits = RapidOCR(), {"both": 0, "course_only": 0, "rapidocr_only": 0, "neither": 0}
    same_text = 0
    for k, (_, film) in enumerate(films("small")[:10]):
        picture, names = plant(film, SMALL, 0.25, seed=k)
        ours = burned_in.find(picture)
        corners = [(np.array(c), text) for c, text, _ in theirs(picture)[0] or []]
        other = [burned_in.Box(*(int(v) for v in (*c.min(0)[::-1], *c.max(0)[::-1])), text) for c, text in corners]
        for _, _, pixels in names:
            a, b = ([x.text for x in boxes if touches(x, pixels)] for boxes in (ours, other))
            hits[("both", "course_only", "rapidocr_only", "neither")[2 * (not a) + (not b)]] += 1
            same_text += bool(set(a) & set(b))
    return {"version": "1.4.4", "films": 10, "names": sum(hits.values()), "found_by": hits, "same_text": same_text}


def record(arm: str) -> dict:
    """Measure one arm; what the document says of it, with its run."""
    inputs = {file.path: file.sha256 for file in registry(burned_in.MODELS)}
    with report.run(
        f"burned_in_text {arm}", parameters={"contrasts": list(CONTRASTS)}, inputs=inputs, tier="full"
    ) as run:
        measured = measure(arm)
    report.append(run.record, report.RUNS)
    return {"run": run.record.id, "code_version": run.record.code_version, "models": inputs} | measured


def main(names: list[str]) -> None:
    for name in names or ARMS:
        made = peer() if name == "--peer" else record(name)
        document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"arms": {}}
        document |= {"title": "Names drawn into films: found, read, covered", "command": COMMAND, "columns": COLUMNS}
        (document if name == "--peer" else document["arms"])[name.removeprefix("--")] = made
        text = re.sub(r'(\], |\}, |: \[)(?=[\[{"])', r"\1\n", json.dumps(document, ensure_ascii=False))
        RESULT.write_text(text + "\n", encoding="utf-8", newline="\n")
        print(name, made.get("all", made), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
