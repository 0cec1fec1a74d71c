"""medimgen.segment: shapes, errors, overlap; and what recipes/generator/control.py does to films and masks."""

import json

import numpy as np
import pytest
import torch
from generator import control

from medimgen import segment
from medimgen.errors import CourseError


def chest(size=128):
    """A mask with two lungs, the left one in the picture a little taller."""
    mask = np.zeros((size, size), bool)
    mask[30:100, 20:55], mask[40:100, 70:110] = True, True
    return mask


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    segment.save(segment.Net(), tmp_path / "net", {"learnt_from": "nothing"})
    return tmp_path / "net"


def test_segmenter_answers_in_shape_and_alone_as_in_a_batch(folder):
    net = segment.Segmenter.load(folder)
    films = np.random.default_rng(0).integers(0, 256, (5, 128, 128), np.uint8)
    found = net(films, batch=2)
    assert found.shape == films.shape and found.dtype == bool and 0 < found.mean() < 1
    assert np.array_equal(net(films[3]), found[3:4])


@pytest.mark.parametrize(
    "films",
    [np.zeros((2, 128, 128)), np.zeros((2, 64, 64), np.uint8), np.zeros((2, 1, 128, 128), np.uint8)],
    ids=["float", "small", "channels"],
)
def test_segmenter_refuses_other_films(folder, films):
    with pytest.raises(CourseError, match="films"):
        segment.Segmenter.load(folder)(films)


def test_load_refuses_missing_and_changed_weights(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"sha256": "0"}), encoding="utf-8")
    with pytest.raises(CourseError, match="not the file"):
        segment.Segmenter.load(folder)
    config.unlink()
    with pytest.raises(CourseError, match=r"config\.json"):
        segment.Segmenter.load(folder)


def test_dice_by_hand():
    a, b = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True  # 8 and 8 pixels, 4 in common
    a[1, 0] = True
    assert segment.dice(a, b) == pytest.approx([0.5, 0, 1])


def test_halved_cuts_one_lung_and_leaves_the_other():
    mask = chest()
    for side, columns in ((0, slice(20, 55)), (1, slice(70, 110))):
        cut = control.halved(mask, side)
        assert cut[:, columns].sum() == mask[:, columns].sum() / 2
        other = np.ones(128, bool)
        other[columns] = False
        assert np.array_equal(cut[:, other], mask[:, other])


def test_turned_is_clockwise_and_keeps_the_area():
    mask = np.zeros((1, 128, 128), bool)
    mask[0, 20:60, 60:68] = True  # a bar from the middle upwards
    back = control.turned(mask, 90)
    assert back[0, 60:68, 70:108].all() and abs(back.sum() - mask.sum()) < 30


def test_film_with_a_raised_base_belongs_to_the_halved_mask():
    mask = chest()
    film = torch.from_numpy(np.where(mask, -0.8, np.linspace(0, 1, 128)[:, None])).float()
    pairs = torch.stack([film, torch.from_numpy(mask).float() * 2 - 1])[None]
    out = control.raise_base(pairs, mask[None], np.random.default_rng(3))
    found, numbers = (out[0, 1] > 0).numpy(), np.random.default_rng(3)
    wanted = control.halved(mask, int(numbers.integers(2)), numbers.uniform(0.35, 0.8))
    assert segment.dice(found[None], wanted[None])[0] > 0.99 > segment.dice(found[None], mask[None])[0]
    assert ((out[0, 0] < -0.4).numpy() == found).mean() > 0.995  # the film changed with its mask


def test_shipped_segmenter_finds_lungs_it_never_saw():
    if not segment.FOLDER.is_dir():
        pytest.skip("no models/cxr-segmenter")
    from medimgen.data import radiographs

    net = segment.Segmenter.load()
    assert net.facts["learnt_from"] == "clinic"
    found = net(radiographs.load("pocket", tier="pocket").images)
    sides = found[:, :, :64].mean((1, 2)), found[:, :, 64:].mean((1, 2))
    assert all(0.1 < side.mean() < 0.8 for side in sides)
    assert 0.15 < found.mean() < 0.55 and (found[:, :6].mean((1, 2)) < 0.2).all()
