"""Scores of a clip's cameras: relative motion over all pairs of frames, and the whole path."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.evaluation.clip_truth import ClipTruth
from everview.evaluation.metrics.poses import (
    NO_MOTION,
    checked_poses,
    path_errors,
    rotation_degrees,
)
from everview.geometry.rotations import invert_rigid

THRESHOLDS = (30, 15, 5)
"""Degrees of the AUC."""


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Errors of the relative pose of every two frames i < j, in this order."""

    rotation_degrees: Float[Tensor, " n"]
    """Angle between estimated and true relative rotation, 0 to 180."""
    direction_degrees: Float[Tensor, " n"]
    """Angle between estimated and true direction from camera i to j, 0 to 180; 90 where the
    estimate stands still; NaN where the true baseline does not count."""
    length_ratio: Float[Tensor, " n"]
    """Estimated over true baseline; NaN where that does not count."""

    @property
    def pose_degrees(self) -> Float[Tensor, " n"]:
        """The larger of rotation and direction error, the direction without its sign."""
        blind = torch.minimum(self.direction_degrees, 180 - self.direction_degrees)
        return torch.maximum(self.rotation_degrees, blind.nan_to_num(0.0))


def pair_errors(
    world_from_camera: Float[Tensor | np.ndarray, "s n 4"], truth: ClipTruth
) -> PairErrors:
    """Compare the relative poses of all pairs of frames, in float64.

    A baseline counts from `ClipTruth.least_baseline` on.

    Raises:
        ConfigError: if the number of poses differs, there is only one, or one is not finite.
    """
    estimated, true = checked_poses(world_from_camera, truth.world_from_camera)
    i, j = torch.triu_indices(len(true), len(true), offset=1)
    motion, true_motion = (invert_rigid(p[i]) @ p[j] for p in (estimated, true))
    step, true_step = motion[:, :3, 3], true_motion[:, :3, 3]
    length, true_length = step.norm(dim=-1), true_step.norm(dim=-1)
    sine, cosine = torch.linalg.cross(step, true_step).norm(dim=-1), (step * true_step).sum(-1)
    direction = torch.rad2deg(torch.atan2(sine, cosine)).masked_fill(length < NO_MOTION, 90.0)
    ignored = true_length < max(truth.least_baseline, NO_MOTION)
    turn = invert_rigid(true_motion) @ motion
    return PairErrors(
        rotation_degrees=rotation_degrees(turn[:, :3, :3]),
        direction_degrees=direction.masked_fill(ignored, torch.nan),
        length_ratio=(length / true_length).masked_fill(ignored, torch.nan),
    )


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
        ConfigError: see `pair_errors`.
    """
    errors = pair_errors(world_from_camera, truth)
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


def pose_auc(degrees: Float[Tensor, " n"], limit: int) -> float:
    """Mean over k = 1 .. limit of the share of errors below k degrees; the last bin is closed."""
    bounds = torch.arange(1, limit + 1, dtype=degrees.dtype)
    below = degrees[:, None] < bounds
    below[:, -1] |= degrees == limit
    return float(below.double().mean())
