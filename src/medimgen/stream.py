"""Thousands of images from one generator: a few at a time, with progress, a way to stop, and a folder to go on from.

>>> jobs = ((prompt, seed) for seed in range(1000) for prompt in ("normal chest x-ray", "viral pneumonia"))
>>> for result in generator.stream(jobs, folder="runs/many", progress=True):
...     measure(result.images)                   # uint8 (8, 128, 128); result.record["seeds"], result.record["prompt"]
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from medimgen.errors import CourseError
from medimgen.generate import FOLDER, LIMIT, Progress, Result, refuse_patient_derived, reporter
from medimgen.likeness import too_like

SAME = ("prompt", "seeds", "negative", "steps", "guidance", "weights_sha256", "adapter_sha256")


def stream(
    generator,
    jobs: Iterable[tuple[str, int]],
    batch: int = 8,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    progress: Progress | bool = False,
    cancel: Callable[[], bool] | None = None,
    folder: str | Path | None = None,
    local_only: bool = False,
) -> Iterator[Result]:
    """Yield `Result`s of up to `batch` images; memory does not grow with their number.

    Parameters
    ----------
    jobs : pairs (prompt, seed), in a list or made as they are asked for. Each image is the one that
        `generator(prompt, seed=seed)` makes. A record's "prompt" is the list of the batch's prompts.
    batch : 1 to 64 images at once.
    progress : True draws a bar; a callable gets (images done, images in all or None if `jobs` has no length).
    cancel : asked before each batch; when it returns True the stream ends there.
    folder : keeps each batch in a file, and takes what is there already instead of making it again. An image too like
        a film of the training data is blanked and its place named in record["withheld"].
    local_only : with `folder`, let pass the images of a model fine-tuned on a reader's films.

    Raises CourseError for a job that cannot be drawn (all of a list are checked first), for a folder of other jobs, or
    for patient-derived images that would be kept.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= LIMIT:
        raise CourseError(f"batch={batch!r} is not a whole number from 1 to {LIMIT}", next="leave it at 8")
    if folder is not None:
        refuse_patient_derived(generator.stamp, local_only)
    options, total = (steps, guidance, negative), len(jobs) if hasattr(jobs, "__len__") else None
    for job in jobs if total is not None else ():
        _settings(generator, [job], options)
    report, rest, done = reporter(progress, total, "image"), iter(jobs), 0
    while part := list(islice(rest, batch)):
        if cancel is not None and cancel():
            return
        settings = _settings(generator, part, options)
        file = None if folder is None else Path(folder) / f"{done:08d}.npz"
        result = generator.make(settings) if file is None else _kept(generator, settings, file)
        done += len(part)
        report(done, total)
        yield result


def _settings(generator, part: list, options: tuple) -> dict[str, Any]:
    """Checked settings of one batch; CourseError names a job that is no pair, or what is wrong with it."""
    for job in part:
        if not isinstance(job, tuple | list) or len(job) != 2:
            raise CourseError(f"{job!r} is no job", next='give pairs, e.g. [("normal chest x-ray", 7)]')
    each = [generator.settings(prompt, 1, seed, *options) for prompt, seed in part]
    return each[0] | {"prompt": [s["prompt"] for s in each], "n": len(each), "seeds": [s["seed"] for s in each]}


def _kept(generator, settings: dict[str, Any], file: Path) -> Result:
    """The batch in `file` if it is this one, else made and written there whole or not at all."""
    wanted = settings | {"weights_sha256": generator.sha256} | generator.stamp
    if file.is_file():
        with np.load(file) as kept:
            images, record = kept["images"], json.loads(str(kept["record"]))
        if any(record.get(key) != wanted.get(key) for key in SAME):
            raise CourseError(f"{file} holds images of other jobs", next="choose an empty folder")
        return Result(images, record)
    made = generator.make(settings)
    like = too_like(made.images, FOLDER)
    images = np.where(like[:, None, None], np.uint8(0), made.images)
    result = Result(images, made.record | {"withheld": np.flatnonzero(like).tolist()})
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as f:
            np.savez_compressed(f, images=images, record=json.dumps(result.record))
        part.replace(file)
    except OSError as error:
        raise CourseError(f"cannot write {file}: {error.strerror}", next="choose a folder you may write to") from error
    return result
