"""Fine-tuning on a folder: the tiny pipeline learns inverted films, keeps its stamp, and says what it cannot use."""

import json

import numpy as np
import pytest
from PIL import Image

from medimgen import finetune, generate, lora
from medimgen.errors import CourseError


@pytest.fixture(scope="module")
def generator(tiny_model):
    return generate.Generator.load(tiny_model)


@pytest.fixture
def films():
    """Twelve bright films of one kind, uint8 (12, 16, 16), unlike anything an untrained model draws."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(160, 240, 16)[None, :, None] * np.ones((12, 1, 16))
    return (ramp + rng.normal(0, 5, ramp.shape)).clip(0, 255).round().astype(np.uint8)


def write(films, target):
    target.mkdir()
    for k, film in enumerate(films):
        Image.fromarray(film).save(target / f"film-{k}.png")
    return target


def run(films, generator, **options):
    return finetune.finetune(films, "normal", generator=generator, **{"steps": 12} | options)


@pytest.fixture(scope="module")
def tuned(generator, tmp_path_factory):
    rng = np.random.default_rng(1)
    films = (200 + rng.normal(0, 5, (12, 16, 16))).clip(0, 255).astype(np.uint8)
    return run(write(films, tmp_path_factory.mktemp("films") / "own"), generator)


def test_the_generator_that_was_given_stays_as_it_was(generator, tuned):
    assert not generator.stamp and not hasattr(generator.pipe.unet, "peft_config")
    again = generator.make(lora.settings(generator, ["normal"] * finetune.SHOWN, 0)).images
    assert np.array_equal(again, tuned.before)
    assert np.abs(tuned.after.astype(int) - tuned.before).mean() > 0.5


def test_longer_training_lowers_the_loss_on_the_folder(generator, films):
    """Mean loss on the folder's own latents, at fixed noise, without and with the adapter on top of the first one."""
    import torch

    def loss(training):
        training._enter(1)
        x, rng = training.latents[1][:12], torch.Generator().manual_seed(5)
        noise, a = torch.randn(x.shape, generator=rng), training.signal[0]
        with torch.no_grad():
            v = training.unet(a.sqrt() * x + (1 - a).sqrt() * noise, training.times[0], training.words[1][:12]).sample
        return float(((v - (a.sqrt() * noise - (1 - a).sqrt() * x)) ** 2).mean())

    captions = ["normal"] * len(films)
    start = lora.Training(generator, films, captions, captions * 6, 0)
    done = lora.Training(generator, films, captions, captions * 6, 0)
    done.run(60, 5, lambda *a: None, lambda: False)
    assert loss(done) < 0.9 * loss(start)


def test_adapter_loads_in_stock_diffusers_and_draws_the_same(tiny_model, tuned, tmp_path):
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    saved = tuned.save(tmp_path / "adapter")
    assert {p.name for p in saved.iterdir()} == {finetune.WEIGHTS, finetune.STAMP, "README.md"}
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    rng = torch.Generator().manual_seed(0)
    x, words = torch.randn((2, 2, 8, 8), generator=rng), torch.randn((2, 8, 16), generator=rng)
    with torch.no_grad():
        plain = pipe.unet(x, 500, words).sample
        pipe.load_lora_weights(str(saved))
        stock, own = pipe.unet(x, 500, words).sample, tuned.generator.pipe.unet(x, 500, words).sample
    assert torch.allclose(stock, own, atol=1e-5) and not torch.allclose(stock, plain, atol=1e-4)
    with safe_open(saved / finetune.WEIGHTS, "pt") as opened:
        assert opened.metadata()["patient_derived"] == "true"


def test_stamp_travels_from_the_films_into_every_record_and_export_refuses(tiny_model, tuned, tmp_path):
    import hashlib

    saved = tuned.save(tmp_path / "adapter")
    stamp = json.loads((saved / finetune.STAMP).read_text("utf-8"))
    assert stamp["patient_derived"] is True and len(stamp["films"]) == 12 and stamp["steps"] == 12
    assert "film-0" not in (saved / finetune.STAMP).read_text("utf-8")
    assert all(len(h) == 64 for h in stamp["films"]) and stamp["films"][0] != hashlib.sha256(b"").hexdigest()
    (saved / finetune.STAMP).unlink()  # the weights carry it too
    loaded = generate.Generator.load(tiny_model, adapter=saved)
    result = loaded("normal", seed=3)
    assert result.record["patient_derived"] is True
    assert result.record["adapter_sha256"] == stamp["adapter_sha256"]
    assert abs(result.images.astype(int) - tuned.generator("normal", seed=3).images).max() <= 1
    with pytest.raises(CourseError, match="patient-derived"):
        generate.save_png(tmp_path / "a.png", result.images[0], result.record)
    with pytest.raises(CourseError, match="already carries"):
        run(tuned.films, loaded)


def test_adapters_without_their_stamp_or_of_another_model_are_refused(tiny_model, generator, tuned, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(CourseError, match="no adapter"):
        finetune.attach(generator, tmp_path)
    saved = tuned.save(tmp_path / "adapter")
    other = generate.Generator(generator.pipe, generator.defaults, "0" * 64)
    with pytest.raises(CourseError, match="another model"):
        finetune.attach(other, saved)
    save_file(load_file(saved / finetune.WEIGHTS), saved / finetune.WEIGHTS)
    with pytest.raises(CourseError, match="stamp"):
        finetune.attach(generator, saved)


def test_cancelled_run_goes_on_and_ends_as_an_unbroken_one(generator, films, tmp_path):
    whole, calls = run(films, generator), []
    first = run(films, generator, output=tmp_path, cancel=lambda: len(calls) >= 7, progress=lambda *a: calls.append(a))
    assert not first.finished and first.stamp["steps"] == 7 and (tmp_path / finetune.STATE).is_file()
    with pytest.raises(CourseError, match="another run"):
        run(films, generator, output=tmp_path, seed=1)
    second = run(films, generator, output=tmp_path)
    assert second.finished and not (tmp_path / finetune.STATE).exists()
    assert second.stamp["adapter_sha256"] == whole.stamp["adapter_sha256"] != first.stamp["adapter_sha256"]
    assert calls[-1] == (7, 12)


def test_minutes_end_it_too(generator, films):
    result = run(films, generator, steps=10_000, minutes=0.01)
    assert result.finished and 0 < result.stamp["steps"] < 10_000


def test_films_of_several_sizes_are_shrunk_and_captions_are_by_file(generator, films, tmp_path):
    own = write(films, tmp_path / "films")
    Image.fromarray(np.kron(films[0], np.ones((3, 2), np.uint8))).save(own / "film-0.png")
    captions = {f"film-{k}.png": ("normal", "pneumonia")[k % 2] for k in range(12)}
    result = finetune.finetune(own, captions, generator=generator, steps=2)
    assert result.films.shape == (12, 16, 16) and result.stamp["prompt"] == "by film"
    with pytest.raises(CourseError, match="film-3.png has no caption"):
        finetune.finetune(own, {k: v for k, v in captions.items() if k != "film-3.png"}, generator=generator, steps=2)


def test_dicom_folder_is_read(generator, films, tmp_path):
    from medimgen import dicom

    for k, film in enumerate(films):
        dicom.write(tmp_path / f"{k}.dcm", film, synthetic=True, description="test film")
    result = run(tmp_path, generator, steps=1)
    assert len(result.stamp["films"]) == 12 and np.abs(result.films.astype(int) - films).mean() < 30


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda own: [p.unlink() for p in own.iterdir()], "holds no PNG"),
        (lambda own: [p.unlink() for p in sorted(own.iterdir())[7:]], "7 films"),
        (lambda own: (own / "film-3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken"), "film-3.png"),
        (lambda own: Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(own / "film-5.png"),
         "film-5.png not read: uint8 of shape"),
        (lambda own: [p.write_bytes((own / "film-0.png").read_bytes()) for p in own.iterdir()], "only 1 of 12"),
    ],
    ids=["empty", "few", "corrupt", "colour", "copies"],
)  # fmt: skip
def test_bad_folders_are_named(generator, films, tmp_path, spoil, named):
    own = write(films, tmp_path / "films")
    spoil(own)
    with pytest.raises(CourseError, match=named) as error:
        run(own, generator)
    assert error.value.next


def test_bad_arrays_and_outputs_are_named(generator, films, tmp_path):
    broken = films / np.float32(255)
    broken[2, 3, 4] = np.nan
    for bad, named in ((broken, "NaN"), (np.repeat(films, 17, 0), "204 films"), (films[0], "grey pictures")):
        with pytest.raises(CourseError, match=named):
            run(bad, generator)
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="cannot write"):
        run(films, generator, output=tmp_path / "file" / "folder", progress=lambda *a: pytest.fail("trained"))


def test_distance_is_zero_for_two_draws_of_a_kind_and_grows_with_brightness_and_texture():
    rng = np.random.default_rng(3)
    draw = lambda n, mean, spread: rng.normal(mean, spread, (n, 64, 64)).clip(0, 255).round().astype(np.uint8)  # noqa: E731
    same = finetune.distance(draw(60, 100, 10), draw(24, 100, 10))
    assert same < 0.5
    assert finetune.distance(draw(60, 100, 10), draw(24, 120, 10)) == pytest.approx(20 / 2**0.5, abs=0.5)
    assert finetune.distance(draw(60, 100, 10), draw(24, 100, 20)) > 5


def test_sheet_shows_films_before_and_after(tuned):
    import matplotlib

    matplotlib.use("Agg")
    figure = finetune.show_finetuned(tuned, columns=4)
    assert len(figure.axes) == 12 and "from films" in figure.axes[8].get_ylabel()
    assert np.array_equal(figure.axes[8].images[0].get_array(), tuned.after[0])


def test_generate_gives_finetune_without_loading_torch():
    import subprocess
    import sys

    code = "import sys; from medimgen import generate; generate.finetune; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert generate.finetune is finetune.finetune
    with pytest.raises(AttributeError):
        _ = generate.nothing


def test_the_notebook_quotes_the_recorded_distances():
    import json

    from medimgen import report
    from medimgen.paths import ROOT

    found = json.loads((report.RESULTS / "finetune.json").read_text("utf-8"))["sections"]["control"]
    before, after, change = ({r["id"]: r for r in found}[f"finetune_{k}"] for k in ("before", "after", "change"))
    cells = json.loads((ROOT / "notebooks" / "01b-control.ipynb").read_text("utf-8"))["cells"]
    text = " ".join("".join("".join(c["source"]) for c in cells).split())
    assert f"from {before['estimate']:.1f} to {after['estimate']:.1f}" in text
    assert f"reaches from {change['low']:.1f} to {change['high']:+.1f}" in text and change["low"] < 0 < change["high"]
