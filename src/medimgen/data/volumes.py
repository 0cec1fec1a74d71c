"""Volumes: hippocampus MRI crops with labels, one chest CT with organ labels, a brain template."""

from typing import NamedTuple

import numpy as np

from medimgen.data.fetch import fetch
from medimgen.data.manifest import registry
from medimgen.errors import CourseError


class Volume(NamedTuple):
    """`voxels`: float32 (x, y, z) as stored; CT in Hounsfield units, MRI in arbitrary units.

    `labels`: uint8 (x, y, z) or None. `names`: label value to name. `spacing_mm`: (x, y, z).
    """

    voxels: np.ndarray
    labels: np.ndarray | None
    names: dict[int, str]
    spacing_mm: tuple[float, float, float]


HIPPOCAMPUS = {0: "background", 1: "anterior", 2: "posterior"}


def names() -> list[str]:
    """Every name that `load` takes: "chest-ct", "mni152", and "hippocampus_001" … (full tier)."""
    cases = sorted(f.path for f in registry("msd-hippocampus") if f.path.startswith("images/"))
    return ["chest-ct", "mni152", *(c.removeprefix("images/").removesuffix(".nii.gz") for c in cases)]


def load(name: str) -> Volume:
    """The volume called `name`, fetched if need be.

    MRI intensities are left as they are: in the hippocampus set their maximum runs from 112 to 1.7 million,
    so normalise each volume before comparing. An unknown name raises CourseError.
    """
    if name not in names():
        raise CourseError(f"no volume is called {name!r}", next="choose from medimgen.data.volumes.names()")
    if name == "mni152":
        path = fetch("mni152") / registry("mni152")[0].path
        return _volume(path, None, {})
    if name == "chest-ct":
        folder = fetch("chest-ct")
        return _volume(folder / "cxr.nii.gz", folder / "mask.nii.gz", _organs(folder / "structures.csv"))
    folder = fetch("msd-hippocampus")
    return _volume(folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz", HIPPOCAMPUS)


def _volume(image, labels, names) -> Volume:
    import nibabel

    scan = nibabel.load(image)
    voxels = np.asarray(scan.dataobj, np.float32)
    mask = None if labels is None else np.asarray(nibabel.load(labels).dataobj).astype(np.uint8)
    return Volume(voxels, mask, names, tuple(float(z) for z in scan.header.get_zooms()[:3]))


def _organs(path) -> dict[int, str]:
    import pandas as pd

    table = pd.read_csv(path)
    return {0: "background", **dict(zip(table["id"].astype(int), table["structure"], strict=True))}
