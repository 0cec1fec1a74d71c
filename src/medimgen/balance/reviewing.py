"""The plan's editor and the review gallery, thin shells; and how far two reviewers agree.

>>> gallery = review("runs/viral", "reader one")               # Accept and Reject, one film at a time
>>> agreement("runs/viral")                                    # Cohen's kappa of two readers, with its interval
"""

import html
from datetime import UTC, datetime
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd

from medimgen import markup, metrics, pictures, prompts
from medimgen.errors import CourseError
from medimgen.widgets import WithFrames, img, show_frames

FILE, COLUMNS, VERDICTS = "review.tsv", ["reviewer", "file", "verdict", "time"], ("accept", "reject")


def decisions(folder: str | Path) -> pd.DataFrame:
    """Each reviewer's last verdict on each film: reviewer, file, verdict, time."""
    path = Path(folder) / FILE
    table = pd.read_csv(path, sep="\t", dtype=str) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates(["reviewer", "file"], keep="last", ignore_index=True)


def decide(folder: str | Path, reviewer: str, file: str, verdict: str) -> None:
    """Append a verdict, "accept" or "reject", to review.tsv; a later one of the same reviewer replaces it."""
    if verdict not in VERDICTS or not reviewer.strip() or set(reviewer) & set('\t\r\n"'):
        raise CourseError(f"{reviewer!r} says {verdict!r}", next="name the reviewer in one line; accept or reject")
    path = Path(folder) / FILE
    lines = [] if path.is_file() else [COLUMNS]
    lines.append([reviewer, file, verdict, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"])
    try:
        with path.open("a", encoding="utf-8", newline="\n") as out:
            out.write("".join("\t".join(line) + "\n" for line in lines))
    except OSError as error:
        raise CourseError(
            f"cannot write {path}: {error.strerror}", next="copy the folder where you may write"
        ) from error


def agreement(folder: str | Path, units: dict[str, str] | None = None, draws: int = 2000, seed: int = 0):
    """Cohen's kappa (Cohen 1960) of two reviewers on the films both judged: a `metrics.Interval`. 0 is what chance
    alone would give, 1 full agreement.

    units : file to unit (e.g. its prompt) that the bootstrap draws whole; by default every film is its own, since no
    patient stands behind it. Raises CourseError unless two people judged common films, not all of them alike.
    """
    table = decisions(folder).pivot(index="file", columns="reviewer", values="verdict").dropna() == "accept"
    if table.shape[1] != 2 or len(table) < 2:
        raise CourseError(f"{table.shape[1]} reviewers, {len(table)} films in common", next="let two people review")

    def kappa(a, b):
        chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        if chance == 1:
            raise CourseError("one and the same verdict on every film: kappa does not exist", next="review more films")
        return ((a == b).mean() - chance) / (1 - chance)

    clusters = np.array([(units or {}).get(file, file) for file in table.index])
    return metrics.cluster_bootstrap(kappa, clusters, *table.to_numpy().T, draws=draws, seed=seed)


def summary(folder: str | Path) -> str:
    """The reviews in words."""
    groups = decisions(folder).groupby("reviewer")["verdict"]
    told = [f"{name}: {len(v)} films, {(v == 'reject').sum()} rejected." for name, v in groups]
    if len(told) == 2:
        try:
            told.append("Cohen's kappa {:.2f} (95 % interval {:.2f} to {:.2f}).".format(*agreement(folder)))
        except CourseError as error:
            told.append(f"No kappa: {error.what}.")
    return " ".join(told) or "Nobody reviewed these films."


class review(WithFrames):
    """One film at a time, Accept or Reject (both reached with Tab, pressed with Enter or the space bar).

    The verdict goes to review.tsv at once; films this reviewer has judged are not shown again, others' verdicts never.
    `answer("accept")` does from code what the buttons do.
    """

    def __init__(self, folder: str | Path, reviewer: str):
        done = set(decisions(folder).query("reviewer == @reviewer")["file"])
        self.folder, self.reviewer, self.at, self.view = Path(folder), reviewer, 0, ipywidgets.HTML()
        self.files = [p.name for p in sorted(self.folder.glob("*.png")) if p.name not in done]
        self.accept, self.reject = (ipywidgets.Button(description=v.capitalize()) for v in VERDICTS)
        self.accept.on_click(lambda _: self.answer("accept"))
        self.reject.on_click(lambda _: self.answer("reject"))
        super().__init__([self.view, ipywidgets.HBox([self.accept, self.reject])])
        self._draw()

    def answer(self, verdict: str) -> None:
        """Judge the film shown; after the last one nothing happens."""
        if self.at < len(self.files):
            decide(self.folder, self.reviewer, self.files[self.at], verdict)
            self.at += 1
            self._draw()

    def _picture(self, k: int) -> tuple[str, np.ndarray]:
        picture = pictures.read(self.folder / self.files[k])
        return picture.info.get("Prompt", "no prompt"), np.asarray(pictures.grey(picture))

    def _draw(self) -> None:
        left = len(self.files) - self.at
        self.accept.disabled = self.reject.disabled = not left
        prompt, picture = self._picture(self.at) if left else ("", None)
        shown = img(picture, f"Synthetic: {prompt}", 384) if left else ""
        self.view.value = f"<p>{left} films left to judge. {html.escape(prompt)}</p>{shown}"

    def static(self) -> str:
        """The films with their prompts as the slider's text."""
        frames = [self._picture(k) for k in range(len(self.files))]
        return show_frames("Would you accept this film?", frames, side=192) if frames else self.view.value


class editor(WithFrames):
    """A prompt and a number for each item of a plan; `plan` is the plan as it now stands, `Plan.change` the function.

    What cannot be (an identifier in a prompt) is said below and leaves the plan as it was. So are remarks on words.
    """

    def __init__(self, plan):
        self.plan, self.view, self.fields, self.refused = plan, ipywidgets.HTML(), [], {}
        for k, item in enumerate(plan.items):
            snug = {"style": {"description_width": "initial"}, "continuous_update": False}
            words = {"description": ", ".join(item.label), "layout": {"width": "48em"}}
            films = {"description": "films", "layout": {"width": "12em"}, "tooltip": "Number"}
            prompt = ipywidgets.Text(item.prompt, **words, **snug)
            number = ipywidgets.BoundedIntText(item.number, min=0, max=100_000, **films, **snug)
            self.fields.append((prompt, number))
            for name, field in zip(("prompt", "number"), self.fields[k], strict=True):
                field.observe(lambda change, k=k, name=name: self._set(k, **{name: change["new"]}), "value")
        super().__init__([*map(ipywidgets.HBox, self.fields), self.view])
        self._draw()

    def _set(self, k: int, **new) -> None:
        name = ", ".join(self.plan.items[k].label)
        try:
            self.plan = self.plan.change(k, **new)
            self.refused.pop((k, *new), None)
        except CourseError as error:  # said until that field is mended, for it no longer shows what the plan holds
            self.refused[k, *new] = f"Not taken over ({name}): {error.what}. Next: {error.next}."
        self._draw()

    def _cost(self) -> str:
        p = self.plan
        return f"{p.total:,} films, {p.minutes:.1f} minutes; at most {p.cap:g} times that if gates turn many away"

    def _draw(self) -> None:
        remarks: dict[str, list[str]] = {}
        for item in self.plan.items:
            for r in prompts.check(item.prompt):
                remarks.setdefault(f"{r.message} Next: {r.next}.", []).append(", ".join(item.label))
        lines = [self._cost(), *self.refused.values()]
        lines += [f"In {' and '.join(names)}: {said}" for said, names in remarks.items()]
        self.view.value = "".join(f"<p>{html.escape(line)}</p>" for line in lines)

    def static(self) -> str:
        """The plan as a table."""
        rows = ((", ".join(i.label), i.prompt, i.number, i.why) for i in self.plan.items)
        return markup.table(self._cost(), ("Label", "Prompt", "Films", "Why"), rows)
