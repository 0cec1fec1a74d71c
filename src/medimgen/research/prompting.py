"""R01: which parts of a prompt help a small language model to say what a radiology report says?

Advice on prompts is plentiful: give examples, a role, the context, let it think, ask for a form, let it check itself,
lower the temperature (Bhayana 2024, Radiology 310:e232756, doi 10.1148/radiol.232756, reviews it for radiology). Here
each piece of advice is a factor with two levels, and sixteen prompts tell the seven apart:

>>> run = design()["06"]                                 # one of sixteen prompts
>>> said = ask(language, run, wording=0, reports=[text])  # the dialogue, several reports side by side
>>> reading = read(said[0].last, run.format)             # validated; a failure counts as a failure
>>> score(reading.findings, truth, text)                 # right, named, true, unsupported, denied

The task: which of eight findings does a report say are present? Truth are the subject headings (MeSH) that the
collection's annotators gave (Demner-Fushman et al. 2016, J Am Med Inform Assoc 23:304, doi 10.1093/jamia/ocv080). They
are not the text: an annotator passes over what seems minor. The reports may be neither shown nor adapted, so nothing
here writes a report or an answer to a disk; figures and counts leave, words stay.

Answers of a model of this size are no advice; this is not a medical device.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from medimgen.errors import CourseError
from medimgen.metrics import Interval, cluster_bootstrap
from medimgen.research.smollm import Language

FILE = Path(__file__).with_name("invented_reports.yml")
SIZES = {"pilot": (12, 4), "test": (75, 25)}  # reports with one of the findings, and with none
SHORTEST, LONGEST = 15, 60  # words
THOUGHT, ANSWER, HOT = 24, 32, 0.7  # tokens at most, temperature
NEGATION = re.compile(r"\b(no|not|without|free of|negative for|neither|nor|absence of|resolved|cleared|nothing)\b")
TURNS = re.compile(r"\b(but|however|although|except)\b")
LATER = re.compile(r"^[^,]{0,25}\b(not (seen|present|identified)|resolved|cleared|excluded|absent)\b")
START, END = "<|im_start|>{}\n", "<|im_end|>\n"


@dataclass(frozen=True)
class Prompt:
    """Which parts a prompt has: one factor each, off or on. `temperature` on means 0.7, off means 0 (greedy)."""

    examples: bool = False
    role: bool = False
    context: bool = False
    thinking: bool = False
    format: bool = False
    check: bool = False
    temperature: bool = False


@dataclass(frozen=True)
class Said:
    """What the model wrote: its thought ("" if not asked for), its first answer, and its last, after checking."""

    thought: str
    first: str
    last: str


@dataclass(frozen=True)
class Reading:
    """Findings read from an answer; valid is False, and why says so, when the answer could not be read."""

    findings: frozenset[str]
    valid: bool = True
    why: str = ""


@cache
def document() -> dict:
    """invented_reports.yml as it stands."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def names() -> list[str]:
    """The eight findings."""
    return list(document()["findings"])


def words() -> str:
    """Every word of the prompts, for the tiny model of a smoke run."""
    return FILE.read_text(encoding="utf-8")


def design() -> dict[str, Prompt]:
    """Sixteen of the 2^7 = 128 prompts, "01" to "16" (a 2^(7-3) design of resolution IV).

    Four factors take all 16 combinations; each of the other three is the product of three of them (ABC, BCD, ACD, with
    the levels written -1 and 1). So every factor is on in eight runs and off in eight, and is mixed up with no other
    factor and with no pair of factors; pairs are mixed up with pairs. Box, Hunter and Hunter 2005, chapter 6.
    """
    runs = [(a, b, c, d, a ^ b ^ c, b ^ c ^ d, a ^ c ^ d) for a, b, c, d in product((False, True), repeat=4)]
    return {f"{number:02}": Prompt(*levels) for number, levels in enumerate(runs, start=1)}


# --- reports ----------------------------------------------------------------------------------------------------------


def truth(mesh: tuple[str, ...]) -> frozenset[str]:
    """The findings that subject headings such as "Cardiomegaly/mild" stand for; the borderline ones count, too."""
    heads = {name: entry["mesh"] for name, entry in document()["findings"].items()}
    return frozenset(n for n, some in heads.items() if any(f"{t}/".startswith(f"{h}/") for t in mesh for h in some))


def drawn(split: str) -> pd.DataFrame:
    """Reports of "pilot" or "test": columns report (a hash), text, truth, wording. No report is in both.

    Eligible: findings and impression both written, together 15 to 60 words, indexed. Three quarters have at least one
    of the eight findings. The order is that of a hash, and the wording of the request rotates over it.
    """
    from medimgen.data import reports

    if split not in SIZES:
        raise CourseError(f"there is no split {split!r} of the reports", next=f"use one of {', '.join(SIZES)}")
    table = reports.load()
    table = table[(table["findings"] != "") & (table["impression"] != "")]
    table = table[~table["mesh"].map(lambda m: not m or "No Indexing" in m)]
    table = table.assign(
        report=[hashlib.sha256(f"R01 {uid}".encode()).hexdigest()[:10] for uid in table["uid"]],
        text=(table["findings"] + " " + table["impression"]).str.split().str.join(" "),
        truth=table["mesh"].map(truth),
    ).sort_values("report")
    table = table[table["text"].str.split().str.len().between(SHORTEST, LONGEST)]
    some = table["truth"].map(bool)
    skip = SIZES["pilot"] if split == "test" else (0, 0)
    parts = [table[own].iloc[s : s + n] for own, s, n in zip((some, ~some), skip, SIZES[split], strict=True)]
    found = pd.concat(parts).sort_values("report")[["report", "text", "truth"]].reset_index(drop=True)
    return found.assign(wording=np.arange(len(found)) % len(document()["instructions"]))


def search(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Findings that the words of a text name, and those that it only denies. A plain search, sentence by sentence.

    A finding is denied where a word such as "no" or "without" stands before it in the sentence, with no "but" between,
    or where "not seen", "resolved" or the like follows (the thought of NegEx, Chapman et al. 2001, in a few lines).
    """
    present, denied = set(), set()
    for sentence in re.split(r"[.;?\n]+", text.lower()):
        for name, entry in document()["findings"].items():
            for match in re.finditer(entry["words"], sentence):
                before = TURNS.split(sentence[: match.end()])[-1]
                no = NEGATION.search(before) or LATER.search(sentence[match.end() :])
                (denied if no else present).add(name)
    return frozenset(present), frozenset(denied - present)


# --- prompt and answer ------------------------------------------------------------------------------------------------


def written(prompt: Prompt, found) -> str:
    """Findings in the form that a prompt asks for; without a request, plain words."""
    some = [name for name in names() if name in found]
    return json.dumps({"findings": some}) if prompt.format else ", ".join(some) or "none"


def opening(prompt: Prompt, wording: int) -> str:
    """The model's own form of a chat, up to where the report begins; it is the same for all reports of a wording."""
    parts = document()["parts"]
    request = [document()["instructions"][wording].format(findings=", ".join(names()))]
    request += [parts[name] for name in ("context", "thinking", "format") if getattr(prompt, name)]
    text = START.format("system") + parts["role"] + END if prompt.role else ""
    text += START.format("user") + " ".join(request) + "\n\nReport:"
    for row in document()["examples"] if prompt.examples else ():
        thought = f"{row['thought']}\n{parts['answer']} " if prompt.thinking else ""
        text += f" {row['report']}{END}{START.format('assistant')}{thought}{written(prompt, row['findings'])}"
        text += END + START.format("user") + "Report:"
    return text


class Dialogue:
    """Several conversations side by side that begin alike, with what the model has computed so far kept.

    The common beginning is computed once. Rows of different length are filled up with tokens that nobody can see.
    """

    def __init__(self, language: Language, opening: str, rows: int, temperature: float = 0.0, seed: int = 0):
        import torch

        self.language, self.temperature = language, temperature
        self.rng = torch.Generator().manual_seed(seed)
        self.stop = language.ids("<|im_end|>")[-1]
        ids = torch.tensor([language.ids(opening)])
        self.seen, self.memory = torch.ones((rows, ids.shape[1]), dtype=torch.long), None
        with torch.inference_mode():
            self.memory = language.model.model(ids, use_cache=True).past_key_values
            self.memory.batch_repeat_interleave(rows)

    def _feed(self, ids, real) -> None:
        import torch

        self.seen = torch.cat([self.seen, real], 1)
        places = (self.seen.cumsum(1) - 1)[:, -ids.shape[1] :]
        how = {"attention_mask": self.seen, "position_ids": places, "past_key_values": self.memory}
        with torch.inference_mode():
            hidden = self.language.model.model(ids, use_cache=True, **how).last_hidden_state[:, -1]
            self.logits = self.language.model.lm_head(hidden)

    def hear(self, texts: list[str]) -> None:
        """Add a text to each conversation."""
        import torch

        rows = [self.language.ids(text) for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        self._feed(ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]))

    def _next(self):
        import torch

        if not self.temperature:
            return self.logits.argmax(-1)
        return torch.multinomial((self.logits / self.temperature).softmax(-1), 1, generator=self.rng)[:, 0]

    def say(self, most: int, last: str, final: bool = False) -> list[str]:
        """What the model goes on with: `most` tokens, or up to the end of its turn, or up to a text with `last`.

        final: nothing will be heard after this, so rows that have ended are dropped and cost no more.
        """
        import torch

        said, rows = [[] for _ in self.seen], np.arange(len(self.seen))
        over = np.zeros(len(rows), bool)
        for _ in range(most):
            tokens = self._next()
            over |= tokens.numpy() == self.stop
            for row, token in zip(rows[~over], tokens[~over].tolist(), strict=True):
                said[row].append(token)
            self._feed(tokens[:, None], torch.tensor(~over[:, None], dtype=torch.long))
            over |= [last in self.language.tokenizer.decode(said[row]).lstrip() for row in rows]
            if over.all():
                break
            if final and over.any():
                stay = torch.tensor(np.flatnonzero(~over))
                self.memory.batch_select_indices(stay)
                self.seen, self.logits, rows, over = self.seen[stay], self.logits[stay], rows[~over], over[~over]
        return [self.language.tokenizer.decode(row).strip() for row in said]


def ask(language: Language, prompt: Prompt, wording: int, reports: list[str], seed: int = 0) -> list[Said]:
    """Put one wording of a prompt to the model, for several reports side by side."""
    parts, last = document()["parts"], "}" if prompt.format else "\n"
    talk = Dialogue(language, opening(prompt, wording), len(reports), HOT * prompt.temperature, seed)
    talk.hear([f" {report}{END}{START.format('assistant')}" for report in reports])
    thoughts = [""] * len(reports)
    if prompt.thinking:
        thoughts = talk.say(THOUGHT, "\n")
        talk.hear([f"\n{parts['answer']}"] * len(reports))
    first = final = talk.say(ANSWER, last, final=not prompt.check)
    if prompt.check:
        talk.hear([END + START.format("user") + parts["check"] + END + START.format("assistant")] * len(reports))
        final = talk.say(ANSWER, last, final=True)
    return [Said(*texts) for texts in zip(thoughts, first, final, strict=True)]


@cache
def form() -> type:
    """What an answer must look like: a pydantic model with `findings`, a list of names from the eight and no others."""
    from typing import Literal

    from pydantic import BaseModel, ConfigDict

    class Answer(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        findings: list[Literal[tuple(names())]]

    return Answer


def read(answer: str, format: bool) -> Reading:
    """Findings of an answer. format: what stands from { to } must pass `form`. Else plain words, searched by `search`;
    an answer that neither names one of the eight nor says that there is none has failed, too.
    """
    from pydantic import ValidationError

    if not format:
        found, _ = search(answer)
        empty = re.search(r"\b(no|not|none|nothing|normal|without|clear)\b", answer.lower())
        return Reading(found) if found or empty else Reading(found, False, "names no finding and does not deny any")
    inside = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        return Reading(frozenset(form().model_validate_json(inside[0] if inside else answer).findings))
    except ValidationError as error:
        first = error.errors()[0]
        return Reading(frozenset(), False, f"{'/'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}")


def score(found, true, text: str) -> dict[str, int]:
    """Counts of one answer: right, named, true, and among the named unsupported and denied.

    unsupported: neither the headings nor the words of the report say so, a hallucination. denied: of these, the ones
    that the report mentions in order to say that they are not there.
    """
    present, denied = search(text)
    invented = set(found) - set(true) - present
    counts = {"right": len(set(found) & set(true)), "named": len(found), "true": len(true)}
    return counts | {"unsupported": len(invented), "denied": len(invented & denied)}


# --- figures ----------------------------------------------------------------------------------------------------------


def f1(right, named, true) -> np.ndarray:
    """2 right / (named + true) over the first axis, all findings of all reports pooled; 0 where nothing is named."""
    return 2 * np.sum(right, 0) / np.maximum(1, np.sum(named, 0) + np.sum(true, 0))


def square(rows: pd.DataFrame, *columns: str, runs=None) -> tuple[np.ndarray, ...]:
    """For each column an array (reports, runs), reports and runs in sorted order, from the long table of a recipe."""
    rows = rows[rows["run"].isin(list(runs or design()))]
    return tuple(rows.pivot(index="report", columns="run", values=column).to_numpy(float) for column in columns)


def effect(rows: pd.DataFrame, factor: str, draws: int, seed: int, runs=None, **test) -> Interval:
    """Mean F1 of the runs with a factor on minus that of those with it off (all 16, or `runs`), over reports."""
    on = np.array([getattr(design()[name], factor) for name in sorted(runs or design())])
    counts = square(rows, "right", "named", "true", runs=runs)

    def statistic(*some):
        found = f1(*some)
        return found[on].mean() - found[~on].mean()

    return cluster_bootstrap(statistic, np.arange(len(counts[0])), *counts, draws=draws, seed=seed, **test)


def effects(rows: pd.DataFrame, draws: int = 2000, seed: int = 0, primary: str = "examples") -> pd.DataFrame:
    """Main effect of each factor on F1 with its interval. p_holm: two-sided, Holm (1979) over all but the primary."""
    factors = list(asdict(Prompt()))
    found = [effect(rows, factor, draws, seed, null=0.0) for factor in factors]
    table = pd.DataFrame([(*interval, interval.p) for interval in found], factors, ["effect", "low", "high", "p"])
    others = table["p"].drop(primary).sort_values(kind="stable")
    steps = np.maximum.accumulate(np.arange(len(others), 0, -1) * others.to_numpy())
    return table.join(pd.Series(np.minimum(1, steps), others.index, name="p_holm"))


# --- what training adds -----------------------------------------------------------------------------------------------


def made(n: int, seed: int) -> list[tuple[str, frozenset[str]]]:
    """Training reports put together from invented sentences: (text, findings). Each mentions up to four findings."""
    rng, parts, rows = np.random.default_rng(seed), document()["sentences"], []
    for _ in range(n):
        some = rng.choice(names(), size=int(rng.integers(1, 5)), replace=False)
        there = {str(name): bool(rng.random() < 0.5) for name in some}
        lines = [rng.choice(parts["present" if yes else "absent"][name]) for name, yes in there.items()]
        lines += list(rng.choice(parts["other"], size=2, replace=False))
        rows.append((" ".join(rng.permutation(lines)), frozenset(name for name, yes in there.items() if yes)))
    return rows


@contextmanager
def tuned(language: Language, prompt: Prompt, steps: int = 40, batch: int = 4, seed: int = 0) -> Iterator[Language]:
    """The model with a low-rank adapter (LoRA, Hu et al. 2022) that learnt invented reports; taken off at the end.

    Only the tokens of the answer count in the loss. Nothing real is learnt from, and nothing is written to a disk.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from medimgen.research.smollm import padded

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(language.model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    optimiser = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 1e-3, weight_decay=0.0)
    rows, wordings = made(steps * batch, seed), len(document()["instructions"])
    for k in range(steps):
        heads, tails = [], []
        for i, (text, found) in enumerate(rows[k * batch : (k + 1) * batch]):
            asked = f"{opening(prompt, (k + i) % wordings)} {text}{END}{START.format('assistant')}"
            heads.append(language.ids(asked))
            tails.append(language.ids(written(prompt, found) + END))
        ids, ends = padded([head + tail for head, tail in zip(heads, tails, strict=True)])
        places = torch.arange(ids.shape[1])[None]
        counts = (places >= torch.tensor([[len(head)] for head in heads])) & (places <= ends[:, None])
        logits = language.model.lm_head(language.model.model(ids).last_hidden_state[:, :-1][counts[:, 1:]])
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][counts[:, 1:]])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    try:
        yield language
    finally:
        adapted.unload()


def described(prompt: Prompt) -> str:
    """The factors that are on, in words."""
    return ", ".join(name for name, on in zip(asdict(prompt), astuple(prompt), strict=True) if on) or "nothing added"
