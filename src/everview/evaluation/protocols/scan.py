"""A walk against one laser scan, cloud against cloud.

Source: Long3D of InfiniteVGGT (2601.02281), as its evaluation is described; the start (centroids
matched, a factor chosen by hand) decides much of the result, so the fitness of ICP stands beside.
"""

import numpy as np
import torch

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.arrays import as_cloud
from everview.evaluation.metrics.clouds import cloud_errors
from everview.evaluation.metrics.registration import icp
from everview.evaluation.metrics.voxels import thinned, voxel_means, without_outliers
from everview.evaluation.protocols.points import cloud_scores
from everview.evaluation.protocols.scores import ClipScores, Settings
from everview.evaluation.runs.store import StoredClip

LIDAR_FROM_CAMERA = np.linalg.inv(
    np.array(
        [
            [-0.012577, -0.999915, -0.003397, -0.03],
            [0.345639, -0.001159, -0.938367, -0.04],
            [0.938283, -0.012976, 0.345625, -0.03],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
)
"""The inverse of the published pose."""
SETTINGS = {
    "alignment": "centroids, scale of the spread, ICP to planes",
    "voxel": 0.015,
    "outlier_neighbours": 100,
    "icp_threshold": 0.05,
    "icp_rounds": 200,
    "seed": 42,
}


def score_scan(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """Clean both clouds, lay one on the other, compare.

    With the preset `paper` clouds are cleaned in the unit of the prediction, and the start has the
    factor that was chosen for the scene by hand; `strict` matches the spread first and last.

    Raises:
        ConfigError: if there is no scan, a cloud is empty, or a prediction is not finite.
    """
    if clip.cloud is None:
        raise ConfigError("there is no scan of this scene")
    is_paper = settings["preset"] == "paper"
    predicted = _walk(stored) @ LIDAR_FROM_CAMERA[:3, :3].T + LIDAR_FROM_CAMERA[:3, 3]
    true = clip.cloud().double().numpy()
    factor, first = (float(clip.facts["start_scale"]), 1.0) if is_paper else (1.0, None)
    if first is None:
        predicted, first = _matched(predicted, true)
    predicted, true = (_cleaned(cloud, settings) for cloud in (predicted, true))
    count = min(len(predicted), len(true))
    predicted, true = (thinned(c, count, int(settings["seed"])) for c in (predicted, true))
    start, second = _matched(predicted, true, factor)
    found = icp(
        start, true, threshold=settings["icp_threshold"], rounds=settings["icp_rounds"],
        planes=True, normal_radius=2 * settings["voxel"],
    )  # fmt: skip
    return ClipScores(
        scores=cloud_scores(cloud_errors(found.points, true)),
        details={
            "scale": first * second, "start_factor": factor, "points": count,
            "icp_fitness": found.fitness, "icp_rmse": found.rmse,
        },
    )  # fmt: skip


def _matched(
    predicted: np.ndarray, true: np.ndarray, factor: float = 1.0
) -> tuple[np.ndarray, float]:
    """Centroid and spread of the truth (times a factor), and the scale that this took.

    Raises:
        ConfigError: if a cloud is empty or all predicted points coincide.
    """
    predicted, true = as_cloud(predicted, "predicted"), as_cloud(true, "true")
    centred = predicted - predicted.mean(axis=0)
    spread, wanted = (
        float(np.sqrt((c**2).sum(axis=1).mean())) for c in (centred, true - true.mean(axis=0))
    )
    if spread == 0:
        raise ConfigError("all predicted points coincide")
    scale = factor * wanted / spread
    return centred * scale + true.mean(axis=0), scale


def _walk(stored: StoredClip) -> np.ndarray:
    """All points of the dense frames."""
    parts = []
    for index, name in enumerate(stored.frames):
        if stored.has(index, "points") or stored.has(index, "depth"):
            points = stored.points(index).reshape(-1, 3).double()
            if not bool(torch.isfinite(points).all()):
                raise ConfigError(f"frame {name}: a predicted point is not finite")
            parts.append(points.numpy())
    return np.concatenate(parts)


def _cleaned(cloud: np.ndarray, settings: Settings) -> np.ndarray:
    grid = voxel_means(cloud, settings["voxel"])
    return without_outliers(grid, neighbours=settings["outlier_neighbours"])
