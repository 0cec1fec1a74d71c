"""recipes/export_onnx.py on the tiny pipeline: small files, equal to PyTorch, with all that JavaScript needs."""

import json
import shutil
import sys

import numpy as np
import pytest

from medimgen import generate
from medimgen.errors import CourseError
from medimgen.paths import ROOT

sys.path.insert(0, str(ROOT / "recipes"))
import export_onnx


@pytest.fixture(scope="module")
def generator(tiny_model, tmp_path_factory):
    """The tiny pipeline in 16 bits, as models are shipped, with the shipped kind of scheduler."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pytest.importorskip("onnx")
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    pipe.scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing",
        clip_sample=False, steps_offset=1,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("half") / "tiny"
    pipe.to(torch.float16).save_pretrained(target)
    config = target / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"dtype": "float32"}), encoding="utf-8")
    (target / "defaults.json").write_text('{"steps": 4, "guidance": 1.0}', encoding="utf-8")
    return generate.Generator.load(target)


@pytest.fixture(scope="module")
def exported(generator, tmp_path_factory):
    out = tmp_path_factory.mktemp("onnx")
    return out, export_onnx.export(generator, out)


def test_equal_to_torch_in_every_part_and_in_whole_images(generator, exported):
    found = export_onnx.compare(generator, exported[0], images=8)
    assert all(found[name] <= most for name, most in export_onnx.TOLERANCE.items()), found


def test_comparison_can_fail(generator, exported, tmp_path):
    """With one schedule constant changed the images differ."""
    shutil.copytree(exported[0], tmp_path / "copy")
    facts = json.loads((tmp_path / "copy" / export_onnx.ABOUT).read_text("utf-8"))
    facts["alphas_cumprod"][499] *= 0.5
    export_onnx.write(tmp_path / "copy", facts)
    assert export_onnx.compare(generator, tmp_path / "copy", images=4)["grey"] > export_onnx.TOLERANCE["grey"]


def test_weights_are_stored_in_16_bits_and_operators_are_standard(generator, exported):
    import onnx

    out, facts = exported
    weights = sum(p.numel() for m in (generator.pipe.text_encoder, generator.pipe.unet) for p in m.parameters())
    assert sum(f["weights_in_32_bits"] for f in facts["files"].values()) == 0
    assert facts["files"]["unet.onnx"]["bytes"] + facts["files"]["text_encoder.onnx"]["bytes"] > 2 * weights
    for name in facts["files"]:
        model = onnx.load(out / name)
        assert {o.domain for o in model.opset_import} == {""} and model.opset_import[0].version == export_onnx.OPSET
        large = [
            t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 64
        ]
        assert not large


@pytest.mark.parametrize("prompt", ["Normal chest X-ray, pneumonia", "x?ray!  unheard-of", "", "chest " * 30])
def test_tokens_are_those_of_the_tokenizer(generator, exported, prompt):
    wanted = generator.pipe.tokenizer(prompt, padding="max_length", truncation=True)["input_ids"]
    assert export_onnx.Runtime(exported[0]).tokens(prompt)[0].tolist() == wanted


def test_shipped_tokenizer_is_written_whole():
    """Start and end marks, and ids, as the shipped tokenizer gives them."""
    from types import SimpleNamespace

    from transformers import PreTrainedTokenizerFast

    own = PreTrainedTokenizerFast.from_pretrained(generate.FOLDER / "tokenizer", local_files_only=True)
    facts = json.loads(json.dumps(export_onnx.tokenizer(SimpleNamespace(tokenizer=own))))
    runtime = SimpleNamespace(facts={"tokenizer": facts})
    for prompt in ("Chest X-ray, viral pneumonia!", "no finding; unheard-of", "", "lungs " * 40):
        wanted = own(prompt, padding="max_length", truncation=True)["input_ids"]
        assert export_onnx.Runtime.tokens(runtime, prompt)[0].tolist() == wanted, prompt
    assert facts["start"] and facts["end"] and len(facts["vocabulary"]) == len(own)


def test_other_schedulers_and_adapters_are_refused(generator, tiny_model, tmp_path):
    with pytest.raises(CourseError, match="DDIM"):
        export_onnx.export(generate.Generator.load(tiny_model), tmp_path)
    stamped = generate.Generator(generator.pipe, generator.defaults, generator.sha256, {"patient_derived": True})
    with pytest.raises(CourseError, match="patient-derived"):
        export_onnx.export(stamped, tmp_path)
    assert not list(tmp_path.iterdir())
