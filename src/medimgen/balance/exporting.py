"""Hand made films on: marked, with a datasheet; and never a film of the official test split among them.

>>> export("runs/viral", "runs/viral-dicom", kind="dicom")

The guard knows 511 signs (`medimgen.likeness`) of the middle of each of the 624 test films, 5 % cut off every side; no
film can be drawn from them. A picture is cut in 81 ways, 0, 2.5 or 5 % off each side, so that some cut of a test film
that was itself cut by up to 5 % anywhere shows the same middle. THRESHOLD was set on dev films that played the test
films (recipes/make_gates.py): changed copies came no further than 0.16, clinic and donor films no nearer than 0.25. A
film turned, mirrored or cut by much more is not found, and the guard knows nobody else's films.
"""

import itertools
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageSequence

from medimgen import dicom, likeness, pictures, report
from medimgen.balance import reviewing
from medimgen.balance.counting import analyse
from medimgen.balance.filling import RUN, SETTINGS, TABLE
from medimgen.balance.planning import Plan
from medimgen.data import radiographs
from medimgen.errors import CourseError
from medimgen.generate import FOLDER, refuse_patient_derived
from medimgen.safety import rights

KNOWN = Path(__file__).with_name("test_signs.npz")
MARGIN, THRESHOLD = 0.05, 0.20
CUTS = tuple(itertools.product((0.0, MARGIN / 2, MARGIN), repeat=4))
SHEET, TEXTS = Path(__file__).with_name("datasheet.md"), (".tsv", ".yml", ".json")


def middles(picture: Image.Image, cuts: Iterable[tuple[float, ...]] = CUTS) -> np.ndarray:
    """bool (cuts, 511): signs of the picture with these shares cut off its left, top, right and bottom."""
    grey = pictures.grey(picture)
    grey.thumbnail((256, 256), Image.Resampling.BOX)
    w, h = grey.size
    boxes = ((round(a * w), round(b * h), w - round(c * w), h - round(d * h)) for a, b, c, d in cuts)
    return np.stack([likeness.signs(grey.crop(box)) for box in boxes])


def distance_to_test(picture: Image.Image | np.ndarray) -> float:
    """Share of signs that differ (0 to 0.5) between the picture, in the likest of 81 cuts, and the likest test film."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    with np.load(KNOWN) as kept:
        known = np.unpackbits(kept["signs"], axis=1, count=likeness.BITS).astype(bool)
    return float(likeness.distances(middles(picture), known).min())


def official_test_films(folder: str | Path) -> list[str]:
    """Files of `folder`, to the bottom and whatever they are called, that show a film of the official test split."""
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    found = (p for p in files if any(distance_to_test(frame) < THRESHOLD for frame in _frames(p)))
    return [path.relative_to(folder).as_posix() for path in found]


def _frames(path: Path) -> Iterator[Image.Image]:
    """The pictures of a file, in grey; none if it holds none."""
    with path.open("rb") as file:
        is_dicom = file.read(132)[128:] == b"DICM"
    try:
        if is_dicom:
            first = dicom.read(path, 0, colour="grey")
            rest = (dicom.read(path, k, colour="grey") for k in range(1, first.frames))
            yield from (Image.fromarray(dicom.window(film)) for film in itertools.chain([first], rest))
            return
        with Image.open(path) as picture:
            yield from map(pictures.grey, ImageSequence.Iterator(picture))
    except (CourseError, *pictures.BROKEN):
        return


def export(folder: str | Path, to: str | Path, kind: str = "png", table: pd.DataFrame | None = None) -> Path:
    """Copy the films that `fill` kept and no reviewer rejected into the new folder `to`, with all that says how.

    kind : "png" (text chunks say that it is synthetic) or "dicom" (Secondary Capture, SyntheticData = YES, what drew it
        and how). Beside the films: README.md, a datasheet (after Gebru et al. 2021); films.tsv (file, label, prompt,
        seed, weights, SHA-256); plan, run record, gates and reviews as they are.
    table : the real films; the datasheet then counts each cell of the plan before and after.

    Raises CourseError, and leaves nothing behind, for an empty folder, a film of the test split, a file that may not be
    passed on (`safety.rights`), a PNG that is not marked synthetic, that is patient-derived or too like a film the
    model learnt from; or where it cannot write.
    """
    folder, to = Path(folder).expanduser(), Path(to).expanduser()
    if kind not in ("png", "dicom") or to.exists():
        raise CourseError(f"kind={kind!r}, {to}", next='use "png" or "dicom", and a folder that is not there yet')
    if tests := official_test_films(folder):
        raise CourseError(
            f"{len(tests)} files show films of the official test split: {', '.join(tests[:5])}",
            next="take them out: a model that has seen them can no longer be measured on them",
        )
    rights.require(radiographs.FULL, "derive")  # what the generator learnt from
    rights.refuse(path for path in folder.rglob("*") if path.is_file())
    rows, part = _leaving(folder), to.with_name(f".{to.name}-{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        _write(folder, part, rows, kind)
        (part / "README.md").write_text(_datasheet(part, rows, table), encoding="utf-8", newline="\n")
        part.replace(to)
    except OSError as error:
        why = f"cannot write {to}: {error.strerror or error}"
        raise CourseError(why, next="make room or choose another folder; nothing was left") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return to


def _leaving(folder: Path) -> pd.DataFrame:
    """file, label, prompt, seed and weights of each marked PNG that nobody rejected."""
    rejected, rows = set(reviewing.decisions(folder).query("verdict == 'reject'")["file"]), []
    for path in sorted(folder.glob("*.png")):
        picture = pictures.read(path)
        marks, image = picture.info, np.asarray(picture)
        if marks.get("Synthetic") != "true" or image.dtype != np.uint8 or image.ndim != 2:
            raise CourseError(f"{path.name} is not marked synthetic", next="export only what fill or save_png wrote")
        record = json.loads(marks.get("Record", "{}"))
        refuse_patient_derived(record | ({"patient_derived": True} if "Patient-Derived" in marks else {}))
        if likeness.too_like(image[None], FOLDER)[0]:
            raise CourseError(f"{path.name} is too like a film the model learnt from", next="delete it")
        told = {key: record.get(key, "") for key in ("label", "prompt", "seed")}
        rows += [] if path.name in rejected else [{"file": path.name, **told, "weights": record.get("weights_sha256")}]
    if not rows:
        raise CourseError(f"{folder} holds no film to export", next="fill a plan into it, and accept some films")
    return pd.DataFrame(rows)


def _write(folder: Path, part: Path, rows: pd.DataFrame, kind: str) -> None:
    """The films, films.tsv, and what `fill` and the reviewers wrote."""
    for row in rows.to_dict("records") if kind == "dicom" else ():
        told = (
            "Synthetic, not for diagnosis. Drawn by medimgen from the prompt {prompt!r}, seed {seed}, weights SHA-256 "
        )
        told = (told + "{weights}").format(**row)
        target, image = (part / row["file"]).with_suffix(".dcm"), np.asarray(pictures.read(folder / row["file"]))
        dicom.write(target, image, synthetic=True, description=told)
    for file in rows["file"] if kind == "png" else ():
        shutil.copyfile(folder / file, part / file)
    names = [file if kind == "png" else Path(file).with_suffix(".dcm").name for file in rows["file"]]
    rows = rows.assign(file=names, sha256=[report.file_sha256(part / name) for name in names])
    rows.to_csv(part / "films.tsv", sep="\t", index=False, lineterminator="\n")
    for name in ("plan.yml", RUN, TABLE, SETTINGS, reviewing.FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, part / name)


def _datasheet(part: Path, rows: pd.DataFrame, table: pd.DataFrame | None) -> str:
    run, plan, cells = {"facts": {"met": "unknown", "cancelled": "unknown", "rates": {}}}, None, ""
    if (part / RUN).is_file():
        run = json.loads((part / RUN).read_text(encoding="utf-8"))
    if (part / "plan.yml").is_file():
        plan = Plan.load(part / "plan.yml")
    facts, new, drawn = run["facts"], rows.groupby("label").size(), rows.groupby(["label", "prompt"]).size().items()
    if table is not None and plan:
        real = analyse(table, plan.by).counts().items()
        counted = (f"- {', '.join(cell)}: {n} and {new.get('|'.join(cell), 0)}" for cell, n in real)
        cells = "\n".join(["## Real and synthetic films of each cell", "", *counted, "", ""])
    weights, files = sorted(set(rows["weights"].astype(str))), sorted(p for p in part.iterdir() if p.suffix in TEXTS)
    return SHEET.read_text(encoding="utf-8").format(
        n=len(rows), weights=", ".join(weights), source=plan.source if plan else "none",
        films="\n".join(f"- {n} of {label}: {prompt}" for (label, prompt), n in drawn), cells=cells,
        rates="\n".join(f"- {gate}: {share:.1%}" for gate, share in facts["rates"].items()) or "No record of gates.",
        met=facts["met"], cancelled=facts["cancelled"], review=reviewing.summary(part),
        files="\n".join(f"- {p.name}: {report.file_sha256(p)}" for p in files),
    )  # fmt: skip
