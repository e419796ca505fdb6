"""Clouds of points: distances, normals, voxels, outliers, and the iterated closest point."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from everview.errors import ConfigError

Cloud = Float[np.ndarray, "_ 3"]
NEIGHBOURS = 30
"""Of a point, whose plane gives its normal."""
CHUNK = 200_000
"""Points whose neighbours are held at once."""
SMALLEST_CHANGE = 1e-6
"""Of fitness and RMSE, relative, at which the iterated closest point stops."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Where a cloud was moved, and how well it fits there."""

    points: Cloud
    fitness: float
    """Share of points with a counterpart within the threshold."""
    rmse: float
    """Of the distances to these."""


def compare(
    predicted: Cloud, true: Cloud, *, normals: bool = True, threshold: float | None = None
) -> dict[str, float]:
    """Accuracy, completeness, their mean and median, normal consistency, F-score.

    Args:
        predicted: cloud in the frame and unit of the truth.
        true: cloud of the truth.
        normals: whether to compare them too.
        threshold: distance below which a point counts as right, for the F-score; none if None.

    Raises:
        ConfigError: if a cloud is empty or not finite.
    """
    check(predicted, "predicted")
    check(true, "true")
    trees = cKDTree(predicted), cKDTree(true)
    accuracy, to_true = trees[1].query(predicted)
    completeness, to_predicted = trees[0].query(true)
    scores = {
        "accuracy": float(accuracy.mean()),
        "accuracy_median": float(np.median(accuracy)),
        "completeness": float(completeness.mean()),
        "completeness_median": float(np.median(completeness)),
    }
    scores["chamfer"] = (scores["accuracy"] + scores["completeness"]) / 2
    if threshold is not None:
        scores["f_score"] = _f_score(accuracy < threshold, completeness < threshold)
    if normals:
        ours, theirs = (normals_of(c, t) for c, t in ((predicted, trees[0]), (true, trees[1])))
        first = np.abs((ours * theirs[to_true]).sum(axis=1))
        second = np.abs((theirs * ours[to_predicted]).sum(axis=1))
        scores["normal_consistency"] = float(first.mean() + second.mean()) / 2
        scores["normal_consistency_median"] = float(np.median(first) + np.median(second)) / 2
    return scores


def normals_of(cloud: Cloud, tree: cKDTree | None = None) -> Cloud:
    """Direction in which the nearest 30 points spread least; its sign means nothing."""
    tree = tree or cKDTree(cloud)
    count = min(NEIGHBOURS, len(cloud))
    found = []
    for start in range(0, len(cloud), CHUNK):
        near = tree.query(cloud[start : start + CHUNK], k=count)[1].reshape(-1, count)
        around = cloud[near] - cloud[near].mean(axis=1, keepdims=True)  # n k 3
        found.append(np.linalg.eigh(around.transpose(0, 2, 1) @ around)[1][:, :, 0])
    return np.concatenate(found)


def register(
    predicted: Cloud, true: Cloud, *, threshold: float, rounds: int = 30, planes: bool = False
) -> Registration:
    """Iterated closest point without scale, from where the cloud is.

    Args:
        predicted: cloud to move.
        true: cloud to which it is moved.
        threshold: distance beyond which points have no counterpart.
        rounds: at most.
        planes: measure along the normals of the truth instead of from point to point.

    Source: Besl and McKay (1992); for planes Chen and Medioni (1992).
    """
    tree = cKDTree(true)
    normals = normals_of(true, tree) if planes else None
    before = (-1.0, -1.0)
    for _ in range(rounds):
        now, near, paired = _pairs(tree, predicted, threshold)
        if now[0] == 0 or _has_settled(before, now):
            break
        before = now
        source, target = predicted[paired], true[near[paired]]
        turn, shift = (
            _rigid(source, target) if normals is None
            else _rigid_to_planes(source, target, normals[near[paired]])
        )  # fmt: skip
        predicted = predicted @ turn.T + shift
    now, _, _ = _pairs(tree, predicted, threshold)
    return Registration(points=predicted, fitness=now[0], rmse=now[1])


def voxels(cloud: Cloud, side: float) -> Cloud:
    """One point, the mean, for every occupied cube."""
    cells = np.floor((cloud - cloud.min(axis=0)) / side).astype(np.int64)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    sums = [np.bincount(which, weights=cloud[:, axis]) for axis in range(3)]
    return np.stack(sums, axis=1) / counts[:, None]


def without_outliers(cloud: Cloud, *, neighbours: int = 100, sigmas: float = 1.0) -> Cloud:
    """Leave out points whose mean distance to their neighbours is unusually large."""
    count = min(neighbours, len(cloud))
    mean = cKDTree(cloud).query(cloud, k=count)[0].reshape(len(cloud), count).mean(axis=1)
    spread = mean.std(ddof=1) if len(cloud) > 1 else 0.0
    return cloud[mean <= mean.mean() + sigmas * spread]


def thinned(cloud: Cloud, count: int | None, seed: int) -> Cloud:
    """At most so many points, drawn without replacement, in their order."""
    if count is None or len(cloud) <= count:
        return cloud
    return cloud[np.sort(np.random.default_rng(seed).choice(len(cloud), count, replace=False))]


def check(cloud: Cloud, name: str) -> None:
    """Refuse what has no distances.

    Raises:
        ConfigError: if the cloud is empty, or a coordinate is not finite.
    """
    if not len(cloud):
        raise ConfigError(f"the {name} cloud has no points")
    if not np.isfinite(cloud).all():
        raise ConfigError(f"the {name} cloud has coordinates that are not finite")


def _f_score(right: Bool[np.ndarray, " n"], found: Bool[np.ndarray, " m"]) -> float:
    precision, recall = float(right.mean()), float(found.mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _pairs(
    tree: cKDTree, cloud: Cloud, threshold: float
) -> tuple[tuple[float, float], np.ndarray, np.ndarray]:
    """(fitness, RMSE), nearest points, and which of them are near enough."""
    distance, near = tree.query(cloud, distance_upper_bound=threshold)
    paired = np.isfinite(distance)
    rmse = float(np.sqrt((distance[paired] ** 2).mean())) if paired.any() else 0.0
    return (float(paired.mean()), rmse), near, paired


def _has_settled(before: tuple[float, float], now: tuple[float, float]) -> bool:
    return all(abs(a - b) < SMALLEST_CHANGE for a, b in zip(before, now, strict=True))


def _rigid(source: Cloud, target: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation with the least squared distances (Kabsch)."""
    centres = source.mean(axis=0), target.mean(axis=0)
    left, _, right = np.linalg.svd((target - centres[1]).T @ (source - centres[0]))
    signs = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ signs @ right
    return turn, centres[1] - turn @ centres[0]


def _rigid_to_planes(source: Cloud, target: Cloud, normals: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """One linear step towards the planes."""
    rows = np.concatenate([np.cross(source, normals), normals], axis=1)  # n 6
    rest = ((target - source) * normals).sum(axis=1)
    step = np.linalg.lstsq(rows.T @ rows, rows.T @ rest, rcond=None)[0]
    angle = float(np.linalg.norm(step[:3]))
    axis = step[:3] / angle if angle else np.zeros(3)
    cross = np.array(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], np.float64
    )
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn, step[3:]
