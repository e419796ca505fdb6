"""Hilly country with trees, rocks, posts and huts."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from everview.world.builder import Builder
from everview.world.dice import Dice
from everview.world.motion import Zone, zone_path
from everview.world.movers import STEP_SECONDS, Body, Rest, Round, add_figure, add_trolley
from everview.world.palette import PLAIN, draw_materials, random_families
from everview.world.places import NO_SHIFT, far_light, outdoor_light
from everview.world.scene import Scene
from everview.world.solids import BOX, CONE, CYLINDER, SPHERE, TRIANGLE, Solids
from everview.world.streets import add_tree

_CELLS = 40
"""Cells of the ground's net along a side."""
_NEAR, _FAR = 1.1, 170.0
"""Width of the innermost cells, and distance of the border, metres."""
_ZONE = 5.0
"""Half the width of the free place in the middle, metres."""
_THINGS = [PLAIN, "noise", "planks", "bricks", "stripes", "voronoi"]
_GROUND, _BARK, _FIRST_LEAF, _FIRST_ROCK, _FIRST_THING, _NUM_THINGS = 0, 1, 2, 5, 8, 8


class Hills:
    """Height of the ground: waves, higher far away.

    Args:
        dice: of the place.
    """

    def __init__(self, dice: Dice) -> None:
        length = torch.exp(dice.uniform("wave length", (7,), math.log(9), math.log(110)))
        way = dice.uniform("wave way", (7,), 0, 2 * math.pi)
        self._waves = torch.stack([way.cos(), way.sin()]).double() * (2 * math.pi / length)
        self._phase = dice.uniform("wave phase", (7,), 0, 2 * math.pi).double()
        self._height = (0.028 * length).double() * dice.number("hilly", 0.15, 1.3)

    def y(self, x: Float[Tensor, "*n"], z: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Downwards, of the ground at x and z; float64."""
        x, z = x.double(), z.double()
        phase = x[..., None] * self._waves[0] + z[..., None] * self._waves[1] + self._phase
        far = (x.square() + z.square()).sqrt()
        growth = 0.25 + (far / 45).square().clamp(max=2.5)
        return -(phase.sin() * self._height).sum(dim=-1) * growth


class TerrainPlace:
    """Open country, see `everview.world.places.Place`; the camera stays near the middle.

    Args:
        dice: seed of the place.
        speed: multiplies all motion.
        motion: of the camera, one of `motion.MOTIONS`.
        movers: whether anything moves by itself.
    """

    def __init__(self, dice: Dice, *, speed: float, motion: str, movers: bool) -> None:
        self._dice, self._speed, self._motion = dice, speed, motion
        self._hills = Hills(dice)
        eye = dice.number("eye", 1.2, 2.6)
        self._zone = Zone(
            centre=torch.tensor([0.0, -eye, 0.0]), half=torch.tensor([_ZONE, 0.3, _ZONE])
        )
        builder = Builder()
        bodies: list[Body] = [Rest()]
        if movers:
            self._add_mover(builder, bodies)
        self.bodies = tuple(bodies)
        builder.add_solids(self._ground())
        self._plant(builder)
        sun, shadow = far_light(dice, reach=22.0)
        lights, sky, fog = outdoor_light(dice, sun)
        self._scene = Scene(
            solids=builder.build(), materials=self._materials(), lights=lights, sky=sky,
            fog=fog, shadow=shadow, moving=torch.arange(len(bodies)) > 0,
        )  # fmt: skip

    def scene(self, group: int) -> Scene:  # noqa: ARG002  -- it never changes
        """See `Place.scene`."""
        return self._scene

    def origin(self, group: int) -> Tensor:  # noqa: ARG002  -- it never changes
        """See `Place.origin`."""
        return NO_SHIFT

    def cameras(self, times: Tensor) -> Tensor:
        """See `Place.cameras`: as in a room, raised to the ground below."""
        poses = zone_path(
            self._dice, self._zone, times, speed=self._speed, pace=2.0, motion=self._motion
        )
        poses = poses.double()
        poses[:, 1, 3] += self._hills.y(poses[:, 0, 3], poses[:, 2, 3])
        return poses

    def _materials(self) -> Tensor:
        dice = self._dice
        families = ["noise", "noise", *["noise"] * 3, *["noise", "voronoi", "noise"],
                    *random_families(dice, "things", _THINGS, _NUM_THINGS)]  # fmt: skip
        table = draw_materials(dice, families, shine=0.1)
        tints = {
            "grass": (0.5, 0.8, 0.3), "sand": (1.0, 0.85, 0.6), "earth": (0.6, 0.45, 0.3),
            "snow": (1.3, 1.35, 1.45),
        }  # fmt: skip
        ground = list(tints.values())[dice.integer("ground", len(tints))]
        look = table[_GROUND, 10:19].reshape(3, 3)
        look = look.mean(dim=1, keepdim=True) + 0.15 * (look - look.mean(dim=1, keepdim=True))
        table[_GROUND, 10:19] = (look * torch.tensor(ground)).flatten()
        table[_GROUND, 19:21] = 0
        table[_BARK, 10:19] *= torch.tensor([0.5, 0.4, 0.3]).repeat(3)
        table[_FIRST_LEAF:_FIRST_ROCK, 10:19] *= torch.tensor([0.45, 0.8, 0.3]).repeat(3)
        table[_FIRST_ROCK:_FIRST_THING, 10:19] *= 0.7
        table[:_FIRST_THING, 10:19].clamp_(0.03, 0.97)
        return table

    def _ground(self) -> Solids:
        """A net of triangles whose cells grow outwards, with smooth directions."""
        steps = torch.arange(-_CELLS // 2, _CELLS // 2 + 1).double()
        outer = _CELLS / 2
        cubic = (_FAR - _NEAR * outer) / outer**3
        line = _NEAR * steps + cubic * steps**3
        z, x = torch.meshgrid(line, line, indexing="ij")
        y = self._hills.y(x, z)
        nudge = 0.05
        slope_x = (self._hills.y(x + nudge, z) - y) / nudge
        slope_z = (self._hills.y(x, z + nudge) - y) / nudge
        points = torch.stack([x, y, z], dim=-1).float()
        normals = torch.stack([slope_x, -torch.ones_like(y), slope_z], dim=-1).float()
        corners = [(0, 0), (0, 1), (1, 0)], [(1, 1), (1, 0), (0, 1)]
        count = _CELLS

        def at(values: Tensor, row: int, column: int) -> Tensor:
            return values[row : row + count, column : column + count].reshape(-1, 3)

        parts = []
        for first, second, third in corners:
            a, b, c = at(points, *first), at(points, *second), at(points, *third)
            upright = torch.linalg.cross(b - a, c - a)
            axes = torch.stack([b - a, c - a, upright / upright.norm(dim=1, keepdim=True)], dim=2)
            bent = torch.stack([at(normals, *corner) for corner in (first, second, third)], dim=1)
            parts.append((a, axes, bent))
        centre, axes, bent = (torch.cat(columns) for columns in zip(*parts, strict=True))
        k = len(centre)
        return Solids(
            shape=torch.full((k,), TRIANGLE), centre=centre, axes=axes, normals=bent,
            material=torch.full((k, 6), _GROUND), offset=torch.zeros(k, 2),
            body=torch.zeros(k, dtype=torch.long),
        )  # fmt: skip

    def _plant(self, builder: Builder) -> None:
        """Trees, rocks, posts and huts, denser near the middle, outside the zone."""
        count = 40 + self._dice.integer("plants", 60)
        random = self._dice.uniform("plants", (count, 9))
        kinds = self._dice.uniform("plant kinds", (3,)).tolist()
        away = _ZONE * 1.5 + 2.5 + 70 * random[:, 0] ** 1.8
        angle = 2 * math.pi * random[:, 1]
        x, z = away * angle.cos(), away * angle.sin()
        y = self._hills.y(x, z).tolist()
        for i, row in enumerate(random.tolist()):
            at = (float(x[i]), y[i] + 0.1, float(z[i]))
            leaf = _FIRST_LEAF + int(row[8] * 3)
            if row[2] < 0.2 + 0.5 * kinds[0]:
                add_tree(builder, at, row[3:6], (_BARK, leaf))
            elif row[2] < 0.8:
                size = tuple(0.2 + 1.3 * r**2 * (0.3 + away[i].item() / 50) for r in row[3:6])
                rock = _FIRST_ROCK + int(row[8] * 3)
                builder.add(SPHERE, at, (size[0], size[1], size[2]), rock, yaw=row[6] * 6)
            elif row[2] < 0.92:
                builder.add(CYLINDER, (at[0], at[1] - 0.6, at[2]), (0.06, 0.7, 0.06), _BARK)
            else:
                wall = _FIRST_THING + int(row[8] * _NUM_THINGS)
                half = (1.2 + row[3], 1.2 + 0.6 * row[4], 1.2 + row[5])
                builder.add(BOX, (at[0], at[1] - half[1] + 0.8, at[2]), half, wall, yaw=row[6] * 6)
                top = (at[0], at[1] - 2 * half[1] + 0.3, at[2])
                builder.add(CONE, top, (1.5 * half[0], 0.6, 1.5 * half[2]), _BARK, yaw=row[6] * 6)

    def _add_mover(self, builder: Builder, bodies: list[Body]) -> None:
        """Somebody, or something, goes round near the zone."""
        dice, rate = self._dice, STEP_SECONDS * self._speed
        angle, away = (
            dice.number("mover angle", 0, 2 * math.pi),
            dice.number("mover away", 7.5, 9.5),
        )
        radii = (dice.number("mover long", 0.8, 1.5), dice.number("mover wide", 0.2, 1.0))
        path = Round(
            centre=(away * math.cos(angle), 0.0, away * math.sin(angle)), radii=radii,
            yaw=dice.number("mover yaw", 0, 6.28), rate=rate / radii[0], phase=angle,
            ground=self._hills.y,
        )  # fmt: skip
        things = [_FIRST_THING + dice.integer(f"mover {i}", _NUM_THINGS) for i in range(3)]
        if dice.chance("figure", 0.6):
            add_figure(builder, bodies, path, (things[0], things[1], things[2]), 6.0 * rate)
        else:
            add_trolley(builder, bodies, path, (things[0], things[1]), dice)
