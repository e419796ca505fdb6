"""`everview train`: a training run in a folder."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from everview.training.recipe.recipe import TrainingRecipe
    from everview.training.run.trainer import Trainer

STOPPED = 130


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model with ground truth; the result is a folder that `--model` takes.

    RECIPE is a name (smoke, mini-teacher, ...), a YAML file, or the folder of an earlier run.
    Ctrl-C ends the run after the step, with a checkpoint; --resume goes on.

    Several GPUs: torchrun --nproc-per-node 4 --no-python everview train RECIPE -o DIR.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """What to do."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder of the run; by default runs/RECIPE, in the current folder."""
    set: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART.SETTING=VALUE")]
    ] = ()
    """Change a setting of the recipe, such as optimiser.learning_rate=1e-4; may be repeated."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None
    """Length of the run in wall-clock time; the recipe's own length if left out."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Threads of the CPU; the run gives way to other programs."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in DIR."""
    show: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the recipe as YAML and do nothing."""

    def run(self) -> int:
        """Train; returns the exit code."""
        from everview.errors import ConfigError

        recipe = recipe_of(self.recipe, self.set, minutes=self.minutes)
        if recipe.objective.asks_teacher:
            raise ConfigError(
                f"the recipe {self.recipe!r} has a teacher: everview distill {self.recipe}"
            )
        if self.show:
            return show(recipe)
        out = self.out or default_folder(self.recipe)
        return launch(recipe, out, threads=self.threads, resume=self.resume)


def recipe_of(name: str, overrides: Sequence[str], *, minutes: float | None) -> "TrainingRecipe":
    """The recipe that a command line asks for."""
    from everview.training.recipe.named import find_recipe

    if minutes is not None:
        overrides = [*overrides, "schedule.unit=minutes", f"schedule.length={minutes}"]
    return find_recipe(name).changed(overrides)


def default_folder(recipe: str) -> Path:
    """Where a run goes if nothing is said."""
    from everview.training.run.folder import RECIPE

    path = Path(recipe)
    return path if (path / RECIPE).is_file() else Path("runs") / path.stem


def show(recipe: "TrainingRecipe") -> int:
    """Print a recipe; returns the exit code."""
    print(recipe.as_yaml(), end="")
    return 0


def launch(recipe: "TrainingRecipe", out: Path, *, threads: int, resume: bool) -> int:
    """Train in this process, or in this one of several that torchrun started."""
    from everview.errors import ConfigError
    from everview.training.run.curves import CURVES
    from everview.training.run.ranks import joined_ranks
    from everview.training.run.trainer import Trainer

    if threads < 1:
        raise ConfigError(f"--threads must be 1 or more, got {threads}")
    be_nice(threads)
    with joined_ranks() as ranks:
        trainer = Trainer(recipe, out, resume=resume, ranks=ranks)
        was_stopped = stop_politely(trainer)
        speak = print if ranks.is_first else _say_nothing
        for text in forecast(trainer):
            speak(text)
        for line in trainer.run():
            speak(as_text(line), flush=True)
        speak(f"the model is in {out / 'model'}")
        if (out / CURVES).exists():
            speak(f"the curves are in {out / CURVES}")
    return STOPPED if was_stopped() else 0


def forecast(trainer: "Trainer") -> list[str]:
    """What is told before a run: its size, its memory."""
    from everview.pipeline.run import bytes_as_text
    from everview.training.adapt.freezing import num_trainable

    recipe, need, free = trainer.recipe, trainer.memory_needed(), trainer.memory_free()
    parts = ", ".join(f"{name} {bytes_as_text(size)}" for name, size in vars(need).items() if size)
    stages = ", ".join(stage.name for stage in recipe.stages)
    length = f"{recipe.schedule.length:g} {recipe.schedule.unit}"
    lines = [
        f"{num_trainable(trainer.learner.network):,} numbers learn on {trainer.device} for {length}"
        f" (stages: {stages}); step {trainer.progress.step} is next",
        f"memory: about {bytes_as_text(need.total)} per process ({parts})",
    ]
    if free is not None and need.total > free:
        lines.append(
            f"note: only {bytes_as_text(free)} are free; less is needed with compute.accumulation, "
            "compute.checkpoint_activations=true, compute.precision=bfloat16, network.lora.rank=16 "
            "or fewer images in the stages"
        )
    return lines


def stop_politely(trainer: "Trainer") -> Any:  # noqa: ANN401  -- a function
    """Let Ctrl-C and SIGTERM end the run after its step; tells later whether one came."""
    came: list[int] = []

    def stop(number: int, frame: object) -> None:  # noqa: ARG001  -- the handler's signature
        if came:
            raise KeyboardInterrupt
        came.append(number)
        trainer.wants_stop = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return lambda: bool(came)


def as_text(line: dict[str, Any]) -> str:
    """A line of the log for people."""
    terms = " ".join(f"{name} {value:.4f}" for name, value in line["terms"].items())
    total = "-" if line["total"] is None else f"{line['total']:.4f}"
    skipped = f" skipped {line['skipped']}" if line["skipped"] else ""
    return (
        f"step {line['step']}  {line['seconds'] / 60:.1f} min (waited {line['waited']:.1f} s)  "
        f"{line['stage']}  rate {line['rate']:.2e}  total {total}{skipped}  {terms}"
    )


def be_nice(threads: int) -> None:
    """Leave the machine usable: few threads, low priority."""
    import torch

    torch.set_num_threads(threads)
    os.nice(5)


def _say_nothing(*_: object, **__: object) -> None:
    """What the other ranks do."""
