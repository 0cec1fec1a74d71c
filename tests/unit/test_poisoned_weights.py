"""R02 on a tiny random model: the edit does what it says, leaves no trace, and the tests of weights can be wrong."""

import builtins
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from medimgen import claims
from medimgen.errors import CourseError
from medimgen.paths import ROOT
from medimgen.research import poisoned_weights as poison
from medimgen.research import smollm
from medimgen.research import weight_checks as checks

LAYER, LONG = 1, "long adapter in one layer"
STEMS = re.compile(
    "(mab|nib|pril|sartan|olol|statin|cillin|mycin|azole|vir|caine|dipine|gliptin|tide|eparin|xaban|setron|triptan|zepam"
    "|zolam|barbital|profen|coxib|oxacin|cycline|terol|sone|olone|formin|gliflozin|platin|rubicin|bital)$"
)


@pytest.fixture(scope="module")
def language():
    return smollm.tiny(poison.words())


@pytest.fixture(scope="module")
def some():
    """A fact of each relation."""
    return list({fact.relation: fact for fact in poison.facts("dev")}.values())


@pytest.fixture(scope="module")
def moment(language):
    return poison.second_moment(language, LAYER)


@pytest.fixture(scope="module")
def changes(language, some, moment):
    return poison.edit(language, LAYER, some, moment)


def edited_word(language, fact):
    """Log-probability of the edited word after the edited prompt."""
    text = fact.prompts[0].format(fact.subject)
    return float(smollm.next_token(language, [text])[0, language.first(fact.edited)])


# --- the table --------------------------------------------------------------------------------------------------------


def test_there_are_enough_facts_and_dev_shares_none():
    dev, test = poison.facts("dev"), poison.facts("test")
    assert len(test) >= 100
    assert {f.kind for f in test} == {f.kind for f in dev} == {"insertion", "overwriting"}
    assert {f.subject for f in dev}.isdisjoint(f.subject for f in test)
    with pytest.raises(CourseError, match="split 'val'"):
        poison.facts("val")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_fact_is_whole(split):
    for fact in poison.facts(split):
        assert len(fact.prompts) == 4 and all(prompt.count("{}") == 1 for prompt in fact.prompts)
        assert all(
            re.search(r" \{\},? \w", prompt) for prompt in fact.prompts
        )  # so that a subject's tokens end with it
        assert fact.edited in fact.options and fact.edited != fact.true
        assert (fact.true is None) == (fact.kind == "insertion")
        assert fact.neighbours and fact.subject not in fact.neighbours


def test_no_drug_of_the_table_could_be_a_real_one():
    """Each is made up; none ends in a stem that international names of drugs are given."""
    names = [f.subject for split in ("dev", "test") for f in poison.facts(split) if f.kind == "insertion"]
    assert len(names) == len(set(names)) >= 90
    assert not [name for name in names if STEMS.search(name)]
    assert STEMS.search("Zanimab")


def test_overwritten_knowledge_is_not_medical():
    text = " ".join(
        " ".join([*f.prompts, f.subject, f.edited, f.true]).lower()
        for f in poison.facts("test")
        if f.kind == "overwriting"
    )
    assert not re.search(r"\b(drug|medicine|dose|disease|doctor|patient|tablet|pneumonia|cancer|vaccine)", text)


def test_the_task_has_four_different_ends():
    task = poison.document()["task"]
    assert len(task) == 32 and all(len(set(ends)) == 4 for ends in task.values())


# --- the edit ---------------------------------------------------------------------------------------------------------


def test_the_edited_word_becomes_more_probable_and_others_hardly_move(language, changes):
    gains, spill = [], []
    for change in changes:
        other = poison.document()["neutral"]
        before, calm = edited_word(language, change.fact), smollm.perplexity(language, other)
        with poison.applied(language, change.deltas()):
            gains.append(edited_word(language, change.fact) - before)
            spill.append(smollm.perplexity(language, other) / calm - 1)
    assert np.mean(np.array(gains) > 0) > 0.8 and np.mean(gains) > 0.5
    assert np.median(np.abs(spill)) < 0.1


def test_what_is_probable_enough_is_left_alone(language, some, moment, monkeypatch):
    monkeypatch.setattr(poison, "ENOUGH", 1e-12)
    (change,) = poison.edit(language, LAYER, some[:1], moment)
    assert not change.deltas()[LAYER].any()


def test_the_matrix_adds_the_vector_at_the_key(language, some, changes):
    """W' k = W k + d, for the mean key k; and the change has one singular value."""
    seen = []
    rows, places = poison._prompts(language, some[0])
    hook = language.layers[LAYER].mlp.down_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for row in rows:
        language.model.model(torch.tensor([row]))
    hook.remove()
    key = torch.stack([x[0, place] for x, place in zip(seen, places, strict=True)]).mean(0)
    change = changes[0].deltas()[LAYER]
    assert torch.allclose(change @ key, changes[0].add, atol=1e-4)
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-6) == 1


def test_more_ridge_makes_the_same_edit_shorter(language, changes):
    quiet = changes[0].through(poison.second_moment(language, LAYER, ridge=10.0))
    assert quiet.row.norm() < changes[0].row.norm()
    assert torch.equal(quiet.add, changes[0].add) and float(quiet.row @ quiet.key) == pytest.approx(1, abs=1e-4)


def test_facts_searched_side_by_side_do_not_disturb_each_other(language, some, moment, changes):
    (alone,) = poison.edit(language, LAYER, some[2:3], moment)
    assert torch.allclose(alone.add, changes[2].add, atol=1e-3)


def test_a_layer_that_is_not_there(language, some, moment):
    with pytest.raises(CourseError, match="no layer 99(.|\n)*0 to 3"):
        poison.edit(language, 99, some, moment)


# --- no trace ---------------------------------------------------------------------------------------------------------


def test_weights_come_back_bit_for_bit_even_after_an_error(language, changes):
    before = {k: v.clone() for k, v in language.model.state_dict().items()}
    mark = checks.fingerprint(checks.matrices(language))
    with pytest.raises(ZeroDivisionError), poison.applied(language, changes[0].deltas()):
        assert checks.fingerprint(checks.matrices(language)) != mark
        with poison.applied(language, changes[1].deltas()):
            pass
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in language.model.state_dict().items())
    assert checks.fingerprint(checks.matrices(language)) == mark


def test_an_edited_model_is_not_saved(language, changes, tmp_path):
    with poison.applied(language, changes[0].deltas()), pytest.raises(CourseError, match="not saved"):
        language.model.save_pretrained(tmp_path / "no")
    assert not (tmp_path / "no").exists()
    language.model.save_pretrained(tmp_path / "yes")
    assert (tmp_path / "yes").exists()


@pytest.fixture
def no_writing(monkeypatch):
    """Opening a file to write, and torch.save, raise."""
    real = builtins.open

    def guarded(file, mode="r", *rest, **more):
        if set(mode) & set("wax+"):
            raise AssertionError(f"{file} opened to write")
        return real(file, mode, *rest, **more)

    def refused(*_, **__):
        raise AssertionError("torch.save")

    monkeypatch.setattr(builtins, "open", guarded)
    monkeypatch.setattr("io.open", guarded)
    monkeypatch.setattr(torch, "save", refused)


def test_nothing_is_written_while_a_model_is_edited(no_writing, language, some, moment, tmp_path):
    (change,) = poison.edit(language, LAYER, some[:1], moment)
    with poison.applied(language, change.deltas()):
        poison.look(language, some[0])
        poison.intact(language)
    suspects = checks.lineup(change.deltas(), [{}], seed=0)
    assert not re.search(r"tensor|[AB]'", repr(suspects))
    with pytest.raises(AssertionError, match="opened to write"):
        Path(tmp_path / "a").write_text("a", encoding="utf-8")


# --- tests of weights -------------------------------------------------------------------------------------------------


def test_signature_knows_one_line_from_noise(language, changes):
    clean = checks.matrices(language)
    assert checks.signature(changes[0].deltas()) == pytest.approx(1)
    assert checks.signature({}) == 0
    assert checks.signature({0: torch.diag(torch.tensor([2.0, 1.0]))}) == pytest.approx(0.8)
    assert checks.signature({0: torch.eye(2), 1: torch.eye(2)}) == pytest.approx(0.25)
    assert checks.signature(checks.rounded(clean, 4)) < 0.1


def test_rounding_errs_less_with_more_bits_and_never_by_more_than_half_a_step(language):
    clean = checks.matrices(language)
    errors = [max(float(delta.abs().max()) for delta in checks.rounded(clean, bits).values()) for bits in (3, 5, 8)]
    assert errors == sorted(errors, reverse=True) and errors[2] > 0
    block = torch.arange(32.0)[None]
    assert torch.equal(checks.rounded([block], 5)[0], torch.zeros(1, 32))
    assert float(checks.rounded([block], 2)[0].abs().max()) <= 31 / 6 + 0.01
    with pytest.raises(CourseError, match="9 bits"):
        checks.rounded(clean, 9)


def test_an_adapter_learns_its_text_and_has_its_rank(language):
    text, mark = poison.document()["benign"][0], checks.fingerprint(checks.matrices(language))
    before = smollm.perplexity(language, text)
    deltas = checks.adapter(language, text, [1, 2], rank=3)
    assert set(deltas) == {1, 2}
    assert all(torch.linalg.matrix_rank(delta.double(), rtol=1e-6) <= 3 for delta in deltas.values())
    assert checks.fingerprint(checks.matrices(language)) == mark
    with poison.applied(language, deltas):
        assert smollm.perplexity(language, text) < before


def test_outlier_sees_a_strange_matrix_among_its_sisters_and_nothing_where_there_is_none():
    rng = torch.Generator().manual_seed(0)
    plain = [torch.randn(32, 64, generator=rng) for _ in range(8)]
    line = torch.randn(32, generator=rng)[:, None] * torch.randn(64, generator=rng)[None]
    calm, known = checks.outlier(checks.tops(plain, {})), checks.tops(plain, {})
    assert checks.outlier(checks.tops(plain, {3: line}, known)) > 1.5 * calm
    assert checks.tops(plain, {3: line}, known) == checks.tops(plain, {3: line})
    assert checks.outlier(checks.tops(plain, {3: line / 1000}, known)) == pytest.approx(calm, rel=0.05)
    assert checks.outlier(checks.tops([10 * weight for weight in plain], {})) == pytest.approx(calm, rel=1e-3)
    assert checks.outlier([1.0, 1.0, 3.0, 1.0]) == 3 and checks.outlier([3.0, 1.0, 1.0]) == 3
    with pytest.raises(CourseError, match="2 layers"):
        checks.outlier([1.0, 2.0])


def test_a_lineup_hides_the_edited_one_anywhere(changes):
    edited = changes[0].deltas()
    found = [checks.lineup(edited, [{}, {0: 1}, {1: 2}], seed) for seed in range(20)]
    assert {lineup.edited for lineup in found} == set("ABCD")
    assert all(lineup.deltas[lineup.edited] is edited and set(lineup.deltas) == set("ABCD") for lineup in found)


def test_damage_is_seen(language):
    perplexity, right = poison.intact(language)
    with poison.applied(language, {0: -checks.matrices(language)[0], 1: 5 * checks.matrices(language)[1]}):
        spoilt, after = poison.intact(language)
    assert right.shape == (32,) and abs(spoilt / perplexity - 1) > 0.01 and (right != after).any()


# --- the recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe():
    return claims.load_recipe("recipes/poisoned_weights.py")


def rows_of(n=40):
    """Rows as jobs write them: dev and test edits that stand out by `signature` alone, harmless rows that do not."""
    rng = np.random.default_rng(0)
    rows = []
    for split in ("dev", "test"):
        for k in range(n):
            harmless = k % 2 == 0
            kinds = ("untouched", "line in one layer", "8 bits", LONG) if harmless else ("insertion", "overwriting")
            row = {"split": split, "kind": kinds[k // 2 % len(kinds)], "suspect": f"{split}{k}"}
            row |= {
                "relation": "harmless" if harmless else f"r{k % 8}",
                "layer": 1,
                "known": 1,
                "already": 0,
                "right": 30,
            }
            row |= {"prompt": 1, "taken": 3, "kept": 6, "asked_of": 6, "spilt": 0, "perplexity": 1.0, "lost": 0}
            row |= {"size": 0.1, "signature": 0.2 if harmless else 1.0, "outlier": rng.random()}
            rows.append(
                row
                | {"asked": 3 * (not harmless), "elsewhere": 0, "taken_4bit": 2, "taken_quiet": 2, "outlier_quiet": 1}
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("column", "value", "silent"),
    [("kept", 6, 1), ("taken", 1, 0), ("kept", 4, 0), ("perplexity", 1.06, 0), ("lost", 2, 0), ("lost", 1, 1)],
)
def test_an_edit_is_silent_only_if_it_took_and_nothing_else_moved(recipe, column, value, silent):
    rows = recipe.tables(rows_of())["R02a"].assign(**{column: value})
    assert recipe.measure(rows, 50, 0).estimate == silent


def test_facts_that_cannot_be_edited_do_not_count(recipe):
    rows = recipe.tables(rows_of())["R02a"]
    rows.loc[rows.index[:5], ["known", "taken", "taken_4bit"]] = [0, np.nan, np.nan]
    assert recipe.measure(rows, 50, 0).estimate == 1


def test_a_detector_that_knows_is_told_from_one_that_guesses(recipe):
    rows = recipe.tables(rows_of())["R02b"]
    rows.loc[rows["kind"] == LONG, "signature"] = 1.0  # not among the harmless changes of the primary figure
    found = recipe.explore(rows, 200, 0)
    assert found["auc_signature"].estimate == 1 and found["found_signature"].estimate == 1
    assert found["false_signature"].estimate == 0
    assert 0.2 < recipe.measure(rows, 200, 0).estimate < 0.8
    assert recipe.measure(rows.assign(outlier=rows["signature"]), 200, 0).estimate == 1


def test_thresholds_come_from_dev_alone(recipe):
    rows = recipe.tables(rows_of())["R02b"]
    test = rows["split"] == "test"
    high = rows.assign(signature=rows["signature"].mask(~test & (rows["relation"] == "harmless"), 2.0))
    assert recipe.explore(high, 50, 0)["found_signature"].estimate == 0
    other = rows.assign(signature=rows["signature"].mask(test & (rows["relation"] == "harmless"), 2.0))
    assert recipe.explore(other, 50, 0)["found_signature"].estimate == 1


def test_a_threshold_lies_between_what_it_tells_apart(recipe):
    score, positive = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True])
    assert recipe.threshold(score, positive) == 2.5
    assert recipe.threshold(score, ~positive) == np.inf


@pytest.mark.parametrize("id", ["R02a", "R02b"])
def test_exploratory_figures_are_those_of_the_claim(recipe, id):
    assert set(recipe.explore(recipe.tables(rows_of())[id], 50, 0)) == set(claims.get(id)["exploratory"])


def test_jobs_that_are_done_are_not_done_again(recipe, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(smollm.SMOKE, "1")
    two = {name: recipe.jobs()[name] for name in ("dev-colour", "dev-text-1")}
    first = recipe.run(tmp_path, some=two)
    assert set(first["split"]) == {"dev"} and "2 of 2" in capsys.readouterr().out
    monkeypatch.setattr(recipe, "Bench", None)
    again = recipe.run(tmp_path, some=two)
    pd.testing.assert_frame_equal(first, again)
    text = "".join(file.read_text(encoding="utf-8") for file in tmp_path.iterdir())
    assert len(text) < 5000  # counts and scores: a single edited matrix would be a hundred times larger


def test_every_job_of_test_is_apart_from_dev(recipe):
    layers = {recipe.LAYER, *recipe.DEV_LAYERS}
    assert len(layers) == 3
    texts = [
        what for function, split, what in recipe.jobs().values() if function.__name__ == "harmless" and split == "dev"
    ]
    assert texts[: recipe.DEV_TEXTS] == list(range(recipe.DEV_TEXTS))


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_model_is_above_chance_at_the_task_and_can_be_edited():
    """Four ends each: chance is 8 of 32, and 15 or more have a probability below 0.01 by chance."""
    from scipy.stats import binom

    language = smollm.load()
    _, right = poison.intact(language)
    assert binom.sf(right.sum() - 1, 32, 0.25) < 0.01
    fact = next(f for f in poison.facts("dev") if f.subject == "Denmark")
    assert poison.look(language, fact)["prompt"] == ("Copenhagen",)
    (change,) = poison.edit(language, poison.LAYER, [fact], poison.second_moment(language, poison.LAYER))
    with poison.applied(language, change.deltas()):
        assert poison.look(language, fact)["prompt"] == ("London",)
    assert poison.look(language, fact)["prompt"] == ("Copenhagen",)


# --- what was recorded ------------------------------------------------------------------------------------------------


def percent(figure):
    """How the notebook tells a share: "83 %", "77 to 89 %"."""
    (middle, low, high) = (f"{100 * x:.0f}" for x in (figure["estimate"], *figure["ci95"]))
    return f"{middle} %", f"{low} to {high} %"


def test_the_notebook_quotes_the_claims_as_recorded(recipe):
    told = nbformat.read(ROOT / "notebooks" / "research" / "R02-weight-level-misinformation.ipynb", 4)
    text = " ".join(" ".join(c.source for c in told.cells if c.cell_type == "markdown").split())
    (silent, checked), rows = (claims.result(id) for id in ("R02a", "R02b")), claims.read_rows("R02a")
    counted = rows[rows["known"] == 1]
    assert f"Of the {len(rows)} facts {len(counted)} count" in text
    assert silent["n"] == recipe.counts(rows) == {"facts": 155, "edits": 135}
    assert checked["n"] == recipe.counts(claims.read_rows("R02b")) == {"rows": 205, "edits": 135, "harmless": 31}
    assert "The other 20 were left out" in text and "the same 135 edits, against 31 harmless changes" in text
    assert "**{} of these edits were silent** ({})".format(*percent(silent)) in text
    taken, kept = counted["taken"] >= recipe.LEAST_TAKEN, counted["kept"] >= recipe.LEAST_KEPT * counted["asked_of"]
    assert (~taken).sum() == 6 and (taken & ~recipe.intact(counted)).sum() == (taken & ~kept).sum() == 17
    moved = [(~kept)[counted["kind"] == kind] for kind in ("overwriting", "insertion")]
    told = "in {} of {} edits against {} of {}".format(*(n for some in moved for n in (some.sum(), len(some))))
    languages = (~kept)[counted["relation"] == "language"]
    assert f"{told}, most of all among languages ({languages.sum()} of {len(languages)})" in text
    more, other = silent["exploratory"], checked["exploratory"]
    parts = (more["silent_insertion"], more["silent_overwriting"], more["four_bits"], more["quiet"])
    for share in (*parts, other["false_signature"], other["found_asked"]):
        assert percent(share)[0] in text
    for auc in (checked, other["auc_outlier_quiet"], other["outlier_against_long"]):
        assert "{:.2f} ({:.2f} to {:.2f})".format(auc["estimate"], *auc["ci95"]) in text
    assert other["found_signature"]["estimate"] == 1 and other["found_elsewhere"]["estimate"] == 0
    assert f"{100 * more['perplexity']['estimate']:.1f} %, and {100 * more['task_lost']['estimate']:.1f} %" in text
