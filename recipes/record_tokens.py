"""Record what a small language model finds most probable: most probable is not true.

    python recipes/record_tokens.py          writes transcripts/tokens-01.json, adds a line to results/runs.jsonl

SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737) is read from the wheel that data_manifest.yml names; that
wheel is never installed. Each beginning is given as plain text, without a chat template. Recorded are the ten most
probable next tokens (softmax of the last position's logits, temperature 1, in float32) and the greedy continuation.
Needs the extra `research` (gguf), 1.5 GB and a few minutes on one core. Nothing is drawn at random.

The beginnings were written for this course; they hold no patient's data. They were chosen from about forty that were
tried, because they show the point: this is an illustration, not a measurement of how often the model errs.
"""

import json
from importlib import metadata
from pathlib import Path

from medimgen import report
from medimgen.data.manifest import entry
from medimgen.paths import ROOT
from medimgen.research import smollm

NEEDED, WEIGHTS, weights = smollm.NEEDED, smollm.ENTRY, smollm.weights
TRANSCRIPTS = ROOT / "recipes" / "transcripts"
COMMAND = "python recipes/record_tokens.py"
TOP, LENGTH = 10, 20

# id, beginning, next word of the true sentence (None: nothing in the sentence tells), why
BEGINNINGS = (
    ("france", "The capital of France is", " Paris", "Here the commonest continuation is also the true one."),
    (
        "australia",
        "The capital of Australia is",
        " Canberra",
        "Sydney is written about more often; the capital is Canberra.",
    ),
    (
        "ribs",
        "The chest normally has twelve pairs of",
        " ribs",
        "It has twelve pairs of ribs; other things come in pairs too.",
    ),
    (
        "side",
        "By convention, a chest X-ray shows the patient's left side on the viewer's",
        " right",
        "Films are shown as if the patient faced the viewer, so the patient's left is on the viewer's right.",
    ),
    (
        "insulin",
        "Insulin lowers the blood level of",
        " glucose",
        "Insulin lowers blood glucose; other texts lower cholesterol.",
    ),
    (
        "cause",
        "The child has pneumonia on the chest X-ray. The cause is a",
        None,
        "The sentence does not say, and a film alone does not reliably show it; the model names a cause all the same.",
    ),
)


def load():
    """Tokenizer and model (float32, evaluation mode). Raises CourseError if a package of the extra is missing."""
    language = smollm.load()
    return language.tokenizer, language.model


def probabilities(model, ids: list[int]):
    """Probability of every token of the vocabulary to come next: float64 tensor (vocabulary,) that sums to 1."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1]
    return logits.double().softmax(-1)


def greedy(model, tokenizer, ids: list[int], length: int = LENGTH) -> str:
    """The text that follows when the most probable token is taken each time, `length` tokens or up to the end mark."""
    import torch

    given = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
    return tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)


def judge(true: dict | None) -> str:
    """ "right" if the true word's first token is the most probable, "wrong" if not, "open" if nothing tells."""
    if true is None:
        return "open"
    return "right" if true["rank"] == 1 else "wrong"


def record_one(model, tokenizer, name: str, beginning: str, true_word: str | None, why: str) -> dict:
    """One beginning: its ten most probable next tokens, where the true one stands, and the greedy continuation."""
    ids = tokenizer(beginning).input_ids
    chances = probabilities(model, ids)
    best = chances.topk(TOP)
    true = None
    if true_word is not None:
        first = tokenizer(true_word).input_ids[0]
        true = {
            "word": true_word,
            "token": tokenizer.decode([first]),
            "rank": int((chances > chances[first]).sum()) + 1,
            "probability": round(float(chances[first]), 5),
        }
    tokens = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return {
        "id": name,
        "prompt": beginning,
        "verdict": judge(true),
        "true": true,
        "why": why,
        "next": [{"token": tokenizer.decode([token]), "probability": round(value, 5)} for token, value in tokens],
        "continuation": greedy(model, tokenizer, ids),
    }


def measure() -> list[dict]:
    """All beginnings, in the order above."""
    tokenizer, model = load()
    return [record_one(model, tokenizer, *row) for row in BEGINNINGS]


def main(folder: Path = TRANSCRIPTS, log: Path = report.RUNS) -> Path:
    """Record and write tokens-01.json; returns its path."""
    file = weights()
    parameters = {"top": TOP, "length": LENGTH, "beginnings": len(BEGINNINGS), "dtype": "float32"}
    with report.run("record_tokens", inputs={file.name: file}, parameters=parameters, tier="pocket") as run:
        prompts = measure()
    report.append(run.record, log)
    document = {
        "title": "Most probable is not true: next tokens of a small language model",
        "command": COMMAND,
        "run": run.record.id,
        "code_version": run.record.code_version,
        "model": {
            "id": WEIGHTS,
            "file": file.name,
            "sha256": run.record.inputs[file.name],
            "licence": entry(WEIGHTS).licence,
        },
        "versions": {"python": run.record.python} | {name: metadata.version(name) for name in NEEDED},
        "how": "plain text, no chat template; softmax at temperature 1; the continuation is greedy; float32",
        "chosen": "picked from about forty beginnings to show the point; says nothing about how often the model errs",
        "prompts": prompts,
    }
    path = folder / "tokens-01.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return path


if __name__ == "__main__":
    written = main()
    for row in json.loads(written.read_text(encoding="utf-8"))["prompts"]:
        print(f"{row['verdict']:5}  {row['prompt']} … {row['next'][0]['token']} ({row['next'][0]['probability']:.2f})")
