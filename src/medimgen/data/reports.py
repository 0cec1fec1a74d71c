"""Radiology reports of Indiana University (Open-i), 3,955 of them.

Licence CC BY-NC-ND 4.0: read them on your machine, publish aggregates only, train nothing that you give away.
"""

import tarfile
from xml.etree import ElementTree

import pandas as pd

from medimgen.data.fetch import fetch

PARTS = ("comparison", "indication", "findings", "impression")


def load() -> pd.DataFrame:
    """One row a report: uid, comparison, indication, findings, impression (text, "" if absent), mesh (tuple).

    `mesh` holds the major MeSH terms that the collection's annotators gave, such as "Cardiomegaly/mild".
    XXXX stands for words removed to protect the patient. Fetched if need be.
    """
    with tarfile.open(fetch("nlm-reports") / "NLMCXR_reports.tgz") as archive:
        rows = [_row(archive.extractfile(m).read()) for m in archive if m.name.endswith(".xml")]
    table = pd.DataFrame(rows)
    order = table["uid"].str.removeprefix("CXR").astype(int).argsort()
    return table.iloc[order].reset_index(drop=True)


def _row(xml: bytes) -> dict:
    root = ElementTree.fromstring(xml)
    text = {(e.get("Label") or "").lower(): (e.text or "").strip() for e in root.iter("AbstractText")}
    mesh = tuple((e.text or "").strip() for e in root.iterfind("MeSH/major"))
    return {"uid": root.find("uId").get("id"), **{p: text.get(p, "") for p in PARTS}, "mesh": mesh}
