"""medimgen.generate on a tiny untrained pipeline, and on the shipped one where it is there."""

import json
import subprocess
import sys

import numpy as np
import pytest

from medimgen import generate
from medimgen.errors import CourseError


@pytest.fixture(scope="module")
def generator(tiny_model):
    return generate.Generator.load(tiny_model)


def test_noise_test_vectors():
    """The vectors printed in the docstring, which the site's JavaScript must repeat."""
    assert [int(v) for v in generate.hash_pcg3d(np.uint32(0), 0, 0)] == [2611992518, 2833812075, 1058359340]
    assert [int(v) for v in generate.hash_pcg3d(np.uint32(5), 7, 2)] == [506545701, 708482810, 1563293364]
    assert generate.noise(0, 0, 4) == pytest.approx([-0.53546137, -0.8413931, -0.46937746, 0.8336103], abs=1e-6)
    assert generate.noise(7, 2, 4) == pytest.approx([-1.4143867, -0.11090274, 0.3569368, 0.22263154], abs=1e-6)


def test_noise_agrees_with_plain_integer_arithmetic():
    """The same hash in Python's unbounded integers, cut to 32 bits after every operation."""
    cut = 2**32 - 1

    def plain(*numbers):
        x, y, z = ((v * 1664525 + 1013904223) & cut for v in numbers)
        for turn in range(2):
            x = (x + y * z) & cut
            y = (y + z * x) & cut
            z = (z + x * y) & cut
            if turn == 0:
                x, y, z = (v ^ (v >> 16) for v in (x, y, z))
        return x, y, z

    for numbers in ((0, 0, 0), (1, 2, 3), (4095, 2**32 - 1, 49), (77, 123456789, 4)):
        assert tuple(int(v) for v in generate.hash_pcg3d(np.uint32(numbers[0]), *numbers[1:])) == plain(*numbers)


def test_noise_is_standard_normal_and_seeds_are_unrelated():
    from scipy import stats

    drawn = np.stack([generate.noise(seed, stream, 2048) for seed in range(60) for stream in range(3)])
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 0.001
    likeness = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert abs(likeness).max() < 0.12 and likeness.std() * 2048**0.5 == pytest.approx(1, abs=0.05)
    assert np.array_equal(generate.noise(3, 1, 7), generate.noise(3, 1, 2048)[:7])


def test_image_of_a_batch_is_the_image_made_alone_with_one_thread_or_two(generator):
    import torch

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        many = generator("normal chest x-ray", n=8, seed=40)
        alone = [generator("normal chest x-ray", seed=40 + k).images[0] for k in (0, 5)]
        torch.set_num_threads(2)
        two = generator("normal chest x-ray", n=8, seed=40).images
    finally:
        torch.set_num_threads(threads)
    assert many.record["seeds"] == list(range(40, 48))
    assert many.images.dtype == np.uint8 and many.images.shape == (8, 16, 16)
    assert abs(many.images.astype(int) - two).max() <= 1
    for k, image in zip((0, 5), alone, strict=True):
        assert abs(many.images[k].astype(int) - image).max() <= 1
    assert abs(many.images[0].astype(int) - many.images[1]).max() > 1


def test_prompt_seed_steps_guidance_and_negative_change_the_image(generator):
    plain = generator("normal", seed=1)
    for other in ({"seed": 2}, {"steps": 2}, {"guidance": 4.0}, {"negative": "pneumonia"}):
        assert not np.array_equal(generator("normal", **{"seed": 1} | other).images, plain.images), other
    assert not np.array_equal(generator("pneumonia", seed=1).images, plain.images)
    assert np.array_equal(generator("normal", seed=1).images, plain.images)


def test_record_says_what_was_done(generator, tiny_model):
    result = generator("Normal X-ay, chest", seed=5)
    assert result.record["unseen"] == ["X-ay"]
    assert result.record["steps"] == 3 and result.record["guidance"] == 1.5
    assert result.record["weights_sha256"] == generate.weights_sha256(tiny_model)
    assert result.record["synthetic"] is True and result.record["seconds"] > 0
    assert json.loads(json.dumps(result.record)) == result.record
    assert generator("normal chest X-ray").record["unseen"] == []


def test_trajectory_and_progress(generator):
    heard = []
    result = generator("normal", n=2, seed=3, trajectory=True, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert result.trajectory.shape == (4, 2, 16, 16)
    assert np.array_equal(result.trajectory[-1], result.images)
    assert not np.array_equal(result.trajectory[0], result.images)
    assert generator("normal").trajectory is None


def test_pytorchs_own_random_numbers_are_left_alone(generator):
    import torch

    before = torch.get_rng_state()
    generator("normal")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"n": 0}, "n=0"),
        ({"n": 65}, "n=65"),
        ({"n": True}, "n=True"),
        ({"n": 1.5}, "n=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed="),
        ({"steps": 0}, "steps=0"),
        ({"steps": 51}, "steps=51"),
        ({"guidance": -1}, "guidance=-1"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"prompt": "  "}, "empty"),
        ({"prompt": None}, "empty"),
        ({"negative": 3}, "negative"),
    ],
)
def test_bad_settings_are_named(generator, bad, named):
    with pytest.raises(CourseError, match=named):
        generator(**{"prompt": "normal"} | bad)


def test_pickled_or_missing_weights_are_refused(tiny_model, tmp_path):
    import shutil

    with pytest.raises(CourseError, match="no pipeline"):
        generate.Generator.load(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CourseError, match="pickle"):
        generate.Generator.load(copy)
    (copy / "unet" / "diffusion_pytorch_model.bin").unlink()
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CourseError, match="vae"):
        generate.Generator.load(copy)


def test_hash_of_weights_changes_with_one_byte(tiny_model, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    assert generate.weights_sha256(copy) == generate.weights_sha256(tiny_model)
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert generate.weights_sha256(copy) != generate.weights_sha256(tiny_model)


def test_saved_png_says_that_it_is_synthetic(generator, tmp_path):
    from PIL import Image

    result = generator("normal, é", seed=9)
    with Image.open(generate.save_png(tmp_path / "one.png", result.images[0], result.record)) as image:
        text = image.text
        assert image.mode == "L" and np.array_equal(np.asarray(image), result.images[0])
    assert text["Synthetic"] == "true" and "not for diagnosis" in text["Warning"]
    assert (text["Prompt"], text["Seed"]) == ("normal, é", "9")
    assert text["Weights-SHA256"] == result.record["weights_sha256"]
    assert json.loads(text["Record"]) == result.record
    with pytest.raises(CourseError, match="save_png"):
        generate.save_png(tmp_path / "two.png", result.images, result.record)


def test_import_is_light():
    code = "import sys, medimgen.generate; sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def jobs(n):
    return [(("normal", "pneumonia, chest")[k % 2], (7 * k) % 2**32) for k in range(n)]


def test_stream_makes_each_image_as_a_call_of_its_own_would(generator):
    heard = []
    results = list(generator.stream(jobs(11), batch=4, progress=lambda done, total: heard.append((done, total))))
    assert [len(r.images) for r in results] == [4, 4, 3] and heard == [(4, 11), (8, 11), (11, 11)]
    assert [s for r in results for s in r.record["seeds"]] == [seed for _, seed in jobs(11)]
    assert [p for r in results for p in r.record["prompt"]] == [prompt for prompt, _ in jobs(11)]
    streamed = np.concatenate([r.images for r in results])
    for k, (prompt, seed) in enumerate(jobs(11)):
        assert abs(streamed[k].astype(int) - generator(prompt, seed=seed).images[0]).max() <= 1, k


def test_stream_stops_when_asked_and_goes_on_from_its_folder(generator, tmp_path, monkeypatch):
    heard = []
    options = {"batch": 2, "folder": tmp_path / "kept", "steps": 2}
    first = list(
        generator.stream(jobs(8), cancel=lambda: len(heard) >= 2, progress=lambda *a: heard.append(a), **options)
    )
    assert len(first) == 2
    made, make = [], generator.make
    monkeypatch.setattr(generator, "make", lambda settings: made.append(settings["seeds"]) or make(settings))
    again = list(generator.stream(iter(jobs(8)), **options))
    assert made == [[28, 35], [42, 49]]
    assert all(np.array_equal(a.images, b.images) and a.record == b.record for a, b in zip(first, again, strict=False))
    assert np.array_equal(np.concatenate([r.images for r in again]), np.concatenate([r.images for r in
                          generator.stream(jobs(8), batch=2, steps=2)]))  # fmt: skip
    with pytest.raises(CourseError, match="other jobs"):
        list(generator.stream(jobs(9)[1:], **options))


def test_stream_blanks_what_is_too_like_a_film_before_keeping_it(generator, tmp_path, monkeypatch):
    monkeypatch.setattr("medimgen.stream.too_like", lambda images, model: np.arange(len(images)) == 1)
    (result,) = generator.stream(jobs(3), folder=tmp_path)
    assert result.record["withheld"] == [1] and not result.images[1].any() and result.images[0].any()
    (again,) = generator.stream(jobs(3), folder=tmp_path)
    assert np.array_equal(again.images, result.images)


@pytest.mark.parametrize(
    ("bad", "options", "named"),
    [
        (["normal"], {}, "no job"),
        ([("normal", 1), ("", 2)], {}, "empty"),
        ([("normal", -1)], {}, "seed=-1"),
        ([("normal", 1)], {"batch": 0}, "batch=0"),
        ([("normal", 1)], {"batch": 65}, "batch=65"),
        ([("normal", 1)], {"steps": 99}, "steps=99"),
    ],
)
def test_stream_names_bad_jobs_before_it_draws(generator, bad, options, named, monkeypatch):
    monkeypatch.setattr(generator, "make", lambda settings: pytest.fail("drew"))
    with pytest.raises(CourseError, match=named):
        list(generator.stream(bad, **options))


def test_stream_of_two_thousand_images_keeps_no_memory(generator):
    """Jobs made as they are asked for; the process is as large after 2,000 images as after 400."""
    import psutil

    process, after = psutil.Process(), {}
    for k, result in enumerate(generator.stream((("normal", seed) for seed in range(2000)), batch=40, steps=1)):
        assert len(result.images) == 40
        after[k] = process.memory_info().rss
    assert len(after) == 50 and after[49] - after[9] < 20e6, after


def test_patient_derived_images_are_refused_unless_they_stay_here(generator, tmp_path):
    from PIL import Image

    stamp = {"patient_derived": True, "adapter_sha256": "0" * 64}
    stamped = generate.Generator(generator.pipe, generator.defaults, generator.sha256, stamp)
    result = stamped("normal")
    assert result.record["patient_derived"] is True
    with pytest.raises(CourseError, match="patient-derived"):
        generate.save_png(tmp_path / "one.png", result.images[0], result.record)
    with pytest.raises(CourseError, match="patient-derived"):
        list(stamped.stream(jobs(2), folder=tmp_path / "kept"))
    assert not list(tmp_path.iterdir())
    kept = generate.save_png(tmp_path / "one.png", result.images[0], result.record, local_only=True)
    with Image.open(kept) as image:
        assert "not for export" in image.text["Patient-Derived"]
    assert len(list(stamped.stream(jobs(2), folder=tmp_path / "kept", local_only=True))) == 1
    with pytest.raises(CourseError, match="other jobs"):
        list(generator.stream(jobs(2), folder=tmp_path / "kept"))
