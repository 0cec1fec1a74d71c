"""How fast the generator draws, and in how much memory: PyTorch in 32 bits and in bfloat16, and ONNX Runtime.

    python recipes/benchmarks/generation_speed.py [--record]

Each row is a process of its own, so that its peak memory is its own: one call before the clock starts, then the median
of repeated calls. The ratios come from calls in turns within one process. "Fifty steps" runs the same UNet as often as
the teacher, from which it was distilled and whose shape it has, would run: it costs what the teacher costs.
The ONNX files are built first if they are not in the cache (recipes/export_onnx.py; needs `onnx`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from medimgen import report
from medimgen.paths import ROOT, cache_dir

RESULT = ROOT / "recipes" / "results" / "generation_speed.json"
ONNX = cache_dir() / "onnx" / "cxr-mini"
PROMPT, SECONDS, ROUNDS = "chest x-ray, bacterial pneumonia", 5.0, 5
WAYS = ("torch fp32", "torch bf16", "onnxruntime")
AIMS = {
    "image_over_guided_step_and_decode": ("<=", 8),
    "fifty_steps_over_ours": (">=", 8),
    "stream_over_bare": ("<=", 1.15),
}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def generator():
    from medimgen.generate import Generator

    return Generator.load()


def row(way: str, batch: int) -> dict:
    """Milliseconds an image, median and quartiles over calls, and the process's peak memory."""
    if way == "onnxruntime":
        from export_onnx import Runtime

        runtime = Runtime(ONNX, int(os.environ.get("OMP_NUM_THREADS", 0)))
        call = lambda seed: runtime(PROMPT, list(range(seed, seed + batch)))  # noqa: E731
    else:
        import torch

        made = generator()
        half = torch.autocast("cpu", torch.bfloat16) if way == "torch bf16" else nullcontext()

        def call(seed):
            with half:
                made(PROMPT, n=batch, seed=seed)

    call(0)
    took, start = [], time.perf_counter()
    while len(took) < 5 or time.perf_counter() - start < SECONDS:
        took.append(1000 / batch * seconds(lambda: call(len(took))))
    low, middle, high = statistics.quantiles(took, n=4)
    return {"way": way, "batch": batch, "ms_an_image": middle, "quartiles": [low, high], "calls": len(took),
            "peak_mb": report.peak_mb()}  # fmt: skip


def ratios() -> dict:
    """One image over (one guided UNet forward + one decode), and fifty steps over the default; medians of turns."""
    import torch

    made = generator()
    pipe, unet = made.pipe, made.pipe.unet.config
    x = torch.randn((2, unet.in_channels, unet.sample_size, unet.sample_size))

    @torch.inference_mode()
    def guided_step_and_decode():
        return pipe.unet(x, 499, words), made.decode(x[:1])

    with torch.inference_mode():
        words = made.words(PROMPT).expand(2, -1, -1)
    turns = {"image": lambda: made(PROMPT, seed=1), "unit": guided_step_and_decode,
             "fifty": lambda: made(PROMPT, seed=1, steps=50)}  # fmt: skip
    for run in turns.values():
        run()
    took = [{k: seconds(run) for k, run in turns.items()} for _ in range(ROUNDS)]
    middle = {k: statistics.median(t[k] for t in took) for k in turns}
    return {
        "image_over_guided_step_and_decode": middle["image"] / middle["unit"],
        "fifty_steps_over_ours": middle["fifty"] / middle["image"],
        "milliseconds": {k: 1000 * v for k, v in middle.items()},
    }


def stream(batch: int = 8, images: int = 400) -> dict:
    """Time an image of a stream over that of calls one by one, in turns; memory after each part of the stream."""
    import psutil

    made, process = generator(), psutil.Process()
    streamed = made.stream([(PROMPT, seed) for seed in range(images)], batch)
    calls, took, memory = images // batch // ROUNDS, [], []
    made(PROMPT, n=batch)
    for k in range(ROUNDS):
        own = seconds(lambda: [next(streamed) for _ in range(calls)]) / calls
        bare = seconds(lambda: [made(PROMPT, n=batch, seed=100 * k + s) for s in range(calls // 2)]) / (calls // 2)  # noqa: B023
        took.append((own, bare))
        memory.append(process.memory_info().rss / 1e6)
    own, bare = (statistics.median(t) for t in zip(*took, strict=True))
    return {"stream_over_bare": own / bare, "images": calls * ROUNDS * batch, "memory_mb": memory,
            "ms_an_image": {"stream": 1000 * own / batch, "bare": 1000 * bare / batch}}  # fmt: skip


def fresh(*arguments: str) -> dict:
    """What this script prints last when run by itself in a new process."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, cwd=ROOT, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.relative_to(ROOT).as_posix()}")
    parser.add_argument("--row", nargs=2, metavar=("WAY", "BATCH"), help="this row alone, in this process")
    parser.add_argument("--only", choices=["ratios", "stream"], help="these alone, in this process")
    arguments = parser.parse_args()
    if arguments.row or arguments.only:
        found = row(arguments.row[0], int(arguments.row[1])) if arguments.row else globals()[arguments.only]()
        return print(json.dumps(found))
    if not (ONNX / "generator.json").is_file():
        subprocess.run([sys.executable, ROOT / "recipes" / "export_onnx.py"], check=True, cwd=ROOT)
    rows = []
    for way in WAYS:
        for batch in (1, 8):
            rows.append(fresh("--row", way, str(batch)))
            print(f"{way:12} batch {batch}  {rows[-1]['ms_an_image']:6.1f} ms an image  {rows[-1]['peak_mb']:6.0f} MB",
                  flush=True)  # fmt: skip
    found = fresh("--only", "ratios") | {"stream": fresh("--only", "stream")}
    figures = found | {"stream_over_bare": found["stream"].pop("stream_over_bare")}
    for name, (sign, aim) in AIMS.items():
        met = figures[name] <= aim if sign == "<=" else figures[name] >= aim
        print(f"{name:34} {figures[name]:6.2f}  aim {sign} {aim}  {'met' if met else 'NOT met'}", flush=True)
    versions = {p: metadata.version(p) for p in ("torch", "diffusers", "onnxruntime", "numpy", "medimgen")}
    result = {"rows": rows, **figures, "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "default"),
              "processor": platform.processor() or platform.machine(), "versions": versions}  # fmt: skip
    if arguments.record:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
