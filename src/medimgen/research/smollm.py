"""The small language model of the research notebooks, and a tiny random one that stands in for it in smoke runs.

>>> language = smollm.load()            # SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737)
>>> language.name, language.sha256
>>> smollm.next_token(language, ["The capital of France is"])     # (1, vocabulary) log-probabilities

With the environment variable MEDIMGEN_SMOKE=1, `load` returns a random model of some ten thousand weights instead, made
in a second from nothing. Tests use it to run a notebook from top to bottom. Its answers mean nothing, and a notebook
that meets it says so and asserts only what must hold for any model.

Only research notebooks load a language model. Its answers are no advice; this is not a medical device.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medimgen.errors import CourseError

SMOKE, ENTRY = "MEDIMGEN_SMOKE", "smollm2-135m"
NEEDED = ("torch", "transformers", "gguf", "accelerate")
BATCH = 32


@dataclass(frozen=True)
class Language:
    """A causal language model in float32 with its tokenizer; sha256 is that of its file ("" for the tiny one)."""

    model: Any
    tokenizer: Any
    name: str
    sha256: str

    @property
    def layers(self):
        """The blocks, first to last; `layers[k].mlp.down_proj.weight` is the matrix that R02 edits."""
        return self.model.model.layers

    def ids(self, text: str) -> list[int]:
        """Token numbers of a text as it stands, no chat template."""
        return self.tokenizer(text).input_ids

    def first(self, word: str) -> int:
        """The first token of a word in running text."""
        return self.ids(f" {word}")[0]


def smoke() -> bool:
    """Whether this is a smoke run."""
    return os.environ.get(SMOKE, "") not in ("", "0")


def load(words: str = "") -> Language:
    """The model from its wheel, float32, one process about 1.2 GB; in a smoke run `tiny(words)`.

    Raises CourseError if a package of the extra `research` is missing.
    """
    if smoke():
        return tiny(words)
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise CourseError(
            f"the language model needs {', '.join(lacking)}",
            next="in the course's folder run `python3 recipes/setup_env.py research` if you set it up with make, or "
            '`pip install --constraint constraints.txt --editable ".[research]"` with conda; then restart the kernel',
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, utils

    from medimgen.report import file_sha256

    utils.logging.disable_progress_bar()
    file = weights()
    where = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    return Language(model.eval().requires_grad_(False), tokenizer, "SmolLM2-135M-Instruct", file_sha256(file))


def weights() -> Path:
    """The model's GGUF file, fetched and verified."""
    from medimgen.data.fetch import fetch

    return next(fetch(ENTRY).glob("*.gguf"))


def tiny(words: str, seed: int = 0) -> Language:
    """A random model of four blocks of width 32 that knows the words of a text as tokens, and nothing about them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    known = sorted({word for word, _ in split.pre_tokenize_str(words)})
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unknown>", *known])}, "<unknown>"))
    raw.pre_tokenizer = split
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unknown>", pad_token="<unknown>")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(known) + 1, tie_word_embeddings=True, initializer_range=0.3, **size)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Language(model.eval().requires_grad_(False), tokenizer, "tiny random model", "")


def padded(rows: list[list[int]]):
    """Token numbers as one int64 tensor, filled up on the right, and where each row ends.

    What stands to the right cannot be seen from the left in a causal model, so no mask is needed.
    """
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows]), torch.tensor([len(r) - 1 for r in rows])


def next_token(language: Language, texts: list[str]):
    """Log-probabilities of the token that follows each text: float32 tensor (texts, vocabulary)."""
    import torch

    rows = [language.ids(text) for text in texts]
    order, found = sorted(range(len(rows)), key=lambda i: len(rows[i])), [None] * len(rows)
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        ids, last = padded([rows[i] for i in some])
        with torch.no_grad():
            hidden = language.model.model(ids).last_hidden_state[torch.arange(len(some)), last]
            chances = language.model.lm_head(hidden).log_softmax(-1)
        for i, row in zip(some, chances, strict=True):
            found[i] = row
    return torch.stack(found)


def perplexity(language: Language, text: str) -> float:
    """exp of the mean negative log-probability of each token of a text after its first."""
    import torch

    ids = torch.tensor([language.ids(text)])
    with torch.no_grad():
        chances = language.model(ids).logits[0, :-1].log_softmax(-1)
    return float(chances.gather(1, ids[0, 1:, None]).mean().neg().exp())


def babble(language: Language, texts: int = 64, length: int = 24, seed: int = 0):
    """Text that the model draws from itself at temperature 1: int64 tensor (texts, length) of token numbers.

    A stand-in for a sample of running text: it needs no corpus and belongs to nobody. Each begins with another token.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        size = language.model.config.vocab_size
        ids, past = torch.randint(size, (texts, 1)), None
        for _ in range(length - 1):
            out = language.model(ids[:, -1:] if past else ids, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = torch.cat([ids, torch.multinomial(out.logits[:, -1].softmax(-1), 1)], 1)
    return ids
