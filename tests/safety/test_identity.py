"""De-identification: what has to go is gone, what has to stay is untouched, and a kill leaves no half file."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from medimgen import dicom
from medimgen.data.fetch import fetch
from medimgen.errors import CourseError
from medimgen.safety import identity

SECRET = bytes(range(32))
CHILD = "import sys; from medimgen.safety.identity import deidentify; deidentify(*sys.argv[1:], bytes(range(32)))\n"
DYING = """
import os, pydicom
save, calls = pydicom.Dataset.save_as, []
def dying(ds, file, **how):
    calls.append(file)
    if len(calls) == 7:
        file.write(b"half a file"), file.flush(), os._exit(9)
    save(ds, file, **how)
pydicom.Dataset.save_as = dying
"""
PIXELS = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)


def film(path, name="Roe^Anna", number="4711", **values):
    """Write one film of an invented patient; an attribute of value None is left out."""
    dicom.write(path, PIXELS, synthetic=False, description="grey")
    ds = pydicom.dcmread(path)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = name, number, "19600304"
    ds.StudyDate, ds.StudyTime = "20260102", "101500"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def clean(path, **options):
    target = path.with_name(f"clean-{path.name}")
    done = identity.deidentify(path, target, SECRET, **options)
    return pydicom.dcmread(target), done


def rounds(folder, n, people=3):
    """A folder of `n` films of a few invented patients, two to a study."""
    folder.mkdir()
    for k in range(n):
        who = k % people
        film(
            folder / f"Roe^Anna_{k:03d}.dcm",
            name=f"Roe{who}^Anna",
            number=f"47{who}",
            StudyInstanceUID=f"1.2.3.{k // 2}",
            StudyDate=f"202601{1 + k // 10:02d}",
        )
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.dcm"))}


# --- one file ---------------------------------------------------------------------------------------------------------


def test_what_the_file_says_about_it(tmp_path):
    ds, done = clean(film(tmp_path / "a.dcm"))
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert [c.CodeValue for c in ds.DeidentificationMethodCodeSequence] == ["113100"]
    assert "2026c" in ds.DeidentificationMethod[0] and "BurnedInAnnotation" not in ds
    assert "pixels not looked at" in done.files["notes"][0]
    ds, _ = clean(film(tmp_path / "b.dcm"), keep_dates="shift")
    assert [c.CodeValue for c in ds.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
    assert all(
        len(c.CodeMeaning) <= 64 and c.CodingSchemeDesignator == "DCM" for c in ds.DeidentificationMethodCodeSequence
    )


def test_preamble_and_file_meta_say_nothing(tmp_path):
    path = film(tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.preamble = b"Roe".ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle, ds.file_meta.ImplementationVersionName = "ROE_PC", "ROE"
    ds.save_as(path)
    ds, _ = clean(path)
    assert ds.preamble == bytes(128)
    assert not {"SourceApplicationEntityTitle", "PrivateInformation"} & {e.keyword for e in ds.file_meta}
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert b"ROE" not in (tmp_path / "clean-a.dcm").read_bytes()


def test_names_repeated_in_free_text_go_and_the_note_does_not_repeat_them(tmp_path):
    path = film(
        tmp_path / "a.dcm", Manufacturer="Works", ManufacturerModelName="Set of ROE, no. 4711", SoftwareVersions="1"
    )
    ds, done = clean(path)
    assert ds.Manufacturer == "Works" and ds.SoftwareVersions == "1" and ds.ManufacturerModelName == ""
    note = done.files["notes"][0]
    assert "ManufacturerModelName" in note and "roe" not in note.lower() and "4711" not in note


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Zoë"),
        ("ISO_IR 192", "Αλεξίου^Μαρία"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_other_scripts_go(tmp_path, charset, name):
    path = film(tmp_path / "a.dcm", SpecificCharacterSet=charset)
    ds = pydicom.dcmread(path)
    ds.PatientName, ds.ImageComments, ds.AcquisitionDeviceProcessingCode = name, f"see {name}", "1"
    ds.save_as(path)
    encoded = pydicom.dcmread(path).PatientName.original_string
    assert encoded in path.read_bytes()
    ds, _ = clean(path)
    data = (tmp_path / "clean-a.dcm").read_bytes()
    assert ds.PatientName == "" and "ImageComments" not in ds
    assert not any(part in data for part in encoded.replace(b"=", b"^").split(b"^") if len(part) > 3)


def test_overlays_curves_private_and_unregistered_attributes_go(tmp_path):
    path = film(tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.add_new(0x60003000, "OW", b"\1\0" * 64), ds.add_new(0x60000022, "LO", "drawn by Dr Doe")
    ds.add_new(0x50003000, "OW", b"\1\0"), ds.add_new(0x00109ABC, "LO", "nobody registered this")
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "secret")
    inner = Dataset()
    inner.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "secret")
    inner.PatientBirthName, inner.CodeMeaning = "Doe", "chest"
    ds.AnatomicRegionSequence = [inner]
    ds.save_as(path)
    ds, _ = clean(path)
    left = [e for e in ds.iterall() if e.tag.is_private or e.tag.group in (0x5000, 0x6000) or e.tag == 0x00109ABC]
    assert not left and [e.keyword for e in ds.AnatomicRegionSequence[0]] == ["CodeMeaning"]


def test_documents_and_declared_text_are_left_out(tmp_path):
    path = film(tmp_path / "a.dcm", BurnedInAnnotation="YES")
    with pytest.raises(CourseError, match="burned in"):
        clean(path)
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.SOPClassUID, ds.EncapsulatedDocument = uid.EncapsulatedPDFStorage, b"%PDF Roe"
    ds.save_as(path)
    with pytest.raises(CourseError, match="no pixels"):
        clean(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]


def test_an_image_with_a_document_inside_gets_a_dummy(tmp_path):
    ds, _ = clean(film(tmp_path / "a.dcm", EncapsulatedDocument=b"%PDF Roe"))
    assert ds.EncapsulatedDocument == b"Anonymized"


def test_pixels_are_looked_at_when_asked(tmp_path):
    path, seen = film(tmp_path / "a.dcm"), []
    with pytest.raises(CourseError, match="burned in"):
        clean(path, pixels=lambda p: ["a finding"])
    ds, done = clean(path, pixels=lambda p: seen.append(p) or [])
    assert ds.BurnedInAnnotation == "NO" and seen == [path] and done.files["notes"][0] == ""


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "RLELossless"])
def test_encodings_stay_as_they_are(tmp_path, syntax):
    path = film(tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    if syntax == "RLELossless":
        ds.compress(uid.RLELossless)
    ds.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    ds.save_as(path, enforce_file_format=True)
    before = pydicom.dcmread(path)
    ds, _ = clean(path)
    assert ds.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID and ds.PixelData == before.PixelData
    assert np.array_equal(dicom.read(tmp_path / "clean-a.dcm").pixels, PIXELS) and ds.PatientName == ""


def test_a_jpeg_stream_is_not_touched(tmp_path):
    """Encapsulated pixels are copied byte for byte, whatever a maker wrote between their markers."""
    path = film(tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xfe\0\5Roe\xff\xd9"])
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    ds.save_as(path)
    cleaned, _ = clean(path)
    assert cleaned.PixelData == pydicom.dcmread(path).PixelData


def test_real_files_of_many_makers(tmp_path):
    """The sample files below half a megabyte: pixels as they were, no name or number of a person left, dates gone."""
    source = tmp_path / "in"
    source.mkdir()
    for path in fetch("dicom-samples").glob("*.dcm"):
        if path.stat().st_size < 130_000:
            shutil.copy(path, source)
    done = identity.deidentify(source, tmp_path / "out", SECRET)
    written = done.files[done.files["outcome"] == "written"]
    assert len(written) >= 20
    for row in written.itertuples():
        before, _ = dicom.reading.open_dataset(source / row.source, [])
        after = pydicom.dcmread(tmp_path / "out" / row.target)
        assert before.PixelData == after.PixelData
        data = (tmp_path / "out" / row.target).read_bytes()
        texts = {str(e.value) for e in before.iterall() if e.VR == "PN"} | {str(before.get("PatientID", ""))}
        texts |= {str(e.value) for e in before.iterall() if e.VR in ("DA", "DT")} | {before.SOPInstanceUID}
        assert not [
            t for t in texts if len(t) > 5 and t != "ANONYMIZED" and t.encode() in data.replace(before.PixelData, b"")
        ]


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_hold_across_files_runs_and_processes_and_break_with_the_secret(tmp_path):
    a = film(tmp_path / "a.dcm", StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.9")
    reference = Dataset()
    reference.ReferencedSOPClassUID = uid.CTImageStorage
    reference.ReferencedSOPInstanceUID = pydicom.dcmread(a).SOPInstanceUID
    b = film(tmp_path / "b.dcm", StudyInstanceUID="1.2.3", SourceImageSequence=[reference], FrameOfReferenceUID="1.2.9")
    (first, _), (second, _) = clean(a), clean(b)
    for name in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
        assert first[name].value == second[name].value
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SourceImageSequence[0].ReferencedSOPClassUID == uid.CTImageStorage
    assert first.SOPInstanceUID != second.SOPInstanceUID and first.SOPInstanceUID.is_valid
    subprocess.run([sys.executable, "-c", CHILD, str(a), str(tmp_path / "again.dcm")], check=True)
    assert (tmp_path / "again.dcm").read_bytes() == (tmp_path / "clean-a.dcm").read_bytes()
    identity.deidentify(a, tmp_path / "other.dcm")
    other = pydicom.dcmread(tmp_path / "other.dcm")
    assert other.StudyInstanceUID != first.StudyInstanceUID and other.PatientID != first.PatientID


def test_patients_stay_apart_and_no_table_is_kept(tmp_path):
    from dicomanonymizer import simpledicomanonymizer

    numbers = {clean(film(tmp_path / f"{n}.dcm", number=n))[0].PatientID for n in ("4711", "4712", "4713")}
    assert len(numbers) == 3 and not any("471" in n for n in numbers)
    assert simpledicomanonymizer.dictionary == {}


def test_shifted_dates_keep_their_distances_and_differ_between_patients(tmp_path):
    def days(ds):
        return pydicom.valuerep.DA(ds.StudyDate).toordinal()

    one, _ = clean(film(tmp_path / "a.dcm", AcquisitionDateTime="20260102101500.5+0100"), keep_dates="shift")
    two, _ = clean(film(tmp_path / "b.dcm", StudyDate="20260301"), keep_dates="shift")
    other, _ = clean(film(tmp_path / "c.dcm", number="4712"), keep_dates="shift")
    assert days(two) - days(one) == 58 and one.StudyDate < "20260102" and one.StudyTime == "101500"
    assert one.AcquisitionDateTime == f"{one.StudyDate}101500.5+0100" and one.PatientBirthDate == "00010101"
    assert other.StudyDate != one.StudyDate


@pytest.mark.parametrize("value", ["2026", "20261301", "soon", "00010101"])
def test_what_cannot_be_shifted_gets_a_dummy(tmp_path, value):
    path = film(tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.add_new("StudyDate", "LO", value), setattr(ds["StudyDate"], "VR", "DA")
    ds.save_as(path)
    ds, _ = clean(path, keep_dates="shift")
    assert ds.StudyDate in ("", "00010101")


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_cleaned_and_every_file_accounted_for(tmp_path):
    source = rounds(tmp_path / "in", 6)
    (source / "more").mkdir()
    shutil.copy(source / "Roe^Anna_000.dcm", source / "more")
    (source / "notes.txt").write_text("Anna Roe", encoding="utf-8")
    (source / "cut.dcm").write_bytes((source / "Roe^Anna_001.dcm").read_bytes()[:400])
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in source.rglob("*") if p.is_file()}
    done = identity.deidentify(source, tmp_path / "out", SECRET)
    outcomes = done.files.set_index("source")["outcome"]
    assert len(outcomes) == 9 and (outcomes == "written").sum() == 7 == len(contents(tmp_path / "out"))
    assert "not a DICOM file" in outcomes["notes.txt"] and outcomes["cut.dcm"].startswith("left out")
    assert not [p for p in (tmp_path / "out").rglob("*") if "roe" in p.name.lower()]
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in before}
    assert "7 written" in repr(done) and "Roe" not in repr(done) and SECRET.hex() not in repr(done)


def test_two_processes_write_what_one_writes(tmp_path):
    source = rounds(tmp_path / "in", 8)
    for jobs in (1, 2):
        assert (
            identity.deidentify(source, tmp_path / f"out{jobs}", SECRET, jobs=jobs).files["outcome"] == "written"
        ).all()
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_after_a_kill_all_files_are_whole_and_the_next_run_finishes(tmp_path):
    """A child process dies while it writes its seventh file; the next run ends with the bytes of an unbroken one."""
    source, target = rounds(tmp_path / "in", 20), tmp_path / "out"
    child = subprocess.run([sys.executable, "-c", DYING + CHILD, str(source), str(target)], stderr=subprocess.DEVNULL)
    left = contents(target)
    assert child.returncode == 9 and len(left) == 6 and len(list(target.glob("*.part"))) == 1
    done = identity.deidentify(source, target, SECRET)
    assert done.files["outcome"].value_counts().to_dict() == {"written": 14, "there already": 6}
    after = contents(target)
    assert not list(target.glob("*.part")) and all(after[name] == data for name, data in left.items())
    identity.deidentify(source, tmp_path / "whole", SECRET)
    assert after == contents(tmp_path / "whole")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = film(tmp_path / "a.dcm")
    monkeypatch.setattr(Dataset, "save_as", full)
    with pytest.raises(CourseError, match="No space left"):
        clean(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]


def test_a_library_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from dicomanonymizer import simpledicomanonymizer

    path = film(tmp_path / "a.dcm")
    monkeypatch.setattr(simpledicomanonymizer, "anonymize_dataset", lambda *_: 1 / 0)
    with pytest.raises(CourseError, match="could not be cleaned"):
        clean(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"] and simpledicomanonymizer.dictionary == {}


def test_what_is_refused(tmp_path):
    source = rounds(tmp_path / "in", 2)
    out = tmp_path / "out"
    identity.deidentify(source, out, SECRET)
    for other in (b"another secret, long enough", None):
        with pytest.raises(CourseError, match="another secret"):
            identity.deidentify(source, out, other)
    with pytest.raises(CourseError, match="choice of dates"):
        identity.deidentify(source, out, SECRET, "shift")
    with pytest.raises(CourseError, match="lies in the folder"):
        identity.deidentify(source, source / "out", SECRET)
    with pytest.raises(CourseError, match="other files"):
        identity.deidentify(source, source.parent, SECRET)
    with pytest.raises(CourseError, match="16 bytes"):
        identity.deidentify(source, tmp_path / "new", b"short")
    with pytest.raises(CourseError, match="keep_dates"):
        identity.deidentify(source, tmp_path / "new", SECRET, "all")
    file = next(source.glob("*.dcm"))
    identity.deidentify(file, tmp_path / "one.dcm", SECRET)
    with pytest.raises(CourseError, match="exists already"):
        identity.deidentify(file, tmp_path / "one.dcm", SECRET)
    with pytest.raises(CourseError, match="no file"):
        identity.deidentify(tmp_path / "nothing.dcm", tmp_path / "two.dcm", SECRET)
    assert not (tmp_path / "new").exists()


def test_a_secret_is_stored_only_when_asked_for(tmp_path):
    path = film(tmp_path / "a.dcm")
    identity.deidentify(path, tmp_path / "b.dcm")
    assert {p.name for p in tmp_path.iterdir()} == {"a.dcm", "b.dcm"}
    first = identity.deidentify(path, tmp_path / "c.dcm", tmp_path / "key")
    second = identity.deidentify(path, tmp_path / "d.dcm", tmp_path / "key")
    assert first.secret == second.secret == (tmp_path / "key").read_bytes() and len(first.secret) == 32
    assert (tmp_path / "c.dcm").read_bytes() == (tmp_path / "d.dcm").read_bytes()
