"""What is true of a clip, wherever it comes from: a rendered world or a real recording."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid
from everview.world.clip import WorldSequence

LEAST_BASELINE = 0.05
"""Share of the median depth from which on a baseline has a direction, and a path a shape."""


@dataclass(frozen=True, kw_only=True)
class ClipTruth:
    """Images as the network sees them, and what is known of them on the same pixel grid.

    World frame: the first camera, OpenCV axes. Unit: that of the data, the same for depth and
    poses. Pixels are indices.
    """

    images: Float[Tensor, "s 3 H W"]
    """RGB in [0, 1]."""
    world_from_camera: Float[Tensor, "s 4 4"]
    """Poses; the first is the identity."""
    intrinsics: Float[Tensor, "s 3 3"]
    """K in pixels of `images`."""
    depth: Float[Tensor, "s H W"] | None = None
    """z-depth; 0 where it is not known. None if it is known nowhere."""
    valid: Bool[Tensor, "s H W"] | None = None
    """Where depth is known; comes with `depth`."""

    def __len__(self) -> int:
        return len(self.world_from_camera)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def unit(self) -> float | None:
        """Median of all known depth; None without depth."""
        if self.depth is None or self.valid is None or not self.valid.any():
            return None
        return float(self.depth[self.valid].median())

    @property
    def least_baseline(self) -> float:
        """Distance from which on two cameras count as apart: 5 % of the median depth.

        Without depth: 5 % of the largest distance between two cameras of the clip.
        """
        unit = self.unit
        if unit is None:
            centres = self.world_from_camera[:, :3, 3]
            unit = float(torch.cdist(centres, centres).max())
        return LEAST_BASELINE * unit

    @property
    def points(self) -> Float[Tensor, "s H W 3"] | None:
        """What each pixel shows, in the first camera's frame; None without depth."""
        if self.depth is None:
            return None
        camera = invert_rigid(self.world_from_camera)
        return points_from_depth(self.depth, camera, self.intrinsics)


def world_truth(sequence: WorldSequence) -> ClipTruth:
    """The truth about a rendered clip."""
    return ClipTruth(
        images=sequence.images,
        world_from_camera=sequence.world_from_camera,
        intrinsics=sequence.intrinsics,
        depth=sequence.depth,
        valid=sequence.valid,
    )
