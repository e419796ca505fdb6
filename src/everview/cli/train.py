"""`everview train`: a training run in a folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model on procedural worlds; the result is a folder that `--model` takes."""

    recipe: Annotated[str, tyro.conf.Positional]
    """Name of a recipe (mini-v0), or a recipe.json."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the run: recipe.json, losses.jsonl, checkpoint.pt, model/."""
    minutes: float | None = None
    """Wall-clock time; the recipe's own if left out."""
    threads: int = 1
    """Threads of the CPU."""
    resume: bool = False
    """Go on with the run in the folder."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.errors import ConfigError
        from everview.training.loop import MODEL, Trainer, be_nice
        from everview.training.recipe import RECIPES, TrainingRecipe

        path = Path(self.recipe)
        if self.recipe not in RECIPES and not path.is_file():
            raise ConfigError(
                f"recipe {self.recipe!r} is unknown: use {', '.join(RECIPES)} or a recipe.json"
            )
        recipe = RECIPES.get(self.recipe) or TrainingRecipe.read(path)
        if self.minutes is not None:
            recipe = replace(recipe, minutes=self.minutes)
        be_nice(self.threads)
        trainer = Trainer(recipe, self.out, resume=self.resume)
        for losses in trainer.run():
            values = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            elapsed = trainer.progress.seconds / 60
            print(f"step {trainer.progress.step}  {elapsed:.1f} min  {values}", flush=True)
        print(f"the model is in {self.out / MODEL}")
        return 0
