"""How much a film may change before a model changes its mind, and whether that could happen in a department.

>>> from medimgen import robustness
>>> result = robustness.sweep(model, films.images, labels, patients=films.table["number"])
>>> robustness.figures(result)["plausible_flips"]      # share of surely read films, with its 95 % interval

Not a medical device: a model that passes was tested against the changes tried here and no others.
"""

from medimgen.robustness.figures import collection, curves, figures, film, measured, missed, slices, with_exposure
from medimgen.robustness.flips import Settings, Sweep, sweep
from medimgen.robustness.models import Model, as_model

__all__ = [
    "Model", "Settings", "Sweep", "as_model", "collection", "curves", "figures", "film", "measured", "missed", "slices",
    "sweep", "with_exposure",
]  # fmt: skip
