"""Do depth, intrinsics and poses agree? Depth of one frame, moved into another, meets its depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.cameras import project_points, unproject_depth
from everview.training.datasets.view import View

MIN_OVERLAP = 0.1
"""Pairs that share less of their valid pixels say nothing."""
MAX_PIXELS = 20_000
"""Pixels of a pair that are looked at, evenly spread."""
MIN_Z = 1e-6
"""Points closer to the camera's plane have no pixel."""


Motion = Callable[[View, View], Tensor]
"""Says how the camera moved: second_from_first."""


class Convention(NamedTuple):
    """A way in which poses may have been stored."""

    text: str
    """For messages."""
    is_inverted: bool
    """Whether the stored matrix is camera_from_world."""
    axes_from_opencv: tuple[tuple[float, float, float], ...]
    """Rotation from OpenCV's camera axes to those of the stored pose."""

    def world_from_camera(self, stored: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
        """Pose in our convention, if the stored one follows this one."""
        pose = torch.linalg.inv(stored) if self.is_inverted else stored
        axes = torch.eye(4, dtype=pose.dtype)
        axes[:3, :3] = pose.new_tensor(self.axes_from_opencv)
        return pose @ axes

    def motion(self, first: View, second: View) -> Float[Tensor, "4 4"]:
        """second_from_first, if the stored poses follow this convention."""
        poses = [self.world_from_camera(v.world_from_camera.double()) for v in (first, second)]
        return torch.linalg.inv(poses[1]) @ poses[0]


_OPENCV = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_OPENGL = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
_FORWARD = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))

AS_STORED = Convention("world_from_camera, OpenCV axes", False, _OPENCV)
OTHERS = tuple(
    Convention(f"{direction}, {axes_text}", is_inverted, axes)
    for direction, is_inverted in (("world_from_camera", False), ("camera_from_world", True))
    for axes_text, axes in (
        ("OpenCV axes", _OPENCV),
        ("OpenGL axes (x right, y up, z backward)", _OPENGL),
        ("vehicle axes (x forward, y left, z up)", _FORWARD),
    )
    if is_inverted or axes is not _OPENCV
)
"""What else is common."""

SCALES = (1e-3, 1e-2, 1e-1, 1e1, 1e2, 1e3)
"""Factors by which a unit of depth may be wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Relative errors of depth, medians over pixels and then over pairs.

    Infinite where less than half of the pairs overlap.
    """

    stored: float
    """With the poses as they are."""
    identity: float
    """As if the camera did not move: the control."""
    overlap: float
    """Share of the valid pixels that meet valid depth in the other frame."""
    rotation_only: float
    """As if the camera turned on the spot: what depth in far too large a unit comes down to."""
    best_convention: str
    """Of the conventions other than ours, the one with the least error."""
    best_convention_error: float
    """Its error."""
    best_scale: float
    """Of the factors on depth other than 1, the one with the least error."""
    best_scale_error: float
    """Its error."""


def agreement(pairs: Sequence[tuple[View, View]]) -> Agreement:
    """Try the poses as stored, other conventions and other units of depth.

    Args:
        pairs: frames of one scene each, both with depth, pose and intrinsics.
    """
    stored = _error(pairs, AS_STORED.motion)
    conventions = {other.text: _error(pairs, other.motion).error for other in OTHERS}
    scales = {scale: _error(pairs, AS_STORED.motion, scale=scale).error for scale in SCALES}
    best_convention = min(conventions, key=lambda text: conventions[text])
    best_scale = min(scales, key=lambda scale: scales[scale])
    return Agreement(
        stored=stored.error,
        identity=_error(pairs, _no_motion).error,
        rotation_only=_error(pairs, _rotation).error,
        overlap=stored.overlap,
        best_convention=best_convention,
        best_convention_error=conventions[best_convention],
        best_scale=best_scale,
        best_scale_error=scales[best_scale],
    )


def stored_error(pairs: Sequence[tuple[View, View]]) -> float:
    """`Agreement.stored` alone."""
    return _error(pairs, AS_STORED.motion).error


class Error(NamedTuple):
    """How well pairs agree."""

    error: float
    overlap: float


def reprojection_error(
    first: View, second: View, second_from_first: Float[Tensor, "4 4"], *, scale: float = 1.0
) -> Error:
    """Median of |depth seen - depth expected| / depth seen, over pixels valid in both.

    Args:
        first: whose depth is moved.
        second: whose depth it meets, at the nearest pixel.
        second_from_first: motion of the camera.
        scale: factor on the depth of both.
    """
    in_first = unproject_depth(first.depth.double() * scale, first.intrinsics.double())
    points = in_first[first.valid]  # n 3
    points = points[:: max(1, len(points) // MAX_PIXELS)]
    in_second = points @ second_from_first[:3, :3].mT + second_from_first[:3, 3]
    pixels = project_points(in_second, second.intrinsics.double()).round()
    height, width = second.size
    u, v = pixels.unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (in_second[:, 2] > MIN_Z)
    rows, columns = v[inside].long(), u[inside].long()
    seen, expected = second.depth[rows, columns].double() * scale, in_second[inside, 2]
    known = second.valid[rows, columns]
    if not len(points) or not known.any():
        return Error(math.inf, 0.0)
    error = ((seen - expected).abs() / seen)[known].median()
    return Error(float(error), float(known.sum()) / len(points))


def _error(pairs: Sequence[tuple[View, View]], motion: Motion, *, scale: float = 1.0) -> Error:
    """Median over pairs with enough overlap, if these are at least half of all."""
    found = [reprojection_error(*pair, motion(*pair), scale=scale) for pair in pairs]
    good = [f for f in found if f.overlap >= MIN_OVERLAP]
    if 2 * len(good) < len(pairs) or not good:
        return Error(math.inf, 0.0)
    errors, overlaps = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*good, strict=True)
    )
    return Error(float(errors.quantile(0.5)), float(overlaps.quantile(0.5)))


def _no_motion(first: View, _: View) -> Float[Tensor, "4 4"]:
    return torch.eye(4, dtype=torch.float64, device=first.depth.device)


def _rotation(first: View, second: View) -> Float[Tensor, "4 4"]:
    motion = AS_STORED.motion(first, second)
    motion[:3, 3] = 0
    return motion
