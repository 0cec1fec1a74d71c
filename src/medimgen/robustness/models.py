"""One form for every model: pictures in, the chance that the film is positive out."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medimgen.errors import CourseError
from medimgen.report import file_sha256


@dataclass(frozen=True)
class Model:
    """`model(x)`: float32 (n, h, w) in 0..1 to P(positive), float64 (n,); NaN where the model gave NaN.

    sha256 names the weights; of a plain function, its pickle and its module's file (what it loads from elsewhere is
    not seen). size is the side of the pictures it wants (None: any). Raises CourseError for other answers.
    """

    name: str
    sha256: str
    size: int | None
    ask: Callable[[np.ndarray], Any] = field(repr=False)
    negative: int = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        p = np.asarray(self.ask(x), dtype=np.float64)
        if p.ndim not in (1, 2) or len(p) != len(x) or not p.size:
            raise CourseError(f"{len(x)} films gave an answer of shape {p.shape}", next="return one row a film")
        if ((p < -1e-6) | (p > 1 + 1e-6)).any():
            raise CourseError("the answers lie outside 0..1", next="for raw scores: as_model(model, logits=True)")
        if p.ndim == 1 or p.shape[1] == 1:
            return p.reshape(-1)
        if (np.abs(p.sum(1) - 1) > 0.01).any():
            raise CourseError("a row of answers does not sum to 1", next="return P(positive), one number a film")
        return 1 - p[:, self.negative]


def as_model(model, *, channels: int = 1, negative: int = 0, logits: bool = False) -> Model:
    """A `Model` from a function, a torch module, a scikit-learn classifier or an ONNX file or session.

    Parameters
    ----------
    model : a torch module is put into evaluation mode; a scikit-learn classifier gets pictures as rows of pixels.
    channels : 1 asks with (n, 1, h, w), 3 repeats the grey picture, 0 asks with (n, h, w).
    negative : of several answer columns, the one that means "nothing found"; positive is the rest. One column, or
        none, is P(positive) itself.
    logits : the model (torch or ONNX) returns raw scores: softmax, or sigmoid of a single column, comes first.
    """
    if isinstance(model, Model):
        if (channels, negative, logits) != (1, 0, False):
            raise CourseError("this is a Model already", next="give channels, negative, logits where it is made")
        return model
    name, size = getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__), None
    if file := getattr(model, "_model_path", None) or (model if isinstance(model, str | Path) else None):
        kind, model = "onnx", Path(file)
        if model.suffix.lower() != ".onnx" or not model.is_file():
            raise CourseError(
                f"{model} is no ONNX file", next="give an existing .onnx file, or load the model yourself"
            )
        name, sha256, side = model.stem, file_sha256(model), _session(model).get_inputs()[0].shape[-1]
        size = side if isinstance(side, int) else None
    elif hasattr(model, "state_dict"):
        kind, model = "torch", model.eval()
        sha256 = _pickle([repr(model), *(v.detach().numpy() for v in model.state_dict().values())])
    elif hasattr(model, "predict_proba"):
        kind, sha256, size = "sklearn", _pickle(model), round(getattr(model, "n_features_in_", 0) ** 0.5) or None
    elif callable(model):
        home = sys.modules.get(getattr(getattr(model, "func", model), "__module__", None))
        code = file_sha256(Path(home.__file__)) if getattr(home, "__file__", None) else ""
        kind, sha256 = "function", getattr(model, "sha256", None) or _pickle([code, model])
        size = getattr(model, "size", None)
    else:
        raise CourseError(f"{type(model).__name__} is no model", next="pass a function of pictures (n, 1, h, w)")
    return Model(name, sha256, size, partial(_ask, kind, model, channels, logits), negative)


def _ask(kind: str, model, channels: int, logits: bool, x: np.ndarray):
    if kind == "sklearn":
        return model.predict_proba(x.reshape(len(x), -1))
    x = np.repeat(x[:, None], channels, 1) if channels else x
    if kind == "function":
        return model(x)
    if kind == "torch":
        import torch

        with torch.inference_mode():
            y = model(torch.from_numpy(x)).float().numpy()
    else:
        y = _session(model).run(None, {_session(model).get_inputs()[0].name: x})[0]
    from scipy.special import expit, softmax

    return y if not logits else softmax(y, 1) if y.ndim == 2 and y.shape[1] > 1 else expit(y)


@cache
def _session(path: Path):
    try:
        import onnxruntime
    except ImportError:
        raise CourseError("ONNX files need onnxruntime", next="run `pip install onnxruntime`") from None
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _pickle(thing) -> str:
    import cloudpickle

    return hashlib.sha256(cloudpickle.dumps(thing)).hexdigest()
