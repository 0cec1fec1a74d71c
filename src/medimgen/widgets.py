"""What the reader moves: thin shells over pure functions.

Each widget also carries a plain HTML version (frames drawn beforehand, one slider, no kernel), which the
rendered site shows; JupyterLab shows the live one.
"""

import base64
import html
import io
import uuid
from pathlib import Path

import ipywidgets
import numpy as np
from PIL import Image

from medimgen import dicom, markup, metrics
from medimgen.errors import CourseError

HOW = "Drag, or press an arrow key"  # without a tooltip a slider's label shows "null"


def data_uri(picture: np.ndarray, side: int = 512) -> str:
    """A uint8 grey picture (h, w) as a PNG data URI, reduced so that its longer side is at most `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def img(picture: np.ndarray, alt: str, side: int = 512) -> str:
    """An HTML image with an alternative text, at least 256 pixels wide on the screen."""
    width = max(256, round(picture.shape[1] * min(1, side / max(picture.shape))))
    style = f"width:{width}px;max-width:100%"
    return f'<img src="{data_uri(picture, side)}" alt="{html.escape(alt)}" style="{style}">'


def show_frames(
    label: str,
    frames: list[tuple[str, np.ndarray]],
    start: int = 0,
    side: int = 384,
    answers: list[str] | None = None,
) -> str:
    """HTML with one slider over frames drawn beforehand; needs no kernel and no other file.

    Parameters
    ----------
    label : what the slider moves, in words.
    frames : (name of the position, uint8 picture (h, w)), from the slider's left to its right.
    start : the frame shown first. side : longer side of a frame in pixels. answers : what is told of each when asked.
    """
    key = f"frames-{uuid.uuid4().hex[:8]}"
    pictures = "".join(
        f'<figure data-name="{html.escape(name)}" style="margin:0"{"" if k == start else " hidden"}>'
        f"{img(picture, f'{label}: {name}', side)}"
        + (f"<details><summary>What was it?</summary>{html.escape(answers[k])}</details>" if answers else "")
        + "</figure>"
        for k, (name, picture) in enumerate(frames)
    )
    move = (
        "var f=this.closest('[data-frames]');"
        "f.querySelectorAll('figure').forEach((g,k)=>g.hidden=k!=this.value);"
        "var n=f.querySelectorAll('figure')[this.value].dataset.name;"
        "f.querySelector('output').textContent=n;this.setAttribute('aria-valuetext',n)"
    )
    return markup.spaced(
        f'<div data-frames><label for="{key}">{html.escape(label)}</label> '
        f'<input id="{key}" type="range" min="0" max="{len(frames) - 1}" value="{start}" '
        f'aria-valuetext="{html.escape(frames[start][0])}" oninput="{move}"> '
        f'<output for="{key}">{html.escape(frames[start][0])}</output>{pictures}</div>'
    )


class WithFrames(ipywidgets.VBox):
    """A widget whose HTML version is `static()`: what a page shows where no kernel runs."""

    def static(self) -> str:
        """HTML that stands in for the widget."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return data | {"text/html": self.static()}, metadata


class window_slider(WithFrames):
    """Two sliders, centre and width, over the picture of a `dicom.DicomImage`; `picture` is what is shown."""

    def __init__(self, film: dicom.DicomImage):
        self.film = film
        low, high = np.nanmin(film.pixels), np.nanmax(film.pixels)
        centre, width = film.windows[0] if film.windows else ((low + high) / 2, high - low)
        wide = {"style": {"description_width": "4em"}, "layout": {"width": "30em"}, "tooltip": HOW}
        widest = max(2, round(width), int(high - low))
        self.centre = ipywidgets.IntSlider(round(centre), int(low), int(high), description="Centre", **wide)
        self.width = ipywidgets.IntSlider(round(width), 2, widest, description="Width", **wide)
        self.view = ipywidgets.HTML()
        for slider in (self.centre, self.width):
            slider.observe(self._draw, "value")
        self._draw()
        super().__init__([self.centre, self.width, self.view])

    @property
    def picture(self) -> np.ndarray:
        """uint8 (h, w): the film as the sliders show it."""
        return dicom.window(self.film, self.centre.value, self.width.value)

    def _draw(self, change=None) -> None:
        alt = f"Film at centre {self.centre.value}, width {self.width.value}"
        self.view.value = img(self.picture, alt)

    def static(self) -> str:
        """Seven widths around the centre now set, narrow to wide."""
        widths = np.geomspace(self.width.max / 30, self.width.max, 7).round().astype(int)
        frames = [(f"width {w}", dicom.window(self.film, self.centre.value, int(w))) for w in widths]
        nearest = int(np.abs(np.log(widths / self.width.value)).argmin())
        return show_frames(f"Window at centre {self.centre.value}", frames, nearest)


class frame_slider(WithFrames):
    """One slider over frames (name, uint8 picture (h, w)); `slider.value` is the number of the frame shown."""

    def __init__(self, label: str, frames: list[tuple[str, np.ndarray]], start: int = 0):
        self.label, self.frames = label, frames
        self.slider = ipywidgets.IntSlider(start, 0, len(frames) - 1, description=label, readout=False, tooltip=HOW)
        self.view = ipywidgets.HTML()
        self.slider.observe(self._draw, "value")
        self._draw()
        super().__init__([self.slider, self.view])

    def _draw(self, change=None) -> None:
        name, picture = self.frames[self.slider.value]
        self.view.value = f"<p>{html.escape(name)}</p>{img(picture, f'{self.label}: {name}')}"

    def static(self) -> str:
        """The same frames with a plain HTML slider."""
        return show_frames(self.label, self.frames, self.slider.value)


class blind_game(WithFrames):
    """Real or synthetic? One picture at a time, two buttons, a score with its interval.

    Both kinds pass through the same blur, so that neither gives itself away by its resampling. `answers` holds
    one True (right) or False a trial; `guess(real)` answers from code, `reset()` starts again in the same order.
    """

    def __init__(self, real: np.ndarray, synthetic: np.ndarray, trials: int = 20, seed: int = 0):
        self.pictures, self.is_real = _shuffled(real, synthetic, trials, seed)
        self.real = ipywidgets.Button(description="Real")
        self.synthetic = ipywidgets.Button(description="Synthetic")
        self.view = ipywidgets.HTML()
        self.real.on_click(lambda _: self.guess(True))
        self.synthetic.on_click(lambda _: self.guess(False))
        super().__init__([self.view, ipywidgets.HBox([self.real, self.synthetic])])
        self.reset()

    def guess(self, real: bool) -> None:
        """Answer the picture shown; after the last one nothing happens."""
        if len(self.answers) < len(self.pictures):
            self.answers.append(bool(real) == bool(self.is_real[len(self.answers)]))
            self._draw()

    def reset(self) -> None:
        """Forget all answers."""
        self.answers: list[bool] = []
        self._draw()

    def score(self) -> str:
        """The score in words, with the Wilson interval; 50 % is guessing."""
        if not self.answers:
            return "no answer yet"
        share = metrics.proportion(sum(self.answers), len(self.answers))
        interval = f"{share.low:.0%} to {share.high:.0%}"
        return f"{sum(self.answers)} of {len(self.answers)} right: {share.estimate:.0%} ({interval})"

    def _draw(self) -> None:
        k, n = len(self.answers), len(self.pictures)
        self.real.disabled = self.synthetic.disabled = k == n
        picture = "" if k == n else img(self.pictures[k], f"Film {k + 1}, real or synthetic", 384)
        told = "" if not k else f" That one was {'real' if self.is_real[k - 1] else 'synthetic'}."
        where = f"Film {k + 1} of {n}" if k < n else f"All {n} films answered"
        self.view.value = f"<p>{where}.{told} {'So far' if k < n else 'Score'}: {self.score()}.</p>{picture}"

    def static(self) -> str:
        """The films of the game; what each is can be unfolded below it."""
        frames = [(f"film {k}", picture) for k, picture in enumerate(self.pictures, start=1)]
        told = ["real" if real else "synthetic" for real in self.is_real]
        return show_frames("Guess first", frames, side=192, answers=told)


class vote(WithFrames):
    """Could this film leave our department? One changed film at a time, two buttons, how far it was changed untold.

    cases : (what was done, e.g. {"perturbation": "motion", "severity": 0.2}; uint8 picture (h, w)), in the order shown.
    reader : who votes, a name or a number; kept with each vote if given, so that readers can be weighed alike.
    `votes` holds one dict a vote, what was done plus `leaves`; `answer(leaves)` votes from code, `export` keeps them,
    and `perturb.plausible_from` makes limits of them.
    """

    def __init__(self, cases: list[tuple[dict, np.ndarray]], reader: str | int | None = None):
        self.cases, self.votes, self.reader = cases, [], {} if reader is None else {"reader": reader}
        self.yes = ipywidgets.Button(description="Could leave")
        self.no = ipywidgets.Button(description="Send back")
        self.view = ipywidgets.HTML()
        self.yes.on_click(lambda _: self.answer(True))
        self.no.on_click(lambda _: self.answer(False))
        super().__init__([self.view, ipywidgets.HBox([self.yes, self.no])])
        self._draw()

    def answer(self, leaves: bool) -> None:
        """Vote on the film shown; after the last one nothing happens."""
        if len(self.votes) < len(self.cases):
            self.votes.append({**self.reader, **self.cases[len(self.votes)][0], "leaves": bool(leaves)})
            self._draw()

    def export(self, path: str | Path) -> Path:
        """Write the votes as CSV, one row a vote; several readers' files can be put one below the other."""
        import pandas as pd

        pd.DataFrame(self.votes).to_csv(path, index=False, lineterminator="\n")
        return Path(path)

    def _draw(self) -> None:
        k, n = len(self.votes), len(self.cases)
        self.yes.disabled = self.no.disabled = k == n
        picture = "" if k == n else img(self.cases[k][1], f"Film {k + 1}, changed in a way not told", 384)
        self.view.value = f"<p>{f'Film {k + 1} of {n}' if k < n else f'All {n} films voted on'}.</p>{picture}"

    def static(self) -> str:
        """The films; what was done to each can be unfolded below it."""
        told = [", ".join(f"{name} {value}" for name, value in done.items()) for done, _ in self.cases]
        frames = [(f"film {k}", picture) for k, (_, picture) in enumerate(self.cases, start=1)]
        return show_frames("Could this leave our department?", frames, answers=told)


def _shuffled(real: np.ndarray, synthetic: np.ndarray, trials: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Half real, half synthetic pictures in random order, all blurred alike; uint8 (trials, h, w), bool (trials,)."""
    from scipy.ndimage import gaussian_filter

    if min(len(real), len(synthetic)) < (trials + 1) // 2:
        raise CourseError(
            f"{len(real)} real and {len(synthetic)} synthetic pictures for {trials} trials",
            next=f"pass trials={2 * min(len(real), len(synthetic))} or fewer",
        )
    rng = np.random.default_rng(seed)
    is_real = rng.permutation(np.arange(trials) < trials // 2)
    order = {True: iter(rng.permutation(len(real))), False: iter(rng.permutation(len(synthetic)))}
    kinds = {True: real, False: synthetic}
    chosen = np.stack([kinds[bool(k)][next(order[bool(k)])] for k in is_real])
    return gaussian_filter(chosen, (0, 0.7, 0.7)), is_real
