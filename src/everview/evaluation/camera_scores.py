"""Scores of a clip's cameras: relative motion over all pairs of frames, and the whole path."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from everview.evaluation.clip_truth import ClipTruth
from everview.evaluation.metrics.pairs import pair_errors, pose_auc
from everview.evaluation.metrics.poses import NO_MOTION, path_errors

THRESHOLDS = (30, 15, 5)
"""Degrees of the AUC."""


def camera_scores(
    world_from_camera: Float[Tensor | np.ndarray, "s n 4"],
    truth: ClipTruth,
    *,
    scale: float | None = None,
    guess: str = "",
) -> dict[str, float]:
    """Score the poses of a clip.

    Args:
        world_from_camera: estimated poses, in any world frame and unit.
        truth: of the same frames.
        scale: what estimated lengths are multiplied with for `length_error`; None leaves it out.
        guess: appended to the name of each score, such as `/standing_still`.

    Returns:
        Scores by the names of `sequence_scores.METRICS`; NaN where nothing counts.

    Raises:
        ConfigError: see `metrics.pair_errors`.
    """
    errors = pair_errors(
        world_from_camera, truth.world_from_camera, least_baseline=truth.least_baseline
    )
    scores = {
        "rotation_degrees": float(errors.rotation_degrees.mean()),
        "direction_degrees": float(errors.direction_degrees.nanmean()),
        "ate": path_share(world_from_camera, truth),
    }
    if scale is not None:
        scores["length_error"] = float((errors.length_ratio * scale - 1).abs().nanmean())
    for limit in THRESHOLDS:
        scores[f"auc{limit}"] = pose_auc(errors.pose_degrees, limit)
    apart = errors.pose_degrees[errors.direction_degrees.isfinite()]
    scores["auc30_apart"] = pose_auc(apart, 30) if len(apart) else float("nan")
    return {f"{name}{guess}": value for name, value in scores.items()}


def path_share(world_from_camera: Float[Tensor | np.ndarray, "s n 4"], truth: ClipTruth) -> float:
    """RMS distance of camera centres after Sim(3) over the path's length.

    NaN where the camera hardly moves: a path shorter than `ClipTruth.least_baseline`, such as a
    mere rotation.
    """
    centres = truth.world_from_camera[:, :3, 3]
    length = float(centres.diff(dim=0).norm(dim=-1).sum())
    if length < max(truth.least_baseline, NO_MOTION):
        return float("nan")
    errors = path_errors(world_from_camera, truth.world_from_camera, alignment="sim3")
    return errors.rmse / errors.path_length
