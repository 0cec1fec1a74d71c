"""What the claims about the shipped generator share: its prompts, its images, its judge, and how a result is
recorded.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen import claims, report
from medimgen.metrics import Interval
from medimgen.paths import cache_dir

from .features import CLASSES

PROMPTS = dict(
    zip(
        CLASSES,
        ("chest x-ray, normal", "chest x-ray, bacterial pneumonia", "chest x-ray, viral pneumonia"),
        strict=True,
    )
)
WORK = cache_dir() / "training" / "cxr-mini"


def instrument(stage: str):
    """The judge or the outlines, as train_generator.py left them; trained now if they are missing."""
    from train_generator import STEPS, Recipe

    return getattr(Recipe(WORK, WORK / "cxr-mini", STEPS), stage)()


def images(generator, prompt: str, n: int, seed: int) -> np.ndarray:
    """`n` images of seeds `seed` to `seed + n - 1`, uint8 (n, 128, 128), at the model's own settings."""
    starts = range(seed, seed + n, 50)
    return np.concatenate([generator(prompt, n=min(50, seed + n - s), seed=s).images for s in starts])


def record(
    id: str,
    make_rows: Callable[[], pd.DataFrame],
    measure: Callable[[pd.DataFrame, int, int], Interval],
    explore: Callable[[pd.DataFrame, int, int], dict[str, Interval]],
    count: Callable[[pd.DataFrame], dict[str, int]],
    folder: Path = report.RESULTS,
    more: tuple[Path, ...] = (),
) -> dict:
    """Run a claim about models/cxr-mini (and `more` weights) as claims.yml states it, and record it; the result."""
    from medimgen.generate import FOLDER

    plan = claims.get(id)["primary"]
    draws, seed = plan["draws"], plan["seed"]
    inputs = {f"cxr-mini/{p.parent.name}": p for p in sorted(FOLDER.rglob("*.safetensors"))}
    inputs |= {f"{p.parent.name}/{p.name}": p for p in more}
    with report.run(id, seed=seed, inputs=inputs, parameters={"draws": draws}, tier="full") as run:
        rows = make_rows()
        interval, explored = measure(rows, draws, seed), explore(rows, draws, seed)
    report.append(run.record, folder / report.RUNS.name)
    return claims.record(id, interval, n=count(rows), run=run.record, rows=rows, exploratory=explored, folder=folder)
