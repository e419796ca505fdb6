"""`everview distill`: a causal student learns what a teacher that sees all frames says."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from everview.training.recipe.recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Distil a student from a teacher; the result is a folder that `--model` takes.

    RECIPE is a name (mini, tiny-distilled, tiny-both), a YAML file, or the folder of an earlier
    run. The student is taught by the teacher alone (objective.truth=null) or by truth and teacher.

    Several GPUs: torchrun --nproc-per-node 4 --no-python everview distill RECIPE -o DIR.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """What to do."""
    teacher: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Network with global attention: path or Hugging Face id; the recipe's own if left out. A
    student that starts from its teacher's weights starts from these."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder of the run; by default runs/RECIPE, in the current folder."""
    cache: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder in which the teacher's outputs are kept: for data.identical_epochs=true, or for
    several students that see the same clips."""
    set: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART.SETTING=VALUE")]
    ] = ()
    """Change a setting of the recipe, such as teacher.faults.rotation=5; may be repeated."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None
    """Length of the run in wall-clock time; the recipe's own length if left out."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Threads of the CPU; the run gives way to other programs."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in DIR."""
    show: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the recipe as YAML and do nothing."""

    def run(self) -> int:
        """Distil; returns the exit code."""
        from everview.cli.train import default_folder, launch, recipe_of, show
        from everview.errors import ConfigError

        recipe = recipe_of(self.recipe, self.set, minutes=self.minutes)
        if self.teacher is not None:
            recipe = taught_by(recipe, self.teacher)
        if self.cache is not None:
            recipe = replace(recipe, teacher=replace(recipe.teacher, cache=self.cache))
        if not recipe.objective.asks_teacher:
            raise ConfigError(
                f"the recipe {self.recipe!r} has no teacher: everview train {self.recipe}, or "
                "--set objective.teacher=corrected"
            )
        if self.show:
            return show(recipe)
        if recipe.teacher.cache and recipe.data.folders and not recipe.data.identical_epochs:
            print(
                "note: epochs differ in crops and colours, so the cache answers other students "
                "only; with data.identical_epochs=true it answers from the second epoch on"
            )
        out = self.out or default_folder(self.recipe)
        return launch(recipe, out, threads=self.threads, resume=self.resume)


def taught_by(recipe: "TrainingRecipe", teacher: str) -> "TrainingRecipe":
    """The recipe with another teacher, which also is the start where the teacher was."""
    network = recipe.network
    if network.start is not None and network.start == recipe.teacher.model:
        network = replace(network, start=teacher)
    return replace(recipe, network=network, teacher=replace(recipe.teacher, model=teacher))
