"""The canary range finds what is left, anywhere; the course's wrapper leaves nothing; other recipes are caught out."""

import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as library

from medimgen.errors import CourseError
from medimgen.safety import canaries, identity

LETTERS = {"D": "D", "Z": "Z", "X": "X", "U": "U", "Z_D": "Z/D", "X_Z": "X/Z", "X_D": "X/D", "X_Z_D": "X/Z/D"}
LETTERS["X_Z_U_STAR"] = "X/Z/U*"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return canaries.plant(tmp_path_factory.mktemp("range") / "range")


@pytest.fixture(scope="module")
def cleaned(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "clean"
    identity.deidentify(planted.first.parent, folder)
    return folder


@pytest.fixture
def first(planted):
    return pydicom.dcmread(planted.first)


def edited(ds, tmp_path):
    """Write a data set and return its path; what it holds is not judged."""
    path = tmp_path / "edited.dcm"
    ds.save_as(path)
    return path


def test_the_table_is_that_of_the_library():
    """Two copies of the standard's table, one in the course and one in the library, say the same."""
    rows, seen = {r.tag: r.action for r in canaries.table().itertuples()}, 0
    for name, letters in LETTERS.items():
        for tag in getattr(library, f"{name}_TAGS"):
            text = f"{tag[0]:04X},{tag[1]:04X}" if len(tag) == 2 else None
            text = text or {0x5000: "50xx,xxxx", 0x6000: f"60xx,{tag[1]:04X}"}[tag[0]]
            assert rows[text] == letters
            seen += 1
    assert seen == len(rows) == len(library.ALL_TAGS) == 655


def test_every_row_has_the_vr_of_the_dictionary():
    table = canaries.table()
    known = 0
    for row in table[~table["tag"].str.contains("xx")].itertuples():
        tag = int(row.tag.replace(",", ""), 16)
        if pydicom.datadict.dictionary_has_tag(tag):
            known += 1
            assert row.vr in pydicom.datadict.dictionary_VR(tag)
    assert known == 655 - 3 - 25


def test_everything_planted_can_be_found(planted):
    """The positive control: a recipe that does nothing loses no canary, and does nothing right."""
    left = canaries.survivors(planted, planted.first)
    assert len(left) == len(planted.canaries) == 4 * 652 + 6
    assert left["place"].value_counts().to_dict() == dict.fromkeys(canaries.PLACES, 652) | {"beyond": 6}
    judged = canaries.conform(planted, planted.first)
    assert len(judged) == 4 * 652 and set(judged["state"]) == {"kept"} and not judged["ok"].any()


def test_another_file_holds_none(planted, tmp_path):
    """The negative control: nothing is found where nothing was planted."""
    ds = pydicom.dcmread(planted.second)
    del ds.StudyInstanceUID, ds.PatientID, ds.PatientName, ds.SourceImageSequence
    assert canaries.survivors(planted, edited(ds, tmp_path)).empty


def test_none_survives_the_wrapper(planted, cleaned):
    left = canaries.survivors(planted, cleaned)
    assert left.empty, left


def test_every_action_is_one_that_the_table_asks_for(planted, cleaned):
    judged = canaries.conform(planted, cleaned)
    assert judged["ok"].all(), judged[~judged["ok"]]
    states = judged[judged["place"] != "private"].groupby("action")["state"].agg(set)
    assert states["X"] == {"gone"} and states["D"] == states["U"] == {"dummy"} and states["Z"] <= {"empty", "dummy"}


def test_pixels_required_attributes_and_links_are_whole(planted, cleaned):
    assert canaries.faults(planted, cleaned) == []


def test_shifted_dates_are_no_survivors_and_only_times_of_day_stay(planted, tmp_path):
    identity.deidentify(planted.first.parent, tmp_path / "out", keep_dates="shift")
    left = canaries.survivors(planted, tmp_path / "out")
    assert set(left["vr"]) == {"TM"} and set(left["place"]) == {"top", "nested", "deep"}
    assert canaries.faults(planted, tmp_path / "out") == []


@pytest.mark.parametrize("place", [*canaries.PLACES, "beyond"])
def test_a_recipe_that_forgets_one_place_is_caught(planted, cleaned, place, tmp_path):
    """One canary is put back where the wrapper had removed it."""
    canary = next(c for c in planted.canaries if c.place == place and c.vr in ("LO", ""))
    ds = pydicom.dcmread(next(cleaned.glob("*.dcm")))
    if place == "private":
        ds.private_block(0x0011, "SOMEBODY", create=True).add_new(1, "LO", canary.needle)
    elif place == "beyond":
        ds.preamble = canary.needle.encode().ljust(128, b"\0")
    else:
        item = ds
        for name in canaries.PLACES[place]:
            item = (
                item[name].value[0] if name in item else setattr(item, name, [pydicom.Dataset()]) or item[name].value[0]
            )
        item.add_new(canary.at, "LO", f"see {canary.needle}!")
    assert canaries.survivors(planted, edited(ds, tmp_path))["needle"].tolist() == [canary.needle]


def test_short_values_count_under_their_own_tag_only(planted, first, tmp_path):
    ages = [c for c in planted.canaries if c.vr == "AS" and c.place == "top"]
    ds = pydicom.dcmread(planted.second)
    ds.PatientAge = ages[1].needle if ages[0].at == 0x00101010 else ages[0].needle
    assert canaries.survivors(planted, edited(ds, tmp_path)).query("vr == 'AS'").empty
    ds.PatientAge = next(c.needle for c in ages if c.at == 0x00101010)
    assert canaries.survivors(planted, edited(ds, tmp_path)).query("vr == 'AS'")["tag"].tolist() == ["0010,1010"]


@pytest.mark.parametrize(
    ("tag", "value", "state"),
    [
        ("0010,2160", "", "empty"),  # Ethnic Group: X, so empty is not enough
        ("0010,2160", "ANONYMIZED", "dummy"),
        ("0010,0010", None, "gone"),  # Patient's Name: Z, so it has to stay
        ("0012,0010", "", "empty"),  # Clinical Trial Sponsor Name: D, so it needs a value
        ("0008,0018", "no uid", "dummy"),  # SOP Instance UID: U, so it has to be a UID
        ("0008,0018", None, "gone"),
        ("0018,0010", None, "gone"),  # Contrast Agent: Z/D
    ],
)
def test_what_the_letters_do_not_stand_for_is_astray(planted, cleaned, tag, value, state, tmp_path):
    canary = next(c for c in planted.canaries if c.tag == tag and c.place == "top")
    ds = canaries._cleaned(planted, cleaned)[0]
    if value is None:
        del ds[canary.at]
    else:
        ds.add_new(canary.at, canary.vr, value)
    path = tmp_path / "edited.dcm"
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    astray = canaries.conform(planted, path).query("not ok")
    assert astray[["tag", "place", "state"]].values.tolist() == [[tag, "top", state]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ds: delattr(ds, "PatientName"), "PatientName is missing"),
        (lambda ds: setattr(ds, "Modality", ""), "Modality is missing or empty"),
        (lambda ds: setattr(ds, "StudyDate", "soon"), "StudyDate does not fit DA"),
        (lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"), "StudyInstanceUID does not link"),
        (lambda ds: setattr(ds, "PatientID", "P2"), "PatientID does not link"),
        (lambda ds: setattr(ds, "SourceImageSequence", []), "SourceImageSequence does not link"),
        (lambda ds: setattr(ds, "PatientIdentityRemoved", "NO"), "does not say that and how"),
        (lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2"), "another instance"),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_every_fault_can_be_found(planted, cleaned, change, says, tmp_path):
    folder = shutil.copytree(cleaned, tmp_path / "copy")
    path = next(p for p in folder.glob("*.dcm") if pydicom.dcmread(p).InstanceNumber == 2)
    ds = pydicom.dcmread(path)
    change(ds)
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    assert any(says in fault for fault in canaries.faults(planted, folder))


def test_changed_pixels_are_refused(planted, cleaned, tmp_path):
    ds = canaries._cleaned(planted, cleaned)[0]
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(tmp_path / "black.dcm")
    with pytest.raises(CourseError, match="pixels"):
        canaries.faults(planted, tmp_path)


def test_a_small_range_for_a_lesson(tmp_path):
    """A learner's recipe is repaired until the range is silent; rows can be chosen, folders cannot be mixed."""
    rows = canaries.table().query("tag in ['0010,0010', '0010,0020', '0008,0080']")
    planted = canaries.plant(tmp_path / "range", rows)
    ds = pydicom.dcmread(planted.first)
    ds.PatientName, ds.PatientID = "", "1"
    left = canaries.survivors(planted, edited(ds, tmp_path))
    assert set(left.query("place == 'top'")["name"]) == {"Institution Name"} and len(left) == 10 + 5 + 1
    with pytest.raises(CourseError, match="not empty"):
        canaries.plant(tmp_path / "range")


# --- the recipe of claim L4 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    import canary_range

    rng = np.random.default_rng(0)
    tags = np.repeat([f"0010,{n:04d}" for n in range(60)], 4)
    made = pd.DataFrame({"tag": tags, "place": ["top", "nested", "deep", "private"] * 60, "action": "X"})
    shares = {
        "course": 0,
        "dicom_anonymizer": 0.3,
        "deid": 0.5,
        "dicognito": 0.9,
        "dicom_anonymizer_2026c": 0.2,
        "copied": 1,
    }
    for tool in canary_range.TOOLS:
        made[tool] = np.where(rng.random(240) < shares[tool], 2, 0)
    beyond = pd.DataFrame(
        {"tag": ["preamble"], "place": ["beyond"], "action": ["X"]} | {t: [2] for t in canary_range.TOOLS}
    )
    return pd.concat([made, beyond], ignore_index=True)


def test_the_primary_figure_is_the_smallest_lead(rows):
    import canary_range

    interval = canary_range.measure(rows, 200, 0)
    listed = rows[rows["place"] != "beyond"]
    assert interval.estimate == pytest.approx(-(listed["dicom_anonymizer"] == 2).mean())
    assert interval.high < 0 and interval.p < 0.01
    worse = canary_range.measure(rows.assign(course=rows["deid"]), 200, 0)
    assert worse.estimate > 0 and worse.low > 0


def test_explored_figures_are_those_that_the_claim_names(rows):
    import canary_range

    explored = canary_range.explore(rows, 50, 0)
    assert list(explored) == [f"{part}_{tool}" for part in ("survive", "top", "astray") for tool in canary_range.TOOLS]
    assert explored["survive_copied"].estimate == 1 and explored["survive_course"].estimate == 0
    assert explored["astray_deid"].estimate >= explored["survive_deid"].estimate


def test_tools_that_come_with_the_course_run_in_the_recipe(tmp_path):
    """The wrapper, the library's default and the control, the last in a process of its own, on a few attributes."""
    import canary_range

    planted = canaries.plant(tmp_path / "range", canaries.table()[::50])
    left = {}
    for tool in ("course", "dicom_anonymizer", "copied"):
        if tool == "copied":
            canary_range.run(tool, tmp_path / "range", tmp_path / tool, tmp_path)
        else:
            (tmp_path / tool).mkdir()
            canary_range.clean(tool, tmp_path / "range", tmp_path / tool)
        left[tool] = len(canaries.survivors(planted, tmp_path / tool))
    assert left["course"] == 0 < left["dicom_anonymizer"] < left["copied"] == len(planted.canaries)


def test_a_folder_in_which_nothing_can_be_looked_for_is_not_called_clean(tmp_path):
    (tmp_path / "IM0001").write_bytes(b"")
    with pytest.raises(CourseError, match=r"no \.dcm file"):
        canaries.survivors(None, tmp_path)
