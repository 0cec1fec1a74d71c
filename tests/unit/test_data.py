"""Manifest, films, splits, volumes, reports and label tables."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from medimgen.data import fetch as fetching
from medimgen.data import manifest, radiographs, reports, tables, volumes
from medimgen.errors import CourseError
from medimgen.paths import ROOT


def test_importing_the_package_is_light():
    code = "import sys, medimgen; print(sorted({'torch', 'diffusers', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Manifest


@pytest.mark.parametrize("id", manifest.entries())
def test_manifest_and_registry_belong_together(id):
    entry, files = manifest.entry(id), manifest.registry(id)
    assert entry.sha256 == hashlib.sha256(manifest.registry_file(id).read_bytes()).hexdigest()
    assert entry.bytes == sum(f.bytes for f in files)
    assert all(len(f.sha256) == 64 for f in files)
    assert len({f.path for f in files}) == len(files)


def test_every_pocket_data_set_comes_from_a_package_index():
    assert all("wheel" in e.ways for e in manifest.entries().values() if e.tier == "pocket")


def test_archive_members_are_found_by_unique_names():
    names = [f.path.rsplit("/", 1)[-1] for f in manifest.registry("kermany-cxr-224")]
    assert len(set(names)) == len(names) == 5856


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("tier: full", "tier: ful", "kermany-cxr-224/tier"),
        ("licence:", "license:", "kermany-cxr-224: must contain .*licence"),
        ("bytes: 37610874", "bytes: many", "kermany-cxr-224/bytes"),
        ("mirror: true", "mirrors: true", "kermany-cxr-224/ways"),
        ("title:", "title", "not valid YAML"),
    ],
)
def test_a_typo_in_the_manifest_is_named(tmp_path, before, after, named):
    bad = tmp_path / "data_manifest.yml"
    bad.write_text(manifest.MANIFEST.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    with pytest.raises(CourseError, match=named) as caught:
        manifest.read(bad)
    assert "Next: correct" in str(caught.value)
    assert "data_manifest.yml" in str(caught.value)


def test_licences_table_names_every_data_set():
    table = manifest.show_licences()
    assert all(e.title in repr(table) for e in manifest.entries().values())
    assert table._repr_html_().count("<tr>") == len(manifest.entries()) + 1


# Labels and splits


@pytest.fixture(scope="module")
def labels():
    return radiographs.labels()


def test_the_counts_that_the_course_states(labels):
    assert labels.groupby("subtype").size().to_dict() == {"bacterial": 2780, "normal": 1583, "viral": 1493}
    assert labels["width"].notna().sum() == 3530
    assert labels["duplicate_group"].nunique() == 30


def crossing(labels):
    """The most sides that one bare number lies on."""
    return labels[labels["split"] != "none"].groupby("number")["split"].nunique().max()


def test_nothing_crosses_a_split(labels):
    """No bare number, duplicate group or file lies on two sides; films left out ("none") are on no side."""
    sides = labels[labels["split"] != "none"]
    assert crossing(labels) == 1
    assert sides.groupby("duplicate_group")["split"].nunique().max() == 1
    assert labels["file"].is_unique
    assert labels["split"].isin(radiographs.SPLIT_NAMES).all()


def test_the_check_for_crossings_can_fail(labels):
    moved = labels.copy()
    several = moved.loc[moved["split"] == "donor", "number"].value_counts().index[0]
    moved.loc[moved.index[moved["number"] == several][0], "split"] = "dev"
    assert crossing(moved) == 2


def test_bare_numbers_are_read_from_the_file_names(labels):
    """An independent reading of the file names gives the same numbers."""
    name = labels["file"].str.split("/").str[-1]
    read = name.str.extract(r"(?:^(person)|IM-)(\d+)")
    expected = read[0].fillna("normal") + "-" + read[1].astype(int).astype(str)
    assert expected.tolist() == labels["number"].tolist()


def test_split_sizes(labels):
    sizes = labels["split"].value_counts()
    assert sizes["none"] == 551 and sizes["test"] == 624 and sizes["pocket"] == 16
    free = labels[labels["split"].isin(["donor", "clinic", "dev"])]
    assert len(free) == 4665 and free["number"].nunique() == 2371
    share = pd.crosstab(free["subtype"], free["split"], normalize="index")
    assert np.allclose(share[["donor", "clinic", "dev"]], [0.6, 0.3, 0.1], atol=0.01)


def test_no_split_number_occurs_in_test_films(labels):
    tested = set(labels.loc[labels["split"] == "test", "number"])
    assert not tested & set(labels.loc[labels["split"].isin(["donor", "clinic", "dev"]), "number"])
    assert set(labels.loc[labels["split"] == "none", "number"]) <= tested


def test_the_splits_file_is_what_its_recipe_makes():
    spec = importlib.util.spec_from_file_location("make_splits", ROOT / "recipes" / "make_splits.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    made = recipe.make().to_csv(sep="\t", index=False, lineterminator="\n")
    assert made == radiographs.SPLITS.read_text(encoding="utf-8")


# Films


def test_films_of_each_tier(tier):
    films = radiographs.load(size=64)
    assert films.images.shape == ((16, 64, 64) if tier == "pocket" else (5856, 64, 64))
    assert films.images.dtype == np.uint8
    assert not films.images.flags.writeable
    assert len(films.table) == len(films.images)
    assert {"source", "licence", "split", "subtype"} <= set(films.table)
    part = radiographs.load("pocket", size=64)
    assert np.array_equal(part.images, films.images[films.table["split"] == "pocket"])


def test_both_tiers_show_the_same_sixteen_films(tier):
    """Row k is film k: each stored array is closest to the full-size original of its own name."""
    films = radiographs.load("pocket", size=32)
    originals = [
        np.asarray(Image.fromarray(radiographs.original(f)).resize((32, 32), Image.Resampling.BOX), float)
        for f in films.table["file"]
    ]
    distance = [[np.abs(o - image).mean() for o in originals] for image in films.images.astype(float)]
    assert np.array_equal(np.argmin(distance, axis=1), np.arange(16))
    assert np.max(np.diag(distance)) < 6


def test_a_damaged_array_cache_is_made_again(tier):
    good = np.array(radiographs.load(size=16).images)
    path = next(radiographs.cache_dir().glob(f"arrays/*{'pocket' if tier == 'pocket' else '224'}-16.npy"))
    path.write_bytes(path.read_bytes()[:200])
    assert np.array_equal(radiographs.load(size=16).images, good)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "train"}, "no split is called 'train'.*donor, clinic, dev"),
        ({"size": 512}, "size=512 is not between 16 and 224"),
        ({"tier": "large"}, "no tier is called 'large'"),
        (
            {"tier": "pocket", "split": "donor"},
            "holds 16 films and no donor split.*medimgen fetch kermany-cxr-224",
        ),
    ],
)
def test_bad_arguments_name_the_next_action(arguments, words):
    with pytest.raises(CourseError, match=f"(?s){words}"):
        radiographs.load(**arguments)


def test_a_wrong_tier_variable_is_named(monkeypatch):
    monkeypatch.setenv("MEDIMGEN_TIER", "big")
    with pytest.raises(CourseError, match="(?s)MEDIMGEN_TIER is 'big'.*pocket or full"):
        radiographs.load()


def test_only_pocket_films_have_an_original():
    with pytest.raises(CourseError, match="not one of the 16 films"):
        radiographs.original("train/NORMAL/IM-0115-0001.jpeg")


# Volumes, reports, tables


def test_chest_ct_has_named_organs():
    ct = volumes.load("chest-ct")
    assert ct.voxels.shape == ct.labels.shape == (512, 512, 133)
    assert ct.voxels.dtype == np.float32 and ct.spacing_mm == (0.703125, 0.703125, 2.5)
    assert set(np.unique(ct.labels)) <= set(ct.names)
    lung = [value for value, name in ct.names.items() if name.startswith("lung_")]
    assert -950 < np.median(ct.voxels[np.isin(ct.labels, lung)]) < -700  # Hounsfield units of aerated lung


def test_hippocampus_and_template(tier):
    assert volumes.load("mni152").voxels.shape == (197, 233, 189)
    if tier == "full" and fetching.is_reachable("msd-hippocampus"):
        crop = volumes.load("hippocampus_001")
        assert crop.voxels.shape == crop.labels.shape == (35, 51, 35)
        assert set(np.unique(crop.labels)) == {0, 1, 2}
    assert len(volumes.names()) == 262


def test_unknown_volume():
    with pytest.raises(CourseError, match=r"no volume is called 'liver'"):
        volumes.load("liver")


def test_reports():
    table = reports.load()
    assert len(table) == 3955 and table["uid"].is_unique
    assert (table["impression"] != "").mean() > 0.95
    assert table["mesh"].map(len).min() >= 1


@pytest.mark.parametrize(
    ("name", "rows"),
    [("nih", 112120), ("chexpert", 223414), ("padchest", 160861), ("vinbig", 67914), ("rsna", 30227)],
)
def test_label_tables(name, rows):
    header = {"nih": "Finding Labels", "chexpert": "Pneumonia", "padchest": "Labels"}
    column = header.get(name, "class_name" if name == "vinbig" else "Target")
    assert tables.load(name, [column]).shape == (rows, 1)


def test_label_table_errors():
    with pytest.raises(CourseError, match=r"(?s)no label table is called 'mimic'.*nih, chexpert"):
        tables.load("mimic")
    with pytest.raises(CourseError, match=r"(?s)no column Labels.*choose from Image Index, Finding Labels"):
        tables.load("nih", ["Labels"])


# Command line


def run(*arguments, **environment):
    command = [
        sys.executable,
        "-c",
        "import sys; from medimgen.cli import main; sys.exit(main())",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_fetch_list_shows_every_data_set():
    done = run("fetch", "--list")
    assert done.returncode == 0
    assert all(id in done.stdout for id in manifest.entries())


def test_fetch_of_what_is_here_prints_where():
    done = run("fetch", "mni152", "--verify")
    assert done.returncode == 0 and "mni152: verified" in done.stdout


def test_fetch_fails_with_a_next_action(tmp_path):
    done = run("fetch", "mni12")
    assert done.returncode == 1 and "Next: try mni152" in done.stderr and "Traceback" not in done.stderr
    nowhere = {"MEDIMGEN_CACHE": str(tmp_path), "MEDIMGEN_MIRROR": str(tmp_path / "none")}
    done = run("fetch", "mni152", PIP_NO_INDEX="1", PIP_FIND_LINKS="", **nowhere)
    assert done.returncode == 1 and "Next: connect to the internet once" in done.stderr


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_environment_files_hold_the_same_versions():
    """environment.yml (Binder) and constraints.txt pin the same versions of what pyproject.toml asks for."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = pinned()
    assert pins["torch"] == "2.13.0"
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    for requirement in map(Requirement, project["dependencies"] + extras):
        if requirement.name == project["name"]:  # an extra that takes in another one
            assert requirement.extras <= set(project["optional-dependencies"])
            continue
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert {d.split("=")[0] for d in conda} == {"python", "pip"}
    (pip_lines,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "--constraint constraints.txt" in pip_lines and "--editable ." in pip_lines
    assert f"torch=={pins['torch']}" in pip_lines
    assert sum("://" in line for line in pip_lines) == 1


def test_versions_installed_are_the_versions_pinned():
    pins = pinned()
    have = {d.name.lower().replace("_", "-"): d.version.split("+")[0] for d in importlib.metadata.distributions()}
    differ = {n: (have[n], v) for n, v in pins.items() if n in have and have[n] != v}
    assert differ == {}, json.dumps(differ)
