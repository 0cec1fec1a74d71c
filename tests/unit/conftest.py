"""A model that several files test with."""

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of an untrained pipeline of the shipped kind; nobody changes it."""
    from diffusers import LCMScheduler
    from tiny_pipeline import pipeline

    scheduler = LCMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, steps_offset=1
    )
    target = tmp_path_factory.mktemp("models") / "tiny"
    pipeline(scheduler).save_pretrained(target)
    (target / "defaults.json").write_text('{"steps": 3, "guidance": 1.5}', encoding="utf-8")
    return target
