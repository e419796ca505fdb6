"""How the error of a camera path grows with its length and with time, and when it comes back.

Poses are world_from_camera, OpenCV axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_list
from everview.evaluation.metrics.poses import (
    align_paths,
    checked_poses,
    moved_path,
    rotation_degrees,
)
from everview.geometry.rotations import invert_rigid


@dataclass(frozen=True, kw_only=True)
class SegmentDrift:
    """Errors of the motion along stretches of the true path of one length."""

    length: float
    """In the unit of the truth."""
    translation_share: float
    """Mean length of the error's translation over the stretch's length."""
    rotation_degrees: float
    """Mean rotation error over the stretch's length: degrees per unit of the truth."""
    segments: int
    """How many stretches there are."""


@dataclass(frozen=True, kw_only=True)
class TimeDrift:
    """Errors of an aligned path, by time."""

    start: Float[np.ndarray, " w"]
    """Where each window begins; windows without a frame are left out."""
    position: Float[np.ndarray, " w"]
    """RMS distance of camera centres, in the unit of the truth."""
    rotation_degrees: Float[np.ndarray, " w"]
    """RMS angle between orientations."""
    frames: Int[np.ndarray, " w"]
    """Frames of each window."""
    position_slope: float
    """Growth of the distance per unit of time, by least squares over all frames."""


@dataclass(frozen=True, kw_only=True)
class RevisitErrors:
    """Errors of the motion from an earlier visit of a place to a later one, one per later frame."""

    translation: Float[Tensor, " n"]
    """In the unit of the truth; empty if no place is seen twice."""
    rotation_degrees: Float[Tensor, " n"]


def drift_by_length(
    world_from_camera: Float[Array, "s n 4"],
    truth: Float[Array, "t n 4"],
    lengths: Sequence[float],
    *,
    every: int = 1,
) -> list[SegmentDrift]:
    """Error of relative motion along stretches of the true path, without any alignment.

    A stretch begins at each `every`-th frame and ends at the first frame that lies at least
    `length` further along the path.

    Args:
        world_from_camera: estimated poses, in the unit of the truth (see `moved_path`).
        truth: true poses of the same frames.
        lengths: of the stretches, in the unit of the truth; those longer than the path are left
            out of the result. KITTI takes 100, 200 ... 800 metres and every tenth frame.
        every: frames between beginnings.

    Raises:
        ConfigError: if no length is shorter than the path, a length is not positive, or for what
            `motion_errors` refuses.

    Source: Geiger et al., Are we ready for autonomous driving? The KITTI vision benchmark suite
    (2012), odometry.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    steps = true[:, :3, 3].diff(dim=0).norm(dim=-1)
    place = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    if not all(length > 0 for length in lengths) or every < 1:
        raise ConfigError(f"lengths and every must be positive, got {list(lengths)} and {every}")
    found = [_segments(estimated, true, place, float(length), every) for length in lengths]
    kept = [drift for drift in found if drift is not None]
    if not kept:
        raise ConfigError(
            f"the true path is {float(place[-1]):g} long, too short for stretches of "
            f"{list(lengths)}"
        )
    return kept


def drift_over_time(
    world_from_camera: Float[Array, "s n 4"],
    truth: Float[Array, "t n 4"],
    *,
    window: float,
    timestamps: Float[Array, " s"] | None = None,
    alignment: str = "sim3",
) -> TimeDrift:
    """Error of a path, aligned as a whole, in one window of time after the other.

    Args:
        world_from_camera: estimated poses.
        truth: true poses of the same frames.
        window: its length, in the unit of the timestamps.
        timestamps: of the frames; their numbers if None.
        alignment: see `path_errors`.

    Raises:
        ConfigError: if the window is not positive, a timestamp is not finite or their number is
            another one, or for what `path_errors` refuses.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    time = np.arange(len(true), dtype=np.float64)
    if timestamps is not None:
        time = as_list(timestamps, "timestamps")
    if len(time) != len(true) or not window > 0:
        raise ConfigError(
            f"{len(time)} timestamps for {len(true)} poses, window {window}: give one timestamp "
            "per pose and a window above 0"
        )
    aligned = moved_path(estimated, align_paths(estimated, true, alignment=alignment))
    distance = (aligned[:, :3, 3] - true[:, :3, 3]).norm(dim=-1).numpy()
    angle = rotation_degrees(true[:, :3, :3].mT @ aligned[:, :3, :3]).numpy()
    number, which = np.unique(np.floor((time - time.min()) / window), return_inverse=True)
    frames = np.bincount(which)
    return TimeDrift(
        start=time.min() + number * window,
        position=np.sqrt(np.bincount(which, distance**2) / frames),
        rotation_degrees=np.sqrt(np.bincount(which, angle**2) / frames),
        frames=frames,
        position_slope=least_squares_slope(time, distance),
    )


def revisit_errors(
    world_from_camera: Float[Array, "s n 4"],
    truth: Float[Array, "t n 4"],
    *,
    apart: int,
    nearby: float,
) -> RevisitErrors:
    """Error of the motion from an earlier visit of a place to a later one.

    For each frame the earlier visit is the nearest true camera of those at least `apart` frames
    before; it counts if it is near enough.

    Args:
        world_from_camera: estimated poses, in the unit of the truth.
        truth: true poses of the same frames.
        apart: frames between two visits, at least; > 0.
        nearby: distance within which a place is the same, in the unit of the truth.

    Raises:
        ConfigError: see `motion_errors`.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    if apart < 1:
        raise ConfigError(f"two visits must be at least one frame apart, got {apart}")
    centres = true[:, :3, 3]
    pairs = []
    for late in range(apart, len(true)):
        distance = (centres[: late - apart + 1] - centres[late]).norm(dim=-1)
        early = int(distance.argmin())
        if float(distance[early]) <= nearby:
            pairs.append((early, late))
    i, j = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    ours, theirs = (invert_rigid(p[i]) @ p[j] for p in (estimated, true))
    return RevisitErrors(
        translation=(ours[:, :3, 3] - theirs[:, :3, 3]).norm(dim=-1),
        rotation_degrees=rotation_degrees(theirs[:, :3, :3].mT @ ours[:, :3, :3]),
    )


def least_squares_slope(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Slope of the line through points; 0 where all x are equal."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    return float((centred * (y - y.mean())).sum() / spread) if spread > 0 else 0.0


def _segments(
    estimated: Tensor, true: Tensor, place: Tensor, length: float, every: int
) -> SegmentDrift | None:
    first = torch.arange(0, len(true), every)
    last = torch.searchsorted(place, place[first] + length * (1 - 1e-12))
    first, last = first[last < len(true)], last[last < len(true)]
    if not len(first):
        return None
    motion, true_motion = (invert_rigid(p[first]) @ p[last] for p in (estimated, true))
    error = invert_rigid(true_motion) @ motion
    return SegmentDrift(
        length=length,
        translation_share=float(error[:, :3, 3].norm(dim=-1).mean()) / length,
        rotation_degrees=float(rotation_degrees(error[:, :3, :3]).mean()) / length,
        segments=len(first),
    )
