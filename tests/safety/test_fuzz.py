"""Readers and de-identification under files that nobody would write: an answer or a CourseError, nothing else."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from pydicom.dataset import Dataset

from medimgen import dicom
from medimgen.data import manifest
from medimgen.errors import CourseError
from medimgen.safety import canaries, identity

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "medimgen-hypothesis")
SECRET = b"sixteen bytes ok"
QUICK = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=100
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), min_size=0, max_size=24)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a small image with a sequence, a lookup table, padding and a private attribute."""
    path = tmp_path_factory.mktemp("fuzz") / "a.dcm"
    dicom.write(path, np.arange(256, dtype=np.uint8).reshape(16, 16), synthetic=False, description="grey")
    ds = pydicom.dcmread(path)
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 8])
    table.add_new("LUTData", "OW", bytes(range(8)))
    ds.VOILUTSequence, ds.RescaleSlope, ds.RescaleIntercept = [table], 1, 0
    ds.add_new("PixelPaddingValue", "US", 3)
    ds.PatientName, ds.StudyDate, ds.PatientID = "Roe^Anna", "20260102", "4711"
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "Roe")
    ds.NumberOfFrames, ds.PixelSpacing = 1, [0.1, 0.2]
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.3"
    ds.save_as(path)
    return path.read_bytes()


@st.composite
def damage(draw):
    """A change of bytes: some overwritten, some put in, a piece cut out, the end cut off."""
    places = st.integers(0, 4096)
    return {
        "write": draw(st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), max_size=6)),
        "put": draw(st.lists(st.tuples(places, st.binary(min_size=1, max_size=12)), max_size=2)),
        "cut": draw(st.lists(st.tuples(places, st.integers(1, 64)), max_size=2)),
        "end": draw(st.one_of(st.none(), places)),
    }


def damaged(data, how):
    data = bytearray(data)
    for place, new in how["write"]:
        place = 128 + place % (len(data) - 128)
        data[place : place + len(new)] = new
    for place, new in how["put"]:
        data[place % len(data) : place % len(data)] = new
    for place, size in how["cut"]:
        del data[place % len(data) :][:size]
    return bytes(data if how["end"] is None else data[: how["end"] % len(data)])


@QUICK
@given(how=damage())
def test_the_dicom_reader_answers_or_says_why(whole, how):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(damaged(whole, how))
        try:
            image = dicom.read(path, 0, colour="grey")
            assert image.pixels.ndim == 2 and image.pixels.dtype == np.float32 and image.window().dtype == np.uint8
        except CourseError as error:
            assert error.next


def test_a_class_of_two_values_is_no_reason_to_stumble(whole, tmp_path):
    """Found by the test above: without pixels, the reader looks the class up to name it."""
    ds = pydicom.dcmread(io.BytesIO(whole))
    ds.SOPClassUID = ["1.2.840.10008.5.1.4.1.1.7", "1.2.3"]
    del ds.PixelData
    ds.save_as(tmp_path / "a.dcm")
    for use in (dicom.read, lambda path: identity.deidentify(path, tmp_path / "b.dcm")):
        with pytest.raises(CourseError, match="no pixels"):
            use(tmp_path / "a.dcm")
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]


@QUICK
@given(data=st.binary(max_size=400))
def test_the_dicom_reader_takes_any_bytes(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(data if len(data) % 2 else b"\0" * 128 + b"DICM" + data)
        with pytest.raises(CourseError):
            dicom.read(path)


@QUICK
@given(how=damage())
def test_a_damaged_file_is_cleaned_whole_or_not_at_all(whole, how):
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.dcm", Path(folder) / "b.dcm"
        source.write_bytes(damaged(whole, how))
        try:
            identity.deidentify(source, target, SECRET)
        except CourseError as error:
            assert error.next and not target.exists()
        else:
            ds = pydicom.dcmread(target)
            assert ds.PatientIdentityRemoved == "YES" and not any(e.tag.is_private for e in ds.iterall())
            assert "PatientName" not in ds or not ds.PatientName
        assert {p.name for p in Path(folder).iterdir()} <= {"a.dcm", "b.dcm"}


ROWS = [
    r
    for r in canaries.table().itertuples()
    if r.vr in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") and r.tag[:4] not in ("0000", "0002", "60xx")
]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@settings(QUICK, max_examples=40)
@given(
    words=st.lists(st.tuples(st.sampled_from(ROWS), TEXTS, st.integers(0, 3)), min_size=1, max_size=12),
    charset=st.sampled_from(["ISO_IR 192", "GB18030"]),
)
def test_no_value_of_any_script_survives_at_any_depth(whole, words, charset):
    """Values of every alphabet, in attributes of the table drawn at random, down to three sequences deep."""
    ds = pydicom.dcmread(io.BytesIO(whole))
    ds.SpecificCharacterSet, planted = charset, []
    for k, (row, text, depth) in enumerate(words):
        place = ds
        for name in ("DerivationCodeSequence", "PurposeOfReferenceCodeSequence", "EquivalentCodeSequence")[:depth]:
            if name not in place:
                setattr(place, name, [Dataset()])
            place = place[name].value[0]
        planted.append(f"ZQ{k}X")
        place.add_new(int(row.tag.replace(",", ""), 16), row.vr, f"{text}{planted[-1]}")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.dcm", Path(folder) / "b.dcm"
        ds.save_as(source)
        identity.deidentify(source, target, SECRET)
        data = target.read_bytes()
        assert not [word for word in planted if word.encode() in data]
        assert pydicom.dcmread(target).PixelData == ds.PixelData


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@QUICK
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_the_manifest_reader_takes_any_bytes(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yml"
        path.write_bytes(data)
        try:
            assert isinstance(manifest.read(path), dict)
        except CourseError as error:
            assert error.next


@settings(QUICK, max_examples=60)
@given(id=st.text(max_size=8), field=st.sampled_from(list(manifest.Entry.__dataclass_fields__)), value=NESTED)
def test_the_manifest_reader_takes_any_value_in_any_field(id, field, value):
    """One field of a good entry is replaced, or the whole entry."""
    good = yaml.safe_load(manifest.MANIFEST.read_text(encoding="utf-8"))["kermany-pocket"]
    for document in ({id: good | {field: value}}, {id: value}):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.yml"
            path.write_text(yaml.safe_dump(document), encoding="utf-8")
            try:
                assert all(isinstance(e, manifest.Entry) for e in manifest.read(path).values())
            except CourseError as error:
                assert error.next


@pytest.mark.parametrize(
    "text", ["a: 2026-13-40", "a: !!python/object/apply:os.getcwd []", "a: &a [*a]", "? [a]\n: b", "[" * 1000]
)
def test_the_manifest_reader_refuses_what_yaml_can_hide(text, tmp_path):
    path = tmp_path / "m.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CourseError):
        manifest.read(path)
