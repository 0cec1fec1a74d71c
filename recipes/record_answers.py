"""Record what the eight tips for prompts do: before and after, with the failures. And what a check by itself is worth.

    python recipes/record_answers.py            every part; adds lines to results/runs.jsonl
    python recipes/record_answers.py films      one part (films, pieces, tables, talks, checks); the others stay

Into transcripts/answers-02.json go:
talks   SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737) on goal, fact-check, format and role; and eight
        facts, each put as a true and as a false sentence. Greedy decoding, float32; nothing is drawn at random. The
        model's own form of a chat, without the system message that its makers put in when none is given. 1.5 GB and
        some minutes of one core.
films   models/cxr-mini on spelling, detail and wording: eight seeds a prompt, none picked.
pieces  what three tokenizers make of five texts.
tables  films of the commonest and of the rarest finding in two large label tables: counts only.

Into transcripts/answers-04.json, and its figures into results/self_check.json, goes:
checks  SmolLM2 again, on the questions of transcripts/questions-04.tsv, which the course's glossary answers. Its own
        answer is marked by the rule that stands beside the question. Then it is asked to check three answers as if each
        were its own: this one, a right one and a wrong one; first alone, then beside the glossary's entry that a plain
        search for the question's words finds. Kept are its yes or no, and how much likelier yes was than no.

The prompts and the rules by which answers are counted were fixed before the first run and have stayed as they are;
every answer is kept, whatever it says. The report was invented for this course; no patient stands behind it. One prompt
a tip and eight facts illustrate what one small model does. They measure nothing about language models at large.
Needs the extra `research` (gguf) and `medimgen fetch --tier research`.
"""

import csv
import json
import re
import sys
from dataclasses import asdict
from importlib import metadata

import numpy as np
from record_tokens import NEEDED, TRANSCRIPTS, greedy, load, weights

from medimgen import prompts, report
from medimgen.data.fetch import fetch
from medimgen.data.manifest import entry, registry
from medimgen.errors import CourseError
from medimgen.generate import FOLDER, Generator, weights_sha256
from medimgen.metrics import auc, cluster_bootstrap, proportion
from medimgen.paths import ROOT

FILE = TRANSCRIPTS / "answers-02.json"
COMMAND = "python recipes/record_answers.py"
QUESTIONS, GLOSSARY = TRANSCRIPTS / "questions-04.tsv", ROOT / "lessons" / "glossary.md"
CHECKED, FIGURES = TRANSCRIPTS / "answers-04.json", report.RESULTS / "self_check.json"
LENGTH, SHORT = 90, 4  # tokens at most: of an answer, of a yes or no
SEED, EACH = 300_000, 8

REPORT = (
    "Invented report. Chest film of a child, from the front. White patch at the base of the right lung. "
    "Heart of normal size. No fluid beside the lungs."
)
ROLE = "You are an experienced paediatric radiologist."
CHECK = "Check your answer for errors. Is it right? Begin with yes or no."
BESIDE = "From a glossary: {}\nCheck your answer against it. Is your answer right? Begin with yes or no."
CAUSES = ("pneumonia", "infection", "collapse", "atelecta", "fluid", "effusion", "mass", "tumo")
CAUSES += ("bleed", "blood", "oedema", "edema")

GOAL = "My son is eight, has pneumonia and is afraid. What is pneumonia? Explain it to him in three short sentences."
LOBES = "How many lobes does the right lung have? Answer in one sentence."
SIDE = (
    "On a chest X-ray hung in the usual way, is the patient's heart mostly on the viewer's left or on the viewer's "
    "right? Answer in one sentence."
)
ARTICLE = (
    "Name one published article on telling bacterial from viral pneumonia in children by chest X-ray. Give authors, "
    "journal, year and DOI."
)
BULLETS = "in exactly three lines, each beginning with a hyphen, and write nothing else."
JSON = 'as a JSON object with exactly the keys "lungs", "heart" and "fluid", and write nothing else.'
WHITE = "What can cause a white patch on the chest X-ray of a child?"

# name, tip, system message ("" for none), what the user says in turn, rule by which the first answer is counted
TALKS = (
    ("goal-before", 3, "", ("What is pneumonia?",), "sentence"),
    ("goal-after", 3, "", (GOAL,), "sentence"),
    ("check-lobes", 5, "", (LOBES, CHECK), "three"),
    ("check-side", 5, "", (SIDE, CHECK), "viewer's right"),
    ("reference", 5, "", (ARTICLE,), "doi"),
    ("format-before", 6, "", (f"Summarise the findings of this report. {REPORT}",), "bullets"),
    ("format-bullets", 6, "", (f"Summarise the findings of this report {BULLETS} {REPORT}",), "bullets"),
    ("format-json", 6, "", (f"Summarise the findings of this report {JSON} {REPORT}",), "json"),
    ("role-before", 7, "", (WHITE,), "causes"),
    ("role-after", 7, ROLE, (WHITE,), "causes"),
)

FACTS = (  # a true sentence and a false one
    ("The right lung has three lobes.", "The right lung has two lobes."),
    ("The left lung has two lobes.", "The left lung has three lobes."),
    ("On a chest X-ray, air looks black.", "On a chest X-ray, air looks white."),
    (
        "Most of the heart lies left of the middle of the chest.",
        "Most of the heart lies right of the middle of the chest.",
    ),
    ("Bone absorbs more X-rays than air does.", "Air absorbs more X-rays than bone does."),
    ("Viruses can cause pneumonia.", "Viruses cannot cause pneumonia."),
    ("Antibiotics do not work against viruses.", "Antibiotics work against viruses."),
    ("Magnetic resonance imaging works without X-rays.", "Magnetic resonance imaging works with X-rays."),
)
ASK = "Is this statement true? {} Answer with one word, yes or no."

# name, tip, before, after, class of film that both ask for
FILMS = (
    ("spelling-xay", 1, "chest x-ray, bacterial pneumonia", "chest X-ay, bacterial pneumonia", "bacterial"),
    ("spelling-class", 1, "chest x-ray, bacterial pneumonia", "chest x-ray, bactrial pneumnia", "bacterial"),
    ("detail", 2, "chest x-ray", "chest x-ray of a child, normal, dark, large lungs", "normal"),
    (
        "wording",
        4,
        "chest x-ray, viral pneumonia",
        "frontal radiograph of a young patient with viral infection",
        "viral",
    ),
    ("wording-negation", 4, "chest x-ray, normal", "chest x-ray without bacterial or viral pneumonia", "normal"),
)
TEXTS = ("X-ray", "X-ay", "CAT scan", "cat scan", "computed tomography")


def chat(system: str, turns: list[tuple[str, str]]) -> str:
    """The model's own form of a chat, ending where its next answer begins; `turns` are (speaker, text)."""
    said = [("system", system)] * bool(system) + turns
    return "".join(f"<|im_start|>{who}\n{text}<|im_end|>\n" for who, text in said) + "<|im_start|>assistant\n"


def talk(model, tokenizer, name: str, tip: int, system: str, asked: tuple[str, ...], rule: str) -> dict:
    """One conversation: every answer, and what the rule counts in the first."""
    turns, answers = [], []
    for text in asked:
        turns.append(("user", text))
        ids = tokenizer(chat(system, turns)).input_ids
        answers.append(greedy(model, tokenizer, ids, LENGTH).strip())
        turns.append(("assistant", answers[-1]))
        print(f"{name}: {text}\n  {answers[-1]}", flush=True)
    row = {"name": name, "tip": tip, "system": system, "asked": list(asked), "answers": answers}
    return row | {"rule": rule, "counted": counted(rule, answers[0])}


def counted(rule: str, answer: str) -> dict:
    """What a rule finds in an answer; `kept` says whether what was asked for is there, None where nothing was asked."""
    if rule == "sentence":
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", answer) if s.strip()]
        words = len(answer.split()) / max(1, len(sentences))
        return {"sentences": len(sentences), "words_each": round(words, 1), "kept": len(sentences) == 3 and words <= 12}
    if rule == "bullets":
        lines = [line for line in answer.splitlines() if line.strip()]
        hyphens = sum(line.lstrip().startswith("-") for line in lines)
        return {"lines": len(lines), "hyphens": hyphens, "kept": len(lines) == hyphens == 3}
    if rule == "json":
        try:
            found = json.loads(answer)
        except ValueError:
            return {"parses": False, "kept": False}
        return {"parses": True, "kept": isinstance(found, dict) and set(found) == {"lungs", "heart", "fluid"}}
    if rule == "causes":
        return {"named": [word for word in CAUSES if word in answer.lower()], "kept": None}
    if rule == "doi":
        found = re.search(r"10\.\d{4,9}/\S+", answer)
        return {"doi": found and found[0], "kept": bool(found)}
    return {"wanted": rule, "kept": rule in answer.lower()}


def verdict(answer: str) -> str:
    """ "yes", "no" or "neither", by the first word."""
    first = re.match(r"\W*(yes|no)\b", answer.lower())
    return first[1] if first else "neither"


def fact(model, tokenizer, number: int, true: bool, role: bool) -> dict:
    """The answer to whether one sentence is true."""
    turns = [("user", ASK.format(FACTS[number][not true]))]
    answer = greedy(model, tokenizer, tokenizer(chat(ROLE if role else "", turns)).input_ids, SHORT).strip()
    row = {"sentence": FACTS[number][not true], "true": true, "role": role}
    return row | {"answer": answer, "verdict": verdict(answer)}


def talks() -> tuple[dict, dict]:
    """What the language model says, and the files it was read from."""
    tokenizer, model = load()
    rows = [talk(model, tokenizer, *row) for row in TALKS]
    facts = [fact(model, tokenizer, k, t, r) for r in (False, True) for k in range(len(FACTS)) for t in (True, False)]
    print(*(f"{row['verdict']:8}{row['true']!s:6}{row['role']!s:6}{row['sentence']}" for row in facts), sep="\n")
    file = weights()
    how = f"greedy, float32, at most {LENGTH} tokens an answer, {SHORT} for a yes or no; the model's own form of a chat"
    named = {"id": "smollm2-135m", "file": file.name, "licence": entry("smollm2-135m").licence}
    return {"model": named, "how": how, "role": ROLE, "rows": rows, "facts": facts}, {file.name: file}


def pair(generator, classifier, name: str, tip: int, before: str, after: str, kind: str) -> dict:
    """One prompt in two wordings, same seeds: how far the films differ, and what the classifier makes of them."""
    made = [generator(prompt, n=EACH, seed=SEED) for prompt in (before, after)]
    a, b = (result.images.astype(float) for result in made)
    others = [np.abs(a[i] - a[j]).mean() for i in range(EACH) for j in range(i)]
    column = list(classifier.classes).index(kind)
    row = {"name": name, "tip": tip, "kind": kind}
    row |= {"difference": round(float(np.abs(a - b).mean()), 2), "seeds_apart": round(float(np.mean(others)), 2)}
    for key, result, x in zip(("before", "after"), made, (a, b), strict=True):
        p = classifier.predict(result.images)
        row[key] = {
            "prompt": result.record["prompt"],
            "unseen": result.record["unseen"],
            "remarks": [asdict(r) for r in prompts.check(result.record["prompt"])],
            "grey": round(float(x.mean()), 2),
            "probability": round(float(p[:, column].mean()), 4),
            "taken_for": {k: int((p.argmax(1) == i).sum()) for i, k in enumerate(classifier.classes)},
        }
    return row


def films() -> tuple[dict, dict]:
    """What the image generator draws, and the weights it was drawn with."""
    from medimgen.classify import Classifier

    generator, classifier = Generator.load(), Classifier.load()
    rows = [pair(generator, classifier, *row) for row in FILMS]
    print(*(json.dumps(row) for row in rows), sep="\n")
    named = {"id": FOLDER.name, "weights_sha256": generator.sha256, "classifier_sha256": classifier.sha256}
    how = f"seeds {SEED} to {SEED + EACH - 1}, the model's own steps and guidance; difference: mean |a - b|, 0 to 255"
    inputs = {"cxr-mini": weights_sha256(FOLDER), "cxr-classifier": classifier.sha256}
    return {"model": named, "how": how, "seed": SEED, "each": EACH, "rows": rows}, inputs


def pieces() -> tuple[dict, dict]:
    """What three tokenizers make of TEXTS."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file, folder = weights(), fetch("minilm-l6-v2")
    readers = {
        "cxr-mini": PreTrainedTokenizerFast(tokenizer_file=str(prompts.TOKENIZER), unk_token="<unknown>"),
        "all-MiniLM-L6-v2": AutoTokenizer.from_pretrained(folder, local_files_only=True),
        "SmolLM2-135M-Instruct": AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True),
    }
    rows = []
    for text in TEXTS:
        ids = {name: reader(text, add_special_tokens=False).input_ids for name, reader in readers.items()}
        rows.append({"text": text} | {name: [readers[name].decode([i]) for i in found] for name, found in ids.items()})
    print(*rows, sep="\n")
    sha = next(f.sha256 for f in registry("minilm-l6-v2") if f.path == "tokenizer.json")
    inputs = {"cxr-mini": prompts.TOKENIZER, "all-MiniLM-L6-v2": sha, "SmolLM2-135M-Instruct": file}
    return {"how": "no marks of beginning and end", "rows": rows}, inputs


def tables() -> tuple[dict, dict]:
    """Films of the commonest and the rarest finding in two label tables."""
    from medimgen import balance

    rows = []
    for name in ("nih", "chexpert"):
        found = balance.analyse(balance.films(name), ["finding"])
        listed = list(found.counts().items())
        most, fewest = ({"finding": cell[0], "films": n} for cell, n in (listed[0], listed[-1]))
        rows.append({"table": name, "films": found.films, "most": most, "fewest": fewest})
    print(*rows, sep="\n")
    inputs = {"label-tables": entry("label-tables").sha256}
    return {"how": "medimgen.balance.analyse by finding; counts only", "rows": rows}, inputs


def questions() -> list[dict[str, str]]:
    """The rows of questions-04.tsv: entry, ask, right, wrong, key, not."""
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def marked(question: dict[str, str], answer: str) -> bool:
    """Whether an answer is right by the question's rule: its key is found, and what must not stand there is not."""
    refused = question["not"] and re.search(question["not"], answer, re.IGNORECASE)
    return bool(re.search(question["key"], answer, re.IGNORECASE)) and not refused


def entries() -> dict[str, str]:
    """The glossary, term to text, without the marks of the page."""
    inside = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}")[1].split("```")[0]
    inside = re.sub(r" ?\{cite:p\}`[^`]*`", "", inside)
    inside = re.sub(r"\{term\}`([^`<]*?)(?: <[^`]*)?`", r"\1", inside).replace("*", "").replace("`", "")
    found = (part.strip().split("\n", 1) for part in re.split(r"\n\n(?=\S)", inside.strip()))
    return {term: " ".join(text.split()) for term, text in found}


def look_up(question: str, known: dict[str, str]) -> list[str]:
    """All terms, best first: shared words count, the rarer the more, for less in a long entry. No model has a part."""

    def words(text):
        return {word[:6] for word in re.findall(r"\w+", text.lower()) if len(word) > 1}

    held = {term: words(f"{term} {text}") for term, text in known.items()}
    asked, every = words(question), list(held.values())
    worth = {w: np.log(len(every) / n) for w in asked if (n := sum(w in entry for entry in every))}
    score = {term: sum(worth.get(w, 0) for w in asked & entry) / len(entry) ** 0.25 for term, entry in held.items()}
    return sorted(score, key=score.get, reverse=True)


def yes_or_no(model, tokenizer, turns: list[tuple[str, str]]) -> dict:
    """The next word, and log of P(yes) / P(no), both spelt with a large or a small letter."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer(chat("", turns)).input_ids])).logits[0, -1].double().log_softmax(-1)
    mass = [logits[[tokenizer(w).input_ids[0] for w in pair]].logsumexp(0) for pair in (("Yes", "yes"), ("No", "no"))]
    first = tokenizer.decode([int(logits.argmax())])
    return {"verdict": verdict(first), "margin": round(float(mass[0] - mass[1]), 3)}


def checked(model, tokenizer, question: dict[str, str], known: dict[str, str]) -> dict:
    """One question: the model's answer, what search finds, and six checks."""
    turns = [("user", question["ask"] + " Answer in one short sentence.")]
    answer = greedy(model, tokenizer, tokenizer(chat("", turns)).input_ids, LENGTH // 3).strip()
    found = look_up(question["ask"], known)[:3]
    row = {"ask": question["ask"], "answer": answer, "right": marked(question, answer), "found": found, "checks": {}}
    for name, text in (("own", answer), ("right", question["right"]), ("wrong", question["wrong"])):
        said = [*turns, ("assistant", text)]
        ways = {"alone": CHECK, "glossary": BESIDE.format(f"{found[0]}: {known[found[0]]}")}
        row["checks"][name] = {k: yes_or_no(model, tokenizer, [*said, ("user", v)]) for k, v in ways.items()}
    print(row["right"], question["ask"], answer, found[0], row["checks"], flush=True)
    return row


def checks() -> tuple[dict, dict]:
    """Every question, in the order of its file."""
    (tokenizer, model), known, file = load(), entries(), weights()
    rows = [checked(model, tokenizer, question, known) for question in questions()]
    how = f"greedy, float32, at most {LENGTH // 3} tokens an answer; a check is the next word, and log P(yes) / P(no)"
    named = {"id": "smollm2-135m", "file": file.name, "licence": entry("smollm2-135m").licence}
    inputs = {file.name: file, QUESTIONS.name: QUESTIONS, GLOSSARY.name: GLOSSARY}
    return {"model": named, "how": how, "asked": [CHECK, BESIDE], "rows": rows}, inputs


def figures(rows: list[dict]) -> dict:
    """What the answers and checks come to, from the recording alone. Intervals: Wilson's, and draws of questions."""

    def share(flags):
        middle, low, high = proportion(sum(flags), len(flags))
        return {"of": [sum(flags), len(flags)], "share": round(middle, 3), "ci95": [round(low, 3), round(high, 3)]}

    def said(name, way, rows):
        return [row["checks"][name][way] for row in rows]

    own = {True: [r for r in rows if r["right"]], False: [r for r in rows if not r["right"]]}
    out = {"answers right": share([r["right"] for r in rows])}
    known = questions()
    for most in (1, 3):
        out[f"search finds it in {most}"] = share(
            [q["entry"] in r["found"][:most] for q, r in zip(known, rows, strict=True)]
        )
    for way in ("alone", "glossary"):
        part = out[way] = {}
        for right, kind in ((True, "right"), (False, "wrong")):
            if own[right]:
                part[f"yes to its own {kind}"] = share([c["verdict"] == "yes" for c in said("own", way, own[right])])
            part[f"yes to a {kind}"] = share([c["verdict"] == "yes" for c in said(kind, way, rows)])
        margins = np.array([[c["margin"] for c in said(kind, way, rows)] for kind in ("right", "wrong")])
        part["right one ahead of the wrong"] = share((margins[0] > margins[1]).tolist())
        unit, y = np.tile(np.arange(len(rows)), 2), np.repeat([1, 0], len(rows))
        found = cluster_bootstrap(auc, unit, y, margins.ravel(), draws=2000, seed=0)
        part["auc"] = {"estimate": round(found.estimate, 3), "ci95": [round(found.low, 3), round(found.high, 3)]}
    return out


PARTS = {"films": films, "pieces": pieces, "tables": tables, "talks": talks}
LATER = {"checks": checks}  # lesson 4
TITLES = ("Eight tips for prompts, before and after", "A language model's answers, and its checks of them")


def main(*wanted: str) -> None:
    """Record the parts named (all if none is), and put each into its file beside the others."""
    every = PARTS | LATER
    if unknown := [name for name in wanted if name not in every]:
        raise CourseError(f"no part is called {unknown[0]!r}", next=f"name some of {', '.join(every)}")
    for name in wanted or every:
        with report.run(f"record_answers {name}", tier="pocket") as run:
            part, inputs = every[name]()
            run.facts = {"inputs": inputs}
        report.append(run.record, report.RUNS)
        file = CHECKED if name in LATER else FILE
        document = {"title": TITLES[name in LATER], "command": COMMAND}
        document |= json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        stamp = {"run": run.record.id, "code_version": run.record.code_version, "inputs": run.record.inputs}
        stamp["versions"] = {"python": run.record.python} | {package: metadata.version(package) for package in NEEDED}
        document[name] = stamp | part
        write(file, document)
        if name in LATER:
            head = {"title": document["title"], "command": f"{COMMAND} {name}"} | stamp
            write(FIGURES, head | {"figures": figures(part["rows"])})


def write(file, document: dict) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
