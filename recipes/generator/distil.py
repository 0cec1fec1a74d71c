"""Four steps instead of thirty-two: the trained UNet teaches a copy of itself to take each quarter of the way at once.

Progressive distillation (Salimans and Ho 2022, arXiv 2202.00512) in a single round. A film's latents are noised to
the start of a quarter; the teacher walks that quarter in small second-order steps; the student learns to arrive at
the same place in one. The walk is deterministic, so there is one right answer and the student need not blur. The
student is then an ordinary v-predicting UNet that diffusers' `DDIMScheduler` runs in four steps.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .common import Average, Log, cosine, load_state, save_state
from .diffusion import SCHEDULE, Data, Model, alphas, sample

QUARTERS, SMALL = 4, 5


def angles() -> torch.Tensor:
    """Angle of each time, 0 (film) to pi/2 (noise): signal = cos, noise = sin. One more in front for time -1."""
    return torch.cat([torch.zeros(1), torch.acos(alphas().sqrt())])


def _column(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 1, 1, 1)


@torch.no_grad()
def walk(teacher: Model, x: torch.Tensor, t: torch.Tensor, words: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Where the teacher gets from `x` at times `t` after a quarter of all times, in `SMALL` steps."""
    stride, earlier = 1000 // QUARTERS // SMALL, None
    for _ in range(SMALL):
        now, then = _column(angle[t + 1]), _column(angle[t + 1 - stride])
        with torch.autocast("cpu", torch.bfloat16):
            v = teacher.unet(x, t, words).sample.float()
        clean = now.cos() * x - now.sin() * v
        better = clean if earlier is None else 1.5 * clean - 0.5 * earlier
        noise = (x - now.cos() * better) / now.sin()
        x, earlier, t = then.cos() * better + then.sin() * noise, clean, t - stride
    return x


def loss(student: Model, teacher: Model, batch: tuple, angle: torch.Tensor) -> torch.Tensor:
    """Mean squared error between the student's v and the one that leads straight to where the teacher gets."""
    latents, ids, rng = batch
    stride = 1000 // QUARTERS
    t = stride * (1 + torch.randint(0, QUARTERS, (len(latents),), generator=rng)) - 1
    now, then = _column(angle[t + 1]), _column(angle[t + 1 - stride])
    x = now.cos() * latents + now.sin() * torch.randn(latents.shape, generator=rng)
    with torch.no_grad():
        words = teacher.encode(ids)
        goal = walk(teacher, x, t, words, angle)
        wanted = ((now - then).cos() * x - goal) / (now - then).sin()
    with torch.autocast("cpu", torch.bfloat16):
        v = student.unet(x, t, words).sample
    return F.mse_loss(v.float(), wanted)


def compare(teacher: Model, student: Model, vae, tokenizer, each: int = 8, seed: int = 3) -> dict:
    """Mean absolute difference in grey levels (0 to 255) from the teacher's films in 24 steps, same prompts and noise:
    of the student's in four, and of the teacher's own in four.
    """
    from diffusers import DPMSolverMultistepScheduler

    from .claim import PROMPTS
    from .settings import scheduler

    texts = [prompt for prompt in PROMPTS.values() for _ in range(each)]
    slow = DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing")
    goal = sample(teacher, vae, tokenizer, slow, texts, 24, 1.0, seed).astype(float)
    made = {
        name: sample(model, vae, tokenizer, scheduler(), texts, QUARTERS, 1.0, seed)
        for name, model in (("student", student), ("teacher", teacher))
    }
    return {"films": len(texts)} | {name: float(np.abs(films - goal).mean()) for name, films in made.items()}


def train(teacher: Model, data: Data, path: Path, steps=500, batch=48, peak=2e-4) -> Model:
    """The student, averaged; the text encoder stays the teacher's. Resumes from `path`."""
    student, angle, log, start = Model(len(data.tokenizer)), angles(), Log(path.with_suffix(".jsonl")), 0
    student.load_state_dict(teacher.state_dict())
    optimiser = torch.optim.AdamW(student.unet.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    average, recent = Average(student, 0.98), []
    if (state := load_state(path)) is not None:
        student.load_state_dict(state["model"]), optimiser.load_state_dict(state["optimiser"])
        average.values, start = state["average"], state["step"]
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, peak, warm=30)
        value = loss(student, teacher, data.batch(step + 5_000_000, batch), angle)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.unet.parameters(), 1.0)
        optimiser.step()
        average.update(student, step)
        recent.append(value.item())
        if (step + 1) % 25 == 0 or step + 1 == steps:
            log(step=step + 1, loss=float(np.mean(recent[-25:])))
            parts = dict(model=student.state_dict(), optimiser=optimiser.state_dict(), average=average.values)
            save_state(path, step=step + 1, **parts)
    student.load_state_dict(average.values)
    return student.eval()
