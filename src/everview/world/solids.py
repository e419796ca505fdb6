"""Solids: unit shapes, stretched, turned and placed; sorted by shape.

Place frame: x right, y down, z forward, metres.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import cross

BOX, SPHERE, CYLINDER, CONE, TRIANGLE, ROOM = range(6)
"""Shapes in their own axes: the cube, ball and upright cylinder of radius 1 and half height 1; a
cone with its apex at y = -1 and its base of radius 1 at y = 1; the triangle x, y >= 0, x + y <= 1
at z = 0; the cube seen from inside."""
NUM_SHAPES = 6


@dataclass(frozen=True, kw_only=True)
class Solids:
    """Everything that can be seen of a place, one row per solid, sorted by shape."""

    shape: Int[Tensor, " k"]
    """One of the constants of this module."""
    centre: Float[Tensor, "k 3"]
    """Origin of the own axes, in the frame of `body`."""
    axes: Float[Tensor, "k 3 3"]
    """Columns: the own unit vectors in the frame of `body`, half sizes included."""
    material: Int[Tensor, "k 6"]
    """Row of the place's materials, of the faces -x +x -y +y -z +z."""
    offset: Float[Tensor, "k 2"]
    """Shift of the texture in metres."""
    body: Int[Tensor, " k"]
    """What it moves with; 0 stands still in the place frame."""
    normals: Float[Tensor, "k 3 3"]
    """Of triangles: directions of the surface at the corners, for smooth shading; else zero."""

    def __len__(self) -> int:
        return len(self.centre)

    @cached_property
    def inverse_axes(self) -> Float[Tensor, "k 3 3"]:
        """From the frame of `body` to the own axes, by the rule of cross products."""
        x, y, z = self.axes.unbind(-1)
        rows = torch.stack([cross(y, z), cross(z, x), cross(x, y)], dim=1)
        return rows / (rows[:, 0] * x).sum(-1)[:, None, None]

    def to(self, device: torch.device | str) -> "Solids":
        """The same on another device."""
        return Solids(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def shifted(self, by: Float[Tensor, " 3"]) -> "Solids":
        """The standing ones moved; those of bodies move with these."""
        centre = torch.where(self.body[:, None] == 0, self.centre + by, self.centre)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Solids(**(values | {"centre": centre}))

    @cached_property
    def reach(self) -> Float[Tensor, " k"]:
        """Radius of a ball around the centre that holds the solid, metres."""
        square = self.axes.square().sum(dim=1)  # k 3
        flat = square[:, :2].amax(dim=1)
        return torch.where(self.shape == TRIANGLE, flat, square.sum(dim=1)).sqrt()

    def spans(self) -> list[tuple[int, int]]:
        """Rows [start, stop) of each shape, in the order of the constants."""
        ends = torch.bincount(self.shape, minlength=NUM_SHAPES).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))


def make_solids(
    shape: Int[Tensor, " k"] | int,
    centre: Float[Tensor, "k 3"],
    half: Float[Tensor, "k 3"],
    *,
    turn: Float[Tensor, "k 3 3"] | None = None,
    material: Int[Tensor, "..."] | int = 0,
    offset: Float[Tensor, "k 2"] | None = None,
    body: Int[Tensor, " k"] | int = 0,
) -> Solids:
    """Solids from centres, half sizes and turns (columns: own axes); not sorted yet.

    Args:
        shape: of each, or of all.
        centre: in metres.
        half: half sizes along the own axes.
        turn: rotation, none if left out.
        material: of each, of each face (k 6), or of all.
        offset: of textures, none if left out.
        body: of each, or of all.
    """
    k = len(centre)
    axes = torch.diag_embed(half) if turn is None else turn * half[:, None]
    material = torch.as_tensor(material)
    if material.ndim < 2:
        material = material.reshape(-1, 1)
    return Solids(
        shape=torch.as_tensor(shape).expand(k),
        centre=centre,
        axes=axes,
        material=material.expand(k, 6),
        offset=torch.zeros(k, 2) if offset is None else offset,
        body=torch.as_tensor(body).expand(k),
        normals=torch.zeros(k, 3, 3),
    )


def join_solids(parts: list[Solids]) -> Solids:
    """All together, sorted by shape; the order within a shape is kept."""
    values = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Solids)}
    order = torch.argsort(values["shape"], stable=True)
    return Solids(**{name: value[order].contiguous() for name, value in values.items()})


def choose_solids(solids: Solids, keep: Tensor) -> Solids:
    """Those rows that a mask or an index picks."""
    return Solids(**{f.name: getattr(solids, f.name)[keep] for f in fields(Solids)})


def turn_about_y(angle: Float[Tensor, "*k"]) -> Float[Tensor, "*k 3 3"]:
    """Rotations about the downward axis by radians: (0, 0, 1) goes to (sin, 0, cos)."""
    zero, one, cos, sin = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    rows = [cos, zero, sin, zero, one, zero, -sin, zero, cos]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def turn_about_x(angle: Float[Tensor, "*k"]) -> Float[Tensor, "*k 3 3"]:
    """Rotations about x by radians: (0, 0, 1) goes to (0, -sin, cos), which is up."""
    zero, one, cos, sin = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    rows = [one, zero, zero, zero, cos, -sin, zero, sin, cos]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def turn_about_z(angle: Float[Tensor, "*k"]) -> Float[Tensor, "*k 3 3"]:
    """Rotations about z by radians: (1, 0, 0) goes to (cos, sin, 0)."""
    zero, one, cos, sin = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
