"""Ablation of the paper at the size of `tiny`, and how many of a teacher's faults reach students.

python -P benchmarks/ablation.py [--work DIR] [--teacher-steps N] [--steps N] [--seeds 0 1 2]

A teacher with global attention is trained from truth. Causal students start with its weights, as
StreamVGGT starts with VGGT's, and all take as many steps: from the teacher's outputs alone, from
truth alone, from both; then from a teacher that is made worse on purpose. Every network sees the
same held-out clips; teacher and student also shorter and longer ones. Runs that are complete in
the work folder are not repeated. Writes benchmarks/results/ablation.json and
docs/images/teacher_faults.png.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from everview.evaluation.machine import code_version, describe
from everview.evaluation.procedural import ProceduralSettings, evaluate_procedural
from everview.training.degrade import Faults
from everview.training.recipe.named import find_recipe
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import NetworkSettings, ScheduleSettings
from everview.training.run.trainer import Trainer
from everview.weights.architecture import Attention, read_config
from everview.weights.load import load

ROOT = Path(__file__).resolve().parents[1]
SCORES = ("abs_rel", "delta1", "points", "rotation_degrees", "auc30", "auc30_apart", "ate")
STUDENTS = {"distilled": "tiny-distilled", "truth": "tiny-truth", "both": "tiny-both"}
MIXTURE = Faults(
    noise=0.1, outliers=0.02, scale=0.1, flicker=0.05, rotation=2.0, translation=0.05, tracks=1.0
)
"""Strength 1 of all faults at once."""
ALONE = {
    "noise": Faults(noise=0.4),
    "outliers": Faults(outliers=0.08),
    "scale": Faults(scale=0.4),
    "rotation": Faults(rotation=8.0),
    "translation": Faults(translation=0.2),
}
"""Single faults, as strong as in four times the mixture."""
STRENGTHS = (1.0, 2.0, 4.0)
FRAMES = 8
LENGTHS = (4, FRAMES, 16, 32, 64)
"""Of clips on which the teacher and its students are judged, who learnt from 2 to 4 frames."""
JUDGED = {"distilled": LENGTHS}
"""Students that are judged on other clips than those of `FRAMES` frames."""


def main() -> int:
    """Return the exit code."""
    options = _options()
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    runs = list(_runs(options))
    result = {
        "format": "everview ablation",
        "format_version": 1,
        "code": code_version(),
        "settings": {
            "teacher_steps": options.teacher_steps,
            "student_steps": options.steps,
            "seeds": options.seeds,
            "clips": options.clips,
            "frames": FRAMES,
            "lengths": LENGTHS,
            "speed": options.speed,
            "mixture_at_strength_1": asdict(MIXTURE),
        },
        "runs": runs,
        "summary": _summary(runs),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe(torch.device("cpu")),
    }
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    _draw(result, ROOT / "docs" / "images" / "teacher_faults.png")
    print(f"{options.out}: {result['seconds']} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--teacher-steps", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=800, help="of each student")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--speed", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "ablation.json"
    )
    return parser.parse_args()


def _runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train what is not there yet and score it."""
    teacher = find_recipe("tiny-teacher")
    teacher = replace(teacher, schedule=_schedule(options.teacher_steps))
    folder = _trained(teacher, options.work / "teacher")
    yield _scored("teacher", folder, options, causal=False)
    yield _scored("teacher run causally", folder, options, causal=True)
    for name, recipe in STUDENTS.items():
        for seed in options.seeds:
            student = _student(recipe, folder, seed, options.steps)
            trained = _trained(student, options.work / f"{name}-{seed}")
            lengths = JUDGED.get(name, (FRAMES,))
            yield _scored(name, trained, options, seed=seed, lengths=lengths)
    faults = {f"mixture x {s:g}": MIXTURE.times(s) for s in STRENGTHS} | ALONE
    for name, fault in faults.items():
        for kind in ("distilled", "both"):
            student = _student(STUDENTS[kind], folder, options.seeds[0], options.steps, fault)
            place = options.work / f"{kind}-{name.replace(' ', '')}"
            trained = _trained(student, place)
            seed = options.seeds[0]
            yield _scored(f"{kind}, {name}", trained, options, seed=seed, lengths=(FRAMES,))


def _student(
    recipe: str, teacher: Path, seed: int, steps: int, faults: Faults | None = None
) -> TrainingRecipe:
    """A causal network that starts with the weights of its teacher."""
    base = find_recipe(recipe)
    objective = base.objective
    if objective.teacher is not None:
        objective = replace(objective, teacher="corrected")
    return replace(
        base,
        network=NetworkSettings(preset="tiny", attention="causal", start=str(teacher)),
        objective=objective,
        teacher=replace(base.teacher, model=str(teacher), faults=faults or Faults()),
        optimiser=replace(base.optimiser, learning_rate=7e-4),
        schedule=_schedule(steps),
        stages=(replace(base.stages[-1], share=1.0),),
        run=replace(base.run, seed=seed),
    )


def _schedule(steps: int) -> ScheduleSettings:
    return ScheduleSettings(unit="steps", length=steps, warm_up_steps=min(100, steps // 10))


def _trained(recipe: TrainingRecipe, folder: Path) -> Path:
    """The folder of the model, trained or taken up where it was left."""
    done = folder / "done"
    if not done.exists():
        data = replace(recipe.data, processes=0, reuse=8)
        recipe = replace(recipe, data=data, run=replace(recipe.run, log_every=100))
        trainer = Trainer(recipe, folder, resume=(folder / "checkpoint.pt").exists())
        for line in trainer.run():
            print(f"{folder.name}: step {line['step']}, total {line['total']:.3f}", flush=True)
        done.touch()
    return folder / "model"


def _scored(
    name: str,
    model: Path,
    options: argparse.Namespace,
    *,
    seed: int = 0,
    causal: bool = True,
    lengths: tuple[int, ...] = LENGTHS,
) -> dict[str, Any]:
    """Scores of one network on the held-out clips, kept beside it."""
    kept = model.parent / f"{'causal' if causal else 'global'}-{options.clips}.json"
    if not kept.exists():
        settings = ProceduralSettings(clips=options.clips, frames=lengths, speeds=(options.speed,))
        config = read_config(model / "config.json")
        assert config is not None, "the trainer wrote it"
        attention: Attention = "causal" if causal else "global"
        network = load(str(model), config=replace(config, attention=attention))
        kept.write_text(json.dumps(evaluate_procedural(network, settings)))
    groups = {group["frames"]: group["scores"] for group in json.loads(kept.read_text())["groups"]}
    scores = groups[FRAMES]
    print(name, seed, *(f"{s} {scores[s]['mean']:.3f}" for s in SCORES), flush=True)
    return {
        "name": name, "seed": seed, "scores": {s: scores[s] for s in SCORES},
        "lengths": {n: {s: found[s]["mean"] for s in SCORES} for n, found in groups.items()},
    }  # fmt: skip


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Name -> score -> mean over seeds and standard deviation between them."""
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(run["name"] for run in runs):
        values = {
            s: [run["scores"][s]["mean"] for run in runs if run["name"] == name] for s in SCORES
        }
        summary[name] = {
            s: {
                "mean": statistics.fmean(v),
                "deviation": statistics.stdev(v) if len(v) > 1 else None,
                "seeds": len(v),
            }
            for s, v in values.items()
        }
    return summary


def _draw(result: dict[str, Any], path: Path) -> None:
    """Scores over the strength of the teacher's faults."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {"abs_rel": "depth, AbsRel", "points": "points, relative error", "ate": "ATE / path"}
    figure, axes = plt.subplots(1, len(shown), figsize=(10, 3), constrained_layout=True)
    summary = result["summary"]
    for axis, (score, title) in zip(axes, shown.items(), strict=True):
        for kind in ("distilled", "both"):
            names = [kind, *(f"{kind}, mixture x {s:g}" for s in STRENGTHS)]
            values = [summary[name][score]["mean"] for name in names]
            axis.plot((0, *STRENGTHS), values, marker="o", label=kind)
        axis.axhline(summary["truth"][score]["mean"], color="grey", label="truth alone")
        axis.set(title=title, xlabel="strength of the teacher's faults")
        axis.margins(y=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
