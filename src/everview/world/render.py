"""Ray casting of a scene: exact depth, and colours with one lit surface point per pixel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.world.scene import Primitives, Scene
from everview.world.textures import albedo

_NEAR = 1e-4
_FAR = 1e9
_TINY = 1e-9
_CYLINDER_CAP = 0.9995
"""Share of the half height above which a point of a cylinder lies on its cap."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The nearest surface along each ray."""

    distance: Float[Tensor, "s p"]
    """In lengths of the ray's direction: z-depth when that has z = 1 in the camera."""
    primitive: Int[Tensor, "s p"]
    """Row of `Scene.face_material`."""


def pixel_rays(
    pixels: Float[Tensor, "*s p 2"], intrinsics: Float[Tensor, "*s 3 3"]
) -> Float[Tensor, "*s p 3"]:
    """Directions with z = 1 in the camera's frame through pixels (x, y)."""
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    slope = (pixels - intrinsics[..., None, :2, 2]) / focal.unsqueeze(-2)
    return torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1)


def cast(scene: Scene, origin: Float[Tensor, "s 3"], direction: Float[Tensor, "s p 3"]) -> Hits:
    """Find the nearest surface along rays that start inside the room, outside all solids."""
    rays = direction.movedim(-1, 0).contiguous()  # 3 s p
    start = origin.T[..., None]  # 3 s 1
    distances = [
        _room_exit(scene.room, start, rays),
        _box_entry(scene.boxes, start, rays),
        _sphere_entry(scene.spheres, start, rays),
        _cylinder_entry(scene.cylinders, start, rays),
    ]
    distance, primitive = torch.cat(distances).min(dim=0)
    return Hits(distance=distance, primitive=primitive)


def shade(
    scene: Scene,
    hits: Hits,
    origin: Float[Tensor, "s 3"],
    direction: Float[Tensor, "s p 3"],
    focal: Float[Tensor, " s"],
) -> Float[Tensor, "s p 3"]:
    """Colours of the points hit, 0 to about 1: texture times ambient and Lambert light.

    Args:
        scene: the room.
        hits: of the same rays.
        origin: of the rays, per frame.
        direction: of the rays.
        focal: pixels, for the size of a pixel on the surface.
    """
    points = (origin[:, None] + hits.distance[..., None] * direction).flatten(0, 1).T.contiguous()
    primitive = hits.primitive.flatten()
    normal, at, face = _surface(scene, points, primitive)
    light = _light(scene, points, normal)
    length = direction.norm(dim=-1)
    rays = (direction / length[..., None]).flatten(0, 1).T
    facing = (rays * normal).sum(dim=0).abs_().clamp_(min=0.05)
    footprint = (hits.distance * length / focal[:, None]).flatten() / facing.sqrt_()
    seed = (primitive * 7 + face).int() * 0x3C6EF35
    material = scene.face_material.flatten().index_select(0, primitive * 6 + face)
    colour = albedo(at, footprint, material, seed, scene.materials.table)
    return (colour * light).T.unflatten(0, hits.distance.shape)


def _local(kind: Primitives, start: Tensor, rays: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Origins (k s 1) and directions (k s p) in the primitives' own axes, per axis."""
    cos, sin = kind.yaw.cos()[:, None, None], kind.yaw.sin()[:, None, None]
    x, y, z = (start[axis] - kind.centre[:, axis, None, None] for axis in range(3))
    origin = [cos * x - sin * z, y, sin * x + cos * z]
    direction = [cos * rays[0] - sin * rays[2], rays[1:2], sin * rays[0] + cos * rays[2]]
    return origin, direction


def _slabs(origin: Tensor, direction: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave a slab of one axis."""
    inverse = torch.where(direction.abs() < _TINY, _TINY, direction).reciprocal_()
    middle, reach = -origin * inverse, half * inverse.abs()
    return middle - reach, middle + reach


def _box_span(kind: Primitives, start: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    origin, direction = _local(kind, start, rays)
    spans = [
        _slabs(origin[axis], direction[axis], kind.half[:, axis, None, None]) for axis in range(3)
    ]
    enter = torch.maximum(torch.maximum(spans[0][0], spans[1][0]), spans[2][0])
    leave = torch.minimum(torch.minimum(spans[0][1], spans[1][1]), spans[2][1])
    return enter, leave


def _room_exit(room: Primitives, start: Tensor, rays: Tensor) -> Tensor:
    return _box_span(room, start, rays)[1]


def _box_entry(boxes: Primitives, start: Tensor, rays: Tensor) -> Tensor:
    enter, leave = _box_span(boxes, start, rays)
    return enter.masked_fill_((enter > leave) | (enter < _NEAR), _FAR)


def _sphere_entry(spheres: Primitives, start: Tensor, rays: Tensor) -> Tensor:
    centre, radius = spheres.centre, spheres.half[:, :1, None]
    x, y, z = (start[axis] - centre[:, axis, None, None] for axis in range(3))
    square = (rays * rays).sum(dim=0)
    along = x * rays[0] + y * rays[1] + z * rays[2]
    rest = x * x + y * y + z * z - radius * radius
    return _nearer_root(square, along, rest)


def _nearer_root(square: Tensor, along: Tensor, rest: Tensor) -> Tensor:
    """Smaller t with square t^2 + 2 along t + rest = 0; far where there is none ahead."""
    inside = along * along - square * rest
    enter = (-along - inside.clamp(min=0).sqrt_()) / square
    return enter.masked_fill_((inside <= 0) | (enter < _NEAR), _FAR)


def _cylinder_entry(cylinders: Primitives, start: Tensor, rays: Tensor) -> Tensor:
    origin, direction = _local(cylinders, start, rays)
    radius, half_height = cylinders.half[:, :1, None], cylinders.half[:, 1:2, None]
    low, high = _slabs(origin[1], direction[1], half_height)
    square = (direction[0].square() + direction[2].square()).clamp_(min=_TINY)
    along = origin[0] * direction[0] + origin[2] * direction[2]
    rest = origin[0].square() + origin[2].square() - radius * radius
    inside = along * along - square * rest
    root = inside.clamp(min=0).sqrt_()
    enter = torch.maximum((-along - root) / square, low)
    leave = torch.minimum((-along + root) / square, high)
    return enter.masked_fill_((inside <= 0) | (enter > leave) | (enter < _NEAR), _FAR)


def _surface(scene: Scene, points: Tensor, primitive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normal (3 n, in the room frame), texture coordinates (2 n) and face number of points."""
    kinds = scene.primitives
    table = torch.cat(
        [
            torch.cat(
                [k.centre, k.half, k.yaw.cos()[:, None], k.yaw.sin()[:, None],
                 torch.full((len(k), 1), float(which))], dim=1,
            )
            for which, k in enumerate(kinds)
        ]
    )  # fmt: skip
    rows = table.T.contiguous().index_select(1, primitive)  # 9 n
    cos, sin, which = rows[6], rows[7], rows[8]
    x, y, z = points - rows[:3]
    x, z = cos * x - sin * z, sin * x + cos * z
    qx, qy, qz = x / rows[3], y / rows[4], z / rows[5]
    sphere, cylinder = which == 2, which == 3
    ax, ay, az = qx.abs(), qy.abs(), qz.abs()
    on_y = torch.where(cylinder, ay > _CYLINDER_CAP, ay >= torch.maximum(ax, az))
    on_x = ~on_y & (ax >= az)
    on_z = ~on_y & ~on_x
    curved = sphere | (cylinder & ~on_y)
    normal = torch.stack([qx * (on_x | curved), qy * (on_y | sphere), qz * (on_z | curved)])
    normal[1].mul_(~(cylinder & ~on_y))
    normal = normal / normal.norm(dim=0).clamp_(min=1e-6)
    normal *= torch.where(which == 0, -1.0, 1.0)
    normal = torch.stack(
        [cos * normal[0] + sin * normal[2], normal[1], cos * normal[2] - sin * normal[0]]
    )
    along = torch.where(on_y, qy, torch.where(on_x, qx, qz))
    stretch = torch.where(curved, along.abs(), 1.0)
    u = torch.where(on_x, z, x) / stretch
    v = torch.where(on_y, z, y) / torch.where(sphere, stretch, 1.0)
    face = torch.where(on_y, 2, torch.where(on_x, 0, 4)) + (along > 0)
    return normal, torch.stack([u, v]), face


def _light(scene: Scene, points: Tensor, normal: Tensor) -> Tensor:
    """Ambient and Lambert light of all lamps, without shadows."""
    total = torch.full_like(points[0], scene.ambient)
    for lamp in scene.lights:
        towards = lamp[:3, None] - points
        cosine = (towards * normal).sum(dim=0) * torch.rsqrt(towards.square().sum(dim=0) + 1e-6)
        total += lamp[3] * cosine.clamp_(min=0)
    return total
