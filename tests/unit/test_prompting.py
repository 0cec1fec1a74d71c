"""R01 on a tiny random model: the design is balanced, answers are read strictly, no word of a report is kept."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from medimgen import claims
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.research import prompting, smollm
from medimgen.research.prompting import Prompt

ALL = Prompt(*[True] * 7)
FORM = Prompt(format=True)


@pytest.fixture(scope="module")
def language():
    return smollm.tiny(prompting.words())


@pytest.fixture(scope="module")
def recipe():
    return claims.load_recipe("recipes/prompting.py")


@pytest.fixture(scope="module")
def texts():
    return [row["report"] for row in prompting.document()["reports"]]


# --- the design -------------------------------------------------------------------------------------------------------


def levels():
    return np.array([[*vars(prompt).values()] for prompt in prompting.design().values()]) * 2 - 1


def test_sixteen_runs_tell_seven_factors_apart():
    x = levels()
    assert x.shape == (16, 7) and len({tuple(row) for row in x}) == 16
    assert (x.T @ x == 16 * np.eye(7)).all()


def test_no_factor_is_mixed_up_with_a_pair():
    """Resolution IV; and it is not V, since pairs are mixed up with pairs."""
    x = levels()
    pairs = [x[:, i] * x[:, j] for i in range(7) for j in range(i)]
    assert not any(abs(x[:, k] @ pair) for k in range(7) for pair in pairs)
    assert any(abs(a @ b) == 16 for i, a in enumerate(pairs) for b in pairs[:i])


@pytest.mark.parametrize("factor", ["role", "context", "thinking", "format"])
def test_each_part_of_the_opening_comes_with_its_factor_alone(factor):
    part = prompting.document()["parts"][factor]
    assert part in prompting.opening(Prompt(**{factor: True}), 0)
    others = {name: name != factor for name in vars(FORM)}
    assert part not in prompting.opening(Prompt(**others), 0)


def test_examples_answer_in_the_form_that_is_asked_for():
    text = prompting.opening(Prompt(examples=True, format=True), 2)
    said = [part.split("<|im_end|>")[0] for part in text.split("<|im_start|>assistant\n")[1:]]
    assert [prompting.read(part, True).findings for part in said] == [
        frozenset(row["findings"]) for row in prompting.document()["examples"]
    ]
    assert prompting.written(Prompt(), {"nodule", "effusion"}) == "effusion, nodule"
    assert prompting.written(Prompt(), ()) == "none"


def test_wordings_differ_and_examples_are_not_among_the_notebook_s_reports(texts):
    openings = {prompting.opening(Prompt(), k) for k in range(5)}
    assert len(openings) == 5 and all(", ".join(prompting.names()) in text for text in openings)
    assert not {row["report"] for row in prompting.document()["examples"]} & set(texts)


# --- reports and the search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mesh", "found"),
    [
        (("normal",), set()),
        (("Cardiomegaly/borderline", "Nodule/lung/left"), {"cardiomegaly", "nodule"}),
        (("Cardiac Shadow/enlarged",), {"cardiomegaly"}),
        (("Cardiac Shadow/obscured", "Emphysematous Bulla"), set()),
        (("Consolidation/lung/base", "Fractures, Bone/ribs"), {"opacity", "fracture"}),
    ],
)
def test_truth_by_headings(mesh, found):
    assert prompting.truth(mesh) == found


@pytest.mark.parametrize(
    ("text", "present", "denied"),
    [
        ("Small effusion. No nodule.", {"effusion"}, {"nodule"}),
        ("No effusion, but a nodule.", {"nodule"}, {"effusion"}),
        ("The heart is not enlarged.", set(), {"cardiomegaly"}),
        ("The heart, as before, is enlarged.", {"cardiomegaly"}, set()),
        ("The effusion has resolved.", set(), {"effusion"}),
        ("No effusion left. Effusion on the right.", {"effusion"}, set()),
        ("Clear.", set(), set()),
    ],
)
def test_the_search_knows_a_denial(text, present, denied):
    assert prompting.search(text) == (present, denied)


def test_the_search_reads_all_training_reports_and_misses_one_of_the_notebook_s():
    assert all(prompting.search(text)[0] == found for text, found in prompting.made(100, seed=0))
    rows = prompting.document()["reports"]
    missed = [row["report"] for row in rows if prompting.search(row["report"])[0] != set(row["findings"])]
    assert len(missed) == 1 and "empty of infiltrates" in missed[0]


def test_pilot_and_test_share_no_report_and_hold_what_was_planned():
    pilot, test = prompting.drawn("pilot"), prompting.drawn("test")
    assert len(test) >= 100 and not set(pilot["report"]) & set(test["report"])
    assert not set(pilot["text"]) & set(test["text"])
    for split, table in (("pilot", pilot), ("test", test)):
        assert (table["truth"].map(bool).sum(), (~table["truth"].map(bool)).sum()) == prompting.SIZES[split]
        assert table["text"].str.split().str.len().between(15, 60).all()
    assert (test["wording"].value_counts() == 20).all()
    with pytest.raises(CourseError, match="split 'train'"):
        prompting.drawn("train")


# --- reading and scoring ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "found", "why"),
    [
        ('{"findings": ["effusion"]}', {"effusion"}, ""),
        ('Here you are: {"findings": []}', set(), ""),
        ('{"findings": ["pneumonia"]}', None, "findings/0"),
        ('{"findings": "effusion"}', None, "valid array"),
        ('{"finding": ["effusion"]}', None, "required"),
        ('{"findings": [], "sure": true}', None, "Extra"),
        ('{"findings": ["effusion", "nodu', None, "answer"),
        ("effusion", None, "JSON"),
    ],
)
def test_json_is_validated(answer, found, why):
    reading = prompting.read(answer, format=True)
    assert reading.valid == (found is not None) and reading.findings == (found or set()) and why in reading.why


def test_plain_words_are_searched():
    assert prompting.read("There is an effusion but no nodule.", False) == prompting.Reading(frozenset(["effusion"]))
    assert prompting.read("None of them.", False).valid and not prompting.read("The patient is kind.", False).valid


def test_score_tells_hallucination_from_denial_and_from_what_only_the_text_says():
    text = "No nodule. Small effusion. Fracture."
    counts = prompting.score({"nodule", "effusion", "granuloma", "fracture"}, {"fracture", "opacity"}, text)
    assert counts == {"right": 1, "named": 4, "true": 2, "unsupported": 2, "denied": 1}


# --- the dialogue -----------------------------------------------------------------------------------------------------


def alone(language, text, most):
    """What the model says by the plainest loop: everything is computed anew for each token."""
    ids = language.ids(text)
    start = len(ids)
    for _ in range(most):
        ids = [*ids, int(language.model(torch.tensor([ids])).logits[0, -1].argmax())]
    return language.tokenizer.decode(ids[start:]).strip()


def test_side_by_side_says_what_each_would_say_alone(language, texts):
    opening, texts = prompting.opening(FORM, 1), texts[:3]
    talk = prompting.Dialogue(language, opening, 3)
    talk.stop = -1
    talk.hear(texts)
    first = talk.say(6, "no such text")
    assert first == [alone(language, opening + text, 6) for text in texts]
    talk.hear(["fracture of the left lung", "nodule", "a nodule or an effusion"])
    assert len(set(talk.say(6, "no such text"))) > 1


def test_rows_that_end_leave_the_others_as_they_are(language, texts):
    """A row that ends is dropped at the last answer; what the others say does not change."""
    whole = []
    for final in (False, True):
        talk = prompting.Dialogue(language, prompting.opening(FORM, 0), len(texts))
        talk.stop = -1
        talk.hear(texts)
        mark = whole[0][0].split()[2] if whole else "no such text"
        whole.append(talk.say(8, mark, final=final))
        left = len(talk.seen)
    ended = [mark in said for said in whole[1]]
    assert any(ended) and left < len(texts)
    assert all(b == a or (mark in b and a.startswith(b)) for a, b in zip(*whole, strict=True))


def test_zero_is_greedy_and_heat_follows_the_seed(language, texts):
    cold = [prompting.ask(language, Prompt(), 0, texts[:2], seed) for seed in (1, 2)]
    hot = [prompting.ask(language, Prompt(temperature=True), 0, texts[:2], seed) for seed in (1, 1, 2)]
    assert cold[0] == cold[1] and hot[0] == hot[1] != hot[2]


def test_thinking_and_checking_add_a_turn_each(language, texts):
    (plain,), (full,) = (prompting.ask(language, prompt, 3, texts[:1]) for prompt in (Prompt(), ALL))
    assert plain.thought == "" and plain.first == plain.last and full.thought and full.last


def test_the_adapter_learns_and_is_taken_off(language):
    (text, found), *_ = prompting.made(1, seed=0)
    asked = prompting.opening(FORM, 0) + f" {text}{prompting.END}{prompting.START.format('assistant')}"
    whole = asked + prompting.written(FORM, found)
    before = smollm.perplexity(language, whole), {k: v.clone() for k, v in language.model.state_dict().items()}
    with prompting.tuned(language, FORM, steps=4):
        assert smollm.perplexity(language, whole) != before[0]
    after = language.model.state_dict()
    assert after.keys() == before[1].keys() and all(torch.equal(v, before[1][k]) for k, v in after.items())
    assert smollm.perplexity(language, whole) == before[0]


# --- the recipe -------------------------------------------------------------------------------------------------------


def rows_of(n=30, seed=0):
    """Rows as the recipe writes them: with examples 2 of 2 are right, without none is; checking does nothing."""
    runs = {**prompting.design(), "plain": FORM, "tuned": FORM, "search": ALL, "majority": FORM, "none": FORM}
    rows = []
    for run, prompt in runs.items():
        for k in range(n):
            row = {"run": run, "report": f"r{k:02}", "wording": k % 5, "valid": int(not prompt.examples)}
            row |= {"right": 2 * prompt.examples, "named": 2, "true": 2, "unsupported": 1 - prompt.examples}
            rows.append(row | {"denied": 0, "first_right": row["right"], "first_named": 2, "exact": 0})
    return pd.DataFrame(rows)


def test_the_effect_is_that_of_the_factor_that_works(recipe):
    rows = rows_of()
    assert tuple(recipe.measure(rows, 100, 0)) == (1, 1, 1)
    found = recipe.explore(rows, 50, 0)
    assert found["role"].estimate == 0 and found["f1_search"].estimate == 1 and found["tuning"].estimate == 0
    assert found["invalid_three"].estimate == 1 and found["invalid_zero"].estimate == 0
    assert found["hallucinated"].estimate == 0.25
    assert found["examples_json"].estimate == found["examples_words"].estimate == 1
    words = rows["run"].map(lambda run: not prompting.design().get(run, FORM).format)
    found = recipe.explore(rows.assign(right=rows["right"].where(words, 0)), 50, 0)
    assert (found["examples_json"].estimate, found["examples_words"].estimate) == (0, 1)
    table = prompting.effects(rows, draws=100)
    assert table.loc["examples", "effect"] == 1 and np.isnan(table.loc["examples", "p_holm"])
    assert table["p_holm"].drop("examples").eq(1).all()


def test_holm_multiplies_the_smallest_p_by_six():
    rows, rng = rows_of(40), np.random.default_rng(0)
    heat = rows["run"].map(lambda run: prompting.design().get(run, FORM).temperature)
    table = prompting.effects(rows.assign(right=np.where(heat, 0, 2 - rng.integers(0, 2, len(rows)))), draws=200)
    assert table.loc["temperature", "effect"] < -0.5
    assert table.loc["temperature", "p_holm"] == pytest.approx(6 * table.loc["temperature", "p"])
    assert (table["p_holm"].drop("examples") >= table["p"].drop("examples")).all()


def test_checking_compares_with_the_first_answer(recipe):
    rows = rows_of()
    assert recipe.explore(rows, 50, 0)["checking"].estimate == 0
    assert recipe.explore(rows.assign(first_right=0), 50, 0)["checking"].estimate > 0


def test_exploratory_figures_are_those_of_the_claim(recipe):
    assert set(recipe.explore(rows_of(), 50, 0)) == set(claims.get("R01")["exploratory"])


def test_runs_are_done_once_and_no_word_is_kept(recipe, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(smollm.SMOKE, "1")
    first = recipe.run(tmp_path, ["04", "tuned"], recipe.invented())
    assert len(first) == 16 and "2 of 2" in capsys.readouterr().out
    monkeypatch.setattr(recipe.smollm, "load", None)
    pd.testing.assert_frame_equal(recipe.run(tmp_path, ["04", "tuned"], recipe.invented()), first)
    for file in tmp_path.iterdir():
        for row in json.loads(file.read_text(encoding="utf-8")):
            assert all(isinstance(value, int) for key, value in row.items() if key not in ("run", "report"))
            assert row["run"] in recipe.jobs() and row["report"].startswith("invented")


def test_baselines_need_no_model(recipe):
    table = pd.DataFrame(recipe.baselines(recipe.invented())).groupby("run")[["right", "named", "true", "exact"]].sum()
    assert table.loc["none", "named"] == 0 and table.loc["none", "exact"] == 2
    assert table.loc["majority", "named"] == 8 and table.loc["search", "right"] == table.loc["search", "true"]


def test_the_rows_of_a_whole_run_stay_within_their_limit():
    row = rows_of(1).iloc[0].to_dict() | {"report": "0" * 10}
    line = ",".join(map(str, row.values())) + "\n"
    assert len(line) * 100 * 21 < claims.ROWS_LIMIT


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_model_answers_in_the_form_of_its_examples():
    language, prompt = smollm.load(), Prompt(examples=True, format=True)
    texts = [row["report"] for row in prompting.document()["reports"]]
    said = prompting.ask(language, prompt, 0, texts)
    assert np.mean([prompting.read(one.last, True).valid for one in said]) > 0.5
    assert prompting.ask(language, prompt, 0, texts[:1]) == said[:1]


# --- what was recorded ------------------------------------------------------------------------------------------------


def quoted(figure, sign=1):
    """How the notebook tells a difference: "0.046 (0.023 to 0.071)"."""
    low, high = sorted(sign * x for x in figure["ci95"])
    return f"{sign * figure['estimate']:.3f}", f"({low:.3f} to {high:.3f})"


def test_the_notebook_quotes_the_claim_as_recorded():
    told = nbformat.read(ROOT / "notebooks" / "research" / "R01-prompting-a-local-llm.ipynb", 4)
    text = " ".join(" ".join(c.source for c in told.cells if c.cell_type == "markdown").split())
    found = claims.result("R01")
    more, share = found["exploratory"], {k: f"{100 * v['estimate']:.0f} %" for k, v in found["exploratory"].items()}
    assert found["verdict"] == "holds" and "cost* F1: {} {}".format(*quoted(found)) in text
    assert "examples add {} {}".format(*quoted(more["examples_json"])) in text
    assert "they take away {} {}".format(*quoted(more["examples_words"], -1)) in text
    assert "costs {} of F1 {}".format(*quoted(more["format"], -1)) in text
    failing = f"{100 * more['invalid_zero']['estimate']:.1f} % of the answers fail the check"
    assert f"{failing}, and with them {share['invalid_three']}" in text
    assert f"search has {more['f1_search']['estimate']:.2f}" in text
    assert f"best of the sixteen prompts has {more['f1_best']['estimate']:.2f}" in text
    assert f"for {share['exact_none']} of the reports, the sixteen prompts for {share['exact']}" in text
    assert f"they name, {share['hallucinated']} is" in text
    assert f"from {more['f1_plain']['estimate']:.2f} to {more['f1_tuned']['estimate']:.2f}" in text
    assert f"{share['hallucinated_tuned']} of what it names is unsupported, and {share['denied_tuned']} is" in text
    rows = claims.read_rows("R01")
    passed = {run: int(rows.loc[rows["run"] == run, "valid"].sum()) for run in ("plain", "tuned")}
    assert passed["plain"] == 0 and f"{passed['tuned']} of 100 answers pass the check, before it none did" in text
    for name in ("role", "context", "thinking"):
        assert more[name]["ci95"][0] < 0 < more[name]["ci95"][1]
    after_six_looks = prompting.effects(rows)["p_holm"]  # as the notebook's table
    assert after_six_looks["format"] < 0.05 < after_six_looks[["check", "temperature"]].min()
