"""Recipes that have names, as the command line takes them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from everview.errors import ConfigError
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import (
    ComputeSettings,
    DataSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimiserSettings,
    RunSettings,
    ScheduleSettings,
    Stage,
    TeacherSettings,
)

NOTHING_BUT_MATCHING: Mapping[str, float] = MappingProxyType(
    {"truth/camera": 0.0, "truth/fov": 0.0, "guide/rotation": 0.0, "guide/translation": 0.0}
)
"""Weights of a stage that teaches which patches belong together, before anything else."""

TINY_DATA = DataSettings(heights=(42,), width=56, tracked_points=8)


MINI_DATA = DataSettings(
    reuse=12, colours=0.5, tracked_points=16, processes=15, ahead=1, device="cpu"
)
"""Rendered by the cores beside a GPU, shown twelve times on it in other guises."""

FULL = Stage(
    name="all", images=768, frames=(2, 16), speeds=(0.3, 3.0), gaps=(1, 2), spare_frames=2,
    reversed_share=0.3, dense_images=144, track_every=12,
)  # fmt: skip
"""What both networks of the bundled size are trained on in the end."""


def _mini_stages() -> tuple[Stage, ...]:
    """Matching on pairs, then poses, then maps, tracks and longer clips."""
    matching = Stage(
        name="matching", share=0.06, images=768, frames=(2, 3), speeds=(1.0, 4.0), dense_images=0,
        track_every=0, weights=dict(NOTHING_BUT_MATCHING),
    )  # fmt: skip
    poses = Stage(
        name="poses", share=0.2, images=768, frames=(2, 6), speeds=(0.5, 4.0), spare_frames=1,
        dense_images=96, track_every=0,
    )  # fmt: skip
    return matching, poses, replace(FULL, share=0.74)


def mini_teacher() -> TrainingRecipe:
    """VGGT at the size of mini: global attention, from exact truth; minutes of a large GPU."""
    return TrainingRecipe(
        network=NetworkSettings(attention="global"),
        data=MINI_DATA,
        optimiser=OptimiserSettings(learning_rate=1.2e-3, average_decay=0.99),
        schedule=ScheduleSettings(length=3.9, warm_up_steps=100),
        stages=_mini_stages(),
        compute=ComputeSettings(precision="bfloat16"),
    )


def mini() -> TrainingRecipe:
    """The bundled model: causal, from its teacher and the truth; minutes of a large GPU."""
    return replace(
        mini_teacher(),
        network=NetworkSettings(attention="causal", start="runs/mini-teacher/model"),
        objective=ObjectiveSettings(teacher="corrected", teacher_weight=0.2),
        teacher=TeacherSettings(model="runs/mini-teacher/model"),
        optimiser=OptimiserSettings(learning_rate=4e-4, average_decay=0.99),
        schedule=ScheduleSettings(length=2.9, warm_up_steps=100),
        stages=(FULL,),
    )


def mini_cpu() -> TrainingRecipe:
    """The causal network of the bundled size from truth alone, on one core, in one stage."""
    return TrainingRecipe()


def _tiny_stages() -> tuple[Stage, ...]:
    """As for mini, on few short clips."""
    matching = Stage(
        name="matching", share=0.25, images=8, frames=(2, 2), speeds=(1.0, 4.0), dense_images=0,
        track_every=0, weights=dict(NOTHING_BUT_MATCHING),
    )  # fmt: skip
    poses = Stage(
        name="poses", share=0.25, images=8, frames=(2, 4), speeds=(1.0, 4.0), dense_images=4,
        track_every=0,
    )  # fmt: skip
    full = Stage(
        name="all", share=0.5, images=8, frames=(2, 4), speeds=(1.0, 6.0), dense_images=4,
        reversed_share=0.2,
    )  # fmt: skip
    return matching, poses, full


def tiny_teacher() -> TrainingRecipe:
    """The teacher of the ablation."""
    return TrainingRecipe(
        network=NetworkSettings(preset="tiny", attention="global"),
        data=TINY_DATA,
        optimiser=OptimiserSettings(learning_rate=2e-3),
        schedule=ScheduleSettings(unit="steps", length=6000),
        stages=_tiny_stages(),
    )


def tiny_truth() -> TrainingRecipe:
    """A causal student of the ablation: (b) from ground truth alone."""
    return replace(
        tiny_teacher(),
        network=NetworkSettings(preset="tiny", attention="causal"),
        schedule=ScheduleSettings(unit="steps", length=3000),
    )


def tiny_distilled() -> TrainingRecipe:
    """A causal student of the ablation: (a) from the teacher's outputs alone."""
    return replace(
        tiny_both(),
        objective=ObjectiveSettings(truth=None, teacher="corrected", guide="teacher"),
    )


def tiny_both() -> TrainingRecipe:
    """A causal student of the ablation: (c) from teacher and truth."""
    recipe = tiny_truth()
    stages = tuple(
        replace(stage, weights={n: w for n, w in stage.weights.items() if n.startswith("guide")})
        for stage in recipe.stages
    )
    return replace(
        recipe,
        objective=ObjectiveSettings(teacher="corrected"),
        teacher=TeacherSettings(model="runs/tiny-teacher/model"),
        stages=stages,
    )


def smoke() -> TrainingRecipe:
    """Under a minute on one core, to see that everything works."""
    return TrainingRecipe(
        network=NetworkSettings(preset="tiny"),
        data=replace(TINY_DATA, reuse=8, processes=0),
        optimiser=OptimiserSettings(learning_rate=4e-3, average_decay=0.9),
        schedule=ScheduleSettings(unit="steps", length=80, warm_up_steps=10),
        stages=(
            Stage(
                images=4, frames=(2, 2), speeds=(1.0, 2.0), kind="room", moving=0.0,
                dense_images=2, track_every=4, spare_frames=1,
            ),
        ),
        run=RunSettings(log_every=10),
    )  # fmt: skip


RECIPES = MappingProxyType(
    {
        "mini-teacher": mini_teacher,
        "mini": mini,
        "mini-cpu": mini_cpu,
        "tiny-teacher": tiny_teacher,
        "tiny-truth": tiny_truth,
        "tiny-distilled": tiny_distilled,
        "tiny-both": tiny_both,
        "smoke": smoke,
    }
)
"""Name -> function that returns the recipe."""


def find_recipe(name: str) -> TrainingRecipe:
    """A recipe by name, from a YAML file, or from the folder of an earlier run.

    Raises:
        ConfigError: if it is none of these, or holds impossible settings.
        InputError: if the file cannot be read.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    path = path / "recipe.yaml" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"recipe {name!r} is unknown: use {', '.join(RECIPES)}, a YAML file, or the folder of "
            "a run"
        )
    return TrainingRecipe.read(path)
