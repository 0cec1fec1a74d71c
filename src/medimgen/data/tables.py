"""The label tables that large public data sets come with: who was imaged, how, and what was found. No images."""

import pandas as pd

from medimgen.data.fetch import fetch
from medimgen.errors import CourseError

FILES = {
    "nih": "Data_Entry_2017_v2020.csv.gz",
    "chexpert": "chexpert_train.csv.gz",
    "padchest": "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
    "vinbig": "vinbigdata-train.csv.gz",
    "rsna": "kaggle_stage_2_train_labels.csv.zip",
    "rsna-headers": "kaggle_stage_2_train_images_dicom_headers.csv.gz",
}


def load(name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """A label table as published, all columns or the named ones.

    Parameters
    ----------
    name : {"nih", "chexpert", "padchest", "vinbig", "rsna", "rsna-headers"}
        VinBig and RSNA have one row for each annotation, not for each film; RSNA's films are part of NIH's.
    columns : list of str, optional
        Read only these (faster); a name the table lacks raises CourseError with the ones it has.
    """
    if name not in FILES:
        raise CourseError(f"no label table is called {name!r}", next=f"use one of {', '.join(FILES)}")
    path = fetch("label-tables") / FILES[name]
    header = [c for c in pd.read_csv(path, nrows=0).columns if not c.startswith("Unnamed")]
    if missing := set(columns or ()) - set(header):
        raise CourseError(
            f"table {name} has no column {', '.join(sorted(missing))}",
            next=f"choose from {', '.join(header)}",
        )
    return pd.read_csv(path, usecols=columns or header, low_memory=False)
