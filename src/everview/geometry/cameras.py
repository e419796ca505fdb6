"""Pinhole cameras and the nine-number pose encoding of VGGT.

OpenCV axes everywhere: x right, y down, z forward. Pixel coordinates are indices: the centre of
the first pixel is (0, 0). The principal point lies at (W / 2, H / 2), half a pixel off the usual
rule, because the published weights were trained so.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.geometry.rotations import (
    invert_rigid,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rigid,
)

MIN_FIELD_OF_VIEW = 1e-3
"""Radians. The network's ReLU may return 0, which would be an infinite focal length."""


def intrinsics_from_fov(
    fov: Float[Tensor, "*batch 2"], image_size: tuple[int, int]
) -> Float[Tensor, "*batch 3 3"]:
    """Build the pinhole matrix of a camera that is known by its two opening angles.

    Args:
        fov: (vertical, horizontal) opening angle in radians; values outside [1e-3, pi - 1e-3] are
            clamped to it, so that the result is finite.
        image_size: (height, width) in pixels of the image that the angles span.

    Returns:
        K in pixels: no skew, principal point at the middle of the image.

    Raises:
        ValueError: if a side of `image_size` is not positive.

    Source: VGGT Sec. 3.1; focal = (side / 2) / tan(angle / 2).
    """
    if min(image_size) <= 0:
        raise ValueError(f"image_size must be (height, width), both > 0; got {image_size}")
    half_size = fov.new_tensor(image_size) / 2  # (height, width)
    angle = fov.clamp(MIN_FIELD_OF_VIEW, torch.pi - MIN_FIELD_OF_VIEW)
    focal = half_size / torch.tan(angle / 2)  # *batch (y, x)
    intrinsics = torch.diag_embed(F.pad(focal.flip(-1), (0, 1), value=1.0))  # *batch 3 3
    intrinsics[..., :2, 2] = half_size.flip(-1)
    return intrinsics


def fov_from_intrinsics(
    intrinsics: Float[Tensor, "*batch 3 3"], image_size: tuple[int, int]
) -> Float[Tensor, "*batch 2"]:
    """Opening angles (vertical, horizontal) in radians; the principal point is not looked at."""
    half_size = intrinsics.new_tensor(image_size) / 2  # (height, width)
    focal = torch.stack([intrinsics[..., 1, 1], intrinsics[..., 0, 0]], dim=-1)
    return 2 * torch.atan(half_size / focal)


def camera_from_pose_encoding(
    encoding: Float[Tensor, "*batch 9"], image_size: tuple[int, int]
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch 3 3"]]:
    """Read a pose encoding: translation 3, quaternion x y z w 4, field of view (h, w) 2.

    Returns:
        camera_from_world, with the last row 0 0 0 1, and K in pixels of `image_size`.
    """
    rotation = matrix_from_quaternion(encoding[..., 3:7])
    return rigid(rotation, encoding[..., :3]), intrinsics_from_fov(encoding[..., 7:], image_size)


def pose_encoding_from_camera(
    camera_from_world: Float[Tensor, "*batch n 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    image_size: tuple[int, int],
) -> Float[Tensor, "*batch 9"]:
    """Write a pose encoding; the inverse of `camera_from_pose_encoding`.

    Args:
        camera_from_world: [R | t], three or four rows.
        intrinsics: K in pixels of `image_size`.
        image_size: (height, width).
    """
    quaternion = quaternion_from_matrix(camera_from_world[..., :3, :3])
    fov = fov_from_intrinsics(intrinsics, image_size)
    return torch.cat([camera_from_world[..., :3, 3], quaternion, fov], dim=-1)


def unproject_depth(
    depth: Float[Tensor, "*batch H W"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch H W 3"]:
    """Lift a z-depth map to points in the camera's own frame; pixel (u, v) has integer u, v."""
    height, width = depth.shape[-2:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    fx, fy = intrinsics[..., 0, 0, None, None], intrinsics[..., 1, 1, None, None]
    cx, cy = intrinsics[..., 0, 2, None, None], intrinsics[..., 1, 2, None, None]
    return torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], dim=-1)


def points_from_depth(
    depth: Float[Tensor, "*batch H W"],
    camera_from_world: Float[Tensor, "*batch n 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
) -> Float[Tensor, "*batch H W 3"]:
    """Lift a z-depth map to points in the world frame: R^T (x_camera - t)."""
    world_from_camera = invert_rigid(camera_from_world)
    in_camera = unproject_depth(depth, intrinsics)
    return transform_points(world_from_camera, in_camera)


def ray_map(
    world_from_camera: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    image_size: tuple[int, int],
) -> Float[Tensor, "*batch H W 6"]:
    """Origin (3) and unit direction (3), in the world frame, of the ray through every pixel.

    Source: the ray maps of CUT3R (arXiv 2501.12387), with directions turned by the rotation alone;
    its code adds the translation to them.
    """
    ones = intrinsics.new_ones(*intrinsics.shape[:-2], *image_size)
    in_camera = unproject_depth(ones, intrinsics)
    rotation = world_from_camera[..., :3, :3]
    directions = F.normalize(in_camera @ rotation.mT.unsqueeze(-3), dim=-1)
    origin = world_from_camera[..., None, None, :3, 3].expand_as(directions)
    return torch.cat([origin, directions], dim=-1)


def transform_points(
    transform: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch H W 3"]
) -> Float[Tensor, "*batch H W 3"]:
    """Apply one rigid transform per map to all of its points."""
    rotation, translation = transform[..., :3, :3], transform[..., :3, 3]
    return points @ rotation.transpose(-1, -2).unsqueeze(-3) + translation[..., None, None, :]


def project_points(
    in_camera: Float[Tensor, "*batch n 3"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch n 2"]:
    """Pixel (u, v) of points in the camera's frame; points with z <= 0 have no meaningful pixel."""
    homogeneous = in_camera @ intrinsics.transpose(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]
