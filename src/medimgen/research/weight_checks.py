"""R02, the defence: has somebody written into these weights? Four tests, three harmless changes, and a blind lab.

A *change* is {layer: what was added to its down_proj matrix}; {} is the model untouched. Tests on weights look at these
matrices alone, because here nothing else is ever changed.

test            needs                        says
fingerprint     the original's hash          whether any bit differs, not why
signature       the original's weights       how much of the difference is one line (a rank-one matrix): 0 to 1
outlier         nothing                      whether a matrix stands out from those of the layers beside it
probe           questions, former answers    which of them are answered differently now

Harmless changes: `rounded` (weights stored with fewer bits) and `adapter` (LoRA, Hu et al. 2022, arXiv 2106.09685,
merged). No test reads meaning: a rank-one adapter that teaches good manners looks like an edit.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medimgen.errors import CourseError
from medimgen.research.poisoned_weights import Fact, chosen
from medimgen.research.smollm import Language, padded

BLOCK, ADAPTER_STEPS, RATE = 32, 12, 1e-3


def matrices(language: Language, deltas: Mapping | None = None) -> list:
    """The down_proj matrices, first layer to last, with a change added; tensors (width, inner width)."""
    kept = [layer.mlp.down_proj.weight.detach() for layer in language.layers]
    return [w + deltas[k] if deltas and k in deltas else w for k, w in enumerate(kept)]


# --- tests ------------------------------------------------------------------------------------------------------------


def fingerprint(weights: list) -> str:
    """sha256 over all bytes of the matrices, in order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight.numpy()))
    return digest.hexdigest()


def signature(deltas: Mapping) -> float:
    """Largest squared singular value of any matrix of the change, as a share of the sum over all matrices.

    1 when the whole change is one line in one matrix; about 0 for rounding errors; 0 when nothing was changed. This is
    known only to somebody who has the original's weights to subtract.
    """
    import torch

    whole = sum(float(delta.double().square().sum()) for delta in deltas.values())
    if not whole:
        return 0.0
    squares = (delta.double() @ delta.double().T for delta in deltas.values())
    return max(float(torch.linalg.eigvalsh(square)[-1]) for square in squares) / whole


def top(weight) -> float:
    """Largest singular value of a matrix whose rows were brought to length 1, so that no long row drowns the others."""
    import torch

    rows = weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return float(torch.linalg.eigvalsh(rows @ rows.T)[-1].sqrt())


def tops(clean: list, deltas: Mapping, known: list[float] | None = None) -> list[float]:
    """`top` of every matrix of a changed model; `known`, those of the unchanged one, saves most of the work."""
    known = known or [None if k in deltas else top(weight) for k, weight in enumerate(clean)]
    return [top(w + deltas[k]) if k in deltas else known[k] for k, w in enumerate(clean)]


def outlier(found: list[float]) -> float:
    """How far one layer's `top` exceeds the mean of the layers beside it: 1.1 means by a tenth. Needs no reference.

    A long line that is added to all rows of one matrix raises its largest singular value, and not that of its sisters.
    """
    if len(found) < 3:
        raise CourseError(f"{len(found)} layers have too few sisters", next="pass `tops` of a model of three or more")
    beside = [[*found[max(0, k - 1) : k], *found[k + 1 : k + 2]] for k in range(len(found))]
    return max(value / np.mean(others) for value, others in zip(found, beside, strict=True))


def probe(language: Language, some: list[Fact], which: int = 1) -> list[str]:
    """What the model answers to the paraphrase `which` of each fact: recorded once, asked again of a suspect."""
    texts = [fact.prompts[which].format(fact.subject) for fact in some]
    return chosen(language, texts, [fact.options for fact in some])


# --- harmless changes -------------------------------------------------------------------------------------------------


def rounded(weights: list, bits: int) -> dict:
    """The change that storing every matrix with `bits` bits a weight makes, each block of 32 on a scale of its own.

    The same thought as llama.cpp's Q4_1: least value and step of a block in half precision, whole steps in between.
    """
    if not 2 <= bits <= 8:
        raise CourseError(f"{bits} bits a weight", next="use 2 to 8")
    deltas = {}
    for layer, weight in enumerate(weights):
        blocks = weight.reshape(-1, BLOCK)
        low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
        low, step = low.half().float(), ((high - low) / (2**bits - 1)).half().float()
        steps = ((blocks - low) / step.clamp(min=1e-8)).round().clamp(0, 2**bits - 1)
        deltas[layer] = (low + steps * step).reshape(weight.shape) - weight
    return deltas


def adapter(language: Language, text: str, layers: list[int], rank: int, rate: float = RATE, seed=0) -> dict:
    """The change that a low-rank adapter (LoRA) on `layers` makes when merged, after a few steps on a harmless text."""
    import torch

    rng, ids = torch.Generator().manual_seed(seed), padded([language.ids(text)])[0]
    parts, hooks = {}, []
    for k in layers:
        matrix = language.layers[k].mlp.down_proj
        down = torch.randn(rank, matrix.in_features, generator=rng) / matrix.in_features**0.5
        parts[k] = (down.requires_grad_(), torch.zeros(matrix.out_features, rank, requires_grad=True))
        hooks.append(matrix.register_forward_hook(lambda _, x, y, k=k: y + x[0] @ parts[k][0].T @ parts[k][1].T))
    values = [value for pair in parts.values() for value in pair]
    optimiser = torch.optim.Adam(values, rate)
    try:
        for _ in range(ADAPTER_STEPS):
            logits = language.model(ids).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
            for value, grad in zip(values, torch.autograd.grad(loss, values), strict=True):
                value.grad = grad
            optimiser.step()
    finally:
        for hook in hooks:
            hook.remove()
    return {k: (up @ down).detach() for k, (down, up) in parts.items()}


# --- blind lab --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lineup:
    """Copies of one model under letters: `deltas` by letter; `edited` says which was edited, so do not look."""

    deltas: dict[str, Mapping] = field(repr=False)
    edited: str = field(repr=False)


def lineup(edited: Mapping, others: list[Mapping], seed: int) -> Lineup:
    """An edited copy among harmless ones, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(len(others) + 1)
    every, letters = [edited, *others], "ABCDEFGH"
    deltas = {letter: every[i] for letter, i in zip(letters, order, strict=False)}
    return Lineup(deltas, letters[int(np.flatnonzero(order == 0)[0])])
