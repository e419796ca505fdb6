"""What the surface is like where rays end: its direction and where on its texture that is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.world.cast import Hits
from everview.world.scene import NUM_FACES, Scene

_CAP = 0.9995
"""Share of the half height above which a point of a cylinder or cone lies on its flat end."""
_STEEP = 1e20
Vectors = tuple[Tensor, Tensor, Tensor]
"""x, y, z of many vectors."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Of each pixel, in the camera's axes."""

    normal: Vectors
    """Unit vectors towards the camera's side."""
    at: tuple[Float[Tensor, "s n"], Float[Tensor, "s n"]]
    """Texture coordinates in metres."""
    material: Float[Tensor, "22 s n"]


def surface(scene: Scene, hits: Hits, rays: tuple[Tensor, Tensor]) -> Surface:
    """Look up and compute the surface at each hit.

    Args:
        scene: what was hit.
        hits: of the pixels of images.
        rays: x and y of the directions with z = 1.
    """
    row = hits.row.flatten()
    tables = [hits.origin.T, hits.local.flatten(1).T, hits.solid[None].float() * NUM_FACES,
              scene.curves[:, hits.solid]]  # fmt: skip
    values = torch.cat(tables).index_select(1, row).unflatten(1, hits.row.shape)
    origin, local, depth = values[:3], values[3:12], hits.distance.clamp(max=1e4)
    q = [
        torch.addcmul(local[3 * i + 2], local[3 * i], rays[0])
        .addcmul_(local[3 * i + 1], rays[1])
        .mul_(depth)
        .add_(origin[i])
        for i in range(3)
    ]
    on, side = _sides(q, values[13:16])
    first = values[12]
    face = 4 - 4 * on[0] - 2 * on[1] + _step(on[0] * q[0] + on[1] * q[1] + on[2] * q[2])
    face_row = (first + face).long().flatten()
    looks = scene.faces.index_select(1, face_row).unflatten(1, hits.row.shape)
    normal = _directions(scene, hits, q, on, side, values[13:])
    return Surface(
        normal=_seen(_turned(local, normal), rays),
        at=_texture_coordinates(q, side, values[13:15], looks),
        material=looks[8:],
    )


def _step(x: Tensor) -> Tensor:
    """0 up to zero, then 1, as floats: cheaper than a mask."""
    return (x * _STEEP).clamp_(0, 1)


def _sides(q: list[Tensor], kind: Tensor) -> tuple[list[Tensor], Tensor]:
    """For each axis 1 where the surface faces along it, else 0; and 1 where it is curved."""
    curved, ends, _ = kind
    x, y, z = (value.abs() for value in q)
    largest = torch.maximum(x, z)
    on_y = _step(y - torch.lerp(largest, torch.full_like(y, _CAP), ends))
    on_x = (1 - on_y).mul_(_step(x - z))
    return [on_x, on_y, 1 - on_y - on_x], curved * (1 - ends * on_y)


def _directions(
    scene: Scene, hits: Hits, q: list[Tensor], on: list[Tensor], side: Tensor, kind: Tensor
) -> Vectors:
    """Gradient of the surface in own axes."""
    flat = 1 - side
    x = q[0] * (side + on[0] * flat)
    z = q[2] * (side + on[2] * flat)
    y = side * (kind[3] * q[1] + kind[4]) + q[1] * (on[1] * flat)
    if not scene.has_triangles:
        return x, y, z
    solid = hits.solid[hits.row.flatten()]
    slopes = scene.slopes.index_select(1, solid).unflatten(1, hits.row.shape)
    bent = slopes[:3] + slopes[3:6] * q[0] + slopes[6:] * q[1]
    smooth = torch.stack([x, y, z]).lerp_(bent, kind[2].expand_as(bent))
    return smooth[0], smooth[1], smooth[2]


def _turned(local: Tensor, gradient: Vectors) -> Vectors:
    """Gradients in own axes to unit vectors in the camera's."""
    x, y, z = gradient
    turned = [local[i] * x + local[3 + i] * y + local[6 + i] * z for i in range(3)]
    square = turned[0].square().addcmul_(turned[1], turned[1]).addcmul_(turned[2], turned[2])
    scale = square.clamp_(min=1e-12).rsqrt_()
    return turned[0] * scale, turned[1] * scale, turned[2] * scale


def _seen(normal: Vectors, rays: tuple[Tensor, Tensor]) -> Vectors:
    """Turned towards the camera."""
    sign = (normal[0] * rays[0]).addcmul_(normal[1], rays[1]).add_(normal[2]).sign_().neg_()
    return normal[0] * sign, normal[1] * sign, normal[2] * sign


def _texture_coordinates(
    q: list[Tensor], side: Tensor, kind: Tensor, looks: Float[Tensor, "30 s n"]
) -> tuple[Tensor, Tensor]:
    """Curved surfaces get the coordinates of the cube (or prism) around them."""
    x, y, z = q
    largest = torch.maximum(x.abs(), z.abs())
    is_ball = kind[0] - kind[1]
    largest = torch.maximum(largest, y.abs() * is_ball).clamp_(min=1e-6)
    stretch = torch.addcmul(1 - side, side, largest.reciprocal_())
    x, z = x * stretch, z * stretch
    y = y * torch.lerp(torch.ones_like(y), stretch, is_ball)
    u = torch.addcmul(looks[6], looks[0], x).addcmul_(looks[1], y).addcmul_(looks[2], z)
    v = torch.addcmul(looks[7], looks[3], x).addcmul_(looks[4], y).addcmul_(looks[5], z)
    return u, v


def surface_row(hits: Hits) -> Int[Tensor, "s n"]:
    """Row of `Solids` that each pixel shows."""
    return hits.solid[hits.row]
