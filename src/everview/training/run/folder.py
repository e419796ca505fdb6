"""The folder of a run: whose it is, and the model that comes out of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.training.adapt.lora import merged
from everview.training.recipe.plain import to_plain
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.run.ranks import Ranks
from everview.training.run.setup import config_of
from everview.weights.load import empty_network
from everview.weights.save import save

RECIPE = "recipe.yaml"
MODEL = "model"


def check(folder: Path, recipe: TrainingRecipe, *, resume: bool, ranks: Ranks) -> None:
    """See that a folder is free, or belongs to the run that is resumed.

    Raises:
        ConfigError: if it holds a run already, or one of another recipe; on all ranks.
    """
    _by_first(ranks, lambda: _check(folder, recipe, resume=resume))


def claim(folder: Path, recipe: TrainingRecipe, *, ranks: Ranks) -> None:
    """Make the folder of a run, and write its recipe there.

    Raises:
        InputError: if it cannot be written; on all ranks.
    """
    _by_first(ranks, lambda: _claim(folder, recipe))


def save_model(
    folder: Path, learner_state: Mapping[str, Tensor], recipe: TrainingRecipe, *, steps: int
) -> None:
    """Write the network among the parameters of a learner, with low-rank updates merged."""
    values = {
        name.removeprefix("network."): value
        for name, value in learner_state.items()
        if name.startswith("network.")
    }
    if recipe.network.lora is not None:
        values = merged(values, recipe.network.lora)
    network = empty_network(config_of(recipe.network))
    network.load_state_dict(values, strict=True, assign=True)
    most = recipe.run.shard_megabytes
    save(
        network,
        folder,
        dtype=getattr(torch, recipe.run.weights_dtype),
        info={"steps": steps, "recipe": to_plain(recipe)},
        shard_bytes=None if most is None else int(most * 1e6),
    )


def _by_first(ranks: Ranks, act: Callable[[], None]) -> None:
    """The first rank acts; all raise what it raised."""
    problem: Exception | None = None
    if ranks.is_first:
        try:
            act()
        except (ConfigError, InputError) as error:
            problem = error
    problem = ranks.gathered(problem)[0]
    if problem is not None:
        raise problem


def _check(folder: Path, recipe: TrainingRecipe, *, resume: bool) -> None:
    path = folder / RECIPE
    if path.exists():
        if not resume:
            raise ConfigError(
                f"{folder} holds a run already: go on with it (--resume) or name another folder"
            )
        stored = TrainingRecipe.read(path)
        if not stored.learns_like(recipe):
            raise ConfigError(
                f"{path} differs from the recipe asked for in {_difference(stored, recipe)}: a run "
                "goes on as it began, but for compute and run: everview "
                f"{'distill' if stored.objective.asks_teacher else 'train'} {folder} --resume. "
                f"For another recipe name another folder{_from_weights(folder)}"
            )


def _from_weights(folder: Path) -> str:
    if not (folder / MODEL).is_dir():
        return ""
    return f"; its weights may be the start of that run (network.start={folder / MODEL})"


def _claim(folder: Path, recipe: TrainingRecipe) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recipe.save(folder / RECIPE)
    except OSError as error:
        raise InputError(f"the run cannot be written to {folder}: {error}") from error


def _difference(stored: TrainingRecipe, asked: TrainingRecipe) -> str:
    """First setting that differs, with both values."""
    ours, theirs = (_settings(to_plain(recipe.what_is_learnt())) for recipe in (stored, asked))
    names = dict.fromkeys([*ours, *theirs])
    name = next(name for name in names if ours.get(name) != theirs.get(name))
    return f"{name} ({ours.get(name)} there, {theirs.get(name)} asked for)"


def _settings(plain: Any, name: str = "") -> dict[str, Any]:  # noqa: ANN401  -- YAML values
    """Dotted name -> value."""
    found: dict[str, Any] = {}
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        full = f"{name}.{key}" if name else str(key)
        if isinstance(value, dict | list) and value:
            found |= _settings(value, full)
        else:
            found[full] = value
    return found
