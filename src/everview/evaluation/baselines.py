"""What can be said of a procedural clip without looking at it: the least that a model must beat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.geometry.cameras import (
    fov_from_intrinsics,
    intrinsics_from_fov,
    points_from_depth,
)
from everview.geometry.rotations import invert_rigid, rigid
from everview.world.clip import WorldSequence, sequence

FIRST_SEED = 20_000_000
"""Of the clips that habits are measured on: none is used for training or for scores."""


@dataclass(frozen=True, kw_only=True)
class Habits:
    """Averages over many clips of the world. Unit of length: the median depth of a clip."""

    depth_map: Float[Tensor, "H W"]
    """Geometric mean of the depth at each pixel."""
    step: Float[Tensor, " 3"]
    """Mean direction of motion in the camera's axes, as long as a mean step from frame to frame."""
    long_fov: float
    """Mean angle that the longer side spans, radians."""

    def depth(self, size: tuple[int, int]) -> Float[Tensor, "H W"]:
        """The mean depth map, resampled to (height, width)."""
        grid = self.depth_map[None, None]
        return F.interpolate(grid, size, mode="bilinear", align_corners=False)[0, 0]

    def rows(self, size: tuple[int, int]) -> Float[Tensor, "H W"]:
        """One depth per row: the mean depth map without its columns."""
        return self.depth(size).log().mean(dim=1, keepdim=True).exp().expand(size)

    def fov(self, size: tuple[int, int]) -> Float[Tensor, " 2"]:
        """Mean (vertical, horizontal) opening angle of an image of (height, width), radians."""
        sides = torch.tensor(size, dtype=torch.float32)
        slope = torch.tan(torch.tensor(self.long_fov / 2)) / sides.max()
        return 2 * torch.atan(sides * slope)

    def path(self, frames: int) -> Float[Tensor, "s 4 4"]:
        """Poses (world_from_camera) on a straight line at constant speed, never turning."""
        place = torch.arange(frames)[:, None] * self.step
        return rigid(torch.eye(3).expand(frames, 3, 3), place)

    def points(self, frames: int, size: tuple[int, int]) -> Float[Tensor, "s H W 3"]:
        """The mean depth map unprojected by the mean camera, which stands still."""
        intrinsics = intrinsics_from_fov(self.fov(size), size)
        points = points_from_depth(self.depth(size), torch.eye(4), intrinsics)
        return points.expand(frames, *size, 3)


def measure_habits(
    *, speed: float = 1.0, clips: int = 48, frames: int = 4, kind: str = "any"
) -> Habits:
    """Average over clips of the world that nothing else uses.

    Args:
        speed: motion between frames, as in `everview.world.sequence`.
        clips: how many.
        frames: of each.
        kind: of place, as in `everview.world.sequence`.
    """
    size = (98, 140)
    watched = [
        sequence(FIRST_SEED + i, frames, size=size, speed=speed, kind=kind) for i in range(clips)
    ]
    unit = torch.stack([clip.depth[clip.valid].median() for clip in watched])
    steps = torch.stack([_steps(clip) for clip in watched]) / unit[:, None, None]
    steps = steps.flatten(0, 1)  # (clips s-1) 3
    length = steps.norm(dim=-1, keepdim=True)
    way = (steps / length.clamp_min(1e-9)).mean(dim=0)
    logs = torch.cat(
        [
            (c.depth / u).where(c.valid, torch.nan).log()  # sky has no depth
            for c, u in zip(watched, unit, strict=True)
        ]
    )
    fov = torch.stack([fov_from_intrinsics(clip.intrinsics[0], size) for clip in watched])
    return Habits(
        depth_map=logs.nanmean(dim=0).nan_to_num(0.0).exp(),
        step=way / way.norm() * length.mean(),
        long_fov=float(fov.amax(dim=1).mean()),
    )


def _steps(clip: WorldSequence) -> Float[Tensor, "s 3"]:
    """Motion to the next frame, in the camera's own axes, metres."""
    poses = clip.world_from_camera
    return (invert_rigid(poses[:-1]) @ poses[1:])[:, :3, 3]
