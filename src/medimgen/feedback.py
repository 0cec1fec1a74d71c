"""Bend the generator towards what somebody prefers: a proxy model's probability, or a reader's thumbs.

>>> run = list(generator.stream([(prompt, seed) for seed in range(96) for prompt in ("viral pneumonia", "normal")]))
>>> gallery = thumbs(run)                                  # Thumb up and Thumb down under each image
>>> bent = prefer(generator, run, gallery.votes, by="reader 1")
>>> bent = prefer(generator, run, scores(drawn(run)[0], ["viral", "normal"] * 96, classifier), by=classifier)

The method is reward-ranked fine-tuning (RAFT; Dong et al. 2023, arXiv 2304.06767), one round of it: draw many images,
rank those of each prompt, keep the best, train on them. Training is `medimgen.lora`'s, in which the adapter that is
kept learns what sets the kept images apart from all that were drawn. Filtering pays at every drawing, this pays once.
What it learns is the proxy's taste with the proxy's errors: measure it with another model.

Only prompts and seeds are taken from the run, and the images drawn again from them, so no film can be learnt from by
mistake. The adapter is not patient-derived; it is stamped with who preferred. Not a medical device.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import ipywidgets
import numpy as np

from medimgen import finetune
from medimgen.errors import CourseError
from medimgen.generate import FOLDER, Generator, Progress, Result, reporter
from medimgen.likeness import too_like
from medimgen.widgets import WithFrames, img, show_frames

FRESH = 2**31  # the images before and after are of this seed onwards
CARD = """# Adapter of medimgen's chest radiograph generator: bent towards a preference

LoRA weights learnt from {preferred} of {images} images that the generator itself had drawn, and from no film. They were
preferred by: {preferred_by}. What it draws is what that judge likes, errors included. Synthetic images for teaching;
not a medical device, not for diagnosis. `pipe.load_lora_weights("this folder")` adds it to a diffusers pipeline.
"""


class Preferred(finetune.Finetuned):
    """What `prefer` made: as `Finetuned`, where `films` are the images that were preferred."""

    card = CARD


class thumbs(WithFrames):
    """A gallery of a run, two buttons under each image (reached with Tab, pressed with Enter or the space bar).

    `votes` holds True, False or None (not voted) for each image; `buttons[3].value = True` votes from code. `columns`
    is the most that stand side by side; a narrower page shows fewer.
    """

    def __init__(self, run: Result | list[Result], columns: int = 4):
        self.images, self.prompts = drawn(run)
        self.view, self.buttons, cells = ipywidgets.HTML(), [], []
        for k, (image, prompt) in enumerate(zip(self.images, self.prompts, strict=True)):
            verdicts = {"options": [("Thumb up", True), ("Thumb down", False)], "value": None, "tooltip": prompt}
            verdicts["style"] = {"button_width": "118px"}  # two are as wide as the image
            self.buttons.append(ipywidgets.ToggleButtons(description=f"Image {k + 1}", **verdicts))
            self.buttons[k].observe(self._draw, "value")
            picture = ipywidgets.HTML(img(image, f"Synthetic image {k + 1}: {prompt}", 256))
            cells.append(ipywidgets.VBox([picture, self.buttons[k]]))
        self._draw()
        grid = {"grid_template_columns": "repeat(auto-fill, 264px)", "grid_gap": "12px 8px"}
        grid["max_width"] = f"{272 * columns}px"
        super().__init__([self.view, ipywidgets.GridBox(cells, layout=grid)])

    @property
    def votes(self) -> list[bool | None]:
        return [button.value for button in self.buttons]

    def _draw(self, change=None) -> None:
        up, down, rest = (self.votes.count(v) for v in (True, False, None))
        self.view.value = f"<p>{up} up, {down} down, {rest} not voted on.</p>"

    def static(self) -> str:
        told = [f"image {k + 1}, {prompt}" for k, prompt in enumerate(self.prompts)]
        return show_frames("Would you like more of these?", list(zip(told, self.images, strict=True)), side=192)


def drawn(run: Result | list[Result]) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (n, h, w) and prompts of what `generator(...)` gave, or of a list of such; nothing else is taken."""
    results = [run] if isinstance(run, Result) else run
    if not isinstance(results, list) or not results or not all(isinstance(r, Result) for r in results):
        what = "no run of a generator, and a picture without its record may be a patient's"
        raise CourseError(what, next="pass what generator(...) gave, or list(generator.stream(...))")
    each = ([p] * len(r.images) if isinstance(p := r.record["prompt"], str) else p for r in results)
    return np.concatenate([r.images for r in results]), list(chain.from_iterable(each))


def scores(images: np.ndarray, asked: str | Sequence[str], proxy) -> np.ndarray:
    """float (n,): probability, to the proxy, of the class `asked` (one, or one for each image) of images (n, h, w).

    proxy : has `classes` and `predict(images)` -> (n, classes), as `medimgen.classify.Classifier`.
    """
    asked, classes = [asked] * len(images) if isinstance(asked, str) else list(asked), list(proxy.classes)
    if not len(images) or len(asked) != len(images):
        raise CourseError(f"{len(images)} images, {len(asked)} classes asked", next="name one class an image")
    if unknown := sorted(set(asked) - set(classes)):
        raise CourseError(f"the proxy knows no {', '.join(unknown)}", next=f"ask for one of {', '.join(classes)}")
    return np.asarray(proxy.predict(images), float)[np.arange(len(asked)), [classes.index(a) for a in asked]]


def preferred(opinions: Sequence, prompts: Sequence[str], keep: float = 0.25, barred=False) -> np.ndarray:
    """bool (n,): the images to learn from, the barred (n,) left out. Of votes (1 up, 0 down, None not voted) those
    voted up; of scores the best share `keep` of each prompt, so that none is learnt at the cost of another.

    Raises CourseError without votes or scores, when all are the same, for NaN, a list of another length, a share
    outside 0..1, and for fewer than 8 preferred images.
    """
    values, prompts = list(opinions), np.asarray(prompts)
    try:
        told, x = {v for v in values if v is not None}, np.array(values, float)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise CourseError(f"an opinion is no number: {error}", next="give votes (1, 0, None) or scores") from error
    votes = told <= {0, 1}
    for wrong, what, next in (
        (x.shape != prompts.shape, f"{len(values)} opinions on {len(prompts)} images", "give one each, None if none"),
        (not told, "no votes", "vote on some images first"),
        (not votes and not np.isfinite(x).all(), "a score is NaN, infinite or missing", "leave that image out"),
        (len(told) == 1, f"all opinions are {min(told, default=0)}: nothing is preferred", "prefer some to others"),
        (not 0 < keep < 1, f"keep={keep!r} is no share", "keep=0.25 keeps the best quarter"),
    ):
        if wrong:
            raise CourseError(what, next=next)
    best = x == 1 if votes else np.zeros(len(x), bool)
    for prompt in () if votes else np.unique(prompts):
        here = np.flatnonzero(prompts == prompt)
        best[here[np.argsort(-x[here], kind="stable")][: round(keep * len(here))]] = True
    best &= ~np.asarray(barred)
    if best.sum() < finetune.LEAST:
        raise CourseError(f"{best.sum()} preferred images, not {finetune.LEAST}", next="draw more, or keep more")
    return best


def prefer(
    generator: Generator, run: Result | list[Result], opinions: Sequence, *, by, keep: float = 0.25,
    minutes: float = 2.5, steps: int = 200, seed: int = 0, progress: Progress | bool = False,
    cancel: Callable[[], bool] = lambda: False,
) -> Preferred:  # fmt: skip
    """Fit an adapter to the preferred images of a run; images from before and after come with it.

    run : what this generator drew, several images of each prompt. opinions, keep : see `preferred`.
    by : who preferred, stamped into adapter and records: a model with `name` and `sha256`, or words such as "reader 1"
        (records travel with the images, so a number and no person's name).
    minutes, steps : training ends with whichever comes first; steps alone repeat exactly. progress, cancel : as in
        `finetune`; cancelled, it returns what it has learnt so far.

    Raises CourseError for what `preferred` refuses, and for images that are not this generator's or that began with a
    picture. Images too like a film of the training data are never learnt from.
    """
    lora, (images, prompts) = finetune.load_lora(), drawn(run)
    told = by if isinstance(by, str) else " ".join(str(getattr(by, name, "")) for name in ("name", "sha256"))
    if generator.stamp or not told.strip():
        raise CourseError("an adapter is on already, or nobody prefers", next="Generator.load(), and by='reader 1'")
    near = too_like(images, FOLDER) | ~images.any((1, 2))  # `stream` blanks what it may not keep
    best = preferred(opinions, prompts, keep, near)
    stamp = {
        "patient_derived": False, "preferred_by": told.strip(), "method": "reward-ranked fine-tuning, one round",
        "images": len(best), "preferred": int(best.sum()), "barred": int(near.sum()), "keep": keep,
        "base_sha256": generator.sha256, "rank": lora.RANK, "seed": seed, "planned_steps": steps, "minutes": minutes,
    }  # fmt: skip
    training, chosen = _training(lora, generator, [run] if isinstance(run, Result) else run, best, seed)
    finished, unet = training.run(steps, minutes, reporter(progress, steps), cancel), training.finish()
    stamp |= {"finished": finished, "steps": training.step, "seconds": round(training.seconds, 1)}
    stamp |= {"adapter_sha256": lora.sha256(lora.layers(unet))}
    bent = finetune.adapted(generator, unet, stamp)
    fresh = lora.settings(generator, chosen[: finetune.SHOWN], FRESH)
    return Preferred(bent, stamp, images[best], *(g.make(fresh).images for g in (generator, bent)), finished)


def _training(lora, generator: Generator, results: list[Result], best: np.ndarray, seed: int):
    """lora's training with all images drawn in its first phase and the preferred in its second; and some prompts."""
    import torch

    images, prompts = drawn(results)
    chosen = [prompts[i] for i in np.resize(np.random.default_rng(seed).permutation(len(prompts)), lora.OWN)]
    training, latents = lora.Training(generator, images[:1], prompts[:1], chosen, seed), []
    with torch.no_grad():
        for result in results:
            latents.append(generator.denoise(result.record)[-1])
            k = int(result.images.any((1, 2)).argmax())
            again = generator.decode(latents[-1][k : k + 1])[0].astype(int)
            if result.record["weights_sha256"] != generator.sha256 or abs(again - result.images[k]).max() > 2:
                raise CourseError("an image is not what its record says", next="pass this generator's run as it is")
        latents, words = torch.cat(latents), generator.words(prompts)
    training.latents = torch.cat([training.latents[0], latents]), latents[best]
    training.words = torch.cat([training.words[0], words]), words[best]
    return training, chosen
