"""Does `finetune` bring the generator nearer to films it has never seen? A model of children, films of adults.

    python recipes/finetune_adults.py --record      # needs the full data tier; trains the ruler if there is none

44 of the 68 adult films are the learner's folder, the other 24 are held out, and the images before and after come from
the same noise. Distances are squared kernel distances (medimgen.fidelity) in the ruler's features, which no step of the
generator or of the fine-tuning has seen. One folder, one run, no claim: an example with its interval.
"""

import argparse
import json
from datetime import UTC, datetime

import numpy as np
from generator.judge import Ruler

from medimgen import likeness
from medimgen.data.fetch import fetch
from medimgen.dossier import row
from medimgen.fidelity import interval, kid
from medimgen.films import source
from medimgen.finetune import finetune
from medimgen.generate import Generator
from medimgen.paths import ROOT
from medimgen.report import code_version

FOLDER, RESULT, PROMPT, DRAWS = 44, ROOT / "recipes" / "results" / "finetune.json", "chest x-ray", 2000
HOW = f"{FOLDER} adult films of nih-cxr8-subset learnt in at most 3 minutes, 24 others held out, 24 images of one noise"


def films() -> tuple[np.ndarray, np.ndarray]:
    """The learner's folder and the held-out films, uint8 (n, 128, 128)."""
    every = (source(fetch("nih-cxr8-subset"), 128).read()[0] * 255).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(every))
    return every[order[:FOLDER]], every[order[FOLDER:]]


def measure(result, held: np.ndarray, gauge: Ruler) -> dict:
    """Distances to the held-out films before and after, and between the two sets of real films, by interval."""
    sets = {"before": result.before, "after": result.after, "folder": result.films}
    apart = {k: np.array(kid(gauge.features(x), gauge.features(held), draws=DRAWS)) for k, x in sets.items()}
    known = np.stack([likeness.signs(film) for film in result.films])
    near = {
        k: float(np.median(likeness.nearest(x, known))) for k, x in (sets | {"held": held}).items() if k != "folder"
    }
    return {k: interval(*v) for k, v in (apart | {"change": apart["after"] - apart["before"]}).items()} | {"near": near}


def rows(found: dict, result) -> list[dict]:
    """What was found, as rows of the dossier."""
    origin, unit = "recipes/finetune_adults.py", "squared kernel distance"
    told = {
        "before": "images of the children's model against held-out adult films",
        "after": "the same after fine-tuning on other adult films",
        "change": "after less before, same noise and same held-out films",
        "folder": "real adult films against other real adult films, the best there is",
    }
    out = [row(f"finetune_{k}", what, found[k], unit, HOW, source=origin) for k, what in told.items()]
    near = "; ".join(f"{k} {v:.3f}" for k, v in found["near"].items())
    seconds = row("finetune_seconds", "time it took", result.stamp["seconds"], "s", f"{HOW}; one thread", source=origin)
    how = f"share of 511 signs that differ from the nearest film of the folder, median: {near}"
    return [
        *out,
        seconds,
        row("finetune_near", "after: how near to the films learnt", found["near"]["after"], "", how, source=origin),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.relative_to(ROOT).as_posix()}")
    record = parser.parse_args().record
    generator, (folder, held) = Generator.load(), films()
    result = finetune(folder, PROMPT, generator=generator, progress=True)
    document = {
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "code_version": code_version(),
        "weights_sha256": generator.sha256,
        "sections": {"control": rows(measure(result, held, Ruler.load()), result)},
    }
    text = json.dumps(document, indent=1) + "\n"
    print(text)
    if record:
        RESULT.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
