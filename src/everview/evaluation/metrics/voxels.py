"""Fewer points: one per cube, none that stand alone, or a random choice."""

from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, Cloud, as_cloud
from everview.evaluation.metrics.neighbours import NearestPoints

Points = TypeVar("Points", Tensor, np.ndarray)
MOST_CELLS = 2**62
"""Cubes that a number of 64 bits can tell apart."""
CHUNK = 100_000
"""Points whose neighbours are held at once."""


def voxel_means(cloud: Float[Array, "n 3"], side: float) -> Cloud:
    """One point, the mean, for every occupied cube.

    Cubes are counted from half a side below the smallest coordinates, as in Open3D; points come
    sorted by cube, x first.

    Args:
        cloud: points.
        side: of the cubes, in the unit of the points.

    Raises:
        ConfigError: if the cloud is empty or not finite, the side is not positive, or so small that
            cubes cannot be counted.
    """
    points = as_cloud(cloud, "given")
    cells = _cells(points, side)
    _, which, counts = np.unique(cells, return_inverse=True, return_counts=True)
    sums = [np.bincount(which.reshape(-1), weights=points[:, axis]) for axis in range(3)]
    return np.stack(sums, axis=1) / counts[:, None]


def without_outliers(
    cloud: Float[Array, "n 3"], *, neighbours: int = 100, sigmas: float = 1.0, workers: int = -1
) -> Cloud:
    """Leave out points whose mean distance to their neighbours is unusually large.

    That is above the mean of all points plus so many sample standard deviations; a point is its own
    first neighbour, as in Open3D.

    Raises:
        ConfigError: if the cloud is empty or not finite.
    """
    tree = NearestPoints(cloud, name="given")
    count = min(neighbours, len(tree))
    mean = np.concatenate([
        tree.query(tree.cloud[start : start + CHUNK], count=count, workers=workers)[0].mean(axis=1)
        for start in range(0, len(tree), CHUNK)
    ])  # fmt: skip
    spread = mean.std(ddof=1) if len(mean) > 1 else 0.0
    return tree.cloud[mean <= mean.mean() + sigmas * spread]


def thinned(cloud: Points, count: int | None, seed: int) -> Points:
    """At most so many points, drawn without replacement, in their order; all if None."""
    if count is None or len(cloud) <= count:
        return cloud
    return cloud[np.sort(np.random.default_rng(seed).choice(len(cloud), count, replace=False))]


def _cells(points: Cloud, side: float) -> Int[np.ndarray, " n"]:
    """The number of each point's cube."""
    if not side > 0:
        raise ConfigError(f"the side of a voxel must be positive, got {side}")
    place = (points - points.min(axis=0)) / side + 0.5
    x, y, z = (int(most) + 1 for most in place.max(axis=0))
    if x * y * z > MOST_CELLS:
        raise ConfigError(
            f"voxels of side {side:g} are too small for a cloud {np.ptp(points, axis=0).max():g} "
            f"wide: take at least {np.ptp(points, axis=0).max() / 1.6e6:g}"
        )
    cells = place.astype(np.int64)
    return (cells[:, 0] * y + cells[:, 1]) * z + cells[:, 2]
