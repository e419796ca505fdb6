"""Furnished rooms with a walk zone that is free of things."""

import math

import torch
from torch import Tensor

from everview.world.builder import Builder
from everview.world.dice import Dice
from everview.world.furniture import ON_TABLES, PIECES
from everview.world.motion import Zone, zone_path
from everview.world.movers import (
    STEP_SECONDS,
    Body,
    Rest,
    Round,
    Swing,
    add_figure,
    add_trolley,
)
from everview.world.palette import PLAIN, draw_materials, glowing, random_families
from everview.world.places import NO_SHIFT
from everview.world.scene import Lights, Scene, ShadowView
from everview.world.solids import BOX, CONE, CYLINDER, ROOM

CLEARANCE = 0.35
"""Metres between the walk zone, in which the camera moves, and any object."""
_CANDIDATES = 44
_WALLS = ["noise", "noise", PLAIN, PLAIN, PLAIN, "stripes", "bricks", "tiles", "planks", "voronoi",
          "dots"]  # fmt: skip
_FLOORS = ["planks", "planks", "tiles", "noise", "noise", "checks", "voronoi", PLAIN]
_THINGS = ["noise", "noise", "planks", PLAIN, PLAIN, "stripes", "voronoi", "dots", "checks",
           "text", "tiles"]  # fmt: skip
_NUM_THINGS = 18
_FIRST_THING, _FIRST_PICTURE = 6, 6 + _NUM_THINGS
_GLOW = _FIRST_PICTURE + 6


class RoomPlace:
    """One room, see `everview.world.places.Place`.

    Args:
        dice: seed of the room.
        speed: multiplies all motion.
        motion: of the camera, see `motion.zone_path`.
        movers: whether anything moves by itself.
    """

    def __init__(self, dice: Dice, *, speed: float, motion: str, movers: bool) -> None:
        self._dice, self._speed, self._motion = dice, speed, motion
        half = dice.uniform("room", (3,)) * torch.tensor([2.2, 0.5, 2.2])
        self.half = half + torch.tensor([1.5, 1.15, 1.5])  # 3 to 7.4 m wide, 2.3 to 3.3 m high
        self.zone = _walk_zone(dice, self.half)
        self._builder = Builder()
        bodies: list[Body] = [Rest()]
        self._taken: list[tuple[float, float, float]] = []  # x, z, radius on the floor
        if movers:
            self._add_mover(bodies)
        self.bodies = tuple(bodies)
        self._furnish()
        self._scene = self._light(self._materials())

    def scene(self, group: int) -> Scene:  # noqa: ARG002  -- it never changes
        """See `Place.scene`."""
        return self._scene

    def origin(self, group: int) -> Tensor:  # noqa: ARG002  -- it never changes
        """See `Place.origin`."""
        return NO_SHIFT

    def cameras(self, times: Tensor) -> Tensor:
        """See `Place.cameras`."""
        return zone_path(
            self._dice, self.zone, times, speed=self._speed, motion=self._motion
        ).double()

    def _materials(self) -> Tensor:
        dice = self._dice
        walls = random_families(dice, "wall families", _WALLS, 4)
        if dice.chance("equal walls", 0.6):
            walls = walls[:1] * 4
        families = [*walls, *random_families(dice, "floor family", _FLOORS, 1), PLAIN,
                    *random_families(dice, "thing families", _THINGS, _NUM_THINGS),
                    *["poster"] * 4, "text", "windows"]  # fmt: skip
        table = draw_materials(dice, families)
        if len(set(walls)) == 1:
            table[1:4] = table[:1]
        table[5, 10:19] = 0.6 + 0.4 * table[5, 10:19]  # ceilings are bright
        return torch.cat([table, glowing(1.0, 0.97, 0.88)])

    def _furnish(self) -> None:
        half = [float(value) for value in self.half]
        self._builder.add(ROOM, (0, -half[1], 0), (half[0], half[1], half[2]), (0, 1, 5, 4, 2, 3))
        names = list(PIECES)
        random = self._dice.uniform("furniture", (_CANDIDATES, 9)).tolist()
        wanted = 7 + self._dice.integer("crowd", 10)
        for row in random:
            if len(self._taken) >= wanted:
                break
            self._place(names[int(row[0] * len(names))], row[1:], half)
        self._decorate(half)

    def _place(self, name: str, random: list[float], half: list[float]) -> None:
        """Put a piece where there is room for it, half of them along a wall."""
        parts, low, high = PIECES[name]
        wide, tall, deep = (a + (b - a) * r for a, b, r in zip(low, high, random[:3], strict=True))
        scale = (wide, tall, deep)
        radius = math.hypot(scale[0], scale[2])
        x, z = ((2 * r - 1) * (h - 0.05) for r, h in zip(random[3:5], half[::2], strict=True))
        yaw = 2 * math.pi * random[5]
        if random[6] < 0.6:
            x, z, yaw = _against_wall(random[6] / 0.6, (x, z), half, scale[2])
        elif abs(x) > half[0] - radius or abs(z) > half[2] - radius:
            return
        if scale[1] > 2 * half[1] - 0.05 or not self._is_free(x, z, radius):
            return
        self._taken.append((x, z, radius))
        first = int(random[7] * _NUM_THINGS)
        things = [_FIRST_THING + (first + i) % _NUM_THINGS for i in (0, 5, 11)]
        self._builder.add_piece(parts, (x, 0.0, z), scale, [*things, _GLOW], yaw=yaw)
        if name in ("table", "round table", "cabinet") and random[5] < 0.7:
            small, top = PIECES[ON_TABLES[int(random[5] / 0.7 * len(ON_TABLES))]], -scale[1]
            size = 0.25 + 0.25 * random[0]
            scale = (small[2][0] * size, small[2][1] * size, small[2][2] * size)
            self._builder.add_piece(small[0], (x, top, z), scale, things[::-1], yaw=yaw)

    def _is_free(self, x: float, z: float, radius: float) -> bool:
        gap = [
            max(0.0, abs(value - float(self.zone.centre[axis])) - float(self.zone.half[axis]))
            for value, axis in ((x, 0), (z, 2))
        ]
        apart = math.hypot(*gap) > radius + CLEARANCE
        return apart and all(
            math.hypot(x - a, z - b) > 0.8 * (radius + r) for a, b, r in self._taken
        )

    def _decorate(self, half: list[float]) -> None:
        """Pictures, a door and a window on the walls, a rug, lamps at the ceiling."""
        dice = self._dice
        for i, row in enumerate(
            dice.uniform("walls", (2 + dice.integer("pictures", 6), 6)).tolist()
        ):
            wide, high = 0.15 + 0.55 * row[1], 0.15 + 0.45 * row[2]
            y, thick = -half[1] * (1 + 0.5 * (row[3] - 0.3)), 0.015 + 0.004 * i
            material = _FIRST_PICTURE + i % 6
            if i == 0:  # a door
                wide, high, y, thick = 0.45, 1.0, -1.0, 0.012
                material = _FIRST_THING + int(row[5] * _NUM_THINGS)
            if i == 1 and row[5] < 0.6:  # a bright window
                wide, high, y, material = 0.5 + 0.4 * row[1], 0.55, -half[1] * 1.1, _GLOW
            along = 2 * row[4] - 1
            at = (along * (half[0] - wide), along * (half[2] - wide))
            x, z, yaw = _against_wall(row[0], at, half, 0.0)
            self._builder.add(BOX, (x, y, z), (wide, high, thick), material, yaw=yaw)
        x, z = float(self.zone.centre[0]), float(self.zone.centre[2])
        thing = _FIRST_THING + dice.integer("rug", _NUM_THINGS)
        if dice.chance("has rug", 0.4):
            size = (dice.number("rug x", 0.6, 1.3), 0.006, dice.number("rug z", 0.6, 1.3))
            self._builder.add(BOX, (x, -0.006, z), size, thing, yaw=dice.number("rug yaw", 0, 3))
        for i in range(dice.integer("ceiling lamps", 3)):
            lamp = ((dice.number(f"lamp x {i}", -0.7, 0.7)) * half[0], -2 * half[1] + 0.04,
                  dice.number(f"lamp z {i}", -0.7, 0.7) * half[2])  # fmt: skip
            self._builder.add(BOX, lamp, (0.35, 0.04, 0.2), _GLOW)

    def _add_mover(self, bodies: list[Body]) -> None:
        """Somebody who walks to and fro, a trolley, a swinging lamp or door."""
        dice, builder = self._dice, self._builder
        kind = dice.integer("mover", 4)
        rate = STEP_SECONDS * self._speed
        if kind == 3:
            self._add_swing(bodies, rate)
            return
        for i in range(16):
            smaller = 1 - i / 24  # room is found sooner or later
            radii = (
                smaller * dice.number(f"mover long {i}", 0.5, 1.4),
                smaller * dice.number(f"mover wide {i}", 0.1, 0.4),
            )
            x, z = (dice.number(f"mover {a} {i}", -1, 1) * float(self.half[a]) for a in (0, 2))
            reach = radii[0] + 0.35
            inside = abs(x) + reach < self.half[0] and abs(z) + reach < self.half[2]
            if not inside or not self._is_free(x, z, reach):
                continue
            self._taken.append((x, z, reach))
            pace = rate * dice.number("pace", 0.5, 1.2) / radii[0]
            path = Round(
                centre=(x, 0.0, z), radii=radii, yaw=dice.number("mover yaw", 0, 6.28),
                rate=pace if dice.chance("mover way", 0.5) else -pace,
                phase=dice.number("mover phase", 0, 6.28),
            )  # fmt: skip
            things = [
                _FIRST_THING + dice.integer(f"mover thing {n}", _NUM_THINGS) for n in range(3)
            ]
            if kind < 2:
                add_figure(builder, bodies, path, (things[0], things[1], things[2]), 6.0 * rate)
            else:
                add_trolley(builder, bodies, path, (things[0], things[1]), dice)
            return

    def _add_swing(self, bodies: list[Body], rate: float) -> None:
        """A lamp on a cord in a corner of the ceiling, or a door that opens and shuts."""
        dice, half, number = self._dice, self.half.tolist(), len(bodies)
        side = 1.0 if dice.chance("swing side", 0.5) else -1.0
        phase, thing = dice.number("swing phase", 0, 6.28), _FIRST_THING + dice.integer("swing", 9)
        if dice.chance("door", 0.5):
            pivot = (side * (half[0] - 0.03), 0.0, dice.number("hinge", -0.7, 0.4) * half[2])
            if not self._is_free(pivot[0], pivot[2], 0.85):
                return
            self._taken.append((pivot[0], pivot[2], 0.85))
            bodies.append(Swing(parent=Rest(), pivot=pivot, axis="y", middle=-side * 0.7,
                                reach=0.65, rate=rate, phase=phase))  # fmt: skip
            self._builder.add(BOX, (0, -1.0, 0.42), (0.025, 1.0, 0.42), thing, body=number)
            self._builder.add(CYLINDER, (0, -1.0, 0.78), (0.06, 0.02, 0.02), _GLOW, body=number)
            return
        pivot = (side * (half[0] - 0.5), -2 * half[1], dice.number("cord", -0.8, 0.8) * half[2])
        if not self._is_free(pivot[0], pivot[2], 0.4):
            return
        length = half[1] * dice.number("cord length", 0.5, 0.9)
        bodies.append(Swing(parent=Rest(), pivot=pivot, axis="x", middle=0.0, reach=0.3,
                            rate=rate * 3.13 / math.sqrt(length), phase=phase))  # fmt: skip
        self._builder.add(
            CYLINDER, (0, length / 2, 0), (0.012, length / 2, 0.012), thing, body=number
        )
        self._builder.add(CONE, (0, length, 0), (0.22, 0.14, 0.22), thing, body=number)

    def _light(self, materials: Tensor) -> Scene:
        dice, half = self._dice, self.half
        at = dice.uniform("lights", (3, 3), -0.7, 0.7) * half
        at[:, 1] = -half[1] * torch.tensor([1.92, 1.8, 1.2])
        tint = 1 + dice.uniform("light tint", (3, 3), -0.12, 0.12)
        strength = dice.uniform("light strength", (3, 1)) * torch.tensor([[0.5], [0.4], [0.25]])
        strength = strength + torch.tensor([[0.45], [0.0], [0.0]])
        down = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T  # looks along +y
        view = torch.eye(4)
        view[:3, :3], view[:3, 3] = down, at[0]
        has_shadow = dice.chance("shadow", 0.75)
        return Scene(
            solids=self._builder.build(),
            materials=materials,
            lights=Lights(
                place=torch.cat([at, torch.ones(3, 1)], dim=1), colour=strength * tint,
                falloff=dice.uniform("falloff", (3,), 3.0, 12.0),
                ambient=tint[0] * dice.number("ambient", 0.25, 0.55),
            ),
            shadow=ShadowView(place_from_light=view, half_width=2.2, softness=0.12)
            if has_shadow else None,
            moving=torch.arange(len(self.bodies)) > 0,
        )  # fmt: skip


def _against_wall(
    share: float, at: tuple[float, float], half: list[float], depth: float
) -> tuple[float, float, float]:
    """Place and yaw of a thing of this half depth with its back to one of four walls."""
    wall = int(share * 4) % 4
    gap = depth + 0.01
    if wall < 2:
        side = -1.0 if wall == 0 else 1.0
        return side * (half[0] - gap), at[1], -side * math.pi / 2
    side = -1.0 if wall == 2 else 1.0
    return at[0], side * (half[2] - gap), math.pi if side > 0 else 0.0


def _walk_zone(dice: Dice, half: Tensor) -> Zone:
    largest = half - torch.tensor([0.9, 0.6, 0.9])
    zone_half = dice.uniform("zone size", (3,), 0.25, 0.75) * largest
    zone_half[1] = zone_half[1].clamp(max=0.35)
    middle = dice.uniform("zone place", (3,), -1, 1) * (half - zone_half - 0.5).clamp(min=0)
    height = dice.number("eye height", 1.0, 1.75)
    lowest = -2 * half[1] + zone_half[1] + 0.4
    middle[1] = max(-height, float(lowest))
    return Zone(centre=middle, half=zone_half)
