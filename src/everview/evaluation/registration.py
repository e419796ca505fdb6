"""Depth of one camera seen from another, and on a network's pixel grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import InputError
from everview.geometry.cameras import project_points, unproject_depth
from everview.geometry.pixel_map import PixelMap
from everview.geometry.rotations import rigid


@dataclass(frozen=True, kw_only=True)
class ColourCamera:
    """A pinhole beside the depth camera, with the same orientation.

    A point (X, Y, Z) in the depth camera's frame is seen at
    u = fx (X - tx) / Z + cx, v = fy (Y - ty) / Z + cy.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    tx: float = 0.0
    """Metres to the right of the depth camera."""
    ty: float = 0.0
    """Metres below it."""

    @property
    def intrinsics(self) -> Float[Tensor, "3 3"]:
        """K in pixels of the colour images."""
        return torch.tensor([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]]).double()

    @property
    def depth_from_colour(self) -> Float[Tensor, "4 4"]:
        """Its pose in the depth camera's frame."""
        return rigid(torch.eye(3).double(), torch.tensor([self.tx, self.ty, 0.0]).double())


KNOWN_COLOUR_CAMERAS: Mapping[str, ColourCamera] = {
    "kinect_kitchen": ColourCamera(fx=527, fy=527, cx=320, cy=240, tx=0.027, ty=0.010)
}
"""By the name of a sequence whose files do not say it: fitted to colour consistency."""


def colour_camera(info: Mapping[str, Any]) -> ColourCamera | None:
    """The colour camera of a sequence whose depth belongs to another one.

    Args:
        info: content of `sequence.json`; its `colour_camera` (fx fy cx cy tx ty) goes before what
            is known by name.

    Raises:
        InputError: if `colour_camera` is not made of these numbers.
    """
    stored = info.get("colour_camera")
    if stored is None:
        return KNOWN_COLOUR_CAMERAS.get(str(info.get("name")))
    try:
        return ColourCamera(**{name: float(value) for name, value in stored.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"colour_camera in sequence.json must hold fx, fy, cx, cy, tx, ty: {error}"
        ) from error


def seen_from(
    depth: Float[Tensor, "H W"],
    intrinsics: Float[Tensor, "3 3"],
    camera: ColourCamera,
    size: tuple[int, int],
) -> Float[Tensor, "h w"]:
    """Warp a depth map into the colour camera; the nearest surface hides what is behind it.

    Args:
        depth: z-depth of the depth camera in metres; 0 where there is none.
        intrinsics: of the depth camera.
        camera: where it is seen from.
        size: (height, width) of the colour image.

    Returns:
        z-depth on the colour image's grid; 0 where no depth pixel falls.
    """
    points = unproject_depth(depth.double(), intrinsics.double())[depth > 0]  # n 3
    points = points - camera.depth_from_colour[:3, 3]
    u, v = project_points(points, camera.intrinsics).round().long().unbind(-1)
    inside = (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0])
    cell = (v * size[1] + u)[inside]
    nearest = torch.full((size[0] * size[1],), torch.inf, dtype=torch.float64)
    nearest.scatter_reduce_(0, cell, points[inside, 2], reduce="amin")
    return torch.where(nearest.isfinite(), nearest, 0.0).reshape(size).float()


def depth_on_grid(depth: Float[Tensor, "H W"], pixel_map: PixelMap) -> Float[Tensor, "h w"]:
    """Depth at the centre of each network pixel, by the nearest original pixel: never a mixture.

    0 where the network pixel shows padding.
    """
    height, width = pixel_map.network_size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = pixel_map.to_original(torch.stack([u, v], dim=-1).double()).round().long()  # h w 2
    x, y = at.unbind(-1)
    inside = (x >= 0) & (y >= 0) & (x < depth.shape[1]) & (y < depth.shape[0])
    sampled = depth[y.clamp(0, depth.shape[0] - 1), x.clamp(0, depth.shape[1] - 1)]
    return torch.where(inside, sampled, 0.0)


def intrinsics_on_grid(
    intrinsics: Float[Tensor, "*batch 3 3"], pixel_map: PixelMap
) -> Float[Tensor, "*batch 3 3"]:
    """K of the original pixels to K of the network's: the same rays, other pixels."""
    result = intrinsics.clone()
    scale = intrinsics.new_tensor(pixel_map.scale)
    result[..., 0, :2] = intrinsics[..., 0, :2] * scale[0]
    result[..., 1, :2] = intrinsics[..., 1, :2] * scale[1]
    result[..., :2, 2] = pixel_map.to_network(intrinsics[..., :2, 2])
    return result


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that is nearest to a matrix that is almost one: stored poses are rounded."""
    u, _, v = torch.linalg.svd(matrix)
    sign = torch.det(u @ v)
    fix = torch.diag_embed(torch.stack([torch.ones_like(sign)] * 2 + [sign], dim=-1))
    return u @ fix @ v
