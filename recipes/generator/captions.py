"""Captions for films, and the tokenizer and text encoder that read them.

A caption is drawn anew each time a film is shown: what the film is, in one of several wordings, then some of its
measured attributes in random order, then words dropped at random. One in ten is empty (the null prompt of guidance).
"""

import numpy as np

KINDS = {
    "normal": ["normal", "healthy", "no pneumonia", "no finding", "normal lungs", "without pneumonia", "healthy lungs"],
    "bacterial": ["bacterial pneumonia", "pneumonia bacterial", "pneumonia, bacterial", "bacterial infection"],
    "viral": ["viral pneumonia", "pneumonia viral", "pneumonia, viral", "viral infection"],
}
EITHER = ["pneumonia", "lung infection", "pneumonia of unknown cause"]
FILMS = [
    "chest x-ray",
    "chest radiograph",
    "chest film",
    "x-ray",
    "radiograph",
    "chest x ray",
    "x-ray of the chest",
    "CXR",
    "frontal chest x-ray",
    "image",
    "scan of the chest",
]
WHO = ["of a child", "child", "paediatric", "pediatric", "of a young patient", "in a child"]
WORDS = {
    "exposure": {
        -1: ["dark", "dark image", "dark film"],
        1: ["bright", "bright image", "bright film"],
        0: ["medium brightness"],
    },
    "sharpness": {-1: ["blurred", "soft", "blurry"], 1: ["sharp", "crisp", "sharp detail"], 0: ["medium sharpness"]},
    "tilt": {
        -1: ["tilted anticlockwise", "tilted counterclockwise", "leaning anticlockwise"],
        1: ["tilted clockwise", "leaning clockwise"],
        0: ["straight", "upright"],
    },
    "lung_size": {-1: ["small lungs"], 1: ["large lungs", "big lungs"], 0: ["medium lungs"]},
    "opacity": {
        -1: ["dark lungs", "low opacity"],
        1: ["white lungs", "high opacity", "opaque lungs", "dense lungs"],
        0: ["medium opacity"],
    },
}
SPECIAL = ["<pad>", "<start>", "<end>", "<unknown>"]
EXTRA = [
    "show",
    "me",
    "please",
    "with",
    "and",
    "the",
    "an",
    "a",
    "patient",
    "very",
    "lung",
    "photo",
    "picture",
    "generate",
]
LENGTH = 24


def caption(subtype: str, level: dict[str, int], rng: np.random.Generator) -> str:
    """One caption of a film of `subtype` whose attributes have these levels (-1, 0, 1; -9 = not measured)."""
    if rng.random() < 0.1:
        return ""
    kinds = KINDS[subtype]
    if subtype != "normal" and rng.random() < 0.25:
        kinds = EITHER
    parts = [str(rng.choice(kinds))] if rng.random() < 0.93 else []
    for name, words in WORDS.items():
        if level[name] in words and rng.random() < (0.5 if level[name] else 0.25):
            parts.append(str(rng.choice(words[level[name]])))
    if rng.random() < 0.25:
        parts.append(str(rng.choice(WHO)))
    if rng.random() < 0.3:
        rng.shuffle(parts)
    if rng.random() < 0.75:
        film = str(rng.choice(FILMS))
        parts = [f"{film}, {parts[0]}" if rng.random() < 0.6 else f"{parts[0]} {film}", *parts[1:]] if parts else [film]
    text = ", ".join(parts)
    return _spoil(text, rng) if rng.random() < 0.3 else text


def _spoil(text: str, rng: np.random.Generator) -> str:
    """Drop a filler word or put in an unknown or polite one; words that carry meaning stay."""
    words = text.split(" ")
    filler = [
        i for i, w in enumerate(words) if w.strip(",") in ("of", "the", "a", "in", "image", "film", "chest", "x-ray")
    ]
    if filler and rng.random() < 0.5:
        words.pop(int(rng.choice(filler)))
    if rng.random() < 0.6:
        new = "<unknown>" if rng.random() < 0.5 else str(rng.choice(EXTRA))
        words.insert(int(rng.integers(0, len(words) + 1)), new)
    return " ".join(words)


def vocabulary() -> list[str]:
    """Special tokens, then every word that a caption can hold, sorted."""
    texts = [*EITHER, *FILMS, *WHO, *EXTRA, *(t for k in KINDS.values() for t in k)]
    texts += [t for words in WORDS.values() for group in words.values() for t in group]
    words = {w for t in texts for w in t.lower().replace("-", "").replace(",", " ").split()}
    return SPECIAL + sorted(words)


def build_tokenizer():
    """WordPiece tokenizer of whole words: lower case, hyphens dropped ("x-ray" = "xray"), other punctuation a space.

    A word that is not in the vocabulary becomes `<unknown>`.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = vocabulary()
    ids = {w: i for i, w in enumerate(words)}
    raw = Tokenizer(models.WordPiece(ids, unk_token="<unknown>", max_input_chars_per_word=40))
    raw.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("-", ""), normalizers.Replace(Regex(r"[^\w\s<>]"), " ")]
    )
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", ids["<start>"]), ("<end>", ids["<end>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=LENGTH,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        padding_side="right",
        truncation_side="right",
    )


def build_text_encoder(vocabulary_size: int):
    """A new CLIP-style text encoder, three layers of width 128 (0.4M parameters)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=128,
            hidden_act="gelu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            attn_implementation="eager",
        )
    )
