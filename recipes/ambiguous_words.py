"""Which words of radiology does a sentence encoder misplace? And which ordinary words look like slips?

    python recipes/ambiguous_words.py     writes results/ambiguous_words.json and src/medimgen/prompt_words.tsv

The encoder is all-MiniLM-L6-v2 (Reimers and Gurevych 2019), mean-pooled and scaled to length 1, from the wheel that
data_manifest.yml names. It stands for the text encoders of large generators; the course's own reads captions only.

Rule, written before the first run:
- margin of a prompt = cosine to the sentence of the radiological sense minus cosine to that of the other sense; neither
  sentence holds the word. The bare prompt is "a WORD image".
- A word is ambiguous if its bare margin is below 0.1, and is shipped for that reason alone.
- A context settles the word if "a WORD image, CONTEXT" has a margin of 0.1 or more; five contexts, each tried alone.
- Words, sentences, contexts and expectations stay as they are after the first run; what came out otherwise is listed.

The words are those that a prompt for a chest film may well hold, and that everyday speech or another branch of medicine
uses in another sense: two-letter abbreviations, parts of the equipment, findings, devices and words about the picture.
Three words with one sense only are controls: their "other" sentence is that of a word that merely looks alike, and
they should not come out ambiguous. One sentence a sense is a coarse instrument; another sentence gives another margin.

Added after the first run: a control is never shipped, as it has no second sense. One of the three fell below the limit,
which was left where it was: a margin close to it says little.

Ordinary words: words of three letters or more in the encoder's own vocabulary (frequent words of English) that are one
slip (`prompts.one_slip`) from a word that the generator read. Such a word is called unseen, not misspelt.
"""

import hashlib
import json
import re

from medimgen import prompts, report
from medimgen.data.fetch import fetch
from medimgen.data.manifest import registry

ENCODER = "minilm-l6-v2"
RESULT = report.RESULTS / "ambiguous_words.json"
COMMAND = "python recipes/ambiguous_words.py"
LIMIT = 0.1
CONTEXTS = ("chest", "x-ray", "radiograph", "CXR", "lungs")
CONTROLS = ("radiograph", "pneumonia", "tomography")
COLUMNS = ("kind", "word", "radiology", "elsewhere", "margin", "settled_by")

# word, radiological sense, a sentence for it, other sense, a sentence for it, expected: (ambiguous bare, then settled)
WORDS = (
    ("CAT", "computed tomography", "Cross-sectional pictures of the body made by computed tomography.",
     "the animal", "A small furry animal that purrs and catches mice.", (True, True)),
    ("MS", "mitral stenosis", "Narrowing of the mitral valve of the heart.",
     "multiple sclerosis", "A disease in which the immune system damages brain and spine.", (True, False)),
    ("PE", "pulmonary embolism", "A blood clot that blocks an artery of the lungs.",
     "physical education", "Sports and gymnastics lessons at school.", (True, True)),
    ("RA", "the right atrium", "The upper right chamber of the heart.",
     "rheumatoid arthritis", "A disease that inflames the joints of the hands and feet.", (True, False)),
    ("film", "a radiograph", "A picture of the inside of the body made with X-rays.",
     "a motion picture", "A motion picture shown in a cinema.", (True, True)),
    ("plate", "the detector", "The flat detector that records X-rays behind the patient.",
     "a dish", "A flat dish from which food is eaten.", (True, True)),
    ("mass", "a lump", "A solid lump in the lung that may be a tumour.",
     "a church service", "A service with a priest and communion in a Catholic church.", (True, True)),
    ("contrast", "contrast agent", "A dye injected into a vein so that blood vessels show up on a scan.",
     "difference of brightness", "The difference between the bright and dark parts of a photograph.", (True, False)),
    ("shadow", "an opacity", "A white patch in the lung on a radiograph.",
     "lack of light", "A dark area where an object blocks the sunlight.", (True, True)),
    ("view", "a projection", "The direction in which X-rays pass through the body when a radiograph is taken.",
     "scenery", "Scenery seen from a hilltop or a balcony.", (True, True)),
    ("series", "a set of slices", "A set of scan slices of one patient acquired together.",
     "a television programme", "A television programme in several episodes.", (True, True)),
    ("window", "a range of grey levels", "The range of grey levels in which a computed tomography scan is displayed.",
     "a pane of glass", "A pane of glass in the wall of a house.", (True, True)),
    ("lead", "a pacemaker's wire", "A wire from a pacemaker to the heart.",
     "the metal", "A heavy grey metal used in roofs and old pipes.", (True, True)),
    ("line", "a catheter", "A catheter placed in a large vein near the heart.",
     "a stroke", "A long thin stroke drawn with a pencil.", (True, False)),
    ("drain", "a chest tube", "A tube that takes air or fluid out of the space around the lung.",
     "a waste pipe", "A pipe that carries dirty water away from a kitchen sink.", (True, True)),
    ("culture", "a test for germs", "A laboratory test in which bacteria from a sample are grown.",
     "arts and customs", "The art, music and customs of a people.", (True, True)),
    ("cold", "an infection", "An infection of the nose and throat by a virus.",
     "low temperature", "Low temperature and frost in winter.", (True, True)),
    ("discharge", "leaving hospital", "A patient's going home at the end of a hospital stay.",
     "an electric flow", "A flow of electricity such as lightning.", (True, True)),
    ("base", "the lower lung", "The lowest part of the lung, next to the diaphragm.",
     "a military camp", "A camp where soldiers live and train.", (True, True)),
    ("radiograph", "a radiograph", "A picture of the inside of the body made with X-rays.",
     "radio", "Music and talk sent out by a broadcasting station.", (False, True)),
    ("pneumonia", "pneumonia", "An infection that fills the air sacs of the lung.",
     "pneumatics", "A tyre filled with compressed air.", (False, True)),
    ("tomography", "tomography", "Cross-sectional pictures of the body made with a scanner.",
     "topography", "The hills and valleys of a landscape.", (False, True)),
)  # fmt: skip


def encoder():
    """A function from texts to unit vectors, float32 (n, 384). Reads only files that the manifest vouches for."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = fetch(ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def encode(texts: list[str]):
        given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()

    return encode, tokenizer


def measure_word(encode, word: str, radiology: str, ours: str, elsewhere: str, theirs: str, expected) -> dict:
    """One word: cosines of its bare prompt to both sentences, margins in each context, and what the rule says."""
    texts = [f"a {word} image", *(f"a {word} image, {context}" for context in CONTEXTS)]
    cosines = encode(texts) @ encode([ours, theirs]).T
    margins = [round(float(a - b), 3) for a, b in cosines]
    contexts = dict(zip(CONTEXTS, margins[1:], strict=True))
    return {
        "word": word,
        "control": word in CONTROLS,
        "radiology": radiology,
        "elsewhere": elsewhere,
        "prompt": texts[0],
        "cosines": [round(float(c), 3) for c in cosines[0]],
        "margin": margins[0],
        "contexts": contexts,
        "ambiguous": margins[0] < LIMIT,
        "settled_by": [c for c, margin in contexts.items() if margin >= LIMIT],
        "expected": dict(zip(("ambiguous", "settled"), expected, strict=True)),
    }


def surprises(rows: list[dict]) -> list[str]:
    """One sentence for every expectation that the figures contradict."""
    told = []
    for row in rows:
        if row["ambiguous"] != row["expected"]["ambiguous"]:
            told.append(f"{row['word']}: {'' if row['ambiguous'] else 'not '}ambiguous ({row['margin']:+.3f})")
        elif row["ambiguous"] and bool(row["settled_by"]) != row["expected"]["settled"]:
            best = max(row["contexts"].values())
            told.append(f"{row['word']}: {'' if row['settled_by'] else 'not '}settled by a context (best {best:+.3f})")
    return told


def ordinary(words) -> list[str]:
    """Those of many words that are one slip from a word the generator read, and are none themselves; sorted."""
    known = {word.replace("-", "") for word in prompts.shipped_words()}
    near = [word for word in known if len(word) >= prompts.SHORTEST]
    words = {word for word in words if re.fullmatch("[a-z]{3,}", word)} - known
    return sorted(word for word in words if any(prompts.one_slip(word, other) for other in near))


def told(ordinary: list[str]) -> dict:
    """What the result keeps of the ordinary words; they themselves stand in prompt_words.tsv."""
    return {"count": len(ordinary), "sha256": hashlib.sha256("\n".join(ordinary).encode()).hexdigest()}


def table(rows: list[dict], ordinary: list[str]) -> str:
    """The text of prompt_words.tsv that follows from a recorded result and the ordinary words."""
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        if row["ambiguous"] and not row["control"]:
            values = (
                row["word"],
                row["radiology"],
                row["elsewhere"],
                f"{row['margin']:.3f}",
                " ".join(row["settled_by"]),
            )
            lines.append("\t".join(("ambiguous", *values)))
    lines += [f"ordinary\t{word}\t\t\t\t" for word in ordinary]
    return "\n".join(lines) + "\n"


def measure() -> tuple[list[dict], list[str]]:
    """One row a word, and the ordinary words, without writing anything."""
    encode, tokenizer = encoder()
    return [measure_word(encode, *word) for word in WORDS], ordinary(tokenizer.get_vocab())


def main() -> dict:
    """Measure, and write the result and the package's table."""
    weights = next(f for f in registry(ENCODER) if f.path == "model.safetensors")
    facts = {"inputs": {weights.path: weights.sha256}, "tier": "pocket"}
    parameters = {"limit": LIMIT, "contexts": list(CONTEXTS), "words": len(WORDS)}
    with report.run("ambiguous_words", parameters=parameters, **facts) as run:
        rows, words = measure()
    report.append(run.record, report.RUNS)
    document = {
        "title": "Words of radiology with two senses, as a sentence encoder places them",
        "command": COMMAND,
        "run": run.record.id,
        "code_version": run.record.code_version,
        "encoder": {"id": ENCODER, "sha256": weights.sha256},
        "rule": f"ambiguous: margin of the bare prompt < {LIMIT}; settled by a context: margin >= {LIMIT}",
        "versions": run.record.versions,
        "words": rows,
        "otherwise_than_expected": surprises(rows),
        "ordinary": told(words),
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    RESULT.write_text(text, encoding="utf-8", newline="\n")
    prompts.TABLE.write_text(table(rows, words), encoding="utf-8", newline="\n")
    return document


if __name__ == "__main__":
    for row in (done := main())["words"]:
        print(f"{row['word']:11} {row['margin']:+.3f}  settled by {', '.join(row['settled_by']) or 'nothing'}")
    print("otherwise than expected:", *done["otherwise_than_expected"], sep="\n  ")
