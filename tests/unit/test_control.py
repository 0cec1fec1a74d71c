"""medimgen.control on a tiny untrained pipeline against diffusers' own ones; the shipped ControlNet where it is."""

import numpy as np
import pytest
import torch

from medimgen import claims, control
from medimgen.errors import CourseError
from medimgen.generate import noise, save_png

PROMPT, SIZE, CHANNELS = "chest xray, normal", 16, 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An untrained pipeline with 4 latent channels (which diffusers' inpainting knows) and a ControlNet that acts."""
    from diffusers import ControlNetModel, DDIMScheduler
    from tiny_pipeline import pipeline

    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
    pipe = pipeline(scheduler, CHANNELS, "UNetMidBlock2DCrossAttn")
    net = ControlNetModel.from_unet(pipe.unet, conditioning_channels=3, conditioning_embedding_out_channels=(8, 8))
    with torch.no_grad():
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out):
            torch.nn.init.normal_(block.weight, std=0.3)
    target = tmp_path_factory.mktemp("models")
    pipe.save_pretrained(target / "tiny")
    net.save_pretrained(target / "net")
    return target / "tiny", target / "net"


@pytest.fixture(scope="module")
def model(folders):
    return control.Control.load(folders[0], net=folders[1])


@pytest.fixture
def film():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)


@pytest.fixture
def mask():
    out = np.zeros((SIZE, SIZE), bool)
    out[4:12, 2:8] = True
    return out


def stock(model, name, **extra):
    """One of diffusers' own pipelines on the same parts."""
    import diffusers

    pipe = getattr(diffusers, name)(**model.pipe.components | {"requires_safety_checker": False} | extra)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def start(seed):
    shape = (1, CHANNELS, 8, 8)
    return torch.from_numpy(noise(seed, 0, int(np.prod(shape))).reshape(shape))


def picture(array):
    from PIL import Image

    return Image.fromarray(array.astype(np.uint8) * (255 if array.dtype == bool else 1))


def pixels(result):
    return (np.asarray(result.images[0])[..., 0].clip(0, 1) * 255).round().astype(int)


def calm(monkeypatch, pipe, seed):
    """This module's noise, and the middle of the encoder's answer, in place of what a pipeline draws itself."""
    import sys

    home = sys.modules[type(pipe).__module__]
    monkeypatch.setattr(home, "randn_tensor", lambda shape, **_: start(seed))
    monkeypatch.setattr(home, "retrieve_latents", lambda found, *_, **__: found.latent_dist.mode())


def test_mask_gives_what_diffusers_controlnet_pipeline_gives(model, mask):
    pipe = stock(model, "StableDiffusionControlNetPipeline", controlnet=model.net)
    made = model(PROMPT, seed=3, steps=4, mask=mask, hold=0.7)
    other = pipe(
        PROMPT,
        picture(mask),
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=start(3),
        output_type="np",
        controlnet_conditioning_scale=0.7,
    )
    assert np.abs(pixels(other) - made.images[0]).max() <= 1
    assert np.abs(made.images.astype(int) - model(PROMPT, seed=3, steps=4).images).max() > 5  # the mask matters here


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_image_gives_what_diffusers_img2img_pipeline_gives(model, film, strength, monkeypatch):
    pipe = stock(model, "StableDiffusionImg2ImgPipeline")
    calm(monkeypatch, pipe, 5)
    how = dict(num_inference_steps=4, guidance_scale=1.0, output_type="np")
    other = pipe(PROMPT, picture(film), strength=strength, **how)
    made = model(PROMPT, seed=5, steps=4, image=film, strength=strength)
    assert np.abs(pixels(other) - made.images[0]).max() <= 1


def test_region_gives_what_diffusers_inpaint_pipeline_gives(model, film, mask, monkeypatch):
    pipe = stock(model, "StableDiffusionInpaintPipeline")
    calm(monkeypatch, pipe, 6)
    how = dict(num_inference_steps=4, guidance_scale=1.0, output_type="np", height=SIZE, width=SIZE)
    other = pipe(PROMPT, picture(film), picture(mask), strength=0.75, **how)
    made = model(PROMPT, seed=6, steps=4, image=film, region=mask, strength=0.75).images[0]
    assert np.abs(pixels(other) - made)[mask].max() <= 1
    assert np.array_equal(made[~mask], film[~mask]) and not np.array_equal(made[mask], film[mask])


def test_the_untouched_noise_is_the_generators(model):
    from medimgen.generate import Generator

    assert np.array_equal(model(PROMPT, n=2, seed=9, steps=4).images, Generator.__call__(model, PROMPT, 2, 9, 4).images)


def test_each_image_can_be_made_alone_with_its_own_mask(model, mask):
    masks = np.stack([mask, mask[::-1], mask[:, ::-1]])
    made = model(PROMPT, n=3, seed=20, steps=4, mask=masks).images
    alone = model(PROMPT, seed=22, steps=4, mask=masks[2]).images[0]
    assert np.abs(made[2].astype(int) - alone).max() <= 1
    assert not np.array_equal(made[2], model(PROMPT, seed=22, steps=4, mask=masks[0]).images[0])


def test_what_starts_from_a_film_is_a_patients_and_no_file(model, film, mask, tmp_path):
    first = model(PROMPT, seed=1, steps=4, mask=mask)
    assert first.record["patient_derived"] is False and first.record["synthetic"] is True
    again = model(PROMPT, seed=2, steps=4, image=first)
    assert again.record["patient_derived"] is False
    derived = model(PROMPT, seed=2, steps=4, image=film)
    handed_on = model(PROMPT, seed=2, steps=4, image=derived)
    for result in (derived, handed_on):
        assert result.record["patient_derived"] is True
        with pytest.raises(CourseError, match="patient"):
            save_png(tmp_path / "a.png", result.images[0], result.record, model=tmp_path)
    assert not list(tmp_path.iterdir())
    assert save_png(tmp_path / "b.png", again.images[0], again.record, model=tmp_path).is_file()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(mask=np.ones((8, 8), bool)), "mask is bool"),
        (dict(mask=np.ones((SIZE, SIZE))), "mask is float64"),
        (dict(image=np.ones((SIZE, SIZE, 3), np.uint8)), "image is uint8"),
        (dict(region=np.ones((SIZE, SIZE), bool)), "no image"),
        (dict(image=np.ones((SIZE, SIZE), np.uint8), strength=0.1), "strength=0.1"),
        (dict(mask=np.ones((SIZE, SIZE), bool), hold=-1), "hold=-1"),
    ],
)
def test_refusals(model, wrong, said):
    with pytest.raises(CourseError, match=said):
        model(PROMPT, steps=4, **wrong)


def test_no_controlnet_is_said(folders, tmp_path):
    with pytest.raises(CourseError, match="no ControlNet"):
        control.Control.load(folders[0], net=tmp_path)


@pytest.fixture(scope="module")
def shipped():
    return control.Control.load()


def test_stock_inpainting_refuses_the_shipped_model(shipped, film):
    """The reason for `region`; when this fails, diffusers has learnt it and the docstring must change."""
    pipe, film = stock(shipped, "StableDiffusionInpaintPipeline"), picture(np.kron(film, np.ones((8, 8), np.uint8)))
    with pytest.raises(ValueError, match="4 or 9 input channels"):
        pipe("chest x-ray", film, film, num_inference_steps=1, strength=1.0, height=128, width=128)


def test_shipped_controlnet_draws_drawn_lungs(shipped):
    from skimage.draw import ellipse

    from medimgen.segment import FOLDER, Segmenter, dice

    if not FOLDER.is_dir():
        pytest.skip("no models/cxr-segmenter")
    masks = np.zeros((2, 128, 128), bool)
    for mask, height in zip(masks, (38, 26), strict=True):
        for column in (38, 88):
            mask[ellipse(66, column, height, 17, shape=(128, 128))] = True
    found = Segmenter.load()(shipped("chest x-ray, normal", n=2, seed=7, mask=masks).images)
    asked, crossed = dice(masks, found), dice(masks[::-1], found)
    assert asked.min() > 0.75 and asked[0] > crossed[0] + 0.1
    assert asked.mean() > crossed.mean() + 0.03  # not each: short lungs come out too tall


def test_card_gives_the_figures_of_claim_l1g_and_its_verdict():
    card, found = (control.FOLDER / "README.md").read_text("utf-8"), claims.result("L1g")
    text = " ".join(card.split())
    for name, ignored in (
        ("asked", "shuffled"),
        ("tilted", "tilted_if_ignored"),
        ("half_lung", "half_lung_if_ignored"),
    ):
        value, beside = found["exploratory"][name], found["exploratory"][ignored]["estimate"]
        assert "{:.3f} ({:.3f} to {:.3f})".format(value["estimate"], *value["ci95"]) in text
        assert f"{beside:.3f}" in text
    assert "{:.3f} ({:.3f} to {:.3f})".format(found["estimate"], *found["ci95"]) in text
    assert f"**{found['verdict']}**" in text
