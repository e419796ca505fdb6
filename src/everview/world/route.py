"""Endless routes along the lines of a square lattice, with rounded corners."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.rotations import rigid
from everview.world.dice import Dice
from everview.world.solids import turn_about_y

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""(x, z) of the four headings; each is a right turn from the one before."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A way from crossing to crossing; corners are quarter circles.

    Drawn turns depend on their number alone, so that a route never ends and begins always alike.
    """

    dice: Dice
    pitch: float
    """Metres between crossings."""
    radius: float
    """Of the corners, metres."""
    sides: tuple[int, int] | None
    """Crossings along the two sides of a rectangle that is gone round for ever; None wanders."""
    _ends: list[float] = field(default_factory=lambda: [0.0])
    """Distance at which each leg (a straight and the corner after it) begins."""
    _legs: list[tuple[int, int, int, int, int]] = field(default_factory=lambda: [(0, 0, 0, 0, 0)])
    """Crossing x and z, heading, turn before and turn after (-1 left, 0, 1 right) of each leg."""

    def turn(self, number: int) -> int:
        """Which way it goes on after a leg: -1 left, 0 straight on, 1 right."""
        if self.sides is not None:
            a, b = self.sides
            return int(number % (a + b) in (a - 1, a + b - 1))
        return (0, 0, 1, -1)[self.dice.child(number).integer("turn", 4)]

    def lap(self) -> float:
        """Metres until a rectangle is closed; infinite for a route that wanders."""
        if self.sides is None:
            return math.inf
        return 2 * sum(self.sides) * self.pitch - 4 * self.radius * (2 - math.pi / 2)

    def at(
        self, distance: Float[Tensor, " s"], aside: Float[Tensor, " s"] | float = 0.0
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"], Float[Tensor, " s"]]:
        """x, z and heading (radians, 0 along z, a quarter turn along x), float64.

        Args:
            distance: metres along the middle of the way, >= 0.
            aside: metres to the right of it.
        """
        self._extend(float(distance.max()))
        ends = torch.tensor(self._ends[:-1], dtype=torch.float64)
        number = (torch.searchsorted(ends, distance.double(), right=True) - 1).clamp(min=0)
        legs = torch.tensor(self._legs[: len(ends)], dtype=torch.float64)[number]
        column, row, heading, before, after = legs.unbind(1)
        along = distance.double() - ends[number]
        trims = self.radius * (before.abs() + after.abs())
        straight = self.pitch - trims
        bend = ((along - straight) / self.radius).clamp(min=0) * after.abs()
        ahead = torch.where(after == 0, along, along.minimum(straight))
        ahead = ahead + self.radius * before.abs() + self.radius * bend.sin()
        right = self.radius * (1 - bend.cos()) * after
        angle = heading * (math.pi / 2)
        cos, sin = angle.cos().round(), angle.sin().round()
        yaw = angle + bend * after
        x = column * self.pitch + sin * ahead + cos * right + yaw.cos() * aside
        z = row * self.pitch + cos * ahead - sin * right - yaw.sin() * aside
        return x, z, yaw

    def _extend(self, distance: float) -> None:
        """Make sure that the legs reach so far; those behind are kept, forty bytes each."""
        while self._ends[-1] <= distance or len(self._ends) < 2:
            column, row, heading, before, _ = self._legs[-1]
            after = self.turn(len(self._legs) - 1)
            self._legs[-1] = (column, row, heading, before, after)
            corner = self.radius * math.pi / 2 if after else 0.0
            length = self.pitch - self.radius * (abs(before) + abs(after)) + corner
            self._ends.append(self._ends[-1] + length)
            step = _STEPS[heading]
            turned = (heading + after) % 4
            self._legs.append((column + step[0], row + step[1], turned, after, 0))


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A body that goes along a route with the camera, or comes towards it, again and again.

    Its distance to the camera swings (`swing` > 0), or shrinks from `far` to -`behind` and starts
    anew.
    """

    route: Route
    start: float
    """Metres along the route of the camera at time 0."""
    step: float
    """Metres per frame of the camera."""
    aside: float
    """Metres to the right of the route."""
    gap: float
    """Metres ahead of the camera, at first or on average."""
    swing: float
    """Metres that the gap swings to both sides; 0: it comes towards the camera."""
    rate: float
    """Radians, or metres, per frame of the change of the gap."""
    far: float = 60.0
    behind: float = 12.0

    def pose(self, times: Float[Tensor, " s"]) -> Float[Tensor, "s 4 4"]:
        """See `movers.Body.pose`."""
        times = times.double()
        if self.swing:
            gap = self.gap + self.swing * torch.sin(self.rate * times)
        else:
            gap = (self.gap + self.behind - self.rate * times) % (self.far + self.behind)
            gap = gap - self.behind
        distance = (self.start + self.step * times + gap).clamp(min=0)
        x, z, yaw = self.route.at(distance, self.aside)
        turned = yaw if self.swing else yaw + math.pi
        return rigid(turn_about_y(turned), torch.stack([x, torch.zeros_like(x), z], dim=1))
