"""The course's classifier of children's chest radiographs: normal, bacterial or viral pneumonia, at 128 pixels.

>>> classifier = Classifier.load()
>>> classifier.predict(films.images)               # float32 (n, 3), rows sum to 1, columns as classifier.classes

A small residual network (He et al. 2016) of half a million parameters, trained by recipes/train_classifier.py. It is
a subject of study, known to lean on the films' shape (claim L0). Not a medical device.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from medimgen.errors import CourseError
from medimgen.paths import ROOT

FOLDER = ROOT / "models" / "cxr-classifier"
CLASSES = ("normal", "bacterial", "viral")
SIZE = 128


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a 2 x 2 one; halves the sides."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.a, self.na = nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)
        self.b, self.nb = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 2, 2, bias=False)

    def forward(self, x):
        return F.silu(self.nb(self.b(F.silu(self.na(self.a(x))))) + self.skip(x))


class Net(nn.Module):
    """Films (n, 1, 128, 128) in 0..1 to class scores (n, 3)."""

    def __init__(self, widths=(32, 64, 96, 128)):
        super().__init__()
        blocks = [Block(a, b) for a, b in zip((16, *widths[:-1]), widths, strict=True)]
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2), nn.SiLU(), *blocks)
        self.drop, self.kind = nn.Dropout(0.3), nn.Linear(widths[-1], len(CLASSES))

    def forward(self, x):
        return self.kind(self.drop(self.layers(x * 2 - 1).mean((2, 3))))


class Classifier:
    """Films to probabilities; also a model for `robustness.sweep` (column 0, normal, is the negative)."""

    classes, size = CLASSES, SIZE

    def __init__(self, net: Net, name: str = "cxr-classifier", sha256: str = "", facts: dict | None = None):
        self.net = net.eval().to(memory_format=torch.channels_last)  # 15 to 25 % faster
        self.name, self.sha256, self.facts = name, sha256, facts or {}

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Classifier":
        """Load a folder (models/cxr-classifier if not given); `facts` is its config.json. Reads no network.

        Raises CourseError when a file is missing or the weights are not those that config.json names.
        """
        folder = Path(path or FOLDER)
        config, weights = folder / "config.json", folder / "model.safetensors"
        if missing := [p.name for p in (config, weights) if not p.is_file()]:
            raise CourseError(f"{folder} holds no {missing[0]}", next="run `python recipes/train_classifier.py`")
        facts = json.loads(config.read_text(encoding="utf-8"))
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        if sha256 != facts["sha256"]:
            raise CourseError(f"{weights} is not the file config.json names", next=f"run `git checkout -- {folder}`")
        net = Net()
        net.load_state_dict(load_file(weights))
        return cls(net, folder.name, sha256, facts)

    def predict(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """Probabilities float32 (n, 3) of films (n, 128, 128), (n, 1, 128, 128) or one (128, 128), uint8 or in 0..1."""
        x = np.asarray(images)
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise CourseError(f"films of type {x.dtype}", next="pass uint8, or floats in 0..1")
        if x.shape[-2:] != (SIZE, SIZE) or (x.ndim == 4 and x.shape[1] != 1) or x.ndim not in (2, 3, 4):
            raise CourseError(f"films of shape {x.shape}", next=f"load them with radiographs.load(size={SIZE})")
        scale = 255 if x.dtype == np.uint8 else 1
        x = torch.from_numpy(np.array(x.reshape(-1, 1, SIZE, SIZE), np.float32)) / scale
        if not (x.min() >= 0 and x.max() <= 1):
            raise CourseError("pixels are NaN or outside 0..1", next="pass uint8, or floats in 0..1")
        with torch.inference_mode():
            return torch.cat([self.net(part).softmax(1) for part in x.split(batch)]).numpy()

    __call__ = predict


def save(net: Net, folder: Path, facts: dict) -> None:
    """Write model.safetensors, config.json (facts and the weights' sha256) and model.onnx (0..1 to probabilities)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)
    facts = {"classes": CLASSES, "size": SIZE, **facts, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    text = json.dumps(facts, indent=1) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")
    whole, film = nn.Sequential(net, nn.Softmax(1)).eval(), torch.zeros(1, 1, SIZE, SIZE)
    torch.onnx.export(
        whole, (film,), str(folder / "model.onnx"), dynamo=False, input_names=["film"], output_names=["probability"],
        dynamic_axes={"film": {0: "n"}, "probability": {0: "n"}},
    )  # fmt: skip
