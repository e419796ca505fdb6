"""Distances between clouds of points: accuracy, completeness, F-score, normals.

Formulas: Seitz et al., A comparison and evaluation of multi-view stereo reconstruction algorithms
(2006) for accuracy and completeness; Knapitsch et al., Tanks and Temples (2017) for the F-score;
the columns and their means as in the evaluations of CUT3R (2501.12387) and its successors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, Cloud, as_cloud
from everview.evaluation.metrics.neighbours import NearestPoints

NEIGHBOURS = 30
"""Of a point, whose plane gives its normal."""
CHUNK = 200_000
"""Points whose neighbours are held at once."""
ON_A_LINE = 1e-6
"""Width over length below which a cloud has no normals."""


@dataclass(frozen=True, kw_only=True)
class CloudErrors:
    """Distances in the unit of the truth."""

    accuracy: float
    """Mean distance from predicted points to the nearest true one."""
    accuracy_median: float
    completeness: float
    """Mean distance from true points to the nearest predicted one."""
    completeness_median: float
    normal_consistency: float | None = None
    """Mean |cosine| between normals of nearest points: the mean over both directions; None if not
    asked for."""
    normal_consistency_median: float | None = None
    """Mean of the two directions' medians."""
    precision: dict[float, float] = field(default_factory=dict)
    """Threshold -> share of predicted points nearer than it to a true one."""
    recall: dict[float, float] = field(default_factory=dict)
    """Threshold -> share of true points nearer than it to a predicted one: completion ratio."""

    @property
    def chamfer(self) -> float:
        """Mean of accuracy and completeness ("Overall" of DTU, CD of InfiniteVGGT)."""
        return (self.accuracy + self.completeness) / 2

    @property
    def chamfer_sum(self) -> float:
        """Their sum, as FastVGGT has it."""
        return self.accuracy + self.completeness

    @property
    def f_score(self) -> dict[float, float]:
        """Threshold -> harmonic mean of precision and recall; 0 where both are."""
        return {limit: _harmonic(p, self.recall[limit]) for limit, p in self.precision.items()}


def cloud_errors(
    predicted: Float[Array, "n 3"],
    true: Float[Array, "m 3"],
    *,
    normals: bool = True,
    thresholds: Sequence[float] = (),
    limit: float | None = None,
    given_normals: tuple[Float[Array, "n 3"], Float[Array, "m 3"]] | None = None,
    workers: int = -1,
) -> CloudErrors:
    """Compare two clouds in one frame and unit, in float64 and without any approximation.

    Args:
        predicted: cloud in the frame and unit of the truth.
        true: cloud of the truth.
        normals: whether to compare normals, estimated by `estimate_normals` or given.
        thresholds: distances below which a point counts as right, for precision, recall, F-score.
        limit: distances are cut off here before they are averaged; None: they are not.
        given_normals: of both clouds, of any length but zero, in place of estimated ones.
        workers: threads; -1 for all processors.

    Raises:
        ConfigError: if a cloud is empty, not finite, or (with normals) has fewer than three points
            or all of them on a line.
    """
    # queries check the cloud that they come from
    trees = NearestPoints(predicted, name="predicted"), NearestPoints(true, name="true")
    accuracy, to_true = _nearest(trees[1], trees[0].cloud, workers)
    completeness, to_predicted = _nearest(trees[0], trees[1].cloud, workers)
    precision, recall = (
        {t: float((distance < t).mean()) for t in thresholds}
        for distance in (accuracy, completeness)
    )
    if limit is not None:
        accuracy, completeness = accuracy.clip(max=limit), completeness.clip(max=limit)
    mean, median = None, None
    if normals or given_normals is not None:
        ours, theirs = (
            tuple(_unit(n) for n in given_normals) if given_normals is not None
            else tuple(estimate_normals(tree, workers=workers) for tree in trees)
        )  # fmt: skip
        first = np.abs((ours * theirs[to_true]).sum(axis=1))
        second = np.abs((theirs * ours[to_predicted]).sum(axis=1))
        mean = float(first.mean() + second.mean()) / 2
        median = float(np.median(first) + np.median(second)) / 2
    return CloudErrors(
        accuracy=float(accuracy.mean()),
        accuracy_median=float(np.median(accuracy)),
        completeness=float(completeness.mean()),
        completeness_median=float(np.median(completeness)),
        normal_consistency=mean,
        normal_consistency_median=median,
        precision=precision,
        recall=recall,
    )


def estimate_normals(
    cloud: Float[Array, "n 3"] | NearestPoints,
    *,
    neighbours: int = NEIGHBOURS,
    radius: float | None = None,
    workers: int = -1,
) -> Cloud:
    """Direction in which the nearest points spread least, of length one; its sign means nothing.

    Args:
        cloud: points, or the tree of them.
        neighbours: of each point, itself included.
        radius: only neighbours nearer than this count; with fewer than three of them the normal is
            (0, 0, 1), as in Open3D.
        workers: threads; -1 for all processors.

    Raises:
        ConfigError: if the cloud is empty, not finite, has fewer than three points or all of them
            on a line.

    Source: Hoppe et al., Surface reconstruction from unorganized points (1992), Sec. 3.1.
    """
    tree = cloud if isinstance(cloud, NearestPoints) else NearestPoints(cloud, name="given")
    _check_plane(tree.cloud)
    limit = np.inf if radius is None else radius
    parts = []
    for start in range(0, len(tree), CHUNK):
        points = tree.cloud[start : start + CHUNK]
        _, near = tree.query(points, count=min(neighbours, len(tree)), limit=limit, workers=workers)
        parts.append(_least_spread(tree.cloud, points, near))
    return np.concatenate(parts)


def _least_spread(cloud: Cloud, points: Cloud, near: np.ndarray) -> Cloud:
    """Normals of points from the numbers of their neighbours; n stands for none."""
    is_there = near < len(cloud)
    around = cloud[np.where(is_there, near, 0)] - points[:, None]  # n k 3
    around *= is_there[..., None]
    count = is_there.sum(axis=1)
    around -= around.sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None, None]
    around *= is_there[..., None]
    normals = np.linalg.eigh(around.transpose(0, 2, 1) @ around)[1][:, :, 0]
    normals[count < 3] = (0.0, 0.0, 1.0)
    return normals


def _check_plane(cloud: Cloud) -> None:
    """Refuse what has no normals."""
    if len(cloud) < 3:
        raise ConfigError(f"normals need at least three points, got {len(cloud)}")
    centred = cloud - cloud.mean(axis=0)
    spread = np.linalg.eigvalsh(centred.T @ centred)
    if spread[1] <= ON_A_LINE**2 * spread[2]:
        raise ConfigError(
            f"all {len(cloud)} points lie on a line, so that they have no normals: "
            "compare the clouds with normals=False"
        )


def _nearest(tree: NearestPoints, points: Cloud, workers: int) -> tuple[np.ndarray, np.ndarray]:
    distance, number = tree.query(points, workers=workers)
    return distance[:, 0], number[:, 0]


def _unit(normals: Array) -> Cloud:
    found = as_cloud(normals, "normals'")
    length = np.linalg.norm(found, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ConfigError(f"{int((length == 0).sum())} given normals have no length")
    return found / length


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
