"""medimgen.balance: counts are right and quick, a plan is priced, what fails a gate is noted, no test film leaves."""

import errno
import io
import json
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import cohen_kappa_score

from medimgen import balance, claims, dicom, generate, likeness
from medimgen.balance import exporting, filling, gates, reviewing
from medimgen.data import radiographs, tables
from medimgen.data.fetch import fetch
from medimgen.errors import CourseError

ROWS = {"nih": 112_120, "chexpert": 223_414, "padchest": 160_861, "vinbig": 15_000, "rsna": 26_684}
LIMITS = {"split": "dev", "films": 9, "agree": {"normal": 0.5, "viral": 0.5}, "grey": [0.1, 0.9], "saturation": 0.5}
LIMITS |= {"classifier_sha256": "c" * 64, "duplicate": 0.05}
TABLE = pd.DataFrame({"file": list("abcdefg"), "subtype": ["normal"] * 5 + ["viral"] * 2})


class Fake:
    """Smooth noise, another for each seed. Seed 1 is too dark, 2 repeats 0, 3 looks normal whatever was asked for."""

    sha256, stamp = "0" * 64, {}

    def __init__(self, copies=(), wait=None):
        self.made, self.copies, self.wait = 0, copies, wait

    def settings(self, prompt, n, seed, steps, guidance, negative):
        known = {"prompt": prompt, "negative": "", "n": n, "seed": seed, "steps": 4, "guidance": 1.0}
        return known | {"seeds": [seed + k for k in range(n)]}

    def make(self, settings):
        if self.wait:
            assert self.wait.wait(20)
        self.made += len(settings["seeds"])
        images = np.stack([self.draw(seed) for seed in settings["seeds"]])
        return generate.Result(images, settings | {"weights_sha256": self.sha256, "synthetic": True, "seconds": 0.1})

    def draw(self, seed):
        if seed in self.copies:
            return radiographs.load("pocket", tier="pocket").images[0]
        film = gaussian_filter(np.random.default_rng(0 if seed == 2 else seed).normal(size=(128, 128)), 6)
        film = (128 + 600 * film).clip(4, 250).astype(np.uint8)
        film[0, 0] = 255 * (seed == 3)
        return film // 16 if seed == 1 else film


class Reader:
    """A classifier that reads the class off the first pixel."""

    classes, sha256 = ("normal", "viral"), "c" * 64

    def predict(self, images):
        normal = (images[:, 0, 0] == 255) * 0.8 + 0.1
        return np.stack([normal, 1 - normal], 1)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A generator's folder that knows one film, which every export then refuses."""
    film = radiographs.load("pocket", tier="pocket").images[0]
    (tmp_path / "model").mkdir()
    likeness.save(tmp_path / "model", likeness.signs(film)[None], 0.2)
    for module in ("generate", "stream"):
        monkeypatch.setattr(f"medimgen.{module}.FOLDER", tmp_path / "model")
    monkeypatch.setattr(
        "medimgen.generate.too_like", lambda images, folder: likeness.too_like(images, tmp_path / "model")
    )
    return tmp_path / "model"


def viral(number=6, **more):
    return balance.plan(TABLE, {"viral": 2 + number}, seconds=0.1, **more)


def filled(folder, model, number=6, generator=None, **more):
    at = gates.Gates(Reader(), LIMITS, model)
    return balance.fill(viral(number), folder, generator or Fake(), at, **more).result(60)


# counting


def test_counts_of_the_course_s_films_hold_empty_cells():
    found = balance.analyse(radiographs.labels(), by=["subtype", "split"], unit="number")
    table, counts = radiographs.labels(), found.counts()
    for cell in found.counts():
        films = table[(table["subtype"] == cell[0]) & (table["split"] == cell[1])]
        row = found.cells[(found.cells["subtype"] == cell[0]) & (found.cells["split"] == cell[1])].iloc[0]
        assert (counts[cell], row["patients"]) == (len(films), films["number"].nunique())
    assert sum(counts.values()) == found.films == 5856 and found.smallest == ("viral", "pocket")
    assert found.empty == 1 and found.imbalance == np.inf and np.isnan(found.cells["weight"].iloc[-1])


def test_effective_number_is_that_of_cui():
    found = balance.analyse(TABLE, ["subtype"], beta=0.9)
    n = np.array([5, 2])
    effective = [sum(0.9**k for k in range(m)) for m in n]  # the paper's own sum, not its closed form
    assert found.cells["effective"].to_numpy() == pytest.approx(effective)
    assert found.cells["weight"].to_numpy() == pytest.approx(2 / np.array(effective) / (1 / np.array(effective)).sum())
    assert found.imbalance == 2.5 and found.simpson == pytest.approx(49 / 29)
    assert balance.analyse(TABLE, ["subtype"], beta=0).cells["weight"].tolist() == [1, 1]


def test_several_labels_a_film_and_a_class_thinned_away():
    table = pd.DataFrame({"finding": ["a|b", "b", None, "b|a|b"], "sex": pd.Categorical(["m"] * 4, ["f", "m"])})
    found = balance.analyse(table, ["finding", "sex"])
    assert found.counts()[("b", "m")] == 3 and found.counts()[("a", "f")] == 0 and found.empty == 3
    assert found.films == 4
    axis = balance.show_balance(found).axes[0]
    assert [t.get_text() for t in axis.texts] == ["3", "2", "1", "0", "0", "0"] and "4 films" in str(found)


@pytest.mark.parametrize(
    ("table", "by", "words"),
    [
        (TABLE, ["age"], "no column 'age'"),
        (TABLE[:0], ["subtype"], "0 films"),
        (pd.concat([TABLE, TABLE]), ["subtype"], "several rows"),
        (pd.DataFrame({c: range(400) for c in "ab"}), ["a", "b"], "160,000 combinations"),
    ],
)
def test_what_cannot_be_counted(table, by, words):
    with pytest.raises(CourseError, match=words):
        balance.analyse(table, by)


@pytest.mark.parametrize("name", ROWS)
def test_real_label_tables_have_one_row_a_film(name):
    films = balance.films(name)
    assert len(films) == ROWS[name] and films["film"].is_unique
    start = time.process_time()
    found = balance.analyse(films, ["finding"], "patient")
    assert time.process_time() - start < 5
    raw, counts = tables.load(name), {cell[0]: n for cell, n in found.counts().items()}
    known = {
        "nih": lambda: {f: raw["Finding Labels"].str.contains(f).sum() for f in ("Hernia", "Effusion")},
        "chexpert": lambda: {f: (raw[f] == 1).sum() for f in ("Edema", "Pleural Other")},
        "padchest": lambda: {"kyphosis": raw["Labels"].str.contains(r"' *kyphosis *'", na=False).sum()},
        "vinbig": lambda: {"ILD": raw[raw["class_name"] == "ILD"]["image_id"].nunique()},
        "rsna": lambda: {"pneumonia": raw[raw["Target"] == 1]["patientId"].nunique()},
    }[name]()
    assert {f: counts[f] for f in known} == known


def test_a_table_as_large_as_chexpert_s_takes_less_than_five_seconds():
    rng, n = np.random.default_rng(0), ROWS["chexpert"]
    words = np.array(["|".join(f"finding {k}" for k in range(14) if p >> k & 1) or "none" for p in range(2**14)])
    table = pd.DataFrame({"finding": words[rng.integers(2**14, size=n)], "sex": rng.choice(["f", "m"], n)})
    start = time.process_time()
    found = balance.analyse(table.assign(patient=rng.integers(60_000, size=n)), ["finding", "sex"], "patient")
    assert time.process_time() - start < 5 and found.films == n and len(found.cells) == 30


def test_films_that_overlap_are_not_put_together():
    with pytest.raises(CourseError, match="same films twice"):
        balance.films("nih", "rsna")
    with pytest.raises(CourseError, match="no such"):
        balance.films("mimic")


# planning


def test_deficits_become_prompts_with_a_price(tmp_path):
    wanted = balance.plan(TABLE, seconds=2.0)
    assert [(i.label, i.prompt, i.number) for i in wanted.items] == [(("viral",), "chest x-ray, viral pneumonia", 3)]
    assert (wanted.total, wanted.minutes) == (3, 0.1)
    assert balance.Plan.load(wanted.save(tmp_path / "plan.yml")) == wanted
    for target, number in ((7, {"normal": 2, "viral": 5}), (0.8, {"viral": 2}), ({("viral",): 4}, {"viral": 2})):
        assert {i.label[0]: i.number for i in balance.plan(TABLE, target, seconds=1).items} == number
    both = balance.analyse(TABLE.assign(sex=list("mmfffmm")), ["subtype", "sex"])
    words = {"f": "of a girl", "m": ""}
    found = {i.label: i.prompt for i in balance.plan(both, describe=words, seconds=1).items}
    assert found[("viral", "f")] == "chest x-ray, viral pneumonia, of a girl"
    assert found[("viral", "m")] == "chest x-ray, viral pneumonia"


def test_collection_list_of_lesson_3_is_read(tmp_path):
    item = {"label": "pneumonia", "words": "dark", "how_many": 12, "why": "flips", "perturbation": "exposure"}
    item |= {"share": 0.3, "ci95": [0.2, 0.4], "films": 40, "patients": 30, "flipped": []}
    document = {"model": {"name": "m", "sha256": "0"}, "made": "2026-01-01", "items": [item]}
    (tmp_path / "collection.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    wanted = balance.plan(tmp_path / "collection.yml", seconds=1.0)
    assert wanted.items == (balance.Item(("pneumonia",), "chest x-ray, pneumonia, dark", 12, "flips"),)
    (tmp_path / "collection.yml").write_text(yaml.safe_dump(document | {"items": [{"label": "x"}]}), encoding="utf-8")
    with pytest.raises(CourseError, match="collection.yml"):
        balance.plan(tmp_path / "collection.yml", seconds=1.0)


def test_time_of_an_image_is_measured_when_it_is_not_given(monkeypatch):
    """By a clock that only the generator moves: 0.08 s for a batch of eight."""
    generator, now = Fake(), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    generator.make = lambda settings: now.__setitem__(0, now[0] + 0.08)
    assert balance.plan(TABLE, generator=generator).seconds == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: balance.plan(TABLE, "half", seconds=1), "target='half'"),
        (lambda: balance.plan(TABLE, {"fungal": 3}, seconds=1), "no cell fungal"),
        (lambda: balance.plan(TABLE.assign(subtype=list("aaaaabb")), seconds=1), "no words for 'b'"),
        (lambda: viral(describe={"viral": "chest x-ray of Mr Smith, born 01/02/2020"}), "identifier|looks like"),
        (lambda: viral().change(0, number=-1), "number"),
        (lambda: balance.Plan.load("nowhere.yml"), "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be(call, words):
    with pytest.raises(CourseError, match=words):
        call()


def test_the_editor_changes_the_plan_and_says_what_it_costs():
    plan = balance.plan(TABLE, 7, seconds=6.0)
    widget = plan.edit()
    text, number = widget.fields[1]
    number.value = 15
    assert widget.plan == plan.change(1, number=15) and "17 films, 1.7 minutes" in widget.view.value
    text.value = "chest x-ray of Mr Smith, born 01/02/2020"
    assert widget.plan == plan.change(1, number=15) and "Not taken over (viral)" in widget.view.value
    number.value = 14
    assert "14" in widget.static() and "Not taken over (viral)" in widget.view.value  # the field still shows the name
    number.value, text.value = 15, "viral pneumonia, X-ay"
    assert widget.plan.items[1].prompt == "viral pneumonia, X-ay" and "In viral: &quot;X-ay&quot;" in widget.view.value
    assert "Not taken over" not in widget.view.value
    assert "X-ay" in widget.static() and "<caption>17 films" in widget.static()


# filling


def test_every_rejection_is_noted_with_its_gate_and_value(tmp_path, model):
    told = []
    done = filled(tmp_path / "out", model, generator=Fake(copies=(4,)), progress=lambda *x: told.append(x))
    rows = done.table.set_index("seed")
    failed = {"memorisation": 4, "exposure": 1, "proxy": 3, "duplicate": 2}
    assert {gate: rows.index[rows["failed"].str.contains(gate)].tolist() for gate in failed} == {
        gate: [seed] for gate, seed in failed.items()
    }
    assert rows.loc[4, "memorisation"] == 0 and rows.loc[2, "duplicate"] == 0 and rows.loc[3, "proxy"] < 0.5
    assert rows.loc[1, "grey"] < 0.1 and done.met and not done.capped and told[-1] == (6, 6)
    assert done.rates() == pytest.approx(dict.fromkeys(failed, 1 / 10) | {"kept": 6 / 10})
    kept = rows.loc[rows["failed"] == "", "file"].tolist()
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == kept and len(kept) == 6
    saved = pd.read_csv(tmp_path / "out" / "gates.tsv", sep="\t", keep_default_na=False)
    assert saved["failed"].tolist() == done.table["failed"].tolist()
    with Image.open(tmp_path / "out" / kept[0]) as picture:
        record = json.loads(picture.info["Record"])
        assert picture.info["Synthetic"] == "true" and (record["label"], record["seed"]) == ("viral", 0)
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["facts"]["rates"]["proxy"] == 0.1 and run["facts"]["drawn_and_kept"] == [[10, 6]]


def test_the_cap_is_said(tmp_path, model, capsys):
    class Stuck(Fake):
        def draw(self, seed):
            return super().draw(3)

    done = filled(tmp_path / "out", model, 2, Stuck())
    assert not done.met and done.capped == [0] and len(done.table) == 8 and "cap of 4 times" in capsys.readouterr().out


def test_a_cancelled_fill_goes_on_where_it_stopped(tmp_path, model):
    gate, generator = threading.Event(), Fake(wait=threading.Event())
    at = gates.Gates(Reader(), LIMITS, model)
    work = balance.fill(viral(20), tmp_path / "out", generator, at, progress=lambda *x: gate.set())
    assert work.running and work.kept == 0
    with pytest.raises(CourseError, match="0 of 20 films so far"):
        work.result(0.01)
    work.cancel()
    generator.wait.set()
    part = work.result(60)
    assert not part.met and len(part.table) == generator.made == 8 and not part.capped
    again = Fake()
    whole = balance.fill(viral(20), tmp_path / "out", again, at).result(60)
    once = balance.fill(viral(20), tmp_path / "once", Fake(), at).result(60)
    assert again.made == len(once.table) - 8 and whole.met and whole.table.equals(once.table)
    for name in (p.name for p in (tmp_path / "once").glob("*.png")):
        assert np.array_equal(Image.open(tmp_path / "out" / name), Image.open(tmp_path / "once" / name))


def test_a_fill_refuses_what_it_cannot_do(tmp_path, model):
    at = gates.Gates(Reader(), LIMITS, model)
    with pytest.raises(CourseError, match="asks for no films"):
        balance.fill(viral(0), tmp_path / "out", Fake(), at)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(CourseError, match="holds something else"):
        balance.fill(viral(), tmp_path / "full", Fake(), at)
    filled(tmp_path / "out", model)
    with pytest.raises(CourseError, match="another plan"):
        balance.fill(viral(7), tmp_path / "out", Fake(), at)
    adapter = Fake()
    adapter.stamp = {"patient_derived": True}
    with pytest.raises(CourseError, match="patient-derived"):
        balance.fill(viral(), tmp_path / "adapter", adapter, at)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("method", ["mkdir", "replace"])
def test_read_only_folder_and_full_disk(tmp_path, model, monkeypatch, method):
    def fail(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    done = filled(tmp_path / "made", model)
    monkeypatch.setattr(Path, method, fail)
    with pytest.raises(CourseError, match="cannot write .*No space left"):
        balance.fill(viral(), tmp_path / "out", Fake(), gates.Gates(Reader(), LIMITS, model))
    with pytest.raises(CourseError, match="cannot write .*No space left"):
        balance.export(done.folder, tmp_path / "to")
    monkeypatch.undo()
    assert not [p for p in tmp_path.iterdir() if p.name not in ("model", "made", "out")]
    assert not (tmp_path / "out" / filling.SETTINGS).exists()


def test_a_disk_that_fills_while_drawing_is_said_by_result(tmp_path, model, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filling, "save_png", fail)
    with pytest.raises(CourseError, match="No space left"):
        filled(tmp_path / "out", model)
    monkeypatch.undo()
    assert not list((tmp_path / "out").glob("*.p*g"))


def test_limits_are_those_of_the_films_they_were_set_on():
    shipped = gates.Gates.load()
    assert (
        shipped.limits["split"] == "dev" and shipped.limits["films"] == (radiographs.labels()["split"] == "dev").sum()
    )
    films = radiographs.load("pocket", tier="pocket")
    found = gates.Gates.measure(films, shipped.classifier).limits
    assert found["films"] == 16 and found["grey"][0] < films.images.mean() / 255 < found["grey"][1]
    score = shipped.classifier.predict(films.images)[:, 0]
    normal = (films.table["subtype"] == "normal").to_numpy()
    best = max((score[normal] >= t).mean() - (score[~normal] >= t).mean() for t in score)
    t = found["agree"]["normal"]
    assert (score[normal] >= t).mean() - (score[~normal] >= t).mean() == pytest.approx(best)
    rows = shipped.values(films.images, [("normal",)] * 16, [])
    assert all("memorisation" not in r["failed"] for r in rows)


# review


def two_readers(folder, first, second):
    names = sorted(p.name for p in folder.glob("*.png"))
    for reader, verdicts in (("one", first), ("two", second)):
        gallery = balance.review(folder, reader)
        assert gallery.files == names and not gallery.accept.disabled
        for yes in verdicts:
            (gallery.accept if yes else gallery.reject).click()
        assert gallery.accept.disabled == (len(verdicts) == len(names))
    return names


def test_review_is_kept_and_two_readers_are_compared(tmp_path, model):
    folder = filled(tmp_path / "out", model, 12).folder
    first, second = [1] * 8 + [0] * 4, [1] * 7 + [0] * 3 + [1, 0]
    names = two_readers(folder, first, second)
    lines = (folder / "review.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 25 and lines[1].split("\t")[:3] == ["one", names[0], "accept"]
    kappa = balance.agreement(folder, draws=300)
    assert kappa.estimate == pytest.approx(cohen_kappa_score(first, second)) and kappa.low < kappa.estimate < kappa.high
    assert f"kappa {kappa.estimate:.2f}" in reviewing.summary(folder)
    balance.decide(folder, "one", names[0], "reject")
    assert balance.decisions(folder).query("reviewer == 'one'").iloc[-1]["verdict"] == "reject"
    gallery = balance.review(folder, "three")
    assert f"{len(names)} left" not in gallery.static() and 'alt="' in gallery.view.value
    gallery.answer("accept")
    assert balance.review(folder, "three").files == names[1:]


def test_no_kappa_without_two_readers_or_two_verdicts(tmp_path, model):
    folder = filled(tmp_path / "out", model).folder
    assert "Nobody" in reviewing.summary(folder)
    balance.decide(folder, "one", "00-000000.png", "accept")
    with pytest.raises(CourseError, match="1 reviewers"):
        balance.agreement(folder)
    with pytest.raises(CourseError, match="perhaps"):
        balance.decide(folder, "one", "00-000000.png", "perhaps")
    (folder / "review.tsv").unlink()
    two_readers(folder, [1] * 6, [1] * 6)
    with pytest.raises(CourseError, match="kappa does not exist"):
        balance.agreement(folder)
    assert "No kappa" in reviewing.summary(folder)


# export


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_export_is_marked_and_says_how_it_was_made(tmp_path, model, kind):
    folder = filled(tmp_path / "out", model, generator=Fake(copies=(4,))).folder
    gone = sorted(p.name for p in folder.glob("*.png"))[0]
    balance.decide(folder, "one", gone, "reject")
    to = balance.export(folder, tmp_path / "to", kind=kind, table=TABLE)
    listed = pd.read_csv(to / "films.tsv", sep="\t")
    assert len(listed) == 5 and Path(gone).stem not in {Path(f).stem for f in listed["file"]}
    for row in listed.itertuples():
        assert exporting.report.file_sha256(to / row.file) == row.sha256
        if kind == "png":
            assert Image.open(to / row.file).info["Synthetic"] == "true"
        else:
            read = dicom.read(to / row.file)
            assert read.header.SyntheticData == "YES" and "viral pneumonia" in read.header.DerivationDescription
            assert read.header.ContributingEquipmentSequence[0].Manufacturer == "medimgen"
            assert np.array_equal(read.pixels, Image.open(folder / row.file.replace(".dcm", ".png")))
    sheet = (to / "README.md").read_text(encoding="utf-8")
    for words in ("not for diagnosis", "proxy: 10.0%", "viral: 2 and 5", "one: 1 films, 1 rejected", Fake.sha256):
        assert words in sheet
    assert balance.Plan.load(to / "plan.yml") == viral() and {"run.json", "gates.tsv"} <= {p.name for p in to.iterdir()}
    assert not list(tmp_path.glob(".to*"))


def changed(film, quality, shares, side):
    w, h = film.size
    a, b, c, d = shares
    film = film.crop((round(a * w), round(b * h), w - round(c * w), h - round(d * h))).resize((side, side))
    buffer = io.BytesIO()
    film.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("L")


@pytest.mark.parametrize(
    ("quality", "shares", "side"),
    [(60, (0.05,) * 4, 224), (95, (0.05, 0, 0, 0), 128), (60, (0, 0.05, 0.05, 0), 512), (75, (0.03,) * 4, 200)],
)
def test_a_test_film_under_another_name_is_refused(tmp_path, model, monkeypatch, quality, shares, side):
    """With pocket films in the part of the test films, so that no test film is needed and both tiers try it."""
    films = [
        Image.fromarray(radiographs.original(f)) for f in radiographs.load("pocket", tier="pocket").table["file"][::2]
    ]
    known = np.concatenate([exporting.middles(film, [(exporting.MARGIN,) * 4]) for film in films[:4]])
    np.savez(tmp_path / "known.npz", signs=np.packbits(known, axis=1))
    monkeypatch.setattr(exporting, "KNOWN", tmp_path / "known.npz")
    made = [exporting.distance_to_test(changed(film, quality, shares, side)) for film in films]
    assert max(made[:4]) < exporting.THRESHOLD < min(made[4:])
    folder = filled(tmp_path / "out", model, 2).folder
    assert balance.official_test_films(folder) == []
    changed(films[3], quality, shares, side).save(folder / "drawn" / "notes", "BMP")
    dicom.write(folder / "a.dcm", np.asarray(films[2]), synthetic=True, description="not so")
    Image.fromarray(np.asarray(films[1]).astype(np.uint16) * 200).save(folder / "b.png")
    assert balance.official_test_films(folder) == ["a.dcm", "b.png", "drawn/notes"]
    with pytest.raises(CourseError, match="3 files show films of the official test split"):
        balance.export(folder, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_signs_of_all_test_films_are_there_and_no_other_film_has_them():
    table = radiographs.labels()
    with np.load(exporting.KNOWN) as kept:
        signs = np.unpackbits(kept["signs"], axis=1, count=likeness.BITS).astype(bool)
    assert len(signs) == (table["split"] == "test").sum() == 624
    films = radiographs.load("pocket", tier="pocket")
    assert min(exporting.distance_to_test(film) for film in films.images) > exporting.THRESHOLD


def test_signs_belong_to_the_test_films(tier):
    """Each tier: rows of the file lie near no pocket film; where the test films are, each row is its film's."""
    recipe = claims.load_recipe("recipes/make_gates.py")
    with np.load(exporting.KNOWN) as kept:
        signs = np.unpackbits(kept["signs"], axis=1, count=likeness.BITS).astype(bool)
    split = "test" if tier == "full" else "pocket"
    films = recipe.pictures(split, 16) if tier == "full" else [
        Image.fromarray(f) for f in radiographs.load("pocket", tier="pocket").images
    ]  # fmt: skip
    near = likeness.distances(recipe.signs(films), signs).min(1)
    assert (near == 0).all() if tier == "full" else near.min() > exporting.THRESHOLD


@pytest.mark.parametrize("wrong", ["unmarked", "adapter", "copy"])
def test_what_may_not_leave(tmp_path, model, monkeypatch, wrong):
    folder = filled(tmp_path / "out", model, 2).folder
    film = sorted(folder.glob("*.png"))[0]
    if wrong == "unmarked":
        Image.fromarray(np.asarray(Image.open(film))).save(film)
    if wrong == "adapter":
        record = {"seed": 1, "patient_derived": True}
        generate.save_png(film, np.asarray(Image.open(film)), record, local_only=True)
    if wrong == "copy":
        monkeypatch.setattr(exporting, "FOLDER", model)
        likeness.save(model, likeness.signs(np.asarray(Image.open(film)))[None], 0.2)
    words = {"unmarked": "not marked synthetic", "adapter": "patient-derived", "copy": "too like a film"}[wrong]
    with pytest.raises(CourseError, match=words):
        balance.export(folder, tmp_path / "to")
    assert not list(tmp_path.glob("*to*")) and not list(tmp_path.glob(".to*"))


def test_nothing_to_export_or_nowhere_to_go(tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="no film to export"):
        balance.export(tmp_path / "empty", tmp_path / "to")
    folder = filled(tmp_path / "out", model, 2).folder
    for kind, to in (("tiff", "to"), ("png", "empty")):
        with pytest.raises(CourseError, match="not there yet"):
            balance.export(folder, tmp_path / to, kind=kind)
    for film in folder.glob("*.png"):
        balance.decide(folder, "one", film.name, "reject")
    with pytest.raises(CourseError, match="no film to export"):
        balance.export(folder, tmp_path / "to")


def test_a_film_without_a_patient_is_not_counted_as_somebody_elses():
    table = pd.DataFrame({"subtype": ["viral", "viral", "normal"], "patient": ["a", None, "b"]})
    with pytest.raises(CourseError, match="rows without patient: 1"):
        balance.analyse(table, ["subtype"], unit="patient")


def test_a_test_film_hidden_behind_another_frame_is_seen(tmp_path):
    """Every frame of a DICOM file is compared, and the file's first is not all of it."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 40, 50)).astype(np.uint8)
    ds = pydicom.dcmread(fetch("dicom-samples") / "RG1_UNCR.dcm")
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = 40, 50, 2, 1
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.PixelData = 7, 0, frames.tobytes()
    ds.save_as(tmp_path / "two.dcm")
    seen = [np.asarray(picture) for picture in exporting._frames(tmp_path / "two.dcm")]
    assert len(seen) == 2 and not np.array_equal(seen[0], seen[1])
