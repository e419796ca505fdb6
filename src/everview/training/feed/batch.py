"""Batch: clips of one shape with what is true about them."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.cameras import pose_encoding_from_camera
from everview.training.losses.scale import scene_scale
from everview.training.losses.target import Target

FEWEST_PIXELS = 16
"""Valid pixels of a clip below which it has no scale of its own and keeps its unit."""

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Which batch is wanted; together with the recipe it says everything about it."""

    step: int
    """Number of the step, from 0."""
    stage: int
    """Number of the stage, from 0."""
    part: int = 0
    """Which of the parts that ranks and accumulation make of a step."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one part of a step."""

    request: Request
    """What was asked for."""
    images: Float[Tensor, "b s 3 H W"]
    """RGB in [0, 1]."""
    queries: Float[Tensor, "b t 2"] | None
    """Pixels (x, y) of the first frame to be tracked; None in steps without tracks."""
    truth: Target | None
    """In units of `scene_scale`; None if some clip has no depth or poses."""
    valid: Bool[Tensor, "b s H W"]
    """Where the data know depth; everywhere in clips without any, such as plain video."""
    still: Bool[Tensor, "b s H W"] | None
    """Where nothing moves by itself; None: unknown, taken as everywhere."""
    labels: tuple[str, ...]
    """What each clip is, to find it again."""
    numbers: tuple[int, ...]
    """Place of each clip in its step, over all parts."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return moved(self, device)


def moved(record: Record, device: torch.device) -> Record:
    """A copy of a dataclass whose tensors, those of nested dataclasses too, are on a device."""
    changes: dict[str, Any] = {}
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value.to(device, non_blocking=device.type == "cuda")
        elif isinstance(value, Target):
            changes[field.name] = moved(value, device)
    return replace(record, **changes)  # type: ignore[type-var]


def truth_of_clips(
    depth: Float[Tensor, "b s H W"],
    points: Float[Tensor, "b s H W 3"],
    valid: Bool[Tensor, "b s H W"],
    camera_from_first: Float[Tensor, "b s 4 4"],
    intrinsics: Float[Tensor, "b s 3 3"],
) -> Target:
    """Bring clips to the unit in which networks learn: the mean distance of their valid points.

    Args:
        depth: z-depth in any unit; whatever is not valid becomes 0.
        points: in the first camera's frame, in the same unit.
        valid: which pixels are known.
        camera_from_first: poses, in the same unit.
        intrinsics: K in pixels.

    Source: VGGT Sec. 3.4, ground truth coordinate normalization.
    """
    depth, points = torch.where(valid, depth, 0.0), torch.where(valid[..., None], points, 0.0)
    is_known = valid.sum(dim=(1, 2, 3)) >= FEWEST_PIXELS
    scale = torch.where(is_known, scene_scale(points, valid), 1.0)  # b
    poses = camera_from_first.clone()
    poses[..., :3, 3] /= scale[:, None, None]
    height, width = depth.shape[-2:]
    return Target(
        pose_encoding=pose_encoding_from_camera(poses, intrinsics, (height, width)),
        depth=depth / scale[:, None, None, None],
        points=points / scale[:, None, None, None, None],
        mask=valid,
    )
