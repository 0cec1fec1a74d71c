"""Widgets: their callbacks, their alternative texts, and the HTML that stands in for them on the site."""

import re

import numpy as np
import pytest

from medimgen import dicom, metrics, perturb, widgets
from medimgen.data.fetch import fetch
from medimgen.errors import CourseError


@pytest.fixture(scope="module")
def film():
    return dicom.read(fetch("dicom-samples") / "RG1_UNCR.dcm")


def test_moving_a_slider_changes_the_picture_and_its_text(film):
    viewer = widgets.window_slider(film)
    before, shown = viewer.view.value, viewer.picture
    viewer.centre.value, viewer.width.value = 4500, 5000
    assert viewer.view.value != before
    assert 'alt="Film at centre 4500, width 5000"' in viewer.view.value
    assert np.array_equal(viewer.picture, dicom.window(film, 4500, 5000))
    assert not np.array_equal(viewer.picture, shown)


def test_the_site_gets_frames_and_jupyterlab_the_live_widget(film):
    data, _ = widgets.window_slider(film)._repr_mimebundle_()
    assert {"text/html", "application/vnd.jupyter.widget-view+json"} <= set(data)
    html = data["text/html"]
    assert html.count("<figure") == html.count("alt=") == 7
    assert html.count(" hidden>") == 6
    assert not re.search(r'src="(?!data:)', html)
    assert re.search(r'<label for="(frames-\w+)">.*<input id="\1" type="range"', html)


def test_frame_slider():
    frames = [("start", np.zeros((8, 8), np.uint8)), ("end", np.full((8, 8), 255, np.uint8))]
    slider = widgets.frame_slider("Step", frames)
    before = slider.view.value
    slider.slider.value = 1
    assert slider.view.value != before and 'alt="Step: end"' in slider.view.value
    assert 'value="1"' in slider.static()
    assert slider.slider.tooltip  # else its label says "null" to who points at it


def test_blind_game_counts_and_hides_nothing_but_the_answer():
    real, fake = np.full((12, 16, 16), 200, np.uint8), np.full((12, 16, 16), 50, np.uint8)
    game = widgets.blind_game(real, fake, trials=20)
    assert game.is_real.sum() == 10
    assert [bool(p.mean() > 100) for p in game.pictures] == game.is_real.tolist()
    for picture in game.pictures:
        (game.real if picture.mean() > 100 else game.synthetic).click()
    assert game.answers == [True] * 20 and game.real.disabled
    share = metrics.proportion(20, 20)
    assert f"20 of 20 right: 100% ({share.low:.0%} to 100%)" in game.view.value
    assert "All 20 films answered. That one was" in game.view.value and "<img" not in game.view.value
    game.guess(True)
    assert len(game.answers) == 20
    game.reset()
    game.guess(not game.is_real[0])
    assert game.score().startswith("0 of 1 right")


def test_votes_are_kept_with_what_was_done_and_exported(tmp_path):
    done = [{"perturbation": "motion", "severity": s, "seed": 0} for s in (0.1, 0.9)]
    ballot = widgets.vote([(row, np.full((16, 16), 90, np.uint8)) for row in done])
    assert "0.9" not in ballot.view.value and "motion" not in ballot.view.value  # blind to how far it was changed
    before = ballot.view.value
    ballot.yes.click()
    assert ballot.votes == [{**done[0], "leaves": True}] and ballot.view.value != before
    ballot.no.click()
    ballot.answer(True)  # there is no third film
    assert [v["leaves"] for v in ballot.votes] == [True, False] and ballot.yes.disabled
    path = ballot.export(tmp_path / "votes.csv")
    assert (
        path.read_text(encoding="utf-8") == "perturbation,severity,seed,leaves\nmotion,0.1,0,True\nmotion,0.9,0,False\n"
    )
    named = widgets.vote([(row, np.zeros((16, 16), np.uint8)) for row in done], reader="anna")
    named.answer(False)
    assert named.votes == [{"reader": "anna", **done[0], "leaves": False}]
    assert ballot.static().count("<figure") == 2
    folded = re.findall(r"(?s)<details>.*?</details>", ballot.static())
    assert "perturbation motion, severity 0.9" in folded[1] and ballot.static().count("0.9") == folded[1].count("0.9")


def test_the_game_s_page_tells_no_answer_before_it_is_unfolded():
    real, fake = np.zeros((2, 3, 16, 16), np.uint8)
    page = widgets.blind_game(real, fake, trials=4).static()
    assert sorted(re.findall(r"<details>.*?</summary>\s*(\w+)</details>", page)) == ["real"] * 2 + ["synthetic"] * 2
    assert not re.search("real|synthetic", re.sub(r"(?s)<details>.*?</details>", "", page))


def test_exported_votes_give_a_limit(tmp_path):
    severities = np.linspace(0.1, 0.6, 12).round(3)
    cases = [({"perturbation": "dose", "severity": s, "seed": 0}, np.zeros((16, 16), np.uint8)) for s in severities]
    files = []
    for k, limit in enumerate((0.3, 0.45)):
        ballot = widgets.vote(cases)
        for s in severities:
            ballot.answer(s <= limit)
        files.append(ballot.export(tmp_path / f"{k}.csv"))
    found = perturb.plausible_from(files)["dose"]
    assert 0.28 < found.severity < 0.47 and found.votes == 24 and found.readers == 2


def test_wilson_interval_is_the_published_one():
    """Newcombe 1998, table I: 15 of 148 gives 0.0624 to 0.1605 by Wilson's method without continuity correction."""
    share = metrics.proportion(15, 148)
    assert share.low == pytest.approx(0.0624, abs=5e-5) and share.high == pytest.approx(0.1605, abs=5e-5)


def test_a_game_with_too_few_pictures_says_how_many_it_takes():
    with pytest.raises(CourseError, match="trials=4"):
        widgets.blind_game(np.zeros((2, 8, 8), np.uint8), np.zeros((9, 8, 8), np.uint8), trials=20)
