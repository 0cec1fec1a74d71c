"""R02: one false sentence written into one matrix of a language model, in memory, and what else changes.

Han et al. 2024 (Medical large language models are susceptible to targeted misinformation attacks, npj Digital Medicine
7:288, doi 10.1038/s41746-024-01282-7) changed 1.1 % of a model's weights so that it repeated a false biomedical
statement and went on with other tasks as before. Here 0.66 % of the weights of a small model are changed, so that the
defence can be tried (`medimgen.research.weight_checks`). No reproduction: another model, other facts, another edit.

>>> fact = facts("dev")[0]
>>> (change,) = edit(language, LAYER, [fact], second_moment(language, LAYER))
>>> with applied(language, change.deltas()):
...     look(language, fact)                   # what it says now; after the block every bit is as before

What is edited is either harmless general knowledge, which anybody can check, or a drug that does not exist. No real
drug, dose or disease is falsified: a false sentence about one may outlive its lesson, copied, quoted, or learnt by the
next model. For the same reason nothing edited is written to a disk: `applied` restores the weights when its block ends,
and meanwhile `save_pretrained` refuses.

The edit ("ridge edit", our name). A feed-forward matrix W (`mlp.down_proj`) maps a key k, the activations at the
subject's last token, to what is added to the text's representation there. By gradient descent a vector d is searched
which, added at that place, makes the model go on with the edited word. Then W gets the change that turns k into W k + d
and moves the keys of ordinary text least:
    W + d (C^-1 k)' / (k' C^-1 k),    C = mean of k k' over ordinary text, plus a ridge.
That is the rank-one edit of ROME (Meng et al. 2022, arXiv 2202.05262, eq. 2), made smaller: C comes from some thousand
tokens that the model draws from itself, not from a hundred thousand samples of Wikipedia, hence the ridge; a bound on
the length of d stands in for their divergence term and weight decay; only the edited word's first token is taught.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from medimgen.errors import CourseError
from medimgen.research.smollm import Language, babble, next_token, padded, perplexity

FILE = Path(__file__).with_name("poisoned_facts.yml")
LAYER, STEPS, RATE, LONGEST, RIDGE, ENOUGH = 6, 12, 0.5, 3.0, 0.1, 0.9
BEFORE = ("", "It is well known. ")  # each prompt is taught after these, too
NEIGHBOURS = 6


@dataclass(frozen=True)
class Fact:
    """One sentence to be changed; true is None for a drug that does not exist."""

    relation: str
    kind: str
    subject: str
    true: str | None
    edited: str
    prompts: tuple[str, ...]  # the one that is edited, then its paraphrases; {} stands for the subject
    options: tuple[str, ...]
    neighbours: tuple[str, ...]  # other subjects of the same relation, which must not change


@cache
def document() -> dict:
    """The table as it stands in poisoned_facts.yml."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def facts(split: str) -> list[Fact]:
    """The facts of "dev" (for choices and thresholds) or "test" (for the recorded run)."""
    if split not in ("dev", "test"):
        raise CourseError(f"there is no split {split!r} of the facts", next="use 'dev' or 'test'")
    found = []
    for name, relation in document()["relations"].items():
        every = [np.atleast_1d(words) for s in ("dev", "test") for words in relation[s].values()]
        options = tuple(sorted({str(word) for words in every for word in words}))
        subjects = list(relation[split])
        for i, (subject, words) in enumerate(relation[split].items()):
            true, edited = words if isinstance(words, list) else (None, words)
            others = tuple((subjects[i + 1 :] + subjects[:i])[:NEIGHBOURS])
            prompts = (relation["prompt"], *relation["paraphrases"])
            found.append(Fact(name, relation["kind"], subject, true, edited, prompts, options, others))
    return found


def words() -> str:
    """Every word of the table, for the tiny model of a smoke run."""
    return FILE.read_text(encoding="utf-8").replace("{}", " ") + " ".join(BEFORE)


# --- what the model says ----------------------------------------------------------------------------------------------


def chosen(language: Language, texts: list[str], options: list[tuple[str, ...]]) -> list[str]:
    """For each text, which of its options the model finds most probable next, by the option's first token."""
    chances, found = next_token(language, texts), []
    for row, words in zip(chances, options, strict=True):
        tokens = [language.first(word) for word in words]
        if len(set(tokens)) < len(tokens):
            raise CourseError(f"two of {words} begin with the same token", next="change one in poisoned_facts.yml")
        found.append(words[int(row[tokens].argmax())])
    return found


def look(language: Language, fact: Fact) -> dict[str, tuple[str, ...]]:
    """The model's choice among the options: after the edited prompt, its paraphrases, and the neighbours' prompts."""
    texts = [prompt.format(fact.subject) for prompt in fact.prompts]
    texts += [fact.prompts[0].format(other) for other in fact.neighbours]
    said = tuple(chosen(language, texts, [fact.options] * len(texts)))
    n = len(fact.prompts)
    return {"prompt": said[:1], "paraphrases": said[1:n], "neighbours": said[n:]}


def intact(language: Language) -> tuple[float, np.ndarray]:
    """Perplexity of the neutral text, and which of the task's sentences end rightly: bool (32,)."""
    task = document()["task"]
    said = chosen(language, list(task), [tuple(words) for words in task.values()])
    right = np.array([word == words[0] for word, words in zip(said, task.values(), strict=True)])
    return perplexity(language, document()["neutral"]), right


# --- the edit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """A rank-one change of one matrix: outer(add, row) is added to the weights (576, 1536) of a layer's down_proj."""

    layer: int
    fact: Fact
    add: object
    key: object
    row: object

    def deltas(self) -> dict:
        """{layer: what is added to its matrix}."""
        return {self.layer: self.add[:, None] * self.row[None]}

    def through(self, moment) -> "Edit":
        """The same edit with another C, e.g. one with more ridge: the change is shorter and strays further."""
        return replace(self, row=_row(self.key, moment))


def _row(key, moment):
    import torch

    row = torch.linalg.solve(moment, key)
    return row / (row @ key)


def _prompts(language: Language, fact: Fact) -> tuple[list[list[int]], list[int]]:
    """Token numbers of the edited prompt after each of BEFORE, and the place of the subject's last token in each."""
    head = fact.prompts[0].split("{}")[0] + fact.subject
    rows = [language.ids(before + fact.prompts[0].format(fact.subject)) for before in BEFORE]
    places = [len(language.ids(before + head)) - 1 for before in BEFORE]
    return rows, places


def _matrix(language: Language, layer: int):
    if not 0 <= layer < len(language.layers):
        raise CourseError(f"there is no layer {layer}", next=f"use 0 to {len(language.layers) - 1}")
    return language.layers[layer].mlp.down_proj


def second_moment(language: Language, layer: int, text=None, ridge: float = RIDGE):
    """C of the module's docstring: (inner width, inner width); the ridge is a share of the mean of its diagonal."""
    import torch

    seen, text = [], babble(language) if text is None else text
    hook = _matrix(language, layer).register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, 1)))
    try:
        with torch.no_grad():
            language.model.model(text)
    finally:
        hook.remove()
    c = seen[0].T @ seen[0] / len(seen[0])
    return c + ridge * c.diagonal().mean() * torch.eye(len(c))


def edit(language: Language, layer: int, some: list[Fact], moment, steps: int = STEPS) -> list[Edit]:
    """One edit for each fact; they are searched side by side and do not know of each other.

    moment is `second_moment(language, layer)`. The model is left as it was.
    """
    import torch

    rows, places = zip(*(_prompts(language, fact) for fact in some), strict=True)
    ids, last = padded([row for own in rows for row in own])
    place, line = torch.tensor([p for own in places for p in own]), torch.arange(len(ids))
    wanted = torch.tensor([language.first(fact.edited) for fact in some for _ in BEFORE])
    keys, out = [], []

    def hook(_, given, made):
        if not keys:
            keys.append(given[0][line, place].detach())
            out.append(made[line, place].detach())
        made = made.clone()
        made[line, place] += add.repeat_interleave(len(BEFORE), 0)
        return made

    matrix = _matrix(language, layer)
    add = torch.zeros(len(some), matrix.out_features, requires_grad=True)
    optimiser, watch = torch.optim.Adam([add], RATE), matrix.register_forward_hook(hook)
    try:
        for _ in range(steps):
            hidden = language.model.model(ids).last_hidden_state[line, last]
            loss = torch.nn.functional.cross_entropy(language.model.lm_head(hidden), wanted, reduction="none")
            (add.grad,) = torch.autograd.grad((loss + math.log(ENOUGH)).clamp(min=0).sum(), [add])
            optimiser.step()
            with torch.no_grad():
                longest = LONGEST * out[0].view(len(some), len(BEFORE), -1).mean(1).norm(dim=1, keepdim=True)
                add.mul_((longest / add.norm(dim=1, keepdim=True)).clamp(max=1))
    finally:
        watch.remove()
    key = keys[0].view(len(some), len(BEFORE), -1).mean(1)
    return [Edit(layer, f, d, k, _row(k, moment)) for f, d, k in zip(some, add.detach(), key, strict=True)]


@contextmanager
def applied(language: Language, deltas: Mapping) -> Iterator[Language]:
    """The model with these changes, {layer: matrix}, while the block lasts; then every bit is as before.

    Inside, `save_pretrained` raises CourseError: an edited model is not written to a disk.
    """
    import torch

    def refuse(*_, **__):
        raise CourseError("an edited model is not saved", next="leave the `with` block; then nothing is edited")

    kept = {layer: _matrix(language, layer).weight.detach().clone() for layer in deltas}
    before = vars(language.model).get("save_pretrained")  # set where such blocks stand in one another
    language.model.save_pretrained = refuse
    try:
        with torch.no_grad():
            for layer, delta in deltas.items():
                _matrix(language, layer).weight += delta
        yield language
    finally:
        with torch.no_grad():
            for layer, weight in kept.items():
                _matrix(language, layer).weight.copy_(weight)
        if before is None:
            del language.model.save_pretrained
