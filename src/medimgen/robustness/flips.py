"""The sweep: for each film and perturbation, the smallest severity at which the model changes its mind."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medimgen.errors import CourseError
from medimgen.films import Source, source
from medimgen.generate import reporter
from medimgen.robustness.models import Model, as_model

ATTEMPTS = 3
KEPT = ("flip", "reversal", "ssim", "psnr")


@dataclass(frozen=True)
class Settings:
    """What counts as a flip, as sure and as hardly visible, and how finely the severities are searched.

    threshold : a film is called positive from this P(positive) on. confident : an answer is sure when P is at
        least this, or at most 1 minus this. ssim, psnr : a change is hardly visible when the structural similarity
        (Wang et al. 2004, 7 x 7 window) and the peak signal-to-noise ratio in dB both reach these; turning or moving
        a film lowers both before an eye sees much, so they err on the side of "visible".
    grid : equal steps from 0 to 1 that are tried from below, `block` of them at once, and the largest plausible
        severity; the first that flips is bisected to `tolerance`. A flip that comes and goes between two steps is
        missed (`missed` measures that).
    """

    threshold: float = 0.5
    confident: float = 0.9
    ssim: float = 0.95
    psnr: float = 30.0
    grid: int = 20
    block: int = 4
    tolerance: float = 0.01


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found, one row a film.

    films : DataFrame with film (name), sha256, p (P(positive) of the untouched film, NaN if there is none), positive
        (the label, if given), patient, then the slice columns.
    flip, reversal, ssim, psnr : (films, perturbations, noise seeds). flip is the smallest severity that changes
        the answer, reversal the smallest that turns a sure positive into a sure negative: inf if none does, NaN if
        the model failed on the way. ssim and psnr compare the film at the flip with the untouched one.
    faults : dicts with film, perturbation (None: the untouched film) and what happened. total : films asked for;
        there are fewer rows if the sweep was cancelled. latency_ms : median time of one film alone.
    """

    films: pd.DataFrame
    flip: np.ndarray
    reversal: np.ndarray
    ssim: np.ndarray
    psnr: np.ndarray
    perturbations: tuple
    seeds: tuple[int, ...]
    settings: Settings
    model: Model
    faults: list[dict]
    total: int
    latency_ms: float
    source: Source = field(repr=False)

    @property
    def plausible(self) -> np.ndarray:
        """bool like flip: the flip lies within what could leave a department."""
        return self.flip <= self.limits

    @property
    def limits(self) -> np.ndarray:
        """Largest plausible severity of each perturbation, (perturbations, 1)."""
        return np.array([[q.plausible] for q in self.perturbations])

    @property
    def hardly_visible(self) -> np.ndarray:
        """bool like flip: the film at the flip is nearly the untouched one."""
        return np.isfinite(self.flip) & (self.ssim >= self.settings.ssim) & (self.psnr >= self.settings.psnr)

    def picture(self, film: int, perturbation: int, severity: float, seed: int) -> np.ndarray:
        """float32 (h, w) in 0..1: one film as the model saw it."""
        row = self.films.index[film]
        x = self.source.part(row, row + 1).read()[0]
        return _changed(self.perturbations[perturbation], x, [severity], seed)[0] if severity > 0 else x[0]


def sweep(
    model, images, labels=None, patients=None, perturbations=None, seeds: Sequence[int] = (0, 1, 2), *,
    slices: Mapping[str, Sequence] | None = None, settings: Settings | None = None, size: int | None = None,
    chunk: int = 8, n_jobs: int | None = None, progress: Callable[[int, int], None] | bool = False,
    cancel: Callable[[], bool] | None = None, resume_folder: str | Path | None = None,
) -> Sweep:  # fmt: skip
    """Find the smallest severity that flips each film, for each perturbation and noise seed.

    Parameters
    ----------
    model, images : anything `as_model` and `films.source` take; `size` squashes the films.
    labels : (n,) bool or 0/1, True where the film is positive. patients : (n,); each film its own if not given.
    perturbations : names or `Perturbation` objects; all of `medimgen.perturb` if not given.
    slices : columns (n,) by which the figures are split; a column `film` names the films. chunk : films a task.
    n_jobs : joblib's; None follows `joblib.parallel_config`, so `parallel_config(backend="dask")` moves the
        sweep to a cluster. progress : True for a bar, or a function of (tasks done, tasks).
    cancel : asked between tasks; True ends the sweep with the films done so far.
    resume_folder : each finished task is kept there, and the same call later goes on from it.

    A film that cannot be read, or on which the model fails, is listed in `faults`, and the sweep goes on. Raises
    CourseError for input of the wrong kind, when no film could be read, or when a worker dies three times.
    """
    model, settings, operators = as_model(model), settings or Settings(), _perturbations(perturbations)
    films = source(images, size or model.size)
    table = _table(films, labels, patients, slices)
    prints = [_print(q) for q in operators]
    work = partial(_part, model, operators, [p[1] for p in prints], tuple(seeds), settings)
    base = json.dumps([model.sha256, model.negative, prints, list(map(int, seeds)), asdict(settings)])
    parts = [films.part(k, k + chunk) for k in range(0, len(table), chunk)]
    done, report = {}, reporter(progress, len(parts))
    for i, result in _results(work, base, parts, n_jobs, resume_folder and Path(resume_folder)):
        done[i] = result
        report(len(done), len(parts))
        if cancel is not None and cancel():
            break
    rows = np.concatenate([np.arange(i * chunk, min((i + 1) * chunk, len(table))) for i in sorted(done)])
    arrays = {k: np.concatenate([done[i][k] for i in sorted(done)]) for k in (*KEPT, "p", "sha256")}
    faults = [f | {"film": table["film"][i * chunk + f["film"]]} for i in sorted(done)
              for f in json.loads(str(done[i]["faults"]))]  # fmt: skip
    if not np.isfinite(arrays["p"]).any():
        raise CourseError(f"the model read no film; the first: {faults[0]['what']}", next="mend that and try again")
    table = table.iloc[rows].assign(sha256=arrays.pop("sha256"), p=arrays.pop("p"))
    first = table.index[np.isfinite(table["p"])][0]
    latency = _latency(model, films.part(first, first + 1).read()[0])
    return Sweep(
        table, *arrays.values(), operators, tuple(seeds), settings, model, faults, len(films.films), latency, films
    )


def _part(model, perturbations, random: list[bool], seeds, settings, i: int, part: Source) -> tuple[int, dict]:
    """All flips of part i of the films; runs in a worker."""
    x, hashes, unread = part.read()
    out = {k: np.full((len(x), len(perturbations), len(seeds)), np.nan) for k in KEPT}
    p, good = np.full(len(x), np.nan), np.array([row for row in range(len(x)) if row not in unread], int)
    if len(good):
        p[good], failed = _answers(model, x[good])
        unread |= {int(good[row]): what for row, what in failed.items()}
    faults = [{"film": row, "perturbation": None, "what": what} for row, what in unread.items()]
    good = np.flatnonzero(np.isfinite(p))
    for j, perturbation in enumerate(perturbations if len(good) else ()):
        failed = {}
        for k, seed in enumerate(seeds if random[j] else seeds[:1]):
            found = _first_flips(model, perturbation, seed, x[good], p[good], settings, failed)
            for name, values in found.items():
                out[name][good, j, k:] = values[:, None]  # also for the seeds to come: they matter or overwrite it
        faults += [{"film": int(good[r]), "perturbation": perturbation.name, "what": w} for r, w in failed.items()]
    return i, {**out, "p": p, "sha256": np.array(hashes), "faults": np.array(json.dumps(faults))}


def _first_flips(model, perturbation, seed, x, p, settings, failed) -> dict[str, np.ndarray]:
    """Smallest severities of one perturbation, and the likeness at the flip; `failed` collects faults by film."""

    def ask(rows, severities):
        """Answers (k, n) for films `rows` (n,) at `severities` (k, n): changed k times, put to the model at once."""
        changed = np.concatenate([_changed(perturbation, x[rows], s, seed) for s in severities])
        answers, faults = _answers(model, changed)
        for i, what in faults.items():
            failed.setdefault(int(rows[i % len(rows)]), f"severity {severities.flat[i]:.3f}, seed {seed}: {what}")
        return answers.reshape(severities.shape)

    def flipped(rows, q):
        return np.isfinite(q) & ((q >= settings.threshold) != (p[rows] >= settings.threshold))

    def reversed_(rows, q):
        return (p[rows] >= settings.confident) & (q <= 1 - settings.confident)

    steps, rows = np.linspace(0, 1, settings.grid + 1), np.arange(len(x))
    grid = np.unique(np.append(steps, perturbation.plausible).round(6))  # the limit itself is tried too
    q, column = np.full((len(x), len(grid)), np.nan), rows[:, None]
    q[:, 0] = p
    for start in range(1, len(grid), settings.block):
        settled = flipped(column, q).any(1) & (reversed_(column, q).any(1) | (p < settings.confident))
        columns = np.arange(start, min(start + settings.block, len(grid)))
        if not len(left := rows[~settled]):
            break
        q[np.ix_(left, columns)] = ask(left, np.repeat(grid[columns][:, None], len(left), 1)).T
    never = np.where(np.isin(rows, list(failed)) & np.isnan(q).any(1), np.nan, np.inf)
    flip, reversal = (_bisected(ask, e, e(column, q), grid, settings.tolerance, never) for e in (flipped, reversed_))
    return {"flip": flip, "reversal": reversal, **_likeness(perturbation, seed, x, flip)}


def _bisected(ask, event, seen, grid, tolerance, never) -> np.ndarray:
    """First severity of `event`, given where on the grid it was `seen` (n, k); `never` where it was not."""
    found, first = seen.any(1), seen.argmax(1)
    low, high = grid[np.maximum(first - 1, 0)], np.where(found, grid[first], never)
    rows = np.flatnonzero(found)
    while len(rows := rows[high[rows] - low[rows] > tolerance + 1e-9]):
        middle = (low[rows] + high[rows]) / 2
        hit = event(rows, ask(rows, middle[None])[0])
        high[rows[hit]], low[rows[~hit]] = middle[hit], middle[~hit]
    return high


def _likeness(perturbation, seed, x, flip) -> dict[str, np.ndarray]:
    from skimage.metrics import structural_similarity

    ssim, psnr = np.full(len(x), np.nan), np.full(len(x), np.nan)
    if len(rows := np.flatnonzero(np.isfinite(flip))):
        changed = _changed(perturbation, x[rows], flip[rows], seed)
        with np.errstate(divide="ignore"):
            psnr[rows] = -10 * np.log10(((changed - x[rows]) ** 2).mean((1, 2), dtype=np.float64))
        ssim[rows] = [structural_similarity(a, b, data_range=1) for a, b in zip(x[rows], changed, strict=True)]
    return {"ssim": ssim, "psnr": psnr}


def _changed(perturbation, x, s, seed) -> np.ndarray:
    return perturbation.run(x, np.asarray(s, np.float32), seed).clip(0, 1)


def _answers(model: Model, x: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """P(positive) of films, and what went wrong on which; a batch that fails is halved until the culprit is alone."""
    try:
        p = model(x)
        return p, {int(i): "the model returned NaN" for i in np.flatnonzero(np.isnan(p))}
    except Exception as error:
        if len(x) == 1:
            what = getattr(error, "what", None) or f"{type(error).__name__}: {error}"
            return np.array([np.nan]), {0: f"the model failed: {what}"}
    half = len(x) // 2
    (a, wrong), (b, later) = _answers(model, x[:half]), _answers(model, x[half:])
    return np.concatenate([a, b]), wrong | {half + i: what for i, what in later.items()}


def _latency(model: Model, x: np.ndarray) -> float:
    """Median milliseconds of one film alone in this process, after one call that does not count."""
    times = [time.perf_counter()]
    for _ in range(10):
        _answers(model, x)
        times.append(time.perf_counter())
    return 1000 * float(np.median(np.diff(times)[1:]))


def _print(perturbation) -> tuple[str, bool]:
    """Of a perturbation on a random picture: a hash, so that a changed one is not taken for the old, and whether
    the noise seed matters (if not, one seed does for all).
    """
    x = np.random.default_rng(0).random((1, 48, 48), np.float32)
    try:
        made = [np.float32(perturbation.run(x, np.float32([s]), seed)) for s, seed in ((1, 0), (1, 1), (0.3, 0))]
    except Exception as error:
        raise CourseError(f"{perturbation.name} fails: {error}", next="try it on one picture (1, 48, 48)") from error
    if any(m.shape != x.shape or not np.isfinite(m).all() for m in made):
        raise CourseError(f"{perturbation.name} returns no picture (1, 48, 48)", next="return what came in, changed")
    digest = hashlib.sha256(perturbation.name.encode() + np.concatenate(made).tobytes()).hexdigest()
    return digest, not np.array_equal(made[0], made[1])


def _perturbations(chosen) -> tuple:
    from medimgen.perturb import PERTURBATIONS as known

    chosen = tuple(known if chosen is None else chosen)
    if unknown := [q for q in chosen if isinstance(q, str) and q not in known]:
        raise CourseError(f"no perturbation is called {unknown[0]!r}", next=f"use {', '.join(known)}")
    if not chosen:
        raise CourseError("no perturbation was chosen", next="leave perturbations out to try all")
    return tuple(known[q] if isinstance(q, str) else q for q in chosen)


def _table(films: Source, labels, patients, slices) -> pd.DataFrame:
    n = len(films.films)
    given = {"positive": labels, "patient": np.arange(n) if patients is None else patients, **(slices or {})}
    given = {name: np.asarray(values) for name, values in given.items() if values is not None}
    if wrong := [name for name, values in given.items() if values.shape != (n,)]:
        raise CourseError(f"{wrong[0]} has {len(given[wrong[0]])} entries for {n} films", next="give one a film")
    if not np.isin(given.get("positive", 0), (0, 1)).all():
        raise CourseError("labels hold values other than True/False or 1/0", next="labels = table.label != 'normal'")
    return pd.DataFrame({"film": [films.name(i) for i in range(n)], **given})


def _results(work: Callable, base: str, parts: list[Source], n_jobs, folder: Path | None) -> Iterator[tuple[int, dict]]:
    """(number, result) of each part: first those kept in `folder`, then the others as they are finished."""
    from joblib import Parallel, delayed

    todo, files = [], {}
    for i, part in enumerate(parts):
        if folder:
            files[i] = folder / f"{hashlib.sha256((base + part.key()).encode()).hexdigest()[:24]}.npz"
        if folder and files[i].is_file():
            with np.load(files[i]) as kept:
                yield i, dict(kept)
        else:
            todo.append(i)
    for _ in range(ATTEMPTS):
        with suppress(BrokenExecutor):  # a worker died: what it had under way is done again
            tasks = (delayed(work)(i, parts[i]) for i in tuple(todo))
            for i, result in Parallel(n_jobs, return_as="generator_unordered", batch_size=1)(tasks):
                if folder:
                    folder.mkdir(parents=True, exist_ok=True)
                    with files[i].with_suffix(".part").open("wb") as file:
                        np.savez(file, **result)
                    files[i].with_suffix(".part").replace(files[i])
                todo.remove(i)
                yield i, result
            return
    raise CourseError(f"a worker died {ATTEMPTS} times", next="try n_jobs=1 or a smaller chunk; what is done is kept")
