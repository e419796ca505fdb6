"""What every metric does first: arrays of either kind in float64, on the CPU, and checked."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError

Array = Tensor | np.ndarray
Cloud = Float[np.ndarray, "_ 3"]
"""Points, float64."""


def as_double(values: Array | Sequence[float]) -> Tensor:
    """The values in float64 on the CPU, without a gradient."""
    if not isinstance(values, Tensor | np.ndarray):  # torch would read a list in float32
        values = np.asarray(values, np.float64)
    return torch.as_tensor(values).detach().cpu().double()


def as_list(values: Array | Sequence[float], name: str) -> Float[np.ndarray, " n"]:
    """One list of finite numbers.

    Raises:
        ConfigError: if it is empty, or a value is not finite; says which of them first.
    """
    found = as_double(values).flatten().numpy()
    if not len(found):
        raise ConfigError(f"{name}: there is no value")
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise ConfigError(
            f"{name}: {len(bad)} of {len(found)} values are not finite (first: number {bad[0]}): "
            "leave them out and report how many they are"
        )
    return found


def as_cloud(points: Array, name: str) -> Cloud:
    """A cloud in float64.

    Raises:
        ConfigError: if it is empty, has no three columns, or a coordinate is not finite.
    """
    cloud = as_double(points).numpy()
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        raise ConfigError(f"the {name} cloud must have shape (n, 3), got {cloud.shape}")
    if not len(cloud):
        raise ConfigError(f"the {name} cloud has no points")
    bad = int((~np.isfinite(cloud).all(axis=1)).sum())
    if bad:
        raise ConfigError(
            f"the {name} cloud has coordinates that are not finite in {bad} of {len(cloud)} "
            "points: leave these out and report how many they are"
        )
    return cloud
