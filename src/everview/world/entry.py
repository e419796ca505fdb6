"""Where rays enter unit shapes: t of the first point origin + t * direction, else at least FAR.

Conditions are penalties, not masks: choosing by a mask costs as much as twenty additions here.
Origins broadcast over directions; lists hold x, y, z.
"""

from collections.abc import Callable

from torch import Tensor

from everview.world.solids import BOX, CONE, CYLINDER, ROOM, SPHERE, TRIANGLE

FAR = 1e9
"""Distance of nothing."""
NEAR = 1e-3
"""What is nearer than this share of the ray's length is not seen."""
_PENALTY = 1e30
_NOT_ZERO = 1.1e-12
_SEAM = 1e-5
"""Overlap of neighbouring triangles, as a share of their sides, so that no ray falls between."""

Axes = tuple[Tensor, Tensor, Tensor]


def _broken(*excess: Tensor) -> Tensor:
    """Zero where all are <= 0, huge elsewhere."""
    total = excess[0].clamp(min=0)
    for value in excess[1:]:
        total = total + value.clamp(min=0)
    return total * _PENALTY


def _slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of -1 <= x <= 1."""
    inverse = (direction + _NOT_ZERO).reciprocal_()
    middle, reach = origin * inverse, inverse.abs()
    return (reach + middle).neg_(), reach.sub_(middle)


def _box(origin: Axes, direction: Axes) -> Tensor:
    (x0, x1), (y0, y1), (z0, z1) = (_slab(o, d) for o, d in zip(origin, direction, strict=True))
    enter = x0.max(y0).max(z0)
    leave = x1.min(y1).min(z1)
    return _broken(leave.neg_().add_(enter), NEAR - enter).add_(enter)


def _room(origin: Axes, direction: Axes) -> Tensor:
    exits = [_slab(o, d)[1] for o, d in zip(origin, direction, strict=True)]
    return exits[0].min(exits[1]).min(exits[2])


def _sphere(origin: Axes, direction: Axes) -> Tensor:
    x, y, z = direction
    square = (x * x).addcmul_(y, y).addcmul_(z, z)
    along = (x * origin[0]).addcmul_(y, origin[1]).addcmul_(z, origin[2])
    rest = origin[0].square() + origin[1].square() + origin[2].square() - 1
    inside = (along * along).sub_(square * rest)
    enter = (inside.clamp(min=0).sqrt_().add_(along)).div_(square).neg_()
    return _broken(-inside, NEAR - enter).add_(enter)


def _cylinder(origin: Axes, direction: Axes) -> Tensor:
    low, high = _slab(origin[1], direction[1])
    x, z = direction[0], direction[2]
    square = (x * x).addcmul_(z, z).add_(_NOT_ZERO)
    along = (x * origin[0]).addcmul_(z, origin[2])
    rest = origin[0].square() + origin[2].square() - 1
    inside = (along * along).sub_(square * rest)
    root = inside.clamp(min=0).sqrt_()
    enter = (along + root).div_(square).neg_().max(low)
    leave = root.sub_(along).div_(square).min(high)
    return _broken(-inside, enter - leave, NEAR - enter).add_(enter)


def _cone(origin: Axes, direction: Axes) -> Tensor:
    """Of the two surfaces the one where the ray goes inwards: f falls at its entry root."""
    low, high = _slab(origin[1], direction[1])
    x, y, z, height = direction[0], direction[1] / 2, direction[2], (origin[1] + 1) / 2
    square = (x * x).addcmul_(z, z).sub_(y * y).add_(_NOT_ZERO)
    along = (x * origin[0]).addcmul_(z, origin[2]).sub_(y * height)
    rest = origin[0].square() + origin[2].square() - height.square()
    inside = (along * along).sub_(square * rest)
    enter = (inside.clamp(min=0).sqrt_().add_(along)).div_(square).neg_()
    side = _broken(-inside, low - enter, enter - high, NEAR - enter).add_(enter)
    at_base = (square * low + 2 * along) * low + rest
    base = _broken(at_base, low - high, NEAR - low).add_(low)
    return side.min(base)


def _triangle(origin: Axes, direction: Axes) -> Tensor:
    enter = -origin[2] / (direction[2] + _NOT_ZERO)
    x = origin[0] + enter * direction[0]
    y = origin[1] + enter * direction[1]
    return _broken(-_SEAM - x, -_SEAM - y, x + y - 1 - _SEAM, NEAR - enter).add_(enter)


ENTRIES: dict[int, Callable[[Axes, Axes], Tensor]] = {
    BOX: _box, SPHERE: _sphere, CYLINDER: _cylinder, CONE: _cone, TRIANGLE: _triangle, ROOM: _room,
}  # fmt: skip
"""Shape -> distance at which it is entered (of a room: left)."""
