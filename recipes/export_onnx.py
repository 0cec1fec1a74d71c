"""The generator as three ONNX files and one JSON, for ONNX Runtime and for the browser (onnxruntime-web).

    python recipes/export_onnx.py [--model FOLDER] [--out FOLDER] [--images 24]

`text_encoder.onnx`, `unet.onnx` and `decoder.onnx` (opset 17, standard operators, first axis free) keep their weights
in 16 bits and cast them back at load, so they calculate in 32 bits: the shipped weights are 16-bit numbers, so nothing
is lost. `generator.json` holds what else a program needs: the tokenizer, the schedule, the defaults, hashes, and how
far the files were from PyTorch when they were made. `Runtime` below is such a program, without PyTorch or diffusers.
Built on demand in the cache, never committed. Models with an adapter of a reader's films are refused.

One image: ids = tokens(prompt); words = text_encoder(ids); x = noise(seed, 0) shaped as `latents`; for each t of
`times[steps]`: v = unet(x, t, words); with a = alphas_cumprod[t] and b that of the next time (1 after the last):
clean = sqrt(a) x - sqrt(1 - a) v; grain = sqrt(a) v + sqrt(1 - a) x; x = sqrt(b) clean + sqrt(1 - b) grain (DDIM,
Song et al. 2021, arXiv 2010.02502). Grey = round(127.5 (clip(decoder(x), -1, 1) + 1)).
"""

import argparse
import hashlib
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from medimgen.errors import CourseError
from medimgen.generate import FOLDER, Generator, noise, refuse_patient_derived
from medimgen.paths import cache_dir

OPSET, LIMIT_MB, TOLERANCE = 17, 20.0, {"text_encoder": 1e-5, "unet": 1e-4, "decoder": 1e-4, "grey": 1}
PROMPTS = ("chest x-ray, normal", "chest x-ray, bacterial pneumonia", "viral pneumonia, bright", "x-ray, dark lungs")
ABOUT = "generator.json"


def parts(pipe) -> dict[str, tuple]:
    """Of each part: the module, an example of its inputs, their names, its output's name."""
    import torch

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text = pipe.text_encoder

        def forward(self, ids):
            return self.text(ids)[0]

    class Denoise(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = pipe.unet

        def forward(self, x, t, words):
            return self.unet(x, t, words).sample

    class Decode(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = pipe.vae

        def forward(self, x):
            return self.vae.decode(x / self.vae.config.scaling_factor).sample

    unet = pipe.unet.config
    rng = torch.Generator().manual_seed(0)
    x = torch.randn((2, unet.in_channels, unet.sample_size, unet.sample_size), generator=rng)
    ids = pipe.tokenizer(list(PROMPTS[:2]), padding="max_length", truncation=True, return_tensors="pt").input_ids.int()
    with torch.no_grad():
        words = Text()(ids)
    return {
        "text_encoder": (Text(), (ids,), ["ids"], "words"),
        "unet": (Denoise(), (x, torch.tensor([999.0, 249.0]), words), ["x", "t", "words"], "v"),
        "decoder": (Decode(), (x,), ["x"], "image"),
    }


def halve(file: Path) -> int:
    """Store the weights of an ONNX file in 16 bits where that loses nothing, each with a cast back; returns how many
    stay in 32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model, casts, whole = onnx.load(file), [], 0
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        small = value.astype(np.float16)
        if value.size < 16 or not np.array_equal(small.astype(np.float32), value):
            whole += value.size >= 16
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(small, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return whole


def tokenizer(pipe) -> dict:
    """What turns a prompt into ids: steps on the text, then whole words looked up, then start, end and padding."""
    raw, own = json.loads(pipe.tokenizer.backend_tokenizer.to_str()), pipe.tokenizer
    vocabulary = raw["model"]["vocab"]
    word = next(w for w in vocabulary if w.isalpha())
    ids = own(word)["input_ids"]
    at = ids.index(vocabulary[word])
    clean = [
        {"do": "lower"} if s["type"] == "Lowercase" else {"do": "replace", **s["pattern"], "by": s["content"]}
        for s in raw["normalizer"]["normalizers"]
    ]
    return {
        "clean": clean, "vocabulary": vocabulary, "unknown": own.unk_token_id, "pad": own.pad_token_id,
        "start": ids[:at], "end": ids[at + 1 :], "length": own.model_max_length,
        "note": "\\w as in Unicode UTS 18, annex C: in JavaScript \\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc} with flags gu",
    }  # fmt: skip


def about(generator: Generator) -> dict:
    """Tokenizer, schedule and defaults of a generator; CourseError for a scheduler that `Runtime` does not have."""
    scheduler, unet = generator.pipe.scheduler, generator.pipe.unet.config
    if type(scheduler).__name__ != "DDIMScheduler" or scheduler.config.prediction_type != "v_prediction":
        raise CourseError("only DDIM with v-prediction can be exported", next="export models/cxr-mini")
    times = {}
    for steps in (n for n in range(1, 51) if scheduler.config.num_train_timesteps % n == 0):
        scheduler.set_timesteps(steps)
        times[str(steps)] = scheduler.timesteps.tolist()
    return {
        "tokenizer": tokenizer(generator.pipe),
        "latents": [unet.in_channels, unet.sample_size, unet.sample_size],
        "steps": generator.defaults["steps"],
        "guidance": generator.defaults["guidance"],
        "times": times,
        "alphas_cumprod": [float(f"{a:.9g}") for a in scheduler.alphas_cumprod.tolist()],
        "weights_sha256": generator.sha256,
        "synthetic": "Images are synthetic, not for diagnosis; not a medical device.",
    }


def export(generator: Generator, out: Path) -> dict:
    """Write the three files and generator.json into `out`; returns what generator.json holds."""
    import torch

    refuse_patient_derived(generator.stamp)
    facts, files = about(generator), {}
    out.mkdir(parents=True, exist_ok=True)
    for name, (module, example, names, output) in parts(generator.pipe).items():
        file = out / f"{name}.onnx"
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # tracing warns of every constant
            torch.onnx.export(
                module.eval(), example, str(file), dynamo=False, opset_version=OPSET, input_names=names,
                output_names=[output], dynamic_axes={k: {0: "n"} for k in [*names, output]},
            )  # fmt: skip
        whole = halve(file)
        data = file.read_bytes()
        files[file.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "weights_in_32_bits": whole}
    facts |= {"opset": OPSET, "files": files, "megabytes": round(sum(f["bytes"] for f in files.values()) / 1e6, 2)}
    write(out, facts)
    return facts


def write(out: Path, facts: dict) -> None:
    (out / ABOUT).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8", newline="\n")


class Runtime:
    """The exported generator on ONNX Runtime: `Runtime(folder)(prompt, seeds)` gives uint8 (n, h, w)."""

    def __init__(self, folder: Path, threads: int = 0):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.facts = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.text, self.unet, self.decoder = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("text_encoder", "unet", "decoder")
        )

    def tokens(self, prompt: str) -> np.ndarray:
        """int32 (1, length)."""
        own = self.facts["tokenizer"]
        for step in own["clean"]:
            if step["do"] == "lower":
                prompt = prompt.lower()
            else:
                prompt = re.sub(step.get("Regex") or re.escape(step["String"]), step["by"], prompt)
        room = own["length"] - len(own["start"]) - len(own["end"])
        ids = [own["vocabulary"].get(word, own["unknown"]) for word in prompt.split()][:room]
        ids = [*own["start"], *ids, *own["end"]]
        return np.array([ids + [own["pad"]] * (own["length"] - len(ids))], np.int32)

    def __call__(self, prompt: str, seeds: list[int]) -> np.ndarray:
        facts, n = self.facts, len(seeds)
        times = facts["times"][str(facts["steps"])]
        alphas = [facts["alphas_cumprod"][t] for t in times] + [1.0]
        words = np.repeat(self.text.run(None, {"ids": self.tokens(prompt)})[0], n, 0)
        x = np.stack([noise(seed, 0, int(np.prod(facts["latents"]))).reshape(facts["latents"]) for seed in seeds])
        for t, a, b in zip(times, alphas, alphas[1:], strict=False):
            v = self.unet.run(None, {"x": x, "t": np.full(n, t, np.float32), "words": words})[0]
            clean, grain = a**0.5 * x - (1 - a) ** 0.5 * v, a**0.5 * v + (1 - a) ** 0.5 * x
            x = (b**0.5 * clean + (1 - b) ** 0.5 * grain).astype(np.float32)
        image = self.decoder.run(None, {"x": x})[0][:, 0]
        return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)


def compare(generator: Generator, out: Path, images: int = 24) -> dict:
    """Largest difference from PyTorch of each part, on inputs other than those it was traced with, and of whole images
    in grey levels of 255 (largest and mean), four at a time of each prompt.
    """
    import torch

    runtime, found = Runtime(out), {}
    sessions = {"text_encoder": runtime.text, "unet": runtime.unet, "decoder": runtime.decoder}
    for name, (module, example, names, _) in parts(generator.pipe).items():
        inputs = [torch.cat([-x, x[:1] / 2] if x.dim() > 2 else [x.flip(0), x[:1]]) for x in example]
        with torch.no_grad():
            wanted = module.eval()(*inputs).numpy()
        got = sessions[name].run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})[0]
        found[name] = float(np.abs(got - wanted).max())
    grey = []
    for k in range(0, images, 4):
        prompt = PROMPTS[k // 4 % len(PROMPTS)]
        wanted = generator(prompt, n=4, seed=k, guidance=1.0).images.astype(int)
        grey.append(np.abs(runtime(prompt, list(range(k, k + 4))) - wanted))
    return found | {"grey": int(np.max(grey)), "grey_mean": float(np.mean(grey)), "images": images}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=cache_dir() / "onnx" / "cxr-mini")
    parser.add_argument("--images", type=int, default=24, help="whole images compared with PyTorch's")
    arguments = parser.parse_args()
    generator = Generator.load(arguments.model)
    facts = export(generator, arguments.out)
    facts |= {"largest_difference": compare(generator, arguments.out, arguments.images), "tolerance": TOLERANCE}
    write(arguments.out, facts)
    print(json.dumps({k: facts[k] for k in ("megabytes", "files", "largest_difference", "tolerance")}, indent=1))
    far = [name for name, most in TOLERANCE.items() if facts["largest_difference"][name] > most]
    large = facts["megabytes"] > LIMIT_MB
    print(f"{arguments.out}: {'too far from PyTorch: ' + ', '.join(far) if far else 'equal to PyTorch in tolerance'}"
          f"{', larger than 20 MB' if large else ''}")  # fmt: skip
    return 1 if far or large else 0


if __name__ == "__main__":
    sys.exit(main())
