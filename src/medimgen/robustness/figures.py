"""What a sweep says about a model: shares with intervals, slices, curves, and one film's own passport."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from medimgen.metrics import Interval, auc, cluster_bootstrap, proportion
from medimgen.robustness.flips import Sweep

FEWEST = 5  # patients below whom nothing is said of a group
THIRDS = {"exposure": ("dark", "middle", "light"), "aspect": ("tall", "middle", "wide")}
WORDS = {
    "motion": "blurred", "breathing": "blurred", "focal_spot": "blurred", "resolution": "blurred", "dose": "grainy",
    "exposure": ("bright", "dark"), "contrast": ("high contrast", "low contrast"), "scatter": "low contrast",
    "rotation": ("tilted anticlockwise", "tilted clockwise"), "inspiration": "small lungs", "leads": "with leads",
    "text": "with a marker", "collimation": "closely collimated", "aspect_ratio": ("wide", "narrow"),
}  # fmt: skip
"""What a prompt would say of a film that is so: one wording, or those of even and odd noise seeds."""


def figures(sweep: Sweep, draws: int = 2000, seed: int = 0) -> dict[str, Interval | None]:
    """Shares of films with 95 % intervals, by name; None where no film counts.

    plausible_flips, hardly_visible_flips : of the surely read films, those that some perturbation flips within its
        plausible range, or hardly visibly. Averaged over the noise seeds, so more seeds do not make it larger; more
        perturbations do. Surely read: confident and, if labels were given, right.
    plausible_reversals : of the sure positives, those turned into sure negatives within the plausible range.
    flips[NAME] : plausible flips by one perturbation. plausible_flips[COLUMN=VALUE] : of one slice (numbers with more
        than six values, exposure and aspect are cut into thirds).
    With labels: auc, sensitivity, sensitivity[COLUMN=VALUE], specificity, failures (plausible flips of all films read
    right), perturbed_sensitivity and perturbed_specificity (right, and staying right within every plausible range).

    The interval is the wider of the bootstrap over patients and Wilson's on the number of patients, which also
    holds when all films agree; of auc it is the bootstrap's.
    """
    films, threshold = sweep.films, sweep.settings.threshold
    p, patients, any_flip = films["p"].to_numpy(), films["patient"].to_numpy(), sweep.plausible.any(1).mean(1)
    sure, groups = _sure(sweep), list(_groups(films))

    def share(values, chosen):
        return _share(values[chosen].astype(float), patients[chosen], draws, seed)

    reversals = (sweep.reversal <= sweep.limits).any(1).mean(1)
    out = {
        "plausible_flips": share(any_flip, sure),
        "hardly_visible_flips": share(sweep.hardly_visible.any(1).mean(1), sure),
        "plausible_reversals": share(reversals, sure & (p >= sweep.settings.confident)),
        **{f"flips[{q.name}]": share(sweep.plausible[:, j].mean(1), sure) for j, q in enumerate(sweep.perturbations)},
        **{f"plausible_flips[{name}]": share(any_flip, sure & group) for name, group in groups},
    }
    if "positive" not in films:
        return out
    read, ill = np.isfinite(p), films["positive"].to_numpy().astype(bool)
    right = read & ((p >= threshold) == ill)
    for name, values in (("", right), ("perturbed_", right * (1 - any_flip))):
        out |= {f"{name}sensitivity": share(values, ill & read), f"{name}specificity": share(values, ~ill & read)}
    both = read.any() and 0 < ill[read].mean() < 1
    area = cluster_bootstrap(auc, patients[read], ill[read], p[read], draws=draws, seed=seed) if both else None
    more = {f"sensitivity[{name}]": share(right, ill & read & group) for name, group in groups}
    return out | {"auc": area, "failures": share(any_flip, right)} | more


def measured(sweep: Sweep, found: dict[str, Interval | None]) -> dict[str, float | None]:
    """The values that requirements name: each figure, its `_low95` and `_high95` (ends of the two-sided 95 % interval),
    worst_slice_sensitivity and its `_low95`, latency_ms, faults (films with a fault), films and patients.

    Asking this of every slice needs no correction: all of them must pass (an intersection-union test).
    """
    out = {}
    for name, value in found.items():
        ends = (None,) * 3 if value is None else tuple(value)
        out |= {f"{name}{end}": x for end, x in zip(("", "_low95", "_high95"), ends, strict=True)}
    for end in ("", "_low95"):
        ends = [out[name + end] for name in found if name.startswith("sensitivity[")]
        out[f"worst_slice_sensitivity{end}"] = min((x for x in ends if x is not None), default=None)
    return out | {
        "latency_ms": sweep.latency_ms,
        "faults": len({fault["film"] for fault in sweep.faults}),
        "films": int(np.isfinite(sweep.films["p"]).sum()),
        "patients": int(sweep.films["patient"].nunique()),
    }


def slices(sweep: Sweep, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """For each slice: films, patients, its plausible flips minus those of the other surely read films, the interval, p
    and p_holm. Holm (1979) over all slices: with p_holm below 0.05, one false alarm in twenty such tables. With fewer
    than five patients in or outside a slice there is no test (p = 1).
    """
    any_flip, rows = sweep.plausible.any(1).mean(1), []
    sure, patients = _sure(sweep), sweep.films["patient"].to_numpy()
    for name, group in _groups(sweep.films):
        found = Interval(np.nan, np.nan, np.nan, 1.0)
        inside, outside = (len(np.unique(patients[sure & g])) for g in (group, ~group))
        if min(inside, outside) >= FEWEST:
            test = (patients[sure], any_flip[sure], group[sure])
            found = cluster_bootstrap(_difference, *test, draws=draws, seed=seed, null=0)
        rows.append((name, int((sure & group).sum()), inside, *found, found.p))
    table = pd.DataFrame(rows, columns=["slice", "films", "patients", "difference", "low", "high", "p"])
    p = table["p"].to_numpy(float)
    order = np.argsort(p, kind="stable")
    table.loc[order, "p_holm"] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    return table


def curves(sweep: Sweep, points: int = 21) -> pd.DataFrame:
    """Share of surely read films flipped up to each severity; columns perturbation, severity, value, unit, share."""
    flips = sweep.flip[_sure(sweep)]
    rows = [
        (q.name, s, q.at(s), q.unit, float((flips[:, j] <= s).mean()) if len(flips) else np.nan)
        for j, q in enumerate(sweep.perturbations)
        for s in np.linspace(0, 1, points).round(6)
    ]
    return pd.DataFrame(rows, columns=["perturbation", "severity", "value", "unit", "share"])


def film(sweep: Sweep, i: int) -> pd.DataFrame:
    """One film's smallest flip by each perturbation, the deepest within its plausible range first: perturbation,
    severity, value, unit, seed, plausible, hardly_visible, ssim, psnr, reach (severity / limit); no columns if none.
    """
    rows = []
    for j, q in enumerate(sweep.perturbations):
        flips = np.where(np.isnan(sweep.flip[i, j]), np.inf, sweep.flip[i, j])
        if np.isfinite(s := float(flips.min())):
            k = int(flips.argmin())
            row = {"perturbation": q.name, "severity": s, "value": q.at(s), "unit": q.unit, "seed": sweep.seeds[k]}
            known = {name: getattr(sweep, name)[i, j, k] for name in ("plausible", "hardly_visible", "ssim", "psnr")}
            rows.append(row | known | {"reach": s / q.plausible})
    return pd.DataFrame(rows).sort_values("reach", ignore_index=True) if rows else pd.DataFrame()


def with_exposure(sweep: Sweep) -> Sweep:
    """The sweep with a column `exposure` to slice by: the mean grey of each untouched film, 0..1, without what is black
    because no ray reached it (below 0.02). Reads every film once more. Dark and light are thirds of these films.
    """
    if "exposure" in sweep.films:
        return sweep
    parts = (sweep.source.part(i, i + 1).read()[0] for i in sweep.films.index)
    greys = [float(x[x > 0.02].mean()) if (x > 0.02).any() else 0.0 for x in parts]
    known = np.isfinite(sweep.films["p"])
    return replace(sweep, films=sweep.films.assign(exposure=np.where(known, greys, np.nan)))


def collection(
    sweep: Sweep, by: str | None = None, *, tolerated: float = 0.05, margin: float = 0.1, draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """What to collect next: the findings that a perturbation flips most, the surest first.

    One row for each finding (value of column `by`; if not given "subtype", else "positive", else all films) and
    perturbation whose share of plausible flips exceeds `tolerated` with its whole 95 % interval, five patients or
    more: label, words (what a prompt could say of such a film), perturbation, share, low, high, films and patients
    (surely read), how_many and flipped (the names of five that flip first). A list of
    suspicions, not of proofs: no correction for its length.

    how_many : real films, each of another patient, that would tell the share among them to +- `margin`, were it the
        value in low..high that asks for most: 1.96^2 share (1 - share) / margin^2 (Wald's interval; 97 at most at 0.1).
        Nothing is taken off for films already there: those were changed by computer.
    """
    by = by or next((name for name in ("subtype", "positive") if name in sweep.films), None)
    sure, patients = _sure(sweep), sweep.films["patient"].to_numpy()
    kinds = sweep.films[by].to_numpy() if by else np.full(len(sure), "any")
    rows = []
    for kind in pd.unique(kinds[sure & pd.notna(kinds)]):
        chosen = sure & (kinds == kind)
        if len(np.unique(patients[chosen])) < FEWEST:
            continue
        label = ("positive" if kind else "negative") if by == "positive" else str(kind)
        for j in range(len(sweep.perturbations)):
            share = _share(sweep.plausible[chosen, j].mean(1), patients[chosen], draws, seed)
            if share.low > tolerated:
                rows.append({"label": label, **_item(sweep, j, chosen, share, margin)})
    return pd.DataFrame(rows).sort_values("low", ascending=False, ignore_index=True) if rows else pd.DataFrame()


def missed(coarse: Sweep, fine: Sweep) -> float:
    """Share of flips in `fine`, the same sweep with say Settings(grid=100), that `coarse` found late or not at all."""
    late = ~(coarse.flip <= fine.flip + coarse.settings.tolerance + 1e-6)[np.isfinite(fine.flip)]
    return float(late.mean()) if len(late) else 0.0


def _sure(sweep: Sweep) -> np.ndarray:
    p = sweep.films["p"].to_numpy()
    sure = np.maximum(p, 1 - p) >= sweep.settings.confident
    if "positive" in sweep.films:
        sure &= (p >= sweep.settings.threshold) == sweep.films["positive"].to_numpy().astype(bool)
    return sure


def _item(sweep: Sweep, j: int, chosen: np.ndarray, share: Interval, margin: float) -> dict:
    q, first = sweep.perturbations[j], np.where(chosen, np.fmin.reduce(sweep.flip[:, j], axis=1), np.inf)
    worst = min(max(share.low, 0.5), share.high)
    names = sweep.films["film"].to_numpy()
    return {
        "words": _words(q, sweep.plausible[chosen, j].sum(0), sweep.seeds),
        "perturbation": q.name,
        **{"share": share.estimate, "low": share.low, "high": share.high},
        "films": int(chosen.sum()),
        "patients": int(sweep.films["patient"][chosen].nunique()),
        "how_many": int(np.ceil(1.96**2 * max(worst * (1 - worst), 0.01) / margin**2)),
        "flipped": [str(names[i]) for i in np.argsort(first, kind="stable")[:5] if first[i] <= q.plausible],
    }


def _words(q, flips: np.ndarray, seeds: tuple[int, ...]) -> str:
    words = WORDS.get(q.name, q.cause)
    if isinstance(words, str):
        return words
    odd = np.array(seeds) % 2 == 1
    sides = [flips[side].mean() if side.any() else -1 for side in (~odd, odd)]
    return words[int(np.argmax(sides))]


def _groups(films: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    for column in films.columns.difference(["film", "sha256", "p", "positive", "patient"], sort=False):
        values = films[column]
        if column in THIRDS and values.nunique() < 2:
            continue
        if values.dtype.kind in "iuf" and (column in THIRDS or values.nunique() > 6):
            labels = THIRDS.get(column, ("low", "middle", "high"))
            values = pd.cut(values.rank(pct=True), [0, 1 / 3, 2 / 3, 1], labels=labels)
        for value in sorted(values.dropna().unique()):
            yield f"{column}={value}", (values == value).to_numpy()


def _share(values: np.ndarray, patients: np.ndarray, draws: int, seed: int) -> Interval | None:
    if not (k := len(np.unique(patients))):
        return None
    wilson = proportion(round(values.mean() * k), k)
    boot = cluster_bootstrap(np.mean, patients, values, draws=draws, seed=seed) if k > 1 else wilson
    return Interval(float(values.mean()), min(boot.low, wilson.low), max(boot.high, wilson.high), None, draws)


def _difference(values: np.ndarray, inside: np.ndarray) -> float:
    return values[inside].mean() - values[~inside].mean() if inside.any() and not inside.all() else np.nan
