"""What stands in a procedural room, and of what it is made.

Room frame: x right, y down, z forward, metres; the floor is y = 0, the ceiling y = -height.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.world.dice import Dice

CLEARANCE = 0.35
"""Metres between the walk zone, in which the camera moves, and any object."""
_CANDIDATES = 48
_MATERIALS = 24


@dataclass(frozen=True, kw_only=True)
class Primitives:
    """Solids of one kind, each turned about the vertical axis."""

    centre: Float[Tensor, "k 3"]
    half: Float[Tensor, "k 3"]
    """Half sizes along the own axes; radius, half height, radius for cylinders."""
    yaw: Float[Tensor, " k"]
    """Radians about y."""

    def __len__(self) -> int:
        return len(self.centre)


@dataclass(frozen=True, kw_only=True)
class Materials:
    """How surfaces look; one row per material."""

    table: Float[Tensor, "m 14"]
    """Columns in the order of `textures.COLUMNS`."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One room: its walls, the solids in it, materials, lights, and where a camera may be."""

    room: Primitives
    """One box, seen from inside."""
    boxes: Primitives
    """Furniture, and thin ones as pictures on the walls."""
    spheres: Primitives
    cylinders: Primitives
    """Upright, closed."""
    face_material: Int[Tensor, "k 6"]
    """Material of the faces -x +x -y +y -z +z of room, boxes, spheres, cylinders, in this order."""
    materials: Materials
    lights: Float[Tensor, "l 4"]
    """Position and strength."""
    ambient: float
    zone_centre: Float[Tensor, " 3"]
    zone_half: Float[Tensor, " 3"]
    """The camera stays in this box, which is free of objects by `CLEARANCE`."""

    @property
    def primitives(self) -> list[Primitives]:
        """All kinds, in the order of `face_material`."""
        return [self.room, self.boxes, self.spheres, self.cylinders]


def make_scene(dice: Dice) -> Scene:
    """Furnish a room."""
    half = dice.uniform("room", (3,)) * torch.tensor([2.2, 0.5, 2.2])
    half = half + torch.tensor([1.5, 1.15, 1.5])  # 3 to 7.4 m wide, 2.3 to 3.3 m high
    room = Primitives(
        centre=torch.stack([torch.zeros(()), -half[1], torch.zeros(())])[None],
        half=half[None],
        yaw=torch.zeros(1),
    )
    zone_centre, zone_half = _walk_zone(dice, half)
    furniture = _furniture(dice, half, zone_centre, zone_half)
    pictures = _pictures(dice, half)
    boxes = _joined(furniture[0], pictures)
    scene_kinds = [room, boxes, furniture[1], furniture[2]]
    lights = dice.uniform("lights", (2, 3), -0.8, 0.8) * half
    lights[:, 1] = -half[1] * 1.9
    strength = dice.uniform("light strength", (2, 1), 0.25, 0.7)
    return Scene(
        room=room,
        boxes=boxes,
        spheres=furniture[1],
        cylinders=furniture[2],
        face_material=_face_materials(dice, [len(kind) for kind in scene_kinds]),
        materials=_materials(dice),
        lights=torch.cat([lights, strength], dim=1),
        ambient=dice.number("ambient", 0.35, 0.6),
        zone_centre=zone_centre,
        zone_half=zone_half,
    )


def _walk_zone(dice: Dice, half: Tensor) -> tuple[Tensor, Tensor]:
    largest = half - torch.tensor([0.9, 0.6, 0.9])
    zone_half = dice.uniform("zone size", (3,), 0.25, 0.75) * largest
    zone_half[1] = zone_half[1].clamp(max=0.35)
    middle = dice.uniform("zone place", (3,), -1, 1) * (half - zone_half - 0.5).clamp(min=0)
    height = dice.number("eye height", 1.0, 1.75)
    lowest = -2 * half[1] + zone_half[1] + 0.4
    middle[1] = max(-height, float(lowest))
    return middle, zone_half


def _furniture(
    dice: Dice, half: Tensor, zone_centre: Tensor, zone_half: Tensor
) -> list[Primitives]:
    """Boxes, spheres and cylinders that keep clear of the walk zone."""
    n = _CANDIDATES
    kind = dice.pick("kind", (n,), 3)
    size = torch.exp(dice.uniform("size", (n, 3), -2.3, -0.35))  # 0.1 to 0.7 m
    size[:, 1] *= dice.uniform("tall", (n,), 0.7, 2.0)
    size[kind == 1] = size[kind == 1, :1] * 0.8
    size[kind == 2, 2] = size[kind == 2, 0]
    centre = dice.uniform("place", (n, 3), -1, 1) * half
    floating = (kind == 1) & (dice.uniform("floating", (n,)) < 0.5)
    centre[:, 1] = torch.where(floating, centre[:, 1] - half[1], -size[:, 1])
    # the yawed box fits in this upright one
    extent = torch.stack([size[:, [0, 2]].norm(dim=1), size[:, 1], size[:, [0, 2]].norm(dim=1)], 1)
    gap = (centre - zone_centre).abs() - extent - zone_half
    clear = gap.clamp(min=0).norm(dim=1) > CLEARANCE
    inside = (centre[:, [0, 2]].abs() < half[[0, 2]] * 0.98).all(dim=1)
    inside &= centre[:, 1] - size[:, 1] > -2 * half[1]
    keep = clear & inside
    keep &= keep.long().cumsum(0) <= 6 + dice.integer("crowd", 8)
    yaw = dice.uniform("yaw", (n,), -torch.pi, torch.pi)
    chosen = [keep & (kind == which) for which in range(3)]
    return [Primitives(centre=centre[c], half=size[c], yaw=yaw[c]) for c in chosen]


def _pictures(dice: Dice, half: Tensor) -> Primitives:
    """Thin boxes on the walls."""
    n = 2 + dice.integer("pictures", 5)
    wall = dice.pick("picture wall", (n,), 4)
    along = dice.uniform("picture place", (n, 2), -0.75, 0.75)
    size = dice.uniform("picture size", (n, 2), 0.2, 0.7)
    on_x = (wall < 2)[:, None]
    side = torch.where(wall % 2 == 0, -1.0, 1.0)
    height = -half[1] + along[:, 1] * half[1] * 0.6
    x_wall = torch.stack([side * half[0], height, along[:, 0] * half[2]], dim=1)
    z_wall = torch.stack([along[:, 0] * half[0], height, side * half[2]], dim=1)
    thin = torch.full((n,), 0.03)
    x_half = torch.stack([thin, size[:, 1], size[:, 0]], dim=1)
    z_half = torch.stack([size[:, 0], size[:, 1], thin], dim=1)
    return Primitives(
        centre=torch.where(on_x, x_wall, z_wall),
        half=torch.where(on_x, x_half, z_half),
        yaw=torch.zeros(n),
    )


def _joined(first: Primitives, second: Primitives) -> Primitives:
    return Primitives(
        centre=torch.cat([first.centre, second.centre]),
        half=torch.cat([first.half, second.half]),
        yaw=torch.cat([first.yaw, second.yaw]),
    )


def _face_materials(dice: Dice, counts: list[int]) -> Tensor:
    """Six faces of each primitive; the walls of a room often match, floor and ceiling do not."""
    solids = dice.pick("solid material", (sum(counts[1:]), 1), _MATERIALS - 6) + 6
    walls = torch.arange(6)[None]
    if dice.chance("equal walls", 0.5):
        walls = torch.tensor([[0, 0, 2, 3, 0, 0]])
    return torch.cat([walls, solids.expand(-1, 6)])


def _materials(dice: Dice) -> Materials:
    """Random colours, patterns and noise; the columns are `textures.COLUMNS`."""
    m = _MATERIALS
    base = dice.uniform("base colour", (m, 3), 0.1, 0.95)
    grey = base.mean(dim=1, keepdim=True)
    base = grey + (base - grey) * dice.uniform("saturation", (m, 1), 0.1, 1.2)
    other = base + dice.uniform("other colour", (m, 3), -0.45, 0.45)
    kind = dice.uniform("pattern", (m, 1))
    period = torch.exp(dice.uniform("period", (m, 1), -2.7, -0.4))  # 7 to 67 cm
    checks = (kind < 0.2).float() + (kind < 0.32).float()  # 2 checks, 1 stripes
    cells = ((kind >= 0.32) & (kind < 0.65)).float()
    aspect = 1 + dice.pick("aspect", (m, 1), 5).float()
    noise = dice.uniform("noise", (m, 1), 0.25, 1.0)
    slope = dice.uniform("slope", (m, 1), -0.1, 0.35)
    angle = (
        dice.uniform("angle", (m, 1), -0.3, 0.3) + dice.pick("quarter", (m, 1), 2) * torch.pi / 2
    )
    columns = [base, other, checks, cells, period, aspect, noise, slope, angle.cos(), angle.sin()]
    return Materials(table=torch.cat(columns, dim=1).clamp(-4, 8))
