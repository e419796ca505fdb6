"""Relative poses of all pairs of cameras, and the area under the curve of their errors.

Source: relative pose accuracy of VGGT (2503.11651), Sec. 4.1; the histogram as in its published
evaluation on CO3D.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double
from everview.evaluation.metrics.poses import NO_MOTION, checked_poses, rotation_degrees
from everview.geometry.rotations import invert_rigid


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Errors of the relative pose of every two frames i < j, in this order."""

    rotation_degrees: Float[Tensor, " n"]
    """Angle between estimated and true relative rotation, 0 to 180."""
    direction_degrees: Float[Tensor, " n"]
    """Angle between estimated and true direction from camera i to j, 0 to 180; 90, what a random
    direction has on average, where the estimate stands still; NaN where the true baseline does not
    count."""
    length_ratio: Float[Tensor, " n"]
    """Estimated over true baseline; NaN where that does not count."""

    @property
    def blind_degrees(self) -> Float[Tensor, " n"]:
        """The direction without its sign, 0 to 90, as published; 0 where no baseline counts."""
        return torch.minimum(self.direction_degrees, 180 - self.direction_degrees).nan_to_num(0.0)

    @property
    def pose_degrees(self) -> Float[Tensor, " n"]:
        """The larger of rotation error and `blind_degrees`."""
        return torch.maximum(self.rotation_degrees, self.blind_degrees)


def pair_errors(
    world_from_camera: Float[Array, "s n 4"],
    truth: Float[Array, "t n 4"],
    *,
    least_baseline: float = NO_MOTION,
    first_camera: bool = False,
) -> PairErrors:
    """Compare the relative poses of all pairs of frames, in float64.

    Args:
        world_from_camera: estimated poses, in any world frame and unit.
        truth: true poses of the same frames.
        least_baseline: true distance, in the unit of the truth, from which directions count.
        first_camera: compare T'_i^-1 T'_j with T'_i = T_i T_0^-1 (T: camera_from_world) in place
            of T_i T_j^-1. That is not the relative pose of the pair; it is what QuantVGGT
            (2509.21302) reports, and for its tables only.

    Raises:
        ConfigError: if the number of poses differs, there is only one, or one is not finite.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    i, j = torch.triu_indices(len(true), len(true), offset=1)
    if first_camera:
        estimated, true = (invert_rigid(invert_rigid(p) @ p[0]) for p in (estimated, true))
        motion, true_motion = (p[i] @ invert_rigid(p[j]) for p in (estimated, true))
    else:
        motion, true_motion = (invert_rigid(p[i]) @ p[j] for p in (estimated, true))
    step, true_step = motion[:, :3, 3], true_motion[:, :3, 3]
    length, true_length = step.norm(dim=-1), true_step.norm(dim=-1)
    sine, cosine = torch.linalg.cross(step, true_step).norm(dim=-1), (step * true_step).sum(-1)
    direction = torch.rad2deg(torch.atan2(sine, cosine)).masked_fill(length < NO_MOTION, 90.0)
    ignored = true_length < max(least_baseline, NO_MOTION)
    turn = invert_rigid(true_motion) @ motion
    return PairErrors(
        rotation_degrees=rotation_degrees(turn[:, :3, :3]),
        direction_degrees=direction.masked_fill(ignored, torch.nan),
        length_ratio=(length / true_length).masked_fill(ignored, torch.nan),
    )


def pose_auc(degrees: Float[Array, " n"], limit: int) -> float:
    """Area under the share of errors below 1 .. `limit` degrees, by a histogram.

    Bins are one degree wide and hold their left border; the last one holds `limit` too. The result
    is the mean over k = 1 .. limit of the share of errors in the first k bins.

    Args:
        degrees: errors of all pairs, >= 0; infinite ones (pairs without an estimate) count as
            wrong.
        limit: whole number of degrees.

    Raises:
        ConfigError: if there is no error, one is NaN or negative, or the limit is no whole number
            from 1 on.
    """
    if limit != int(limit) or limit < 1:
        raise ConfigError(f"the limit of an AUC must be a whole number from 1 on, got {limit}")
    errors = _checked(degrees)
    counts, _ = np.histogram(errors[errors <= limit], bins=int(limit), range=(0, limit))
    return float(np.cumsum(counts).mean() / len(errors))


def share_below(degrees: Float[Array, " n"], limit: float) -> float:
    """Share of errors below a limit: of rotations RRA@limit, of directions RTA@limit.

    Raises:
        ConfigError: if there is no error, or one is NaN or negative.
    """
    return float((_checked(degrees) < limit).mean())


def _checked(degrees: Array) -> np.ndarray:
    errors = as_double(degrees).flatten().numpy()
    if not len(errors):
        raise ConfigError("there is no pair of poses to average")
    if not (errors >= 0).all():
        raise ConfigError(
            f"{int((~(errors >= 0)).sum())} of {len(errors)} pose errors are NaN or negative: "
            "leave these pairs out and report how many they are"
        )
    return errors
