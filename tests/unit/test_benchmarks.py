"""The benchmark of the robustness test counts crossings rightly, and runs on a few films with what is installed."""

import json

import numpy as np
import pytest
from benchmarks import robustness as bench

from medimgen.perturb import PERTURBATIONS, apply


def test_how_fine_a_grid_has_to_be():
    crossings = np.linspace(0.0005, 0.9995, 1000)
    assert bench.grid_late(crossings, 20) == pytest.approx(0.8, abs=0.02)  # a step of 0.05, 0.01 allowed
    assert bench.grid_late(crossings, 100) == 0
    assert bench.equal_steps(crossings, 0) == 100 and bench.equal_steps(crossings, 0.5) == pytest.approx(50, abs=2)
    assert bench.late(np.array([0.2, 0.22, np.inf]), np.array([0.19, 0.2, 0.3])).tolist() == [False, True, True]


class Dimmed:
    """Calls a film positive while its mean is above `level`."""

    def __init__(self, level):
        self.level = level

    def __call__(self, x):
        positive = x.mean((1, 2)) > self.level
        return np.stack([~positive, positive], 1).astype(float)


@pytest.mark.parametrize("together", [False, True])
def test_the_peers_grid_finds_the_first_flip(together, monkeypatch):
    fading = {name: ("nobody", None) for name in PERTURBATIONS}
    monkeypatch.setattr(
        bench, "operators", lambda s: {n: (p, lambda f: f / 255 * (1 - s)) for n, (p, _) in fading.items()}
    )
    films = np.full((3, 8, 8), 255, np.uint8)
    groups = [np.arange(3)] if together else [np.array([i]) for i in range(3)]
    flips, asked = bench.peer_grid(Dimmed(0.655), films, 10, groups)
    assert np.all(flips == 0.4) and asked == 3 * len(PERTURBATIONS) * 4


def test_peers_do_what_ours_do_and_more_of_it_with_severity():
    film = bench.dev(1)[0]
    size = {}
    for s in (0.25, 0.75):
        for name, (peer, operator) in bench.operators(s).items():
            theirs = bench.unit(operator(film))
            assert theirs.shape == film.shape and theirs.dtype == np.float32
            size[name, s] = np.abs(theirs - bench.unit(film)).mean()
            ours = np.abs(apply(name, bench.unit(film), s) - bench.unit(film)).mean()
            assert 0.2 < size[name, s] / ours < 5, (name, peer)
    assert all(size[name, 0.75] > size[name, 0.25] for name in PERTURBATIONS)


def test_a_small_run(monkeypatch, tmp_path):
    few = ("contrast", "text", "resolution")
    monkeypatch.setattr(bench, "RESULT", tmp_path / "bench.json")
    monkeypatch.setattr(bench, "QUICK", (3, 1, 2, 2, 1, 40, 1))
    monkeypatch.setattr(bench, "NAMES", few)
    found = bench.main(["stream", "job", "missed", "profile", "--quick", "--record"])
    assert not bench.RESULT.exists() and json.dumps(found)
    assert found["stream"]["files"] == 40 and found["stream"]["faults"] == 0
    assert found["stream"]["resumed_in_seconds"] < found["stream"]["seconds"]
    job = found["job"]
    assert job["grid_late"] <= job["ours_late"] + 1e-9 and set(job["operators_from"]) == set(few)
    for name, films in (("film_by_film", 1), ("severity_by_severity", 2)):
        assert 3 * films <= job[name]["asked"] <= 3 * films * job["grid_steps"] and job[name]["scaled_by"] == 3 / films
    assert set(found["missed"]["late_and_crossings"]) == set(few)
    shares = [found["profile"][part] for part in ("perturbation", "model", "likeness", "reading", "rest")]
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0 and shares[1] > 0.1


def test_a_section_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="2"):
        bench.main(["speed"])
