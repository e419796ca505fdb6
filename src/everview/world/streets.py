"""Endless streets between blocks of houses."""

import math
from functools import partial

import torch
from torch import Tensor

from everview.world.builder import Builder
from everview.world.dice import Dice
from everview.world.lattice import LatticePlace
from everview.world.movers import CAR, STEP_SECONDS, Body, add_figure, add_vehicle
from everview.world.palette import PLAIN, draw_materials, glowing, random_families
from everview.world.places import far_light, outdoor_light
from everview.world.route import Companion
from everview.world.scene import Lights, ShadowView, Sky
from everview.world.solids import BOX, CONE, CYLINDER, SPHERE

_HOUSES = ["windows", "windows", "windows", "bricks", "windows", "noise"]
_THINGS = [PLAIN, PLAIN, PLAIN, "noise", "poster", "stripes", "text"]
_NUM_HOUSES, _NUM_THINGS, _NUM_LEAVES = 10, 14, 3
_ROAD, _PAVEMENT, _LINE, _GLASS, _TYRE, _ROOF, _FIRST_HOUSE = range(7)
_FIRST_THING = _FIRST_HOUSE + _NUM_HOUSES
_FIRST_LEAF = _FIRST_THING + _NUM_THINGS
_GLOW = _FIRST_LEAF + _NUM_LEAVES
_KERB = 4.5
"""Half the width of the road."""
_FRONT = 7.0
"""Metres from the middle of the road to the houses."""


class StreetPlace(LatticePlace):
    """A town of square blocks, see `LatticePlace`."""

    pitch = 36.0
    reach = 2.0
    radius = 8.5
    motions = ("drive", "drive", "drive", "walk", "walk", "hand-held", "stop-and-go", "rotate")
    steps = (-2.6, -0.9)
    eye = (1.2, 1.75)

    def _aside(self) -> float:
        return 1.4 if self.motion in ("drive", "loop", "stop-and-go") else 6.0

    def _prepare(self) -> None:
        self._sun, self._shadow = far_light(self.dice, reach=26.0)

    def _materials(self) -> Tensor:
        dice = self.dice
        families = ["noise", "tiles", PLAIN, PLAIN, PLAIN, "noise",
                    *random_families(dice, "houses", _HOUSES, _NUM_HOUSES),
                    *random_families(dice, "things", _THINGS, _NUM_THINGS),
                    *["noise"] * _NUM_LEAVES]  # fmt: skip
        table = draw_materials(dice, families, shine=0.35)
        greys = {_ROAD: 0.3, _PAVEMENT: 0.5, _LINE: 0.9, _GLASS: 0.12, _TYRE: 0.06}
        for material, grey in greys.items():
            tone = 0.85 * grey + 0.15 * grey * table[material, 10:19]
            table[material, 10:19] = tone
        table[:3, 19:21] = 0
        table[_GLASS, 19:21] = torch.tensor([0.8, 0.5])
        leaves = table[_FIRST_LEAF : _FIRST_LEAF + _NUM_LEAVES]
        leaves[:, 10:19] *= torch.tensor([0.5, 0.9, 0.3]).repeat(3)
        return torch.cat([table, glowing(1.0, 0.95, 0.8)])

    def _block(self, dice: Dice, builder: Builder, column: int, row: int) -> None:
        pitch, middle = self.pitch, self.pitch / 2
        corner = (column * pitch % 4096, row * pitch % 4096)
        builder.add(BOX, (middle, 0.2, middle), (middle, 0.2, middle), _ROAD, offset=corner)
        size = (middle - _KERB, 0.14, middle - _KERB)
        builder.add(BOX, (middle, 0.0, middle), size, _PAVEMENT, offset=corner)
        for i in range(5):
            along = 8.0 + i * (pitch - 16.0) / 4
            builder.add(BOX, (0.0, 0.0, along), (0.07, 0.006, 1.0), _LINE)
            builder.add(BOX, (along, 0.0, 0.0), (1.0, 0.006, 0.07), _LINE)
        if dice.chance("park", 0.15):
            self._park(dice, builder)
        else:
            self._houses(dice, builder)
        for side in range(4):
            self._kerbside(dice.child(side), builder, side)

    def _houses(self, dice: Dice, builder: Builder) -> None:
        """Four or more houses, wall to wall along the street."""
        cuts = (_FRONT, dice.number("cut x", 14, 22), self.pitch - _FRONT)
        for i in range(2):
            split = dice.number(f"cut z {i}", 14, 22)
            for j, (z0, z1) in enumerate(((_FRONT, split), (split, self.pitch - _FRONT))):
                child = dice.child(10 + 2 * i + j)
                x0, x1, tall = cuts[i], cuts[i + 1], child.number("height", 2.0, 8.0)
                wall = _FIRST_HOUSE + child.integer("wall", _NUM_HOUSES)
                at = ((x0 + x1) / 2, -tall, (z0 + z1) / 2)
                half = ((x1 - x0) / 2 - 0.15 * child.number("gap"), tall, (z1 - z0) / 2)
                builder.add(BOX, at, half, (wall, wall, _ROOF, _ROOF, wall, wall))
                rim = (half[0] + 0.2, 0.15, half[2] + 0.2)
                builder.add(BOX, (at[0], -2 * tall, at[2]), rim, _ROOF)
                if child.chance("pointed", 0.25):
                    top = (at[0], -2 * tall - 1.5, at[2])
                    builder.add(CONE, top, (half[0] * 0.9, 1.5, half[2] * 0.9), _ROOF)
                self._door(child, builder, (x0, x1, z0, z1), (i, j))

    def _door(
        self,
        dice: Dice,
        builder: Builder,
        walls: tuple[float, float, float, float],
        corner: tuple[int, int],
    ) -> None:
        """A door with a canopy, in the wall that looks at the street."""
        thing = _FIRST_THING + dice.integer("door", _NUM_THINGS)
        x = walls[corner[0]] if corner[0] == 0 else walls[1]
        z = walls[2] + dice.number("door place", 0.25, 0.75) * (walls[3] - walls[2])
        builder.add(BOX, (x, -1.2, z), (0.12, 1.1, 0.6), thing)
        builder.add(BOX, (x, -2.5, z), (0.8, 0.06, 1.0), thing)
        z = walls[2 + corner[1]]
        x = walls[0] + dice.number("shop place", 0.25, 0.75) * (walls[1] - walls[0])
        builder.add(BOX, (x, -1.5, z), (1.6, 1.0, 0.1), _GLASS)
        builder.add(BOX, (x, -2.8, z), (1.8, 0.25, 0.15), thing)

    def _park(self, dice: Dice, builder: Builder) -> None:
        """Lawn and trees."""
        middle = self.pitch / 2
        half = (middle - _FRONT, 0.17, middle - _FRONT)
        builder.add(BOX, (middle, 0.0, middle), half, _FIRST_LEAF)
        for row in dice.uniform("trees", (9, 5)).tolist():
            x, z = (_FRONT + 1.5 + r * (self.pitch - 2 * _FRONT - 3) for r in row[:2])
            add_tree(builder, (x, -0.15, z), row[2:], (_ROOF, _FIRST_LEAF + int(row[4] * 3)))

    def _kerbside(self, dice: Dice, builder: Builder, side: int) -> None:
        """Parked cars, lamp posts, trees, bins and boxes along one side of a block."""
        for i, row in enumerate(dice.uniform("kerb", (5, 6)).tolist()):
            along = 8.5 + i * 4.75 + (row[0] - 0.5) * 0.8
            thing = _FIRST_THING + int(row[1] * _NUM_THINGS)
            if row[2] < 0.45:
                x, z = self._beside(side, along, 3.4)
                scale = (0.95 + 0.1 * row[3], 0.9 + 0.5 * row[4] ** 3, 0.95 + 0.1 * row[5])
                builder.add_piece(CAR, (x, 0.0, z), scale, (thing, _GLASS, _TYRE),
                                  yaw=(side % 2 + 2 * (row[5] < 0.5)) * math.pi / 2)  # fmt: skip
            x, z = self._beside(side, along + 1.2, 4.85)
            if row[3] < 0.3:
                tall = 2.2 + 0.8 * row[4]
                builder.add(CYLINDER, (x, -tall, z), (0.06, tall, 0.06), _TYRE)
                builder.add(SPHERE, (x, -2 * tall, z), (0.22, 0.15, 0.22), _GLOW)
            elif row[3] < 0.5:
                add_tree(builder, (x, -0.1, z), row[2:5], (_ROOF, _FIRST_LEAF + int(row[5] * 3)))
            elif row[3] < 0.6:
                builder.add(CYLINDER, (x, -0.55, z), (0.25, 0.45, 0.25), thing)
            elif row[3] < 0.7:
                builder.add(BOX, (x, -1.1, z), (0.25, 0.28, 0.25), thing)
                builder.add(CYLINDER, (x, -0.5, z), (0.05, 0.5, 0.05), _TYRE)

    def _beside(self, side: int, along: float, out: float) -> tuple[float, float]:
        """X and z so far from the middle of the street at one side of the block."""
        far = self.pitch - out
        return ((out, along), (along, out), (far, along), (along, far))[side]

    def _add_movers(self, builder: Builder, bodies: list[Body]) -> None:
        """A car ahead, one that comes, somebody on the pavement."""
        dice, rate = self.dice, STEP_SECONDS * self.speed
        is_slow = self.motion in ("rotate", "hand-held", "orbit")
        step = 0.0 if is_slow else self.step
        things = [_FIRST_THING + dice.integer(f"company {i}", _NUM_THINGS) for i in range(4)]
        make = partial(Companion, route=self.route, start=self.start, step=step)
        ahead = make(aside=1.4, gap=dice.number("ahead", 11, 16), swing=2.5, rate=rate)
        comes = make(aside=-1.4, gap=dice.number("comes", 6, 35), swing=0.0,
                          rate=step + rate * dice.number("pace", 2, 7))  # fmt: skip
        which = dice.integer("company", 3)
        if which != 1:
            add_vehicle(builder, bodies, comes, (things[0], _GLASS, _TYRE))
        if which != 2 and self._aside() < 2:
            add_vehicle(builder, bodies, ahead, (things[1], _GLASS, _TYRE))
        if which != 0:
            walk = make(aside=5.9, gap=dice.number("walker", 4, 7), swing=1.0,
                             rate=rate * 0.5)  # fmt: skip
            add_figure(builder, bodies, walk, (things[1], things[2], things[3]), 6.0 * rate)

    def _air(self) -> tuple[Lights, Sky | None, float, ShadowView | None]:
        lights, sky, fog = outdoor_light(self.dice, self._sun)
        return lights, sky, fog, self._shadow


def add_tree(
    builder: Builder,
    at: tuple[float, float, float],
    random: list[float],
    materials: tuple[int, int],
) -> None:
    """A trunk with a round or pointed crown; three random numbers in [0, 1)."""
    tall = 2.5 + 4.5 * random[0]
    wide = tall * (0.18 + 0.15 * random[1])
    x, y, z = at
    thin = 0.06 * wide + 0.05
    builder.add(CYLINDER, (x, y - tall * 0.25, z), (thin, tall * 0.25, thin), materials[0])
    if random[2] < 0.4:
        for share in (0.5, 0.75):
            size = (wide * (1.3 - share), tall * 0.28, wide * (1.3 - share))
            builder.add(CONE, (x, y - tall * share, z), size, materials[1])
        return
    builder.add(SPHERE, (x, y - tall * 0.7, z), (wide, tall * 0.3, wide), materials[1])
    builder.add(SPHERE, (x + wide * 0.5, y - tall * 0.55, z - wide * 0.3),
                (wide * 0.6, tall * 0.18, wide * 0.6), materials[1])  # fmt: skip
