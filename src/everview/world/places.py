"""What every kind of place gives: scenes along the way, bodies, and where cameras go."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.world.bank import slots
from everview.world.dice import Dice
from everview.world.movers import Body
from everview.world.scene import Lights, Scene, ShadowView, Sky

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


class TiltedPlace:
    """A place whose camera is mounted otherwise: each pose is turned about the camera itself.

    Args:
        place: which, seen from where.
        turn: rotation that comes after each pose.
    """

    def __init__(self, place: Place, turn: Float[Tensor, "3 3"]) -> None:
        self._place, self.bodies = place, place.bodies
        self._turn = torch.eye(4, dtype=torch.float64)
        self._turn[:3, :3] = turn

    def scene(self, group: int) -> Scene:
        """See `Place.scene`."""
        return self._place.scene(group)

    def origin(self, group: int) -> Float[Tensor, " 3"]:
        """See `Place.origin`."""
        return self._place.origin(group)

    def cameras(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """See `Place.cameras`."""
        return self._place.cameras(times) @ self._turn


NO_SHIFT = torch.zeros(3, dtype=torch.float64)
"""Origin of places that never change."""


def far_light(dice: Dice, *, reach: float) -> tuple[Float[Tensor, " 4"], ShadowView | None]:
    """Direction towards the sun, and the camera there that sees what it lights.

    Args:
        dice: of the place.
        reach: metres around the origin in which shadows fall.
    """
    way, height = dice.number("sun way", 0, 2 * math.pi), dice.number("sun height", 0.35, 1.3)
    sun = torch.tensor([math.cos(height) * math.cos(way), -math.sin(height),
                        math.cos(height) * math.sin(way)])  # fmt: skip
    if not dice.chance("sun", 0.7):
        return F.pad(sun, (0, 1)), None
    aside = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1, 0]), sun), dim=0)
    view = torch.eye(4)
    view[:3, :3] = torch.stack([aside, torch.linalg.cross(-sun, aside), -sun], dim=1)
    away = 6 * reach
    view[:3, 3] = away * sun
    return F.pad(sun, (0, 1)), ShadowView(
        place_from_light=view, half_width=reach / away, softness=0.4
    )


def outdoor_light(dice: Dice, sun: Float[Tensor, " 4"]) -> tuple[Lights, Sky, float]:
    """Sunlight (weaker under clouds), sky and fog."""
    is_clear = dice.chance("sun", 0.7)
    warm = torch.tensor([1.0, 0.95, 0.85]) + dice.uniform("sun tint", (3,), -0.05, 0.05)
    strength = (
        dice.number("sun strength", 0.55, 0.9) if is_clear else dice.number("overcast", 0.1, 0.3)
    )
    ambient = torch.tensor([0.95, 1.0, 1.08]) * dice.number("day", 0.35, 0.55)
    blue = torch.tensor([0.25, 0.45, 0.85]) + dice.uniform("sky tint", (3,), -0.1, 0.1)
    grey = torch.full((3,), dice.number("grey", 0.6, 0.9))
    zenith = blue if is_clear else torch.lerp(blue, grey, 0.85)
    horizon = torch.lerp(zenith, torch.ones(3), 0.6)
    first, count = slots("noise")
    sky = Sky(
        zenith=zenith, horizon=horizon, clouds=dice.number("clouds", 0.2, 0.75),
        slot=float(first + dice.integer("cloud pattern", count)),
    )  # fmt: skip
    fog = (
        dice.number("fog", 0.0005, 0.004)
        if dice.chance("clear air", 0.7)
        else dice.number("thick fog", 0.008, 0.035)
    )
    lights = Lights(
        place=sun[None], colour=(warm * strength)[None], falloff=torch.full((1,), 1e4),
        ambient=ambient + (0.0 if is_clear else 0.25),
    )  # fmt: skip
    return lights, sky, fog
