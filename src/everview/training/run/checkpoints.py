"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

import logging
import os
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everview.errors import InputError
from everview.training.run.optimiser import Optimiser
from everview.training.run.ranks import placed, whole

CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = 1
"""Version of what a checkpoint holds."""

_logger = logging.getLogger(__name__)


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Write and keep the one before: whenever the process dies, a whole one is there.

    Raises:
        InputError: if it cannot be written, as on a full disk; the earlier ones stay.
    """
    partial = folder / (CHECKPOINT + ".tmp")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        newest = folder / CHECKPOINT
        if newest.exists():
            newest.replace(folder / PREVIOUS)
        partial.replace(newest)
    except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
        partial.unlink(missing_ok=True)
        raise InputError(
            f"no checkpoint can be written to {folder} ({error}): free some disk, then resume"
        ) from error


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint; None if there never was one.

    Raises:
        InputError: if all are damaged, or of another version.
    """
    reasons = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reasons.append(f"{path} is damaged ({error})")
            continue
        if content.get("format") != FORMAT:
            raise InputError(
                f"{path} has format {content.get('format')!r}, this version reads {FORMAT}: go on "
                "with the version that wrote it, or start a run from its model (network.start)"
            )
        if reasons:
            _logger.warning("%s: going on from %s", reasons[0], path.name)
        return content
    if reasons:
        raise InputError(f"{'; '.join(reasons)}: start the run again in another folder")
    return None


def random_states() -> dict[str, Any]:
    """Of every generator that a process has."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  -- a library may use it
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Go on where `random_states` was called."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def optimiser_state(optimiser: Optimiser, module: nn.Module) -> dict[str, Any]:
    """State of each parameter by its name, on the CPU, whole also if parameters are sharded."""
    return {
        name: {key: _kept(value) for key, value in state.items()}
        for name, parameter in module.named_parameters()
        if (state := optimiser.state_of(parameter))
    }


def set_optimiser_state(optimiser: Optimiser, module: nn.Module, states: Mapping[str, Any]) -> None:
    """Give parameters the state stored under their names, and say where it is of no use."""
    known = [(name, p) for name, p in module.named_parameters() if name in states]
    anew = [
        name for name, p in known
        if not optimiser.set_state(p, {k: _placed(v, p) for k, v in states[name].items()})
    ]  # fmt: skip
    if anew:
        _logger.warning(
            "%d parameters had moments of another optimiser and begin anew, first %s: this run was "
            "begun by an earlier version", len(anew), anew[0],
        )  # fmt: skip


def _kept(value: Any) -> Any:  # noqa: ANN401  -- tensors and numbers
    return whole(value) if isinstance(value, Tensor) else value


def _placed(value: Any, parameter: Tensor) -> Any:  # noqa: ANN401
    """Counters of steps stay on the CPU, as AdamW has them."""
    return placed(value, parameter) if isinstance(value, Tensor) and value.ndim else value


@torch.no_grad()
def set_parameters(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give every parameter the value that was stored whole under its name."""
    for name, parameter in module.named_parameters():
        parameter.copy_(placed(values[name], parameter))
