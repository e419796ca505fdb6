"""How loud each term of a run's loss is in the gradient of the trunk.

python -P benchmarks/gradient_noise.py RUN [RUN ...] [--steps 8] [--frames 2 4 8]
    [--dense 24 64] [--terms truth/depth guide/turn] [-o FILE]

RUN is a folder of `everview train` on procedural clips. Terms count with their weights; clips are
new ones, as long as the run's first stage has them unless `--frames` says otherwise; `--dense`
is how many images of a step have maps (in whole frames of a clip). The noise of a term is how
far the gradients of single steps lie from their mean, its signal the size of that mean.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.machine import code_version, describe
from everview.training.feed.batch import Request
from everview.training.feed.procedural import ProceduralSource
from everview.training.objective.learner import Learner, dense_frames
from everview.training.recipe.named import find_recipe
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.trainer import Trainer

OUT = Path(__file__).resolve().parent / "results" / "gradient_noise.json"
FAR = 200_000
"""A step whose clips no run has reached."""
CPU = torch.device("cpu")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--frames", type=int, nargs="+", default=[None])
    parser.add_argument("--dense", type=int, nargs="+", default=[None])
    parser.add_argument("--terms", nargs="+")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "format": "everview gradient noise", "format_version": 1, "code": code_version(),
        "steps": options.steps, "machine": describe(CPU),
        "runs": [
            _measure(folder, options.steps, frames, dense, options.terms)
            for folder in options.runs for frames in options.frames for dense in options.dense
        ],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _measure(
    folder: Path, steps: int, frames: int | None, dense: int | None, only: list[str] | None
) -> dict[str, Any]:
    recipe = find_recipe(str(folder))
    run = Trainer(recipe, folder, resume=True)
    recipe = _changed(recipe, frames, dense)
    gradients: dict[str, list[Tensor]] = {}
    source = ProceduralSource(recipe)
    for number in range(steps):
        request = Request(step=FAR + recipe.data.reuse * number, stage=0)
        for name, gradient in _gradients(run.learner, recipe, source, request, only).items():
            gradients.setdefault(name, []).append(gradient)
    whole = {name: torch.stack(rows) for name, rows in gradients.items() if len(rows) == steps}
    terms = {
        name: {
            "norm": fmean(rows.norm(dim=1).tolist()),
            "noise": _noise(rows),
            "signal": _signal(rows),
        }
        for name, rows in whole.items()
    }
    print(folder, frames, dense, {name: round(term["noise"], 2) for name, term in terms.items()})
    return {"step": run.progress.step, "recipe": asdict(recipe), "terms": terms}


def _changed(recipe: TrainingRecipe, frames: int | None, dense: int | None) -> TrainingRecipe:
    """The recipe with other clips in its first stage, the one that is measured."""
    first, *others = recipe.stages
    if frames is not None:
        first = replace(first, frames=(frames, frames))
    if dense is not None:
        first = replace(first, dense_images=dense)
    return replace(recipe, stages=(first, *others))


def _gradients(
    learner: Learner,
    recipe: TrainingRecipe,
    source: ProceduralSource,
    request: Request,
    only: list[str] | None,
) -> dict[str, Tensor]:
    """Of each weighted term, over all parameters of the trunk that learn."""
    trunk = [p for p in learner.network.aggregator.parameters() if p.requires_grad]
    batch = source.batch(request)
    with attention_of(recipe.compute, CPU):
        with autocast_of(recipe.compute, CPU):
            parts = learner._judge(batch, None, dense_frames(batch, recipe))
        weights = learner._weights(parts, recipe.stages[request.stage])
        terms = {f"{p}/{k}": t for p, judged in parts.items() for k, t in judged.terms.items()}
        return {
            name: _flat(weights[name] * term, trunk)
            for name, term in terms.items()
            if (not only or name in only)
            and weights[name]
            and not name.endswith("tracks")  # not in every step
        }


def _flat(term: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(
        term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([gradient.float().flatten() for gradient in found])


def _noise(rows: Tensor) -> float:
    """Root of the mean squared distance from the mean, unbiased."""
    return float((rows - rows.mean(dim=0)).square().sum() / (len(rows) - 1)) ** 0.5


def _signal(rows: Tensor) -> float:
    """Norm of what single steps scatter about: of the mean, less what scatter adds to it."""
    whole = float(rows.mean(dim=0).square().sum())
    return max(0.0, whole - _noise(rows) ** 2 / len(rows)) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
