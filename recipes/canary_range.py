"""Claim L4: what is left of invented identifying values after the course's wrapper, and after other tools' defaults?

    python recipes/canary_range.py --try 40      # every 40th attribute, one tool after the other; nothing is recorded
    python recipes/canary_range.py               # claim L4; a minute, and two packages from the index
    python recipes/canary_range.py --peers FOLDER        # the same, with `pip install --target FOLDER` done before

Each tool gets the two files of medimgen.safety.canaries.plant and is called as its own documentation calls it first,
with no option set: that is what somebody in a hurry runs. What these defaults say of themselves is in CLAIMS and is
printed: none promises the Basic Profile of PS3.15 in its newest edition, at every depth. `copied` changes nothing and
shows that every canary can be found.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import claims, report
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.safety import canaries, identity

REQUIREMENTS = ("deid==0.4.13", "dicognito==0.19.0")
PEERS = ("dicom_anonymizer", "deid", "dicognito")
TOOLS = ("course", *PEERS, "dicom_anonymizer_2026c", "copied")
CLAIMS = {
    "course": "medimgen.safety.identity: the Basic Profile, 2026c, with no option, for images, pixels aside",
    "dicom_anonymizer": "2.1.0, anonymize_dicom_file: the fields of the standard's 2023 table are deleted, emptied or "
    "replaced, in conformance with the standard, dates by a dummy on purpose; no word of nested items",
    "deid": "0.4.13, replace_identifiers without a recipe: best effort, by a recipe that names one hospital's archive; "
    "no claim to a profile of the standard; private attributes and sequences are cleaned when asked to",
    "dicognito": "0.19.0, the command line: names, numbers, addresses, dates and UIDs, listed one by one in its README"
    ", are replaced so that files still belong together; the rest stays; no claim to a profile",
    "dicom_anonymizer_2026c": "the same library told to use its newest table, as its documentation says one can",
    "copied": "the files as they were planted: the control",
}


# --- tools (a process of its own for those of other people) -----------------------------------------------------------


def clean(tool: str, source: Path, target: Path) -> None:
    """Hand the files of `source` to one tool, by default settings; its own go to `target`, an empty folder."""
    files = sorted(map(str, source.glob("*.dcm")))
    if tool == "course":
        identity.deidentify(source, target)
    elif tool == "copied":
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif tool == "deid":
        from deid.dicom import replace_identifiers

        replace_identifiers(files, save=True, output_folder=str(target))
    elif tool == "dicognito":
        from dicognito.__main__ import main as dicognito

        dicognito(["--output-directory", str(target), *files])
    else:
        from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

        newest = {"base_rules_gen": lambda: initialize_actions("dicomfields_2026c")} if "2026c" in tool else {}
        for k, file in enumerate(files):
            anonymize_dicom_file(file, str(target / f"{k}.dcm"), **newest)


def install(folder: Path) -> Path:
    """The other tools, without their dependencies, which the course has."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *REQUIREMENTS]
    subprocess.run(pip, check=True)
    return folder


def run(tool: str, source: Path, target: Path, peers: Path) -> None:
    """`clean` in a Python of its own, which sees the other tools; raises CalledProcessError when one fails."""
    target.mkdir()
    code = "import sys; sys.path[:0], _ = sys.argv[1:2], sys.path.append(sys.argv[2]); import canary_range as c; "
    code += "c.clean(sys.argv[3], *map(c.Path, sys.argv[4:]))"
    words = map(str, (Path(__file__).parent, peers, tool, source, target))
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)


# --- rows and figures -------------------------------------------------------------------------------------------------


def make_rows(peers: Path, every: int = 1) -> pd.DataFrame:
    """One row a canary: tag, place, action; for each tool 2 if it survived, 1 if it went, but not as its letters ask,
    0 if it went so. Beyond the table nothing is asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        planted = canaries.plant(folder / "range", canaries.table()[::every] if every > 1 else None)
        rows = pd.DataFrame([vars(c) for c in planted.canaries])
        for tool in TOOLS:
            run(tool, folder / "range", folder / tool, peers)
            left = canaries.survivors(planted, folder / tool)["needle"]
            wrong = ~canaries.conform(planted, folder / tool)["ok"].to_numpy()
            rows[tool] = np.concatenate([wrong, np.zeros(len(rows) - len(wrong), bool)]).astype(int)
            rows.loc[rows["needle"].isin(left), tool] = 2
            print(f"{tool}: {len(canaries.faults(planted, folder / tool))} faults in the files, {CLAIMS[tool]}")
    rows["tag"] = rows["tag"].where(rows["tag"] != "", rows["name"])
    return rows[["tag", "place", "action", *TOOLS]]


def _listed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["place"] != "beyond"]


def gap(course: np.ndarray, *peers: np.ndarray) -> float:
    """Share of canaries surviving the course's wrapper less that of another tool's default: the largest such gap."""
    return max(course.mean() - peer.mean() for peer in peers)


def measure(rows: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The primary figure; attributes are drawn, with all places they were planted in."""
    rows = _listed(rows)
    survived = [(rows[tool] == 2).to_numpy() for tool in ("course", *PEERS)]
    return cluster_bootstrap(gap, rows["tag"], *survived, draws=draws, seed=seed, null=0.0, direction="less")


def explore(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Interval]:
    """Shares of survivors, of those at the top level, and of attributes not treated as their letters ask."""
    rows = _listed(rows)
    parts = {"survive": (rows, 2), "top": (rows[rows["place"] == "top"], 2), "astray": (rows, 1)}
    jobs = {f"{name}_{tool}": (part, part[tool] >= least) for name, (part, least) in parts.items() for tool in TOOLS}
    return {k: cluster_bootstrap(np.mean, part["tag"], hit, draws=draws, seed=seed) for k, (part, hit) in jobs.items()}


def main(argv: list[str] | None = None, folder: Path = report.RESULTS) -> pd.DataFrame:
    """Measure claim L4 and record it, or with --try look whether every tool runs; the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=Path, help="folder that holds " + " and ".join(REQUIREMENTS))
    parser.add_argument(
        "--try", dest="every", type=int, default=1, help="plant every n-th attribute only; record nothing"
    )
    args = parser.parse_args(argv)
    plan, inputs = claims.get("L4")["primary"] if args.every == 1 else {}, {"canaries.tsv": canaries.TABLE}
    with tempfile.TemporaryDirectory() as place:
        peers = args.peers or install(Path(place))
        if args.every > 1:
            return make_rows(peers, args.every)
        draws, seed = plan["draws"], plan["seed"]
        with report.run(
            "L4", seed=seed, inputs=inputs, parameters={"peers": list(REQUIREMENTS)}, tier="both"
        ) as running:
            rows = make_rows(peers)
            interval, explored = measure(rows, draws, seed), explore(rows, draws, seed)
    report.append(running.record, folder / report.RUNS.name)
    n = {"canaries": len(rows), "attributes": _listed(rows)["tag"].nunique()}
    claims.record("L4", interval, n=n, run=running.record, rows=rows, exploratory=explored, folder=folder)
    return rows


if __name__ == "__main__":
    if len(main()) and (report.RESULTS / "L4.json").exists():
        print(claims.show("L4"))
