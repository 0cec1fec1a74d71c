"""Who is missing: in three real label tables, and in what the generator draws when the prompt leaves something open.

    python recipes/who_is_missing.py     # results/who_is_missing.json and .rows.csv; needs the full data tier

tables     films and patients of NIH ChestX-ray14, CheXpert (training part) and PadChest by sex, age and view. Counts
           only. Ages are as published; PadChest's is the year of the study less the year of birth.
generator  256 films of "chest x-ray" and of "chest x-ray, pneumonia", sorted by the judge (clinic films taught it), and
           beside them every third donor film, sorted by the same judge: it errs on both. And 360 films whose prompts
           name the subtype alone, in donor's proportion: exposure, sharpness, tilt, lung size and whiteness of the
           lung are measured again, with the shipped segmenter's masks, on these and on donor films. A tenth of donor
           films lies outside donor's own 5 % and 95 %; how much of what is drawn lies there?

Prompts, numbers and seeds were fixed before the first run; nothing was left out. Units are patients (donor) and seeds
(drawn films); donor's percentiles are computed again in each resample. Exploratory: no claim was stated beforehand.
Who is missing for reasons that no column holds, nothing here can show. Not a medical device.
"""

import json

import numpy as np
import pandas as pd
from generator import attributes, claim
from generator.features import CLASSES
from generator.judge import Judge

from medimgen import report
from medimgen.balance import films
from medimgen.data import radiographs, tables
from medimgen.data.manifest import entry
from medimgen.generate import FOLDER, Generator, weights_sha256
from medimgen.metrics import cluster_bootstrap

RESULT = report.RESULTS / "who_is_missing.json"
ROWS = RESULT.with_suffix(".rows.csv")
COMMAND = "python recipes/who_is_missing.py"
SETS = ("nih", "chexpert", "padchest")
AGES = {"nih": ["Patient Age"], "chexpert": ["Age"], "padchest": ["StudyDate_DICOM", "PatientBirth"]}
EDGES, BANDS = [0, 18, 40, 65, 80, 121], ["under 18", "18 to 39", "40 to 64", "65 to 79", "80 and over"]
VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP", "L": "from the side", "Lateral": "from the side"}
VIEWS |= {"LL": "from the side", "RL": "from the side"}
OPEN = {"nothing": "chest x-ray", "pneumonia": "chest x-ray, pneumonia"}
EACH, NAMED, STEP, SEED, DRAWS = 256, 360, 3, 400_000, 1000


# --- tables -----------------------------------------------------------------------------------------------------------


def ages(name: str) -> np.ndarray:
    """Years of age, one a film in the table's own order; NaN where unknown or past 120."""
    read = tables.load(name, AGES[name])
    numbers = [pd.to_numeric(read[column], errors="coerce") for column in AGES[name]]
    years = numbers[0] if len(numbers) == 1 else numbers[0] // 10_000 - numbers[1]
    return years.where(years.between(0, 120)).to_numpy(float)


def people(name: str) -> pd.DataFrame:
    """One row a film: patient, sex, age, view, in words that the three tables share."""
    table = films(name)
    age = pd.cut(ages(name), EDGES, labels=BANDS, right=False).astype("string")
    view = table["view"].map(VIEWS).fillna("other or unknown")
    sex = table["sex"].where(table["sex"].isin(["female", "male"]))
    shown = {"patient": table["patient"], "sex": sex.fillna("unknown"), "age": pd.Series(age).fillna("unknown")}
    return pd.DataFrame(shown | {"view": view})


def count(table: pd.DataFrame) -> dict:
    """Films and patients in all and by each column; and the cells of sex, age and view together that are empty."""
    found = {"films": len(table), "patients": int(table["patient"].nunique())}
    for column, order in (("sex", ["female", "male"]), ("age", BANDS), ("view", ["PA", "AP", "from the side"])):
        kinds = [*order, *sorted(set(table[column]) - set(order))]
        part = table.groupby(column)["patient"].agg(["size", "nunique"]).reindex(kinds, fill_value=0)
        found[column] = {kind: {"films": int(a), "patients": int(b)} for kind, (a, b) in part.iterrows()}
    known = table[table["age"].isin(BANDS) & table["sex"].isin(["female", "male"]) & table["view"].isin(["PA", "AP"])]
    cells = known.groupby(["sex", "age", "view"]).size()
    return found | {"cells": 2 * len(BANDS) * 2, "empty_cells": 2 * len(BANDS) * 2 - len(cells)}


# --- the generator ----------------------------------------------------------------------------------------------------


def measured(images: np.ndarray, judge, segmenter) -> pd.DataFrame:
    values = attributes.measure(images, segmenter(images))
    kinds = np.array(CLASSES)[judge.probabilities(images).argmax(1)]
    return pd.DataFrame({"judged": kinds} | {name: values[name].round(4) for name in attributes.NAMES})


def make_rows() -> pd.DataFrame:
    """One row a film: set, unit, label or prompted subtype, the judge's verdict, five attributes."""
    from medimgen.segment import Segmenter

    generator, judge, segmenter = Generator.load(), Judge.load(), Segmenter.load()
    donor = radiographs.load("donor")
    table, share = donor.table[::STEP], donor.table["subtype"].value_counts(normalize=True)
    parts = [measured(donor.images[::STEP], judge, segmenter)]
    parts[0].insert(0, "label", table["subtype"].to_numpy())
    parts[0].insert(0, "unit", table["number"].astype(str).to_numpy())
    parts[0].insert(0, "set", "donor")
    wanted = [(f"open: {k}", "", prompt, EACH) for k, prompt in OPEN.items()]
    wanted += [("named", kind, claim.PROMPTS[kind], round(NAMED * share[kind])) for kind in CLASSES]
    for k, (name, kind, prompt, n) in enumerate(wanted):
        seed = SEED + 1000 * k
        part = measured(claim.images(generator, prompt, n, seed), judge, segmenter)
        head = {"set": name, "unit": [f"s{seed + i}" for i in range(n)], "label": kind}
        parts.append(pd.concat([pd.DataFrame(head), part], axis=1))
        print(name, kind, n, flush=True)
    return pd.concat(parts, ignore_index=True)


def told(interval) -> dict:
    return {"estimate": round(interval.estimate, 4), "ci95": [round(interval.low, 4), round(interval.high, 4)]}


def subtypes(rows: pd.DataFrame, made: str, kinds: tuple[str, ...]) -> dict[str, dict]:
    """Share of each of `kinds` among the judge's verdicts for them: drawn, donor films seen by the same judge, and the
    difference. For a prompt that says pneumonia, donor's ill films are what it is held against.
    """
    donor = rows[(rows["set"] == "donor") & rows["label"].isin(kinds)]
    both = pd.concat([rows[rows["set"] == made], donor])
    drawn, out = (both["set"] == made).to_numpy(), {}

    def difference(flag, hit):
        return hit[flag].mean() - hit[~flag].mean() if 0 < flag.sum() < len(flag) else np.nan

    for kind in CLASSES:
        hit = (both["judged"] == kind).to_numpy(float)
        gap = cluster_bootstrap(difference, both["unit"], drawn, hit, draws=DRAWS, seed=0)
        out[kind] = {"drawn": round(hit[drawn].mean(), 4), "donor": round(hit[~drawn].mean(), 4)}
        out[kind] |= {"donor_label": round(float((donor["label"] == kind).mean()), 4), "difference": told(gap)}
    return out


def tails(rows: pd.DataFrame, name: str) -> dict[str, dict]:
    """Of the films drawn, the shares below donor's 5 %, above its 95 %, and outside either."""
    both = rows[rows["set"].isin(["donor", "named"])].dropna(subset=[name])
    drawn, value = (both["set"] == "named").to_numpy(), both[name].to_numpy(float)

    def outside(flag, x, below=True, above=True):
        if not 0 < flag.sum() < len(flag):
            return np.nan
        low, high = np.quantile(x[~flag], [0.05, 0.95])
        return float(((x[flag] < low) & below | (x[flag] > high) & above).mean())

    sides = {"below": (True, False), "above": (False, True), "outside": (True, True)}
    found = {}
    for side, (low, high) in sides.items():
        share = cluster_bootstrap(lambda f, x, a=low, b=high: outside(f, x, a, b), both["unit"], drawn, value,
                                  draws=DRAWS, seed=0)  # fmt: skip
        found[side] = told(share)
    return found | {"spread": round(float(value[drawn].std() / value[~drawn].std()), 3)}


def summary(rows: pd.DataFrame) -> dict:
    """What the page quotes, from the rows alone."""
    ill = ("bacterial", "viral")
    return {
        "films": rows["set"].value_counts().to_dict(),
        "open": {
            "nothing": subtypes(rows, "open: nothing", tuple(CLASSES)),
            "pneumonia": subtypes(rows, "open: pneumonia", ill),
        },
        "named": {name: tails(rows, name) for name in attributes.NAMES},
    }


def main() -> None:
    inputs = {"label-tables": entry("label-tables").sha256, "cxr-mini": weights_sha256(FOLDER)}
    with report.run("who_is_missing", seed=SEED, inputs=inputs, parameters={"draws": DRAWS}, tier="full") as run:
        counted = {name: count(people(name)) for name in SETS}
        print(json.dumps(counted, indent=1), flush=True)
        make_rows().to_csv(ROWS, index=False, lineterminator="\n")
        drawn = summary(pd.read_csv(ROWS, keep_default_na=True, dtype={"unit": str}))
    report.append(run.record, report.RUNS)
    document = {"title": "Who is missing: label tables, and a generator left to itself", "command": COMMAND}
    document |= {"run": run.record.id, "code_version": run.record.code_version, "inputs": run.record.inputs}
    document |= {"prompts": OPEN | claim.PROMPTS, "seed": SEED, "draws": DRAWS, "tables": counted, "generator": drawn}
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(json.dumps(drawn, indent=1))


if __name__ == "__main__":
    main()
