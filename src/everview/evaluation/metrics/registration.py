"""Registration of a cloud by its iterated closest points, with the stop rule of Open3D."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, Cloud, as_cloud
from everview.evaluation.metrics.clouds import estimate_normals
from everview.evaluation.metrics.neighbours import NearestPoints
from everview.geometry.alignment import umeyama

SMALLEST_CHANGE = 1e-6
"""Of fitness and of RMSE, at which the search stops once both change by less."""

Move = Float[np.ndarray, "4 4"]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Where a cloud was moved, and how well it fits there."""

    points: Cloud
    transform: Move
    """Rigid; takes the given points to `points`."""
    fitness: float
    """Share of points with a counterpart nearer than the threshold."""
    rmse: float
    """Of the distances to these; 0 if there is none."""
    rounds: int
    """How often the cloud was moved."""


def icp(
    predicted: Float[Array, "n 3"],
    true: Float[Array, "m 3"],
    *,
    threshold: float,
    rounds: int = 30,
    planes: bool = False,
    normal_radius: float | None = None,
    workers: int = -1,
) -> Registration:
    """Move a cloud rigidly onto another, from where it is.

    Each round pairs every point with its nearest true one if that is nearer than the threshold, and
    moves the cloud so that the pairs fit best. It ends when a move has changed fitness and RMSE by
    less than 1e-6 each, when nothing is paired, or after `rounds` moves.

    Args:
        predicted: cloud to move.
        true: cloud to which it is moved.
        threshold: distance from which on points have no counterpart; > 0.
        rounds: at most.
        planes: measure along the normals of the truth instead of from point to point.
        normal_radius: of `estimate_normals`, for these.
        workers: threads; -1 for all processors.

    Raises:
        ConfigError: if a cloud is empty or not finite, the threshold is not positive, or the truth
            has no normals where these are needed.

    Source: Besl and McKay (1992); for planes Chen and Medioni (1992).
    """
    if not threshold > 0:
        raise ConfigError(f"the threshold of ICP must be positive, got {threshold}")
    points, tree = as_cloud(predicted, "predicted"), NearestPoints(true, name="true")
    normals = estimate_normals(tree, radius=normal_radius, workers=workers) if planes else None
    transform, before, done = np.eye(4), None, 0
    fit = _fit(tree, points, threshold, workers)
    while done < rounds and len(fit.paired) and not (before and _has_settled(before, fit)):
        target = tree.cloud[fit.near]
        source = points[fit.paired]
        move = (
            _rigid(source, target) if normals is None
            else _rigid_to_planes(source, target, normals[fit.near])
        )  # fmt: skip
        points, transform = points @ move[:3, :3].T + move[:3, 3], move @ transform
        before, fit, done = fit, _fit(tree, points, threshold, workers), done + 1
    return Registration(
        points=points, transform=transform, fitness=fit.fitness, rmse=fit.rmse, rounds=done
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Pairs of points that are near enough."""

    fitness: float
    rmse: float
    paired: np.ndarray
    """Numbers of predicted points."""
    near: np.ndarray
    """Number of the true point of each."""


def _fit(tree: NearestPoints, points: Cloud, threshold: float, workers: int) -> _Fit:
    distance, near = (a[:, 0] for a in tree.query(points, limit=threshold, workers=workers))
    paired = np.flatnonzero(np.isfinite(distance))
    rmse = float(np.sqrt((distance[paired] ** 2).mean())) if len(paired) else 0.0
    return _Fit(len(paired) / len(points), rmse, paired, near[paired])


def _has_settled(before: _Fit, now: _Fit) -> bool:
    return (
        abs(before.fitness - now.fitness) < SMALLEST_CHANGE
        and abs(before.rmse - now.rmse) < SMALLEST_CHANGE
    )


def _rigid(source: Cloud, target: Cloud) -> Move:
    """The motion with the least squared distances; a mere shift where points do not spread."""
    move = np.eye(4)
    if (np.ptp(source, axis=0) == 0).all() or (np.ptp(target, axis=0) == 0).all():
        move[:3, 3] = target.mean(axis=0) - source.mean(axis=0)
        return move
    found = umeyama(
        torch.from_numpy(source), torch.from_numpy(target), with_scale=False, allow_line=True
    )
    move[:3, :3], move[:3, 3] = found.rotation.numpy(), found.translation.numpy()
    return move


def _rigid_to_planes(source: Cloud, target: Cloud, normals: Cloud) -> Move:
    """One linear step towards the planes: turns about x, then y, then z, and a shift."""
    rows = np.concatenate([np.cross(source, normals), normals], axis=1)  # n 6
    rest = ((target - source) * normals).sum(axis=1)
    step = np.linalg.lstsq(rows.T @ rows, rows.T @ rest, rcond=None)[0]
    (cx, cy, cz), (sx, sy, sz) = np.cos(step[:3]), np.sin(step[:3])
    move = np.eye(4)
    move[:3, :3] = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    move[:3, 3] = step[3:]
    return move
