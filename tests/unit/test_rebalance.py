"""The experiments of lesson 2: what each arm learns from, and figures on tables whose answer is planted. No trained
weights are used.
"""

import numpy as np
import pandas as pd
import pytest

from medimgen import claims
from medimgen.data import radiographs
from medimgen.generate import Generator

KINDS = ("normal", "bacterial", "viral")


def real(split):
    """The course's own table of a split, with a 1-pixel film each."""
    table = radiographs.labels().query("split == @split").reset_index(drop=True)
    return radiographs.Films(np.zeros((len(table), 1, 1), np.uint8), table)


def blank(split, n=60):
    """Films of random pixels in the place of a split; two films a patient."""
    rng = np.random.default_rng(len(split))
    kinds = np.array(KINDS)[np.arange(n) % 3]
    table = pd.DataFrame({"subtype": kinds, "number": [f"{split}-{k // 6}" for k in range(n)]})
    return radiographs.Films(rng.integers(0, 256, (n, 128, 128)).astype(np.uint8), table)


class Fake:
    """A generator that draws the seed into the first pixels, and counts what it is asked for."""

    sha256 = "0" * 64

    def __init__(self):
        self.asked = []

    def stream(self, jobs, batch=8):
        self.asked += jobs
        images = np.stack([np.full((128, 128), seed % 251, np.uint8) for _, seed in jobs])
        yield type("Result", (), {"images": images})


@pytest.fixture
def small(monkeypatch):
    """Few films, few steps, a generator that costs nothing."""
    import rebalance

    fake, asked = Fake(), []
    monkeypatch.setattr(radiographs, "load", lambda split, **_: asked.append(split) or blank(split))
    monkeypatch.setattr(Generator, "load", lambda *_: fake)
    monkeypatch.setattr(rebalance.generate, "weights_sha256", lambda _: "0" * 64)
    monkeypatch.setattr(rebalance, "too_like", lambda images, _: images[:, 0, 0] == 0)
    monkeypatch.setattr(rebalance.tstr, "BATCH", 4)
    for name, value in {"REMOVED": 9, "STEPS": 2}.items():
        monkeypatch.setattr(rebalance, name, value)
    fake.splits = asked
    return fake


# --- L2a --------------------------------------------------------------------------------------------------------------


def test_thinning_drops_only_viral_films_of_whole_numbers():
    import rebalance

    table, left = real("clinic").table, []
    viral = (table["subtype"] == "viral").to_numpy()
    for draw in rebalance.ALL:
        keep = rebalance.thinned(table, draw)
        assert keep[~viral].all() and (keep & viral).sum() == round(653 / 20) == 33
        assert table[viral].assign(kept=keep[viral]).groupby("number")["kept"].nunique().max() == 1
        assert (~keep).sum() == rebalance.REMOVED
        left.append(frozenset(np.flatnonzero(keep & viral)))
    assert len(set(left)) == len(rebalance.ALL) == 10
    assert np.array_equal(keep, rebalance.thinned(table, draw))


def test_no_arm_learns_from_dev_test_or_pocket(monkeypatch, tmp_path):
    import rebalance

    monkeypatch.setattr(radiographs, "load", lambda split, **_: real(split))
    monkeypatch.setattr(rebalance, "block", lambda source, k, work: np.full((340, 1, 1), k, np.uint8))
    monkeypatch.setattr(rebalance, "cell", lambda *_: None)
    proxy = type("Proxy", (), {"predict": lambda self, x: np.tile(np.arange(len(x))[:, None], 3)})()
    monkeypatch.setattr(rebalance, "network", lambda _: proxy)
    table = radiographs.labels().astype({"number": str})
    held = {split: set(table.loc[table["split"] == split, "number"]) for split in ("dev", "test", "pocket", "donor")}
    for arm, plan in rebalance.ARMS.items():
        images, kinds, who = rebalance.learnt(arm, 1, tmp_path)
        own = set(who) - {""}
        assert not own & (held["dev"] | held["test"] | held["pocket"]), arm
        assert bool(own & held["donor"]) == (arm == "donor")
        more = round(plan.times * 340) if plan.source else 0
        assert len(images) == len(kinds) == 1060 + more
        assert (who == "").sum() == (more if plan.source != "donor" else 0)


def test_filter_is_the_draws_own_classifier_and_keeps_what_it_finds_most_viral(monkeypatch, tmp_path, small):
    import rebalance

    asked = []
    monkeypatch.setattr(rebalance, "cell", lambda *a: asked.append(a[:2]))
    proxy = type("Proxy", (), {"predict": lambda self, x: np.stack([x[:, 0, 0]] * 3, 1).astype(float)})()
    monkeypatch.setattr(rebalance, "network", lambda _: proxy)
    films, kinds, who = rebalance.added("filtered", 4, tmp_path)
    assert asked == [("weights", 4)] and len(films) == 9 and set(kinds) == {2} and set(who) == {""}
    twice = np.concatenate([np.load(f) for f in tmp_path.glob("plain-*.npy")])[:, 0, 0]
    assert len(twice) == 18 and sorted(films[:, 0, 0]) == sorted(twice)[9:]
    assert {prompt for prompt, _ in small.asked} == {"chest x-ray, viral pneumonia"}


def test_generated_films_are_made_once_and_copies_left_out(tmp_path, small):
    import rebalance

    first = rebalance.block("rich", 0, tmp_path)
    again = rebalance.block("rich", 0, tmp_path)
    assert np.array_equal(first, again) and len(small.asked) == 9
    gone = sum(seed % 251 == 0 for _, seed in small.asked)
    assert len(first) == 9 - gone and not (first == 0).any()
    prompts = {prompt for prompt, _ in small.asked}
    assert len(prompts) > 3 and all(p.startswith("chest x-ray, viral pneumonia, ") for p in prompts)


def test_negative_control_shuffles_labels_of_the_same_films(monkeypatch, tmp_path, small):
    import rebalance

    monkeypatch.setattr(rebalance, "network", lambda _: rebalance.Classifier(rebalance.Net()))
    monkeypatch.setattr(rebalance, "cell", lambda *_: None)
    rebalance.torch.manual_seed(0)
    monkeypatch.setattr(rebalance.Classifier, "predict", lambda self, x: np.ones((len(x), 3)))
    good, kinds, _ = rebalance.added("filtered", 0, tmp_path)
    same, shuffled, _ = rebalance.added("shuffled", 0, tmp_path)
    assert np.array_equal(good, same) and set(kinds) == {2}
    assert np.bincount(shuffled).tolist() == [3, 3, 3] and (np.diff(shuffled) < 0).any()


def test_every_arm_takes_the_same_steps_and_a_cell_is_trained_once(monkeypatch, tmp_path, small):
    import rebalance

    steps, net = [], rebalance.Net().eval()

    def train(images, kinds, draw, even, n):
        steps.append((n, even))
        return net

    monkeypatch.setattr(rebalance, "train", train)
    for arm in rebalance.ARMS:
        path = rebalance.cell(arm, 0, tmp_path)
        assert path.is_file() and len(pd.read_csv(path.with_suffix(".csv"))) == 60
    assert [n for n, _ in steps] == [rebalance.STEPS] * len(rebalance.ARMS)
    assert [e for _, e in steps].count("weights") == len(rebalance.ARMS) - 2
    before = len(steps)
    for arm in rebalance.ARMS:
        rebalance.cell(arm, 0, tmp_path)
    assert len(steps) == before and "test" not in small.splits


def test_a_stopped_cell_leaves_nothing_that_counts(monkeypatch, tmp_path, small):
    import rebalance

    whole = rebalance.cell("weights", 0, tmp_path / "a")
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rebalance.cell("weights", 0, tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.csv"))
    monkeypatch.undo()
    monkeypatch.setattr(radiographs, "load", lambda split, **_: blank(split))
    monkeypatch.setattr(rebalance.tstr, "BATCH", 4)
    monkeypatch.setattr(rebalance, "STEPS", 2)
    again = rebalance.cell("weights", 0, tmp_path / "b")
    pd.testing.assert_frame_equal(*(pd.read_csv(p.with_suffix(".csv")) for p in (whole, again)))


def test_class_weights_make_the_rare_class_count(small):
    import rebalance

    kinds = np.array([0] * 8 + [1] * 8 + [2])
    films = np.random.default_rng(0).integers(0, 256, (17, 128, 128)).astype(np.uint8)
    nets = [rebalance.train(films, kinds, 0, even, 3) for even in ("nothing", "weights", "oversampling")]
    said = [rebalance.Classifier(net).predict(films)[:, 2].mean() for net in nets]
    assert len({round(float(x), 6) for x in said}) == 3


def test_rows_look_at_test_only_when_every_cell_is_there(monkeypatch, tmp_path, small):
    import rebalance

    looked = []

    def films():
        looked.append(len(list(tmp_path.glob("*.csv"))))
        rows = pd.DataFrame({"set": "test", "kind": blank("x").table["subtype"], "unit": blank("x").table["number"]})
        return blank("x").images, rows

    monkeypatch.setattr(rebalance, "test_films", films)
    two = {arm: rebalance.Arm(**vars(rebalance.ARMS[arm]) | {"draws": range(2)}) for arm in ("weights", "donor")}
    rows = rebalance.make_rows(tmp_path, arms=two)
    assert looked == [4] and rows["donor"].str.fullmatch("[nbv]{2}").all() and len(rows) == 60
    assert rows["weights_viral"].str.fullmatch("[A-Za-z]{2}").all() and rows["weights_tuned"].str.len().eq(2).all()


def planted(seed, right, adults=True):
    """Rows in which each arm calls a film rightly with probability `right[arm]` (else 0.6)."""
    import rebalance

    rng, n = np.random.default_rng(seed), 400
    kind = np.array(KINDS)[rng.choice(3, n, p=[0.4, 0.4, 0.2])]
    sets = np.where(np.arange(n) < 320, "test", "adults")
    kind = np.where((sets == "adults") & (kind != "normal"), "pneumonia", kind)
    rows = pd.DataFrame({"set": sets, "kind": kind, "unit": [f"u{k}" for k in rng.integers(0, 250, n)]})
    truth = np.array([{"normal": 0, "bacterial": 1, "pneumonia": 1, "viral": 2}[k] for k in kind])
    for arm, plan in rebalance.ARMS.items():
        hit = rng.random((n, len(plan.draws))) < right.get(arm, 0.6)
        codes = np.where(hit, truth[:, None], (truth[:, None] + rng.integers(1, 3, hit.shape)) % 3)
        rows[arm] = rebalance.words(list(codes.T), rebalance.LETTERS)
        if arm in rebalance.PRIMARY:
            rows[f"{arm}_tuned"] = rows[arm]
            score = (20 * (codes == 2) + rng.integers(0, 20, codes.shape)).astype(int)
            rows[f"{arm}_viral"] = rebalance.words(list(score.T), rebalance.FINE)
    return rows


def test_a_planted_gain_is_found_and_none_where_there_is_none(tmp_path):
    import rebalance

    null = rebalance.measure(planted(0, {}), 300, 0)
    gain = rebalance.measure(planted(1, {"filtered": 0.72}), 300, 0)
    loss = rebalance.measure(planted(2, {"filtered": 0.5}), 300, 0)
    assert null.low < 0 < null.high and null.p > 0.025
    assert gain.low > 0 and 0.06 < gain.estimate < 0.18 and gain.p < 0.01
    assert loss.high < 0 and loss.p > 0.9
    rows = planted(3, {"filtered": 0.72, "donor": 0.8, "shuffled": 0.4})
    rows.to_csv(tmp_path / "r.csv", index=False)
    again = pd.read_csv(tmp_path / "r.csv", keep_default_na=False, na_values=[""])
    found = rebalance.explore(again, 60, 0)
    assert found["gain_donor"].estimate > found["over_draws"].estimate > 0 > found["gain_shuffled"].estimate
    assert found["over_draws"].estimate == pytest.approx(rebalance.measure(rows, 60, 0).estimate)
    assert found["short_of_donor"].high < 0 < found["auc_viral"].low and found["filter"].low > 0
    assert found["adults_filtered"].estimate > 0 and found["f1_viral"].estimate > 0
    assert rebalance.count(again)["films"] == len(again)


def test_macro_f1_is_the_known_one():
    import rebalance
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    y, said = rng.integers(0, 3, 50), rng.integers(0, 3, (50, 2))
    counted = np.stack([np.ones(50), rng.integers(0, 3, 50)])
    ours = rebalance.f1(rebalance.confusion(y, said, 3), counted).mean(-1)
    for r in range(2):
        again = np.repeat(np.arange(50), counted[r].astype(int))
        for d in range(2):
            assert ours[r, d] == pytest.approx(f1_score(y[again], said[again, d], average="macro"))


def test_interval_grows_with_what_draws_and_patients_add():
    import draws

    rng = np.random.default_rng(0)
    still = np.zeros((401, 10)) + 0.05
    between = still + rng.normal(0, 0.05, 10)
    both = between + np.concatenate([[[0]], rng.normal(0, 0.05, (400, 1))])
    wide = [np.diff(list(draws.both_ways(v, 0))[1:])[0] for v in (still, between, both)]
    assert wide[0] == pytest.approx(0) and wide[0] < wide[1] < wide[2]
    units = pd.Series(["a", "a", "b", "c"])
    times = draws.resamples(units, 200, 0)
    assert (times[0] == 1).all() and (times[:, 0] == times[:, 1]).all() and (times.max() > 1)
    assert not (times[:, 1] == times[:, 2]).all()


# --- L2b --------------------------------------------------------------------------------------------------------------


def squares(split, n=60):
    """Films, masks, numbers and file names in the place of train_segmenter.pairs; a bright square is the lung."""
    rng = np.random.default_rng(len(split))
    masks = np.zeros((n, 128, 128), bool)
    for k, (i, j) in enumerate(rng.integers(20, 60, (n, 2))):
        masks[k, i : i + 40, j : j + 40] = True
    films = np.where(masks, 200, 40) + rng.integers(0, 30, masks.shape)
    files = radiographs.labels()["file"][:n].tolist()
    return films.astype(np.uint8), masks, np.array([f"{split}-{k // 2}" for k in range(n)]), files


class FakeControl:
    """Draws the mask it is given."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, n, seed, mask):
        self.asked.append((prompt, n, seed))
        return type("Result", (), {"images": np.where(mask, 180, 50).astype(np.uint8)})


@pytest.fixture
def masked(monkeypatch):
    import few_masks

    fake = FakeControl()
    monkeypatch.setattr(few_masks, "loaded", squares)
    monkeypatch.setattr(few_masks.control.Control, "load", lambda *_: fake)
    monkeypatch.setattr(few_masks, "stamp", lambda: "0" * 12)
    monkeypatch.setattr(few_masks, "STEPS", 1)
    return fake


def test_pairs_are_of_different_patients_nested_and_never_those_kept_aside():
    import few_masks

    numbers = squares("clinic")[2]
    for draw in few_masks.DRAWS[8]:
        few, more = few_masks.drawn(numbers, draw, 8), few_masks.drawn(numbers, draw, 16)
        assert np.array_equal(few, more[:8]) and len(set(numbers[more])) == 16
        assert not few_masks.held_out(numbers[more]).any()
    assert few_masks.held_out(numbers).any()


def test_masks_are_changed_and_drawn_once_for_every_size(tmp_path, masked):
    import few_masks

    films, masks, who = few_masks.learnt("made", 16, 0, tmp_path)
    assert len(masked.asked) == 16 and {n for _, n, _ in masked.asked} == {few_masks.EACH}
    assert len({seed for *_, seed in masked.asked}) == 16
    drawn = who == ""
    assert drawn.sum() == (~drawn).sum() == 16 * few_masks.EACH
    assert ((films[drawn] == 180) == masks[drawn]).all()
    one, two = masks[drawn][0], masks[drawn][1]
    assert not np.array_equal(one, two) and 500 < one.sum() < 3000
    fewer = few_masks.learnt("made", 8, 0, tmp_path)
    assert len(masked.asked) == 16 and np.array_equal(fewer[0][fewer[2] == ""], films[drawn][: 8 * few_masks.EACH])


def test_shuffled_masks_are_those_of_another_and_donor_films_are_the_ceiling(tmp_path, masked):
    import few_masks

    _, good, who = few_masks.learnt("made", 8, 2, tmp_path)
    _, bad, _ = few_masks.learnt("shuffled", 8, 2, tmp_path)
    rows = who == ""
    assert not (good[rows] == bad[rows]).all((1, 2)).any() and np.array_equal(good[~rows], bad[~rows])
    assert good[rows].sum() == bad[rows].sum()
    splits = {name.split("-")[0] for name in few_masks.learnt("donor", 8, 2, tmp_path)[2]}
    assert splits == {"clinic", "donor"}
    assert {name.split("-")[0] for name in few_masks.learnt("made", 8, 2, tmp_path)[2]} == {"clinic", ""}


def test_segmenters_take_the_same_steps_are_kept_and_see_dev_last(monkeypatch, tmp_path, masked):
    import few_masks

    steps, seen, first = [], [], few_masks.train
    monkeypatch.setattr(few_masks, "train", lambda f, m, d, n: steps.append(n) or first(f, m, d, n))
    monkeypatch.setattr(few_masks, "loaded", lambda split: seen.append(split) or squares(split))
    which = [(arm, 8, 0) for arm in few_masks.ARMS]
    rows = few_masks.make_rows(tmp_path, which)
    assert steps == [1] * 4 and seen.count("dev") == 1 and seen[-1] == "dev"
    pd.testing.assert_frame_equal(few_masks.make_rows(tmp_path, which), rows)
    assert steps == [1] * 4 and rows.filter(like="_8_0").to_numpy().max() <= 1000


def dice_rows(seed, gains):
    import few_masks

    rng, n = np.random.default_rng(seed), 150
    rows = {"unit": [f"u{k}" for k in rng.integers(0, 90, n)], "kind": np.array(KINDS)[rng.integers(0, 3, n)]}
    base = rng.normal(800, 60, n)
    for arm, size, draw in few_masks.cells():
        rows[f"{arm}_{size}_{draw}"] = (base + gains.get(arm, 0) + rng.normal(0, 15) + rng.normal(0, 20, n)).astype(int)
    return pd.DataFrame(rows)


def test_dice_figures_point_the_right_way():
    import few_masks

    null, gain = (few_masks.measure(dice_rows(0, {"made": g}), 300, 0) for g in (0, 60))
    assert null.low < 0 < null.high and null.p > 0.025
    assert gain.low > 0 and gain.p < 0.01 and gain.estimate == pytest.approx(0.06, abs=0.02)
    found = few_masks.explore(dice_rows(1, {"made": 60, "shuffled": -80, "donor": 90}), 50, 0)
    assert found["gain_shuffled_8"].high < 0 < found["over_draws"].estimate < found["gain_donor_8"].estimate
    assert found["dice_made_32"].estimate > found["dice_real_32"].estimate
    assert few_masks.count(dice_rows(0, {}))["films"] == 150


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["L2a", "L2b"])
def test_claims_name_the_figures_that_the_recipe_gives(id):
    import few_masks
    import rebalance

    recipe, rows = {"L2a": (rebalance, planted(0, {})), "L2b": (few_masks, dice_rows(0, {}))}[id]
    claim = claims.get(id)
    assert set(recipe.explore(rows, 20, 0)) == set(claim["exploratory"])
    assert claims.load_recipe(claim["recipe"]).measure(rows, 20, 0).p is not None


def test_recorded_rows_stay_below_the_limit():

    rows = pd.concat([planted(0, {}), planted(1, {})])[:692]
    assert len(rows.to_csv(index=False)) < claims.ROWS_LIMIT


# --- own data ---------------------------------------------------------------------------------------------------------


def test_inside_a_draw_no_other_film_can_be_loaded(monkeypatch):
    import owndata

    from medimgen.errors import CourseError

    monkeypatch.setattr(radiographs, "load", lambda split, **_: real(split))
    loader, clinic = radiographs.load, set(real("clinic").table["file"])
    for draw in owndata.DRAWS:
        films = owndata.left(draw)
        assert set(films.table["file"]) < clinic and (films.table["subtype"] == "viral").sum() == 33
        with owndata.only(films) as asked:
            seen = {f for split in ("donor", "dev") for f in radiographs.load(split).table["file"]}
            for split in ("clinic", "test", "pocket", None):
                with pytest.raises(CourseError):
                    radiographs.load(split)
        assert seen == set(films.table["file"]) and asked == ["donor", "dev"]
        assert radiographs.load is loader


def test_own_generator_learns_from_the_draw_alone(monkeypatch, tmp_path):
    """The stages of the real pipeline, their training replaced: everything they are handed comes from the draw."""
    import owndata
    from generator import attributes, autoencoder, diffusion, features, outlines

    handed, draw = [], blank("clinic", 12)
    clean = radiographs.Films(draw.images, draw.table.assign(mask=None))

    def stage(result):
        def take(*parts, **_):
            handed.extend(p for p in parts if isinstance(p, np.ndarray) and p.shape[1:] == (128, 128))
            return result

        return take

    monkeypatch.setattr(radiographs, "load", lambda split, **_: pytest.fail(f"asked for {split}"))
    monkeypatch.setattr(owndata.Recipe, "films", lambda self: {"x": radiographs.load("donor").images, "v_tilt": None})
    for module, name in ((features, "train"), (autoencoder, "start"), (autoencoder, "train"), (diffusion, "train")):
        monkeypatch.setattr(module, name, stage(None))
    monkeypatch.setattr(diffusion, "encode", stage(owndata.torch.zeros(12, 12, 16, 16)))
    monkeypatch.setattr(attributes, "levels", lambda *_: {})
    monkeypatch.setattr(outlines, "load_masks", lambda *_: pytest.fail("masks of other films"))
    monkeypatch.setattr(diffusion, "Data", lambda *a, **_: handed.append(a[1]) or type("D", (), {"tokenizer": None}))
    monkeypatch.setattr(diffusion, "sample", lambda *a: np.zeros((len(a[4]), 128, 128), np.uint8))
    (tmp_path / "edges.json").write_text("{}", encoding="utf-8")
    made = owndata.drawn(clean, 5, tmp_path, owndata.STEPS)
    assert len(made) == 5 and clean.table["subtype"].tolist() * 3 in [p for p in handed if isinstance(p, list)]
    films = [p for p in handed if isinstance(p, np.ndarray)]
    assert len(films) >= 4 and all(np.array_equal(p, clean.images) for p in films)


def test_own_data_figures_recover_what_is_planted():
    import draws
    import owndata

    rng, n = np.random.default_rng(0), 300
    truth = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    rows = pd.DataFrame({"kind": np.array(KINDS)[truth], "unit": [f"u{k}" for k in rng.integers(0, 200, n)]})
    for arm, right in (("weights", 0.6), ("own", 0.75)):
        hit = rng.random((n, 5)) < right
        rows[arm] = draws.words(list(np.where(hit, truth[:, None], (truth[:, None] + 1) % 3).T), draws.LETTERS)
    found = owndata.figures(rows, 200)
    assert found["gain"].low > 0 and found["f1_own"].estimate > found["f1_weights"].estimate
    none = owndata.figures(rows.assign(own=rows["weights"]), 50)
    assert none["gain"].estimate == none["gain"].low == 0


def test_a_draw_that_has_been_run_is_kept_and_not_run_again(monkeypatch, tmp_path):
    import owndata

    rng, asked = np.random.default_rng(0), []
    both = pd.concat(
        {arm: pd.DataFrame(rng.random((4, 3)).round(4), columns=KINDS) for arm in ("own", "weights")}, axis=1
    )

    def run(draw, work, steps):
        asked.append(draw)
        return both.copy(), 0.25

    monkeypatch.setattr(owndata, "run", run)
    monkeypatch.setattr(owndata, "DONE", tmp_path / "done")
    for _ in range(2):
        found, near = owndata.cell(3, tmp_path, owndata.STEPS)
        pd.testing.assert_frame_equal(found, both)
        assert near == 0.25
    assert asked == [3]
    owndata.cell(3, tmp_path, {name: 2 for name in owndata.STEPS})  # a smoke run neither reads nor writes there
    assert asked == [3, 3] and [file.name for file in (tmp_path / "done").iterdir()] == ["3.csv"]
