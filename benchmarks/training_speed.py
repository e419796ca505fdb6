"""Images per second of training: attention, precision and compilation against each other.

python benchmarks/training_speed.py [--images 512] [--steps 10] [--preset mini]

Writes benchmarks/results/training_speed_DEVICE.json. A few clips are rendered and repeated until a
step is full, so that only the step is timed: forward, backward, optimiser, moving average.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from everview.evaluation.machine import code_version, describe
from everview.training.feed.batch import Batch, Request, moved
from everview.training.feed.procedural import ProceduralSource
from everview.training.objective.learner import Learner
from everview.training.recipe.named import mini_teacher
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import ComputeSettings, NetworkSettings, ObjectiveSettings
from everview.training.run.average import MovingAverage
from everview.training.run.optimiser import clip, make_optimiser
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.setup import make_network
from everview.training.teacher import Teacher

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 3
RENDERED = 8
"""Clips that are rendered; a step repeats them."""
FRAMES = 8


def main() -> None:
    """Time all cases, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    batch = _batch(options.images, options.preset, device)
    rows = []
    for attention, is_taught in (("global", False), ("causal", True), ("causal", False)):
        for compiled in (False, True):
            for precision in ("float32", "bfloat16"):
                if compiled and precision == "float32":
                    continue
                recipe = _recipe(
                    attention, options.preset, precision, compiled=compiled, is_taught=is_taught
                )
                rows.append(_time(recipe, batch, device, options.steps))
                print(rows[-1], flush=True)
    result = {
        "benchmark": "training_speed", "code": code_version(), "machine": describe(device),
        "settings": {**vars(options), "frames": FRAMES, "warm_up": WARM_UP}, "rows": rows,
        "attention": _attention(device),
    }  # fmt: skip
    path = RESULTS / f"training_speed_{device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    best = min((row for row in rows if row["with_teacher"]), key=lambda r: r["seconds"])
    print("fastest:", json.dumps(best))


def _recipe(
    attention: str, preset: str, precision: str, *, compiled: bool, is_taught: bool = False
) -> TrainingRecipe:
    recipe = mini_teacher()
    stage = replace(recipe.stages[-1], frames=(FRAMES, FRAMES), gaps=(1, 1), track_every=1)
    return replace(
        recipe,
        network=NetworkSettings(preset=preset, attention=attention),
        objective=ObjectiveSettings(teacher="corrected" if is_taught else None),
        stages=(stage,),
        compute=ComputeSettings(precision=precision, compile=compiled),
        data=replace(recipe.data, reuse=1, processes=0, device="cpu"),
    )


def _batch(images: int, preset: str, device: torch.device) -> Batch:
    """A full step with tracks; steps without them are the same without queries."""
    recipe = _recipe("global", preset, "float32", compiled=False)
    small = replace(recipe.stages[0], images=RENDERED * FRAMES)
    source = ProceduralSource(replace(recipe, stages=(small,)))
    batch = source.batch(Request(step=0, stage=0))
    return moved(_repeated(batch, max(1, images // (RENDERED * FRAMES))), device)


def _repeated(batch: Batch, times: int) -> Batch:
    def many(value: object) -> object:
        return torch.cat([value] * times) if isinstance(value, torch.Tensor) else value

    truth = replace(batch.truth, **{n: many(v) for n, v in vars(batch.truth).items()})
    tensors = {n: many(getattr(batch, n)) for n in ("images", "queries", "valid", "still")}
    count = len(batch.labels) * times
    return replace(
        batch, truth=truth, **tensors, labels=batch.labels * times, numbers=tuple(range(count))
    )


def _attention(device: torch.device) -> dict[str, float]:
    """Milliseconds of attention forward and back: 32 frames of 69 tokens, 6 heads of 32 channels.

    `as in training` is what `attention_of` chooses; `fused` is torch's own choice.
    """
    found = {}
    for precision in ("float32", "bfloat16"):
        dtype = getattr(torch, precision)
        q, k, v, back = (torch.randn(32, 6, 69, 32, device=device, dtype=dtype) for _ in range(4))
        inputs = [x.requires_grad_() for x in (q, k, v)]
        compute = ComputeSettings(precision=precision)
        chosen = {"fused": nullcontext(), "as in training": None}
        for name, context in chosen.items():
            times = []
            for _ in range(WARM_UP + 20):
                begin = time.perf_counter()
                with context or attention_of(compute, device):
                    out = F.scaled_dot_product_attention(q, k, v)
                torch.autograd.grad(out, inputs, back)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
            found[f"{precision}, {name}"] = round(1e3 * statistics.median(times[WARM_UP:]), 2)
    return found


def _time(recipe: TrainingRecipe, batch: Batch, device: torch.device, steps: int) -> dict:
    """Median seconds of a step without and with the tracker, which runs every `track_every`."""
    learner = Learner(make_network(recipe, device), recipe).to(device)
    teacher = None
    if recipe.objective.teacher is not None:
        config = replace(recipe, network=replace(recipe.network, attention="global"))
        teacher = Teacher(make_network(replace(config, compute=ComputeSettings()), device))
    optimiser = make_optimiser(learner, recipe.optimiser)
    average = MovingAverage(learner, recipe.optimiser.average_decay)
    plain = replace(
        batch, queries=None,
        truth=replace(batch.truth, tracks=None, visibility=None, track_mask=None),
    )  # fmt: skip
    started = time.perf_counter()
    found = {}
    for name, shown in (("seconds", plain), ("seconds_with_tracks", batch)):
        times = []
        for number in range(WARM_UP + steps):
            begin = time.perf_counter()
            said = None if teacher is None else teacher(shown.images, shown.queries)
            optimiser.zero_grad(set_to_none=True)
            with attention_of(recipe.compute, device):
                with autocast_of(recipe.compute, device):
                    total, _ = learner(shown, said)
                total.backward()
            norm = clip(learner.parameters(), 1.0)
            if not bool(torch.stack([total.detach(), norm]).isfinite().all()):
                raise SystemExit(f"{recipe.compute}: the loss is not finite in step {number}")
            optimiser.step()
            average.update(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        found[name] = round(statistics.median(times[WARM_UP:]), 4)
        found[name.replace("seconds", "first")] = round(times[0], 2)
    images = batch.images.shape[0] * batch.images.shape[1]
    return {
        "attention": recipe.network.attention,
        "with_teacher": teacher is not None,
        "precision": recipe.compute.precision,
        "compiled": recipe.compute.compile,
        "images": images,
        **found,
        "images_per_second": round(images / found["seconds"], 1),
        "all_seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()
