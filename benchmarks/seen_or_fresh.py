"""Losses of a run on the clips that it has just been shown, and on clips that it has never seen.

python -P benchmarks/seen_or_fresh.py RUN [RUN ...] [--groups 20] [-o FILE]

RUN is a folder of `everview train` on procedural clips; its newest weights are judged, not their
average. With `data.reuse` above 1 a group of clips comes back; where the losses differ, the network
has learnt these clips rather than the world.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from everview.evaluation.machine import code_version, describe
from everview.training.feed.batch import Request
from everview.training.feed.procedural import ProceduralSource
from everview.training.objective.learner import Learner
from everview.training.recipe.named import find_recipe
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.trainer import Trainer

OUT = Path(__file__).resolve().parent / "results" / "seen_or_fresh.json"
FAR = 100_000
"""A step whose clips no run has reached."""
CPU = torch.device("cpu")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "format": "everview seen or fresh", "format_version": 1, "code": code_version(),
        "groups": options.groups, "machine": describe(CPU),
        "runs": [_judge(folder, options.groups) for folder in options.runs],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _judge(folder: Path, groups: int) -> dict[str, Any]:
    recipe = find_recipe(str(folder))
    run = Trainer(recipe, folder, resume=True)
    learner, step = run.learner, run.progress.step
    reuse = recipe.data.reuse
    stage = run._stage(step)
    steps = [step - 1 - reuse * k for k in range(groups)]
    optimiser = "Muon" if recipe.optimiser.matrices == "muon" else "AdamW"
    found = {
        "name": f"{optimiser}, `data.reuse={reuse}`, step {step:,}",
        "step": step,
        "recipe": asdict(recipe),
        "stage": recipe.stages[stage].name, "seen": _losses(learner, recipe, steps, stage),
        "fresh": _losses(learner, recipe, [FAR + reuse * k for k in range(groups)], stage),
    }  # fmt: skip
    print({name: found[name] for name in ("name", "seen", "fresh")})
    return found


@torch.no_grad()
def _losses(
    learner: Learner, recipe: TrainingRecipe, steps: list[int], stage: int
) -> dict[str, list[float]]:
    """Term -> mean over steps, and its standard error."""
    source = ProceduralSource(recipe)
    found: dict[str, list[float]] = {}
    for step in steps:
        batch = source.batch(Request(step=step, stage=stage))
        with attention_of(recipe.compute, CPU), autocast_of(recipe.compute, CPU):
            _, judged = learner(batch, None)
        for name, value in judged.terms.items():
            found.setdefault(name, []).append(float(value))
    return {
        name: [fmean(values), stdev(values) / len(values) ** 0.5]
        for name, values in found.items()
        if len(values) == len(steps)
    }


if __name__ == "__main__":
    sys.exit(main())
