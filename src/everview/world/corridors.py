"""Endless corridors round blocks of wall, some of which are open halls."""

import math

import torch
from torch import Tensor

from everview.world.builder import Builder
from everview.world.dice import Dice
from everview.world.furniture import PIECES
from everview.world.lattice import LatticePlace
from everview.world.movers import STEP_SECONDS, Body, add_figure, add_trolley
from everview.world.palette import PLAIN, draw_materials, glowing, random_families
from everview.world.route import Companion
from everview.world.scene import Lights, ShadowView, Sky
from everview.world.solids import BOX, CYLINDER

_WALLS = ["noise", PLAIN, PLAIN, PLAIN, "bricks", "tiles", "stripes"]
_FLOORS = ["tiles", "planks", "noise", "checks", "voronoi", "tiles"]
_THINGS = [
    "noise",
    "planks",
    PLAIN,
    PLAIN,
    "text",
    "stripes",
    "voronoi",
    "dots",
    "poster",
    "poster",
]
_NUM_WALLS, _NUM_THINGS = 4, 16
_FLOOR, _CEILING, _FIRST_THING = 4, 5, 6
_GLOW = _FIRST_THING + _NUM_THINGS


class CorridorPlace(LatticePlace):
    """A building of corridors, see `LatticePlace`."""

    reach = 2.3
    motions = ("walk", "walk", "walk", "hand-held", "stop-and-go", "loop", "rotate")
    steps = (-3.2, -1.6)
    eye = (1.1, 1.75)

    def _prepare(self) -> None:
        self.pitch = self.dice.number("pitch", 7.0, 12.0)
        self.width = self.dice.number("width", 0.85, 1.5)
        self.radius = self.width
        self.height = self.dice.number("height", 2.3, 3.2)

    def _wander(self) -> float:
        return 0.3 * self.width

    def _materials(self) -> Tensor:
        dice = self.dice
        families = [*random_families(dice, "walls", _WALLS, _NUM_WALLS),
                    *random_families(dice, "floor", _FLOORS, 1), PLAIN,
                    *random_families(dice, "things", _THINGS, _NUM_THINGS)]  # fmt: skip
        table = draw_materials(dice, families)
        table[_CEILING, 10:19] = 0.55 + 0.4 * table[_CEILING, 10:19]
        return torch.cat([table, glowing(1.0, 0.98, 0.92)])

    def _block(self, dice: Dice, builder: Builder, column: int, row: int) -> None:
        half, middle = self.pitch / 2, self.pitch / 2
        for y, material in ((0.1, _FLOOR), (-self.height - 0.1, _CEILING)):
            corner = (column * self.pitch % 4096, row * self.pitch % 4096)
            builder.add(BOX, (middle, y, middle), (half, 0.1, half), material, offset=corner)
        if dice.chance("hall", 0.25):
            self._hall(dice, builder)
        else:
            inner = half - self.width
            walls = [dice.integer(f"wall {i}", _NUM_WALLS) for i in range(4)]
            if dice.chance("equal", 0.7):
                walls = walls[:1] * 4
            faces = (walls[0], walls[1], _CEILING, _CEILING, walls[2], walls[3])
            builder.add(BOX, (middle, -self.height / 2, middle),
                        (inner, self.height / 2, inner), faces)  # fmt: skip
            for side in range(4):
                self._dress(dice.child(side), builder, side)
        for side in range(2):  # lamps over the corridors at two of the sides
            along = dice.number(f"lamp {side}", 0.25, 0.75) * self.pitch
            at = (along, 0.0) if side else (0.0, along)
            long, short = dice.number("lamp length", 0.2, 0.6), 0.12
            size = (long, 0.03, short) if side else (short, 0.03, long)
            builder.add(BOX, (at[0], -self.height + 0.02, at[1]), size, _GLOW)

    def _dress(self, dice: Dice, builder: Builder, side: int) -> None:
        """Doors, posters, plinths and narrow things along one face of a wall."""
        count = 2 + dice.integer("count", 4)
        inner = self.pitch / 2 - self.width
        yaw = side * math.pi / 2
        for i, row in enumerate(dice.uniform("dress", (count, 5)).tolist()):
            along = ((i + 0.5 + 0.4 * (row[0] - 0.5)) / count * 2 - 1) * (inner - 0.5)
            thing = _FIRST_THING + int(row[1] * _NUM_THINGS)
            if row[2] < 0.35:
                self._fix(builder, yaw, (along, -1.0, 0.015), (0.45, 1.0, 0.02 + 0.002 * i), thing)
                self._fix(builder, yaw, (along + 0.36, -1.0, 0.05), (0.05, 0.015, 0.03), _GLOW)
            elif row[2] < 0.75:
                half = (0.2 + 0.3 * row[3], 0.15 + 0.35 * row[4], 0.02 + 0.002 * i)
                self._fix(builder, yaw, (along, -self.height * 0.55, 0.01), half, thing)
            elif row[2] < 0.9:
                height = 0.3 + 0.6 * row[3]
                half = (0.2 + 0.3 * row[4], height, 0.12)
                self._fix(builder, yaw, (along, -height, 0.12), half, thing)
            else:
                self._fix(builder, yaw, (along, -0.5, 0.14), (0.1, 0.5, 0.1), thing, CYLINDER)
        if dice.chance("plinth", 0.5):
            thing = _FIRST_THING + dice.integer("plinth", _NUM_THINGS)
            self._fix(builder, yaw, (0.0, -0.06, 0.0), (inner, 0.06, 0.012), thing)

    def _fix(
        self,
        builder: Builder,
        yaw: float,
        at: tuple[float, float, float],
        half: tuple[float, float, float],
        material: int,
        shape: int = BOX,
    ) -> None:
        """Put a thing on a wall: `at` is along it, up and off it."""
        out = self.pitch / 2 - self.width + at[2]
        x = self.pitch / 2 + math.cos(yaw) * at[0] + math.sin(yaw) * out
        z = self.pitch / 2 - math.sin(yaw) * at[0] + math.cos(yaw) * out
        builder.add(shape, (x, at[1], z), half, material, yaw=yaw)

    def _hall(self, dice: Dice, builder: Builder) -> None:
        """Pillars at the corners, furniture between them."""
        near, far = self.width + 0.25, self.pitch - self.width - 0.25
        shape = CYLINDER if dice.chance("round", 0.4) else BOX
        wall = dice.integer("pillars", _NUM_WALLS)
        for x in (near, far):
            for z in (near, far):
                size = (0.22, self.height / 2, 0.22)
                builder.add(shape, (x, -self.height / 2, z), size, wall)
        names = list(PIECES)
        for i, row in enumerate(dice.uniform("hall", (9, 6)).tolist()):
            parts, low, high = PIECES[names[int(row[0] * len(names))]]
            tall = low[1] + (high[1] - low[1]) * row[1]
            scale = (high[0] * (0.7 + 0.3 * row[2]), min(tall, self.height - 0.1), high[2])
            cell = (far - near) / 3
            x = near + (i % 3 + 0.5 + 0.3 * (row[3] - 0.5)) * cell
            z = near + (i // 3 + 0.5 + 0.3 * (row[4] - 0.5)) * cell
            if max(scale[0], scale[2]) * 1.4 < cell / 2 + 0.25 and row[5] < 0.75:
                things = [_FIRST_THING + (int(row[5] * 64) + k) % _NUM_THINGS for k in (0, 3, 7)]
                builder.add_piece(parts, (x, 0.0, z), scale, [*things, _GLOW], yaw=row[5] * 20)

    def _add_movers(self, builder: Builder, bodies: list[Body]) -> None:
        """Somebody walks ahead, or a trolley rolls there."""
        dice, rate = self.dice, STEP_SECONDS * self.speed
        step = 0.0 if self.motion in ("rotate", "hand-held", "orbit") else self.step
        path = Companion(
            route=self.route, start=self.start, step=step,
            aside=dice.number("company aside", -0.4, 0.4) * self.width,
            gap=dice.number("company gap", 2.2, 4.0), swing=dice.number("company swing", 0.2, 0.9),
            rate=rate * 0.4,
        )  # fmt: skip
        things = [_FIRST_THING + dice.integer(f"company {i}", _NUM_THINGS) for i in range(3)]
        if dice.chance("figure", 0.65):
            add_figure(builder, bodies, path, (things[0], things[1], things[2]), 6.0 * rate)
        else:
            add_trolley(builder, bodies, path, (things[0], things[1]), dice)

    def _air(self) -> tuple[Lights, Sky | None, float, ShadowView | None]:
        dice = self.dice
        tint = 1 + dice.uniform("tint", (2, 3), -0.1, 0.1)
        ways = torch.tensor([[0.45, -0.8, 0.3, 0], [-0.5, -0.3, -0.8, 0]])
        strength = dice.uniform("strength", (2, 1)) * torch.tensor([[0.3], [0.25]]) + 0.12
        lights = Lights(
            place=ways, colour=strength * tint, falloff=torch.full((2,), 1e3),
            ambient=tint[0] * dice.number("ambient", 0.4, 0.7),
        )  # fmt: skip
        return lights, None, dice.number("haze", 0.0, 0.015), None
