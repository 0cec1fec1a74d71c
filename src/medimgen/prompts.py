"""What is wrong with a prompt, said before anything is generated: identifiers, slips, unseen and ambiguous words.

>>> print(show_remarks("a CAT image of the chest, X-ay"))
>>> refuse_identifiers("chest x-ray of Mr Smith")          # raises CourseError; `Generator` calls this first

A generator never says "I do not know": a misspelt word is one that it has not read, and it draws something all the
same. So the prompt is checked as text. Unseen is what the generator's tokenizer does not hold; a slip is an unseen
word one letter away from a word that it holds (Damerau 1964: one letter wrong, missing, added, or two exchanged); an
ambiguous word is one that a sentence encoder was measured to place with its other sense, or near it, when it stands
alone (recipes/ambiguous_words.py, which wrote prompt_words.tsv). A word that the generator read is not called
ambiguous: its captions gave it one sense.

Identifiers are patterns for what HIPAA lists in 45 CFR 164.514(b)(2)(i), letters (A) to (R), as far as it has a form:
titles and labelled names, addresses, dates, ages over 89, numbers of telephones, records and accounts, e-mail, web and
network addresses, UIDs. In the European Union a prompt about an identifiable person is processing of health data (GDPR
Articles 4(1), 4(15) and 9). A pattern cannot see a bare name ("chest film, Schmidt"), a place, an employer, or a
rare disease that singles somebody out; that nothing was found does not make a prompt anonymous. The patterns find
163 of 178 invented prompts in the tests, most of which were at hand when they were written: expect fewer of yours.
A capitalised word after "patient" passes for a name even where it is none.
"""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medimgen.errors import CourseError
from medimgen.paths import ROOT

TOKENIZER = ROOT / "models" / "cxr-mini" / "tokenizer" / "tokenizer.json"
TABLE = Path(__file__).with_name("prompt_words.tsv")
IDENTIFIERS = Path(__file__).with_name("identifiers.tsv")
SHORTEST = 4  # letters; shorter words are too near to others to guess a slip
RULE = "no patient data in prompts"
NAME = r"[A-ZÀ-Þ]['’]?[A-Za-zÀ-ÿ]*[a-zà-ÿ][\w'’-]*"
PARTICLE = r"(?:van|von|der|den|de|del|della|di|da|dos|du|la|le|al|el|bin|ter|zu)"
PARTS = {  # what stands for <name> and so on in the patterns of identifiers.tsv
    "<name>": NAME,
    "<who>": rf"(?:(?:{PARTICLE}\s+)*{NAME})(?:\s+(?:{PARTICLE}\s+)*{NAME})*",
    "<month>": r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|févr?(?:ier)?|mar(?:ch|s)?|märz|apr(?:il)?|avr(?:il)?|may|"
    r"mai|jun[ei]?|juin|jul[iy]?|juil(?:let)?|aug(?:ust)?|août|sept?(?:ember|embre)?|o[ck]t(?:ober|obre)?|"
    r"nov(?:ember|embre)?|de[cz](?:ember)?|déc(?:embre)?)\b\.?",
    "<mark>": r"(?:\s*(?:numbers?|num\b|no\b|nr\b|id\b)\.?\s*[:=#]?\s*|\s*[:=#]\s*)",
    "<value>": r"(?=[\w/-]*\d{3})[\w/-]{3,}",
    "<old>": r"(?:9\d|1[0-2]\d)",
}


@dataclass(frozen=True)
class Remark:
    """One thing to know about a prompt.

    `kind` is "identifier", "spelling", "unseen" or "ambiguous"; `word` as it was written, but an identifier only in
    outline ("••/••/••••"), so that no message or saved notebook repeats it; `next` what to do about it.
    """

    kind: str
    word: str
    message: str
    next: str


def words_of(text: str) -> list[str]:
    """The words as they were written, parted by spaces, full stops, commas and the like; hyphens belong to a word."""
    return re.findall(r"[^\s,.;:!?()\"]+", text)


def _key(word: str) -> str:
    return word.lower().replace("-", "")


def _pieces(word: str) -> list[str]:
    """What the tokenizer makes of a written word: small letters, no hyphens, parted at what is no letter or digit."""
    return re.sub(r"[^\w<>]", " ", _key(word)).split()


@cache
def shipped_words() -> tuple[str, ...]:
    """The words that the shipped generator read in its captions, sorted as in its tokenizer."""
    held = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]
    return tuple({"xray": "x-ray"}.get(word, word) for word in held if not word.startswith("<"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@cache
def _words() -> tuple[frozenset[str], dict[str, dict[str, str]]]:
    """Ordinary words that are one slip from the vocabulary, and the ambiguous words with what was measured."""
    rows = _rows(TABLE)
    ordinary = frozenset(row["word"] for row in rows if row["kind"] == "ordinary")
    return ordinary, {_key(row["word"]): row for row in rows if row["kind"] == "ambiguous"}


@cache
def patterns() -> tuple[tuple[str, str, re.Pattern], ...]:
    """What it looks like, its letter in 164.514(b)(2)(i), pattern; in the order in which they are tried."""
    rows = _rows(IDENTIFIERS)
    filled = (re.sub("|".join(PARTS), lambda part: PARTS[part[0]], row["pattern"]) for row in rows)
    return tuple((row["kind"], row["letter"], re.compile(text)) for row, text in zip(rows, filled, strict=True))


def unseen_words(tokenizer: Any, text: str) -> list[str]:
    """Words of `text` that a pipeline's tokenizer does not know, as they were written, without repeats."""
    unknown = tokenizer.unk_token_id
    words = dict.fromkeys(words_of(text))
    return [word for word in words if unknown in tokenizer(word, add_special_tokens=False)["input_ids"]]


def one_slip(a: str, b: str) -> bool:
    """Whether one letter changed, left out or added, or two neighbours exchanged, makes `b` of `a`."""
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return len(a) + len(b) == 1 or len(a) == len(b) == 1 or (len(a) == 2 and a == b[::-1])


def check(prompt: str, vocabulary: Iterable[str] | None = None) -> list[Remark]:
    """Remarks on a prompt: identifiers first, then its words in order, each once; [] if nothing was found.

    Parameters
    ----------
    prompt : str
    vocabulary : words, optional
        What the generator has read; the shipped generator's words if not given. Case and hyphens do not matter.

    Raises CourseError if the prompt is not text. It does not raise for identifiers: `refuse_identifiers` does.
    """
    if not isinstance(prompt, str):
        raise CourseError(f"the prompt is {type(prompt).__name__}, not text", next="write words in quotation marks")
    remarks = []
    for kind, letter, span in identifiers(prompt):
        outline = re.sub(r"\w", "•", prompt[slice(*span)])
        remarks.append(Remark("identifier", outline, *_refusal(kind, letter, outline)))
        prompt = prompt[: span[0]] + " " * (span[1] - span[0]) + prompt[span[1] :]
    known = {_key(word): word for word in (shipped_words() if vocabulary is None else vocabulary)}
    words = {_key(word): word for word in reversed(words_of(prompt))}
    context = {piece for word in words for piece in _pieces(word)}
    for word in reversed(words.values()):
        strange = [piece for piece in _pieces(word) if piece not in known]
        if strange:
            near = [known[k] for k in known if len(k) >= SHORTEST and one_slip(strange[0], k)]
            remarks.append(_unseen(word, near, strange[0] in _words()[0]))
        for sense in (_words()[1][piece] for piece in strange if piece in _words()[1]):
            if not context & {_key(word) for word in sense["settled_by"].split()}:
                remarks.append(_ambiguous(word, sense))
    return remarks


def _unseen(word: str, near: list[str], ordinary: bool) -> Remark:
    guess = " or ".join(f'"{other}"' for other in near)
    if near and not ordinary:
        return Remark("spelling", word, f'"{word}": did you mean {guess}?', f"write {guess}; as it stands it is unread")
    nearest = f" The nearest word that it knows is {guess}." if near else ""
    message = (
        f'"{word}": the generator never read this word. It draws all the same, ignoring or misreading it.{nearest}'
    )
    return Remark("unseen", word, message, "say it with words that it knows (prompts.shipped_words()), or leave it out")


def _ambiguous(word: str, sense: dict[str, str]) -> Remark:
    nearer = "nearer to the second" if float(sense["margin"]) < 0 else "hardly nearer to the first"
    message = (
        f'"{word}" can mean {sense["radiology"]} or {sense["elsewhere"]}. '
        f"Alone in a prompt, a sentence encoder placed it {nearer} ({float(sense['margin']):+.2f})."
    )
    if settled := sense["settled_by"].split():
        return Remark("ambiguous", word, message, f'add what makes it clear, e.g. "{settled[0]}", or write it out')
    return Remark("ambiguous", word, message, f"write out what you mean: {sense['radiology']}")


def identifiers(prompt: str) -> list[tuple[str, str, tuple[int, int]]]:
    """(what it looks like, letter, (start, end)) of every stretch that has the form of an identifier, none twice."""
    found, ours = [], {_key(word) for word in shipped_words()}
    for kind, letter, pattern in patterns():
        for match in pattern.finditer(prompt):
            if _key(match.groupdict().get("word", "")) not in ours:
                found.append((kind, letter, match.span()))
                prompt = prompt[: match.start()] + "\n" * len(match[0]) + prompt[match.end() :]
    return found


def _refusal(kind: str, letter: str, outline: str) -> tuple[str, str]:
    what = f"the prompt holds what looks like {kind} ({outline})"
    rule = f"{RULE} (HIPAA, 45 CFR 164.514(b)(2)(i)({letter}); GDPR Articles 4 and 9)"
    advice = 'take it out and describe the film alone, e.g. "chest x-ray of a child, viral pneumonia"'
    return f"{what}: {rule}", advice + ("; if it is no name, write it in small letters" if letter == "A" else "")


def refuse_identifiers(prompt: str) -> None:
    """Raise CourseError if the prompt holds what looks like a person's identifier; nothing is run, kept or repeated.

    The message names the kind, the rule and the next action, and shows the find in outline only. See the module's
    docstring for what it cannot see.
    """
    for kind, letter, span in identifiers(prompt):
        what, advice = _refusal(kind, letter, re.sub(r"\w", "•", prompt[slice(*span)]))
        raise CourseError(what, next=advice)


def show_remarks(prompt: str, vocabulary: Iterable[str] | None = None) -> str:
    """The remarks as plain text, two lines each, or one line that says that nothing was found."""
    remarks = check(prompt, vocabulary)
    if not remarks:
        return "Nothing to remark: every word was read in captions, and no pattern of an identifier was found."
    return "\n".join(f"{r.kind}: {r.message}\n  Next: {r.next}" for r in remarks)
