"""De-identify DICOM images: dicom-anonymizer with its newest table, and what that library leaves to its caller.

>>> done = deidentify("export", "clean")         # a folder, or one file; `done.files` says what became of each
>>> deidentify("export", "clean", done.secret)   # go on after a stop: the same secret gives the same UIDs

The library brings Table E.1-1 of PS3.15 (2026c, Basic Application Level Confidentiality Profile) and the dummy values.
It acts on the top level of one file and keeps a dummy where a date should go. Added: items of sequences at every depth,
private and unregistered attributes, overlays and curves, file meta, preamble, UIDs and patient numbers that stay linked
across files and processes, dates, names repeated in free text, what the file has to say about it.

PatientIdentityRemoved = YES is what E.1.1 asks for; pixels are not changed nor, unless you pass `pixels`, looked at.
Comments in a JPEG stream and overlays in spare bits of the pixels stay; a face can be rebuilt from a head scan. What
is left may still single a person out when joined with other data. Not a medical device, and no lawyer.
"""

import hashlib
import hmac
import os
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pandas as pd
from pydicom import uid
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset, FileMetaDataset

from medimgen import __version__
from medimgen.dicom.reading import PIXELS, noting, open_dataset
from medimgen.dicom.writing import check_target, save
from medimgen.errors import CourseError

TABLE, MARK, TEXT = "dicomfields_2026c", ".medimgen-identity", ("LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
BASIC = ("113100", "Basic Application Confidentiality Profile")  # PS3.16 CID 7050
SHIFT = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
SAYS = {"remove": ("REMOVED", (BASIC,)), "shift": ("MODIFIED", (BASIC, SHIFT))}


@dataclass(frozen=True)
class Deidentified:
    """files: DataFrame with source, target, outcome ("written", "there already" or "left out: why") and notes. source
    and secret lead back to the patients, so neither is shown, and neither is stored.
    """

    files: pd.DataFrame = field(repr=False)
    seconds: float
    secret: bytes = field(repr=False)

    def __repr__(self) -> str:
        counts = self.files["outcome"].value_counts()
        said = "; ".join(f"{n} {what}" for what, n in counts.items())
        return f"{said}; {counts.get('written', 0) / max(self.seconds, 1e-9):.0f} images/s"


def deidentify(source, target, secret=None, keep_dates="remove", *, jobs: int = 1, pixels=None) -> Deidentified:
    """De-identify one DICOM image, or every one below a folder, into a new file or folder; sources are only read.

    secret : 16 bytes or more that new UIDs, patient numbers, file names and shifts are derived from (HMAC-SHA256). None
        draws one for this call; a Path reads it from a file, or makes that file. Whoever has it can test guesses.
    keep_dates : "remove", or "shift" all but birth dates back by 1 to 3650 days, the same for all of a patient's; times
        of day then stay.
    jobs : processes. pixels : a function path -> findings, e.g. `burned_in.check`: an image with a finding is left out,
        the others say BurnedInAnnotation = NO. Without it that attribute says what it said before.

    A folder becomes flat and its files get new names. Each is written under a temporary name, then renamed: a kill
    leaves whole files only, and the same call with the same secret goes on. Left out, with the reason: what is no DICOM
    image, what cannot be read, what itself says that text is burned in. Raises CourseError for one such file, for a
    target inside the source or of another run, for a secret that is too short.
    """
    source, target, clock, key = Path(source), Path(target), time.perf_counter(), _secret(secret)
    if keep_dates not in SAYS:
        raise CourseError(f"keep_dates={keep_dates!r} is not known", next='pass "remove" or "shift"')
    if source.is_dir():
        rows = _folder(source, target, jobs, (key, keep_dates, pixels))
    else:
        check_target(target, overwrite=False)
        rows = [(source.name, target.name, "written", _one(source, target, key, keep_dates, pixels))]
    files = pd.DataFrame(rows, columns=["source", "target", "outcome", "notes"])
    return Deidentified(files, time.perf_counter() - clock, key)


def _secret(given) -> bytes:
    if isinstance(given, Path):
        if not given.exists():
            with os.fdopen(os.open(given, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        given = given.read_bytes()
    if given is not None and not (isinstance(given, bytes) and len(given) >= 16):
        raise CourseError("a secret is 16 bytes or more", next="leave it out, or pass secrets.token_bytes(32)")
    return given or secrets.token_bytes(32)


def _mac(key: bytes, what: str, text: str) -> bytes:
    return hmac.new(key, f"{what}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _folder(source, target, jobs, how) -> list[tuple]:
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    if target.resolve().is_relative_to(source.resolve()):
        raise CourseError(f"{target.name} lies in the folder that is read", next="choose a folder outside it")
    _claim(target, _mac(how[0], "mark", how[1]).hex())
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
    tasks = [(name, f"{_mac(how[0], 'file', name).hex()[:16]}.dcm") for name in names]
    todo = [(name, new) for name, new in tasks if not (target / new).exists()]
    said = Parallel(jobs, return_as="generator")(delayed(_try)(source / a, target / b, *how) for a, b in todo)
    said = dict(zip(todo, tqdm(said, total=len(todo), desc="de-identified", unit="file", leave=False), strict=True))
    return [(*task, *said.get(task, ("there already", ""))) for task in tasks]


def _claim(target, mark: str) -> None:
    """Take an empty folder, or one that this secret has written to before, and clear away what a kill left."""
    target.mkdir(parents=True, exist_ok=True)
    if not any(target.iterdir()):
        (target / MARK).write_text(mark, encoding="ascii")
    if not (target / MARK).exists() or (target / MARK).read_text(encoding="ascii") != mark:
        raise CourseError(
            f"{target} holds other files, or some of another secret or choice of dates, which could not be linked",
            next="choose a new folder, or pass the secret of the run that began here",
        )
    for part in target.glob("*.part"):
        part.unlink()


def _try(source, target, *how) -> tuple[str, str]:
    try:
        return "written", _one(source, target, *how)
    except CourseError as error:
        return f"left out: {error.what.replace(source.name, 'the file')}", ""


def _one(source, target, key, keep_dates, pixels) -> str:
    """Clean one file and write it; what its reader should know, without anything it said about the patient."""
    with noting([]):
        ds, broken = open_dataset(source, [])
        if not any(name in ds for name in PIXELS):
            raise CourseError(f"{source.name} holds no pixels", next="leave documents and reports out: all is content")
        if str(ds.get("BurnedInAnnotation", "")).upper() == "YES" or (pixels and list(pixels(source))):
            raise CourseError(f"{source.name} has text burned in", next="mask the text first")
        try:
            notes = _clean(ds, key, keep_dates)
            if pixels:
                ds.BurnedInAnnotation = "NO"
            notes += [] if pixels else ["pixels not looked at: text may be burned in"]
            save(ds, target, overwrite=False)
        except CourseError:
            raise
        except Exception as error:  # fail closed, whatever a broken file makes the libraries do
            why = type(error).__name__
            raise CourseError(f"{source.name} could not be cleaned ({why})", next="leave it out") from None
    return "; ".join(notes + [f"{len(broken)} unreadable attributes removed"] * bool(broken))


def _clean(ds: Dataset, key: bytes, keep_dates: str) -> list[str]:
    from dicomanonymizer import simpledicomanonymizer as library

    numbers = [str(ds.get(k, "")) for k in ("PatientID", "PatientName", "StudyInstanceUID")]
    names = [str(e.value) for e in ds.iterall() if e.VR == "PN"] + numbers[:1] + [str(ds.get("AccessionNumber", ""))]
    words = {w for w in _words(" ".join(names)) if len(w) >= 4} - {"anonymized"}
    try:
        _Rules(key, next(filter(str.strip, numbers), ""), keep_dates == "shift").clean(ds)
    finally:
        library.dictionary.clear()
    repeats = [e for e in ds.iterall() if e.VR in TEXT and words.intersection(_words(str(e.value)))]
    for element in repeats:  # free text that the table leaves in place
        element.value = ""
    ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified = "YES", SAYS[keep_dates][0]
    ds.DeidentificationMethod = ["dicom-anonymizer, PS3.15 2026c Table E.1-1", f"medimgen {__version__}"]
    ds.DeidentificationMethodCodeSequence = [Dataset() for _ in SAYS[keep_dates][1]]
    for item, code in zip(ds.DeidentificationMethodCodeSequence, SAYS[keep_dates][1], strict=True):
        item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = *code, "DCM"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
    ds.file_meta, ds.preamble = meta, b"\0" * 128
    return [f"emptied, as a name or number stood in it: {e.keyword}" for e in repeats]


def _words(text) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.casefold()).split()


@cache
def _table() -> dict[tuple, tuple[str, Callable]]:
    """(group, element) -> letters of Table E.1-1 and the library's action; repeating groups are removed whole."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector as select
    from dicomanonymizer.simpledicomanonymizer import initialize_actions

    letters = {tag: name[:-5] for name, tags in select(TABLE).items() if name != "ALL_TAGS" for tag in tags}
    return {tag: (letters[tag], action) for tag, action in initialize_actions(TABLE).items() if len(tag) == 2}


class _Rules:
    """What happens to each attribute of one file."""

    def __init__(self, key: bytes, who: str, shift: bool):
        self.key, self.shift, self.number = key, shift, f"P{_mac(key, 'patient', who).hex()[:12]}"
        self.back = timedelta(1 + int.from_bytes(_mac(key, "days", who)) % 3650)

    def clean(self, ds: Dataset) -> None:
        """Clean the items of sequences first, then hand this level to the library with the rules it needs."""
        from dicomanonymizer import simpledicomanonymizer as library

        table, rules = _table(), {}
        for e in list(ds):
            tag = (e.tag.group, e.tag.element)
            known = tag in table or dictionary_has_tag(e.tag)
            if e.tag.is_private or not known or e.tag.group & 0xFF00 in (0x5000, 0x6000):
                del ds[e.tag]
                continue
            for item in e.value if e.VR == "SQ" else ():
                self.clean(item)
            for old in () if e.VR != "UI" or e.is_empty else e.value if e.VM > 1 else (e.value,):
                library.dictionary[old] = self.uid(str(old))  # where the library looks before it draws one of its own
            if tag in table:
                rules[tag] = self.rule(*table[tag])
        library.anonymize_dataset(ds, None, True, lambda: rules)

    def uid(self, old: str) -> str:
        """A new UID of the form 2.25. (PS3.5 B.2), the same for the same old one; those of the standard stay."""
        new = uuid.UUID(bytes=_mac(self.key, "uid", old)[:16], version=5).int
        return old if old in uid.UID_dictionary else f"2.25.{new}"

    def rule(self, letters: str, action: Callable) -> Callable:
        """The library's action, save where it is not what the letters ask for or what the file needs."""

        def act(ds: Dataset, tag: tuple) -> None:
            e = ds[tag]
            if self.shift and self.shifted(e):
                return
            if letters == "X" or (e.VR == "SQ" and letters in ("X_D", "X_Z_D")):
                del ds[tag]
            elif e.VR == "SQ" and "Z" in letters and "U" not in letters:
                e.value = []
            elif e.keyword == "PatientID":
                e.value = self.number
            elif letters != "X_Z_U_STAR" and not e.is_empty:  # inside U* the UIDs are new already
                try:
                    action(ds, tag)
                except Exception:  # a VR that the library has no dummy for
                    del ds[tag]

        return act

    def shifted(self, e) -> bool:
        """Shift a date; False if it is none, or one of the birth's or of a satellite's: these get the usual dummy."""
        if e.VR not in ("DA", "DT", "TM") or e.tag.group in (0x0010, 0x0016):
            return False
        new = []
        for text in map(str, () if e.VR == "TM" else e.value if e.VM > 1 else [e.value]):
            try:
                day = date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}") - self.back
            except (ValueError, OverflowError):
                return False
            new.append(f"{day:%Y%m%d}".zfill(8) + text[8:])
        e.value = new or e.value
        return True
