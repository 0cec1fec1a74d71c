"""Four gates between an image drawn and a film kept: memorisation, exposure, proxy, duplicate."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import likeness
from medimgen.errors import CourseError
from medimgen.generate import FOLDER

LIMITS = Path(__file__).with_name("limits.json")
GATES = ("memorisation", "exposure", "proxy", "duplicate")


@dataclass(frozen=True, eq=False)
class Gates:
    """Four gates; `limits` says where they stand and on which films they were set.

    memorisation : distance (`medimgen.likeness`) to the nearest film that the generator in `model` learnt from, at
        least that model's own threshold.
    exposure : `grey`, the mean of the pixels in 0..1, where the middle 99 % of real films lie; `saturation`, the share
        of pixels at either end (0 to 2, 253 to 255), at most that of 99.5 % of real films.
    proxy : probability by `classifier` of the class asked for, at least `agree[class]`, which told it best from the
        others (largest sensitivity + specificity, Youden 1950). A class that has no such limit is let through.
    duplicate : distance to the nearest film kept before, at least the least between two real children's films.

    The shipped classifier learnt from donor and clinic films. A film that passes is typical; it need not be right.
    """

    classifier: object
    limits: dict
    model: Path = FOLDER

    @classmethod
    def load(cls) -> "Gates":
        """The course's classifier, with limits set on the dev films (recipes/make_gates.py)."""
        from medimgen.classify import Classifier

        gates = cls(Classifier.load(), json.loads(LIMITS.read_text(encoding="utf-8")))
        if gates.limits["classifier_sha256"] != gates.classifier.sha256:
            raise CourseError("the gates were set for another classifier", next="python recipes/make_gates.py")
        return gates

    @classmethod
    def measure(cls, films, classifier, model: Path = FOLDER) -> "Gates":
        """Set the limits on `films` (`radiographs.load("dev")`) for `classifier` (predict, classes, sha256)."""
        from sklearn.metrics import roc_curve

        table, agree = films.table, {}
        for label in (*classifier.classes, "pneumonia"):
            is_so = (table["subtype"] == label) | (table["label"] == label)
            if 0 < is_so.sum() < len(table):
                false, true, at = roc_curve(is_so, _probability(classifier, films.images, label))
                agree[label] = float(at[np.argmax(true - false)])
        grey, saturation = _exposure(films.images)
        signs, number = np.stack([likeness.signs(x) for x in films.images]), pd.factorize(table["number"])[0]
        limits = {"split": "|".join(sorted(set(table["split"]))), "films": len(table), "agree": agree}
        limits |= {"classifier_sha256": classifier.sha256, "grey": np.quantile(grey, [0.005, 0.995]).tolist()}
        limits["saturation"] = float(np.quantile(saturation, 0.995))
        limits["duplicate"] = float(likeness.distances(signs, signs)[number[:, None] != number].min())
        return cls(classifier, limits, model)

    def values(self, images: np.ndarray, labels: list[tuple[str, ...]], kept: list[np.ndarray]) -> list[dict]:
        """For each of `images`, uint8 (n, 128, 128): its value at each gate, NaN without one, and `failed`, the gates
        that it fails, parted by "|". The signs of films that fail none are added to `kept`.
        """
        near, least = np.full(len(images), np.nan), np.nan
        if (file := self.model / likeness.FILE).is_file():
            with np.load(file) as held:
                known, least = np.unpackbits(held["signs"], axis=1, count=likeness.BITS), float(held["threshold"])
            near = likeness.nearest(images, known.astype(bool))
        (low, high), rows = self.limits["grey"], []
        for image, label, far, grey, saturation in zip(images, labels, near, *_exposure(images), strict=True):
            name, sign = next((v for v in label if v in self.limits["agree"]), None), likeness.signs(image)
            proxy = _probability(self.classifier, image[None], name)[0] if name else np.nan
            copy = likeness.distances(sign[None], np.stack(kept)).min() if kept else np.nan
            fails = (far < least, not low <= grey <= high or saturation > self.limits["saturation"],
                     bool(name) and proxy < self.limits["agree"][name], copy < self.limits["duplicate"])  # fmt: skip
            row = {"proxy": proxy, "memorisation": far, "grey": grey, "saturation": saturation, "duplicate": copy}
            rows.append(row | {"failed": "|".join(gate for gate, no in zip(GATES, fails, strict=True) if no)})
            if not any(fails):
                kept.append(sign)
        return rows


def _probability(classifier, images: np.ndarray, label: str) -> np.ndarray:
    p, classes = classifier.predict(images), list(classifier.classes)
    return p[:, classes.index(label)] if label in classes else 1 - p[:, classes.index("normal")]


def _exposure(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.mean((1, 2)) / 255, ((images <= 2) | (images >= 253)).mean((1, 2))
