"""What the reader moves: thin shells over pure functions.

Each widget also carries a plain HTML version (frames drawn beforehand, one slider, no kernel), which the
rendered site shows; JupyterLab shows the live one.
"""

import base64
import html
import io
import uuid

import ipywidgets
import numpy as np
from PIL import Image

from medimgen import dicom


def data_uri(picture: np.ndarray, side: int = 512) -> str:
    """A uint8 grey picture (h, w) as a PNG data URI, reduced so that its longer side is at most `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def img(picture: np.ndarray, alt: str, side: int = 512) -> str:
    """An HTML image with an alternative text."""
    return f'<img src="{data_uri(picture, side)}" alt="{html.escape(alt)}" style="max-width:100%">'


def show_frames(label: str, frames: list[tuple[str, np.ndarray]], start: int = 0, side: int = 384) -> str:
    """HTML with one slider over frames drawn beforehand; needs no kernel and no other file.

    Parameters
    ----------
    label : what the slider moves, in words.
    frames : (name of the position, uint8 picture (h, w)), from the slider's left to its right.
    start : the frame shown first. side : longer side of a frame in pixels.
    """
    key = f"frames-{uuid.uuid4().hex[:8]}"
    pictures = "".join(
        f'<figure data-name="{html.escape(name)}" style="margin:0"{"" if k == start else " hidden"}>'
        f"{img(picture, f'{label}: {name}', side)}</figure>"
        for k, (name, picture) in enumerate(frames)
    )
    move = (
        "var f=this.closest('[data-frames]');"
        "f.querySelectorAll('figure').forEach((g,k)=>g.hidden=k!=this.value);"
        "f.querySelector('output').textContent=f.querySelectorAll('figure')[this.value].dataset.name"
    )
    return (
        f'<div data-frames><label for="{key}">{html.escape(label)}</label> '
        f'<input id="{key}" type="range" min="0" max="{len(frames) - 1}" value="{start}" oninput="{move}"> '
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
        wide = {"continuous_update": True, "style": {"description_width": "4em"}, "layout": {"width": "30em"}}
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
