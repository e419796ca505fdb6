"""What every kind of place gives: scenes along the way, bodies, and where cameras go."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from everview.world.movers import Body
from everview.world.scene import Scene

GROUP = 16
"""Frames that share one scene; endless places change it from group to group."""


@runtime_checkable
class Place(Protocol):
    """A world to walk through; a function of its seed alone."""

    bodies: tuple[Body, ...]
    """The first one is the place at rest."""

    def scene(self, group: int) -> Scene:
        """What may be seen in frames GROUP * group and following, around `origin(group)`."""
        ...

    def origin(self, group: int) -> Float[Tensor, " 3"]:
        """Where the scene's frame lies in the place's, float64."""
        ...

    def cameras(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """place_from_camera at times in frames, float64."""
        ...


NO_SHIFT = torch.zeros(3, dtype=torch.float64)
"""Origin of places that never change."""
