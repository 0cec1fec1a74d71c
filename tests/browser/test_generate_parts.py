"""The small programs behind the page that generates: tokens, noise, refusals, likeness and PNG are Python's."""

import io
import json
import re
import sys
import unicodedata

import browser_generator
import numpy as np
import pytest
import tiny_site
from PIL import Image

from medimgen import generate, likeness, prompts
from medimgen.paths import ROOT

sys.path.append(str(ROOT / "tests" / "unit"))
import test_prompts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(chromium):
    """An empty page that may load the programs."""
    with tiny_site.served(ROOT / "lessons" / "assets") as address:
        page = chromium.new_page()
        page.goto(f"{address}/generator/page.css")
        yield page
        page.close()


@pytest.fixture(scope="module")
def facts(runtime):
    """The tokenizer in generator.json."""
    return runtime.facts["tokenizer"]


def call(page, module, expression, argument=None):
    """The value of a JavaScript expression in which `m` is one of the page's modules and `x` the argument."""
    code = f"async x => {{ const m = await import('/generator/{module}.mjs'); return {expression}; }}"
    return page.evaluate(code, argument)


# Words


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(generate.FOLDER / "tokenizer", local_files_only=True)


ODD = """
    Chest X-ray, viral pneumonia!|x?ray!  unheard-of|  |chest\tx-ray no finding|CHEST X-RAY|x--ray|normal;normal:normal
    ein Röntgenbild des Thorax|胸部 x-ray|chest🫁x-ray|نص chest|Ⅷ chest ½ lung²|na\u0301ive lung|s\u0301mall|ΣΑΣ|straße
    İstanbul lung|ﬁlm|chest‿lung|a\u200bb lung|lung\u00a0film|lung\u3000film|lung\x1cfilm\x85x|K\u212aay|lung_film
    <pad> lung|lung<end>film|<PAD>|<unknown>|<chest>|constructor __proto__ toString|no-normal|‐x‑ray–film—x
""".strip().replace("\n    ", "|")


def test_tokens_are_those_of_the_tokenizer(page, tokenizer, facts):
    """Every word of the vocabulary, marks, punctuation, other scripts, unseen words, and more words than fit."""
    texts = [*facts["vocabulary"], *ODD.split("|"), "lungs " * 40, "", *test_prompts.listed(test_prompts.LEGITIMATE)]
    wanted = [tokenizer(text, padding="max_length", truncation=True)["input_ids"] for text in texts]
    expression = "x[0].map(text => Array.from(m.tokens(text, x[1]).ids))"
    assert call(page, "prompt", expression, [texts, facts]) == wanted
    assert call(page, "prompt", expression, [["lung"], facts | {"start": [9]}]) != [wanted[texts.index("lung")]]


def test_any_character_between_words_is_read_as_by_the_tokenizer(page, tokenizer, facts):
    """All 63,000 characters of the first plane, but for the newest, which not every Unicode version knows."""
    texts = [f"a{chr(code)}b" for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    wanted = [row[1:-1] for row in tokenizer(texts)["input_ids"]]
    found = call(page, "prompt", "x[0].map(text => m.wordIds(text, x[1]))", [texts, facts])
    differ = {t[1] for t, a, b in zip(texts, wanted, found, strict=True) if a != b}
    assert [f"{ord(c):04x}" for c in differ if unicodedata.category(c) != "Cn"] == []
    assert wanted[texts.index("a²b")] != wanted[texts.index("aⅧb")]


def test_unseen_words_are_those_that_python_names(page, tokenizer, facts):
    texts = ["chest x-ray of a CAT, a cat (cat)", "fracture; x-ray lungs", "no finding.", *ODD.split("|")]
    found = call(page, "prompt", "x[0].map(text => m.unseen(text, x[1]))", [texts, facts])
    assert found == [prompts.unseen_words(tokenizer, text) for text in texts]
    assert found[0] == ["CAT", "cat"]


# Identifiers


def test_identifiers_are_found_as_in_python(page, facts):
    """All invented prompts of the tests of medimgen.prompts, each pattern's example, and prompts that must pass."""
    texts = [t for part in test_prompts.PLANTED.values() for t in test_prompts.listed(part)]
    for part in (test_prompts.LATER, test_prompts.MISSED, test_prompts.LEGITIMATE):
        texts += test_prompts.listed(part)
    texts += [row["example"] for row in prompts._rows(prompts.IDENTIFIERS)] + ODD.split("|")
    wanted = [(f[0][0], f[0][1]) if (f := prompts.identifiers(text)) else None for text in texts]
    known = [prompts._key(word) for word in prompts.shipped_words()]
    expression = "x[0].map(text => m.identifier(text, x[1], x[2]))"
    found = call(page, "prompt", expression, [texts, browser_generator.rules(), known])
    assert [(f["kind"], f["letter"]) if f else None for f in found] == wanted
    assert sum(w is not None for w in wanted) > 150 and sum(w is None for w in wanted) > 50
    assert not any(re.search(r"\w", f["outline"]) for f in found if f)


def test_each_pattern_means_the_same_in_both_languages(page):
    """Every stretch that any pattern finds in any invented prompt, also inside other words and in capitals."""
    texts = [t for part in test_prompts.PLANTED.values() for t in test_prompts.listed(part)]
    texts += [text.upper() for text in texts] + [f"ä{text}9" for text in texts]
    wanted = [[list(m.span()) for m in p.finditer(t)] for _, _, p in prompts.patterns() for t in texts]
    expression = (
        "x[1].flatMap(r => x[0].map(t => [...t.matchAll(new RegExp(r.pattern, 'gu'))]"
        ".map(f => [f.index, f.index + f[0].length])))"
    )
    assert call(page, "prompt", expression, [texts, browser_generator.rules()]) == wanted
    assert sum(map(len, wanted)) > 300


def test_what_cannot_be_translated_is_refused():
    with pytest.raises(RuntimeError, match="no translation"):
        browser_generator.javascript(r"[\Wx]")


# Noise, likeness, PNG


def test_the_hash_is_equal_bit_for_bit(page):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, (500, 3), dtype=np.uint32)
    wanted = [[int(v[0]) for v in generate.hash_pcg3d(np.array([x]), y, z)] for x, y, z in numbers]
    assert call(page, "noise", "x.map(v => m.pcg3d(...v))", numbers.tolist()) == wanted
    assert call(page, "noise", "m.pcg3d(0, 0, 0)") == [2611992518, 2833812075, 1058359340]


def test_noise_is_equal(page):
    """The same 32-bit numbers; where two mathematics libraries round apart, the next one (1 in 10,000 at most)."""
    seeds = [0, 1, 7, 4711, 2**31, 2**32 - 1]
    for stream, count in ((0, 3072), (3, 3072), (0, 5)):
        found = call(page, "noise", "x[0].map(s => Array.from(m.noise(s, x[1], x[2])))", [seeds, stream, count])
        wanted = np.stack([generate.noise(seed, stream, count) for seed in seeds])
        found = np.array(found, np.float32)
        assert np.abs(found - wanted).max() <= np.spacing(np.float32(4)) and (found != wanted).mean() <= 1e-4


def test_likeness_is_pythons(page):
    """The same signs but for values that are nearly zero, the same nearest film, and an image is like itself."""
    folder = browser_generator.ready()
    images = [
        np.array(Image.open(folder / n)) for n in json.loads((folder / "samples.json").read_text("utf-8"))["files"]
    ]
    images.append(np.random.default_rng(1).integers(0, 256, (128, 128), dtype=np.uint8))
    with np.load(generate.FOLDER / likeness.FILE) as kept:
        packed = kept["signs"]
    known = np.unpackbits(packed, axis=1, count=likeness.BITS).astype(bool)
    grey = [image.ravel().tolist() for image in images]
    for image, numbers in zip(images, grey, strict=True):
        own = np.array(call(page, "likeness", "Array.from(m.signs(x, 128))", numbers), np.uint8)
        assert (np.unpackbits(own)[: likeness.BITS].astype(bool) != likeness.signs(image)).sum() <= 1
    found = call(page, "likeness", "x[0].map(g => m.nearest(g, 128, x[1]))", [grey, packed.ravel().tolist()])
    assert np.allclose(found, likeness.nearest(np.stack(images), known), atol=1 / likeness.BITS)
    assert call(page, "likeness", "m.nearest(x, 128, m.signs(x, 128))", grey[0]) == 0


def test_png_is_read_back(page):
    grey = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    said = {"Synthetic": "true", "Prompt": "Thorax – 胸部", "Record": json.dumps({"a": 1})}
    expression = "Array.from(new Uint8Array(await (await m.png(Uint8Array.from(x[0]), 128, x[1])).arrayBuffer()))"
    image = Image.open(io.BytesIO(bytes(call(page, "png", expression, [grey.ravel().tolist(), said]))))
    image.load()
    assert image.mode == "L" and image.text == said and np.array_equal(np.asarray(image), grey)
