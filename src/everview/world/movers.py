"""Things that move by themselves: paths of bodies over time, and figures made of several."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.rotations import rigid
from everview.world.builder import Builder, Vector
from everview.world.dice import Dice
from everview.world.solids import BOX, CYLINDER, SPHERE, turn_about_x, turn_about_y, turn_about_z

_TURNS = {"x": turn_about_x, "y": turn_about_y, "z": turn_about_z}
STEP_SECONDS = 0.2
"""Time from frame to frame at speed 1."""


@runtime_checkable
class Body(Protocol):
    """A rigid thing on its way."""

    def pose(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """place_from_body at times in frames, which need not be whole; float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Never moves: the place itself."""

    def pose(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """See `Body.pose`."""
        return torch.eye(4, dtype=torch.float64).expand(len(times), 4, 4)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Goes round an ellipse, looking ahead (own z)."""

    centre: Vector
    radii: tuple[float, float]
    """Metres along own axes."""
    yaw: float
    """Of the longer axis, radians."""
    rate: float
    """Radians per frame."""
    phase: float
    ground: Callable[[Tensor, Tensor], Tensor] | None = None
    """y of the ground at x and z, added to that of the centre."""

    def pose(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """See `Body.pose`."""
        angle = self.phase + self.rate * times.double()
        sign = math.copysign(1.0, self.rate)
        along, across = self.radii[0] * angle.cos(), self.radii[1] * angle.sin()
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        x = self.centre[0] + cos * across + sin * along
        z = self.centre[2] - sin * across + cos * along
        ahead, aside = -self.radii[0] * angle.sin() * sign, self.radii[1] * angle.cos() * sign
        heading = torch.atan2(cos * aside + sin * ahead, -sin * aside + cos * ahead)
        y = torch.full_like(x, self.centre[1])
        y = y if self.ground is None else y + self.ground(x, z)
        place = torch.stack([x, y, z], dim=1)
        return rigid(turn_about_y(heading), place)


@dataclass(frozen=True, kw_only=True)
class Swing:
    """Hangs on another body, or on the place, and swings about an axis: doors, lamps, limbs."""

    parent: Body
    pivot: Vector
    """In the parent's frame."""
    axis: str
    """x, y or z."""
    middle: float
    """Radians."""
    reach: float
    """Radians to both sides."""
    rate: float
    """Radians of the swing's phase per frame."""
    phase: float

    def pose(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """See `Body.pose`."""
        angle = self.middle + self.reach * torch.sin(self.phase + self.rate * times.double())
        pivot = torch.tensor(self.pivot, dtype=torch.float64).expand(len(times), 3)
        return self.parent.pose(times) @ rigid(_TURNS[self.axis](angle), pivot)


def body_poses(bodies: tuple[Body, ...], times: Float[Tensor, " s"]) -> Float[Tensor, "s b 4 4"]:
    """place_from_body of all bodies, float64."""
    return torch.stack([body.pose(times) for body in bodies], dim=1)


def add_figure(
    builder: Builder, bodies: list[Body], walk: Body, materials: tuple[int, int, int], rate: float
) -> None:
    """Add somebody who walks: trunk and head on one body, four limbs that swing.

    Args:
        builder: gets the solids.
        bodies: gets five bodies.
        walk: where the figure's foot is.
        materials: of skin, top and trousers.
        rate: radians of the gait per frame.
    """
    skin, top, trousers = materials
    trunk = len(bodies)
    bodies.append(walk)
    builder.add(BOX, (0, -1.15, 0), (0.2, 0.3, 0.12), top, body=trunk)
    builder.add(SPHERE, (0, -1.62, 0), (0.11, 0.14, 0.12), skin, body=trunk)
    builder.add(CYLINDER, (0, -1.47, 0), (0.05, 0.06, 0.05), skin, body=trunk)
    for side in (-1.0, 1.0):
        for height, aside, length, width, material, way in (
            (-0.86, 0.1, 0.43, 0.075, trousers, side), (-1.42, 0.25, 0.32, 0.05, top, -side),
        ):  # fmt: skip
            number = len(bodies)
            bodies.append(
                Swing(parent=walk, pivot=(aside * side, height, 0), axis="x", middle=0.0,
                      reach=0.5 * way, rate=rate, phase=0.0)
            )  # fmt: skip
            builder.add(CYLINDER, (0, length, 0), (width, length, width), material, body=number)
            foot = (0, 2 * length, 0.05 if height > -1 else 0)
            builder.add(BOX, foot, (width, 0.04, 0.1), skin, body=number)


def add_vehicle(
    builder: Builder, bodies: list[Body], drive: Body, materials: tuple[int, int, int]
) -> None:
    """Add a car on one body; materials of paint, glass and tyres."""
    number = len(bodies)
    bodies.append(drive)
    for shape, x, y, z, hx, hy, hz, which in CAR:
        builder.add(shape, (x, -y, z), (hx, hy, hz), materials[which], body=number)


def add_trolley(
    builder: Builder, bodies: list[Body], drive: Body, materials: tuple[int, int], dice: Dice
) -> None:
    """Add a box on a base, as a robot or a pushed cart, or a ball."""
    number = len(bodies)
    bodies.append(drive)
    size = dice.number("trolley size", 0.15, 0.3)
    if dice.chance("ball", 0.35):
        builder.add(SPHERE, (0, -size, 0), (size, size, size), materials[0], body=number)
        return
    height = dice.number("trolley height", 0.15, 0.5)
    builder.add(BOX, (0, -0.1, 0), (size, 0.08, size * 1.3), materials[1], body=number)
    half = (size * 0.8, height, size)
    builder.add(BOX, (0, -0.18 - height, 0), half, materials[0], body=number)


CAR = (
    (BOX, 0, 0.55, 0, 0.85, 0.28, 2.05, 0), (BOX, 0, 1.02, -0.2, 0.75, 0.24, 1.1, 1),
    (BOX, 0, 1.3, -0.2, 0.72, 0.05, 1.0, 0), (BOX, 0, 0.5, 2.07, 0.6, 0.1, 0.03, 2),
    (BOX, -0.8, 0.3, 1.3, 0.1, 0.3, 0.32, 2), (BOX, 0.8, 0.3, 1.3, 0.1, 0.3, 0.32, 2),
    (BOX, -0.8, 0.3, -1.3, 0.1, 0.3, 0.32, 2), (BOX, 0.8, 0.3, -1.3, 0.1, 0.3, 0.32, 2),
)  # fmt: skip
"""Parts of a car as in `builder.Part`, in metres, looking along z."""
