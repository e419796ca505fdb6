"""Truth and prediction on one grid of pixels."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.errors import InputError
from everview.geometry.pixel_map import PixelMap

Map = Float[Tensor, "H W"]
"""On the grid that is given."""
OtherMap = Float[Tensor, "height width"]
"""On the grid that is asked for."""


def depth_on_image(
    depth: Map, pixel_map: PixelMap, *, bicubic: bool = False
) -> tuple[OtherMap, Bool[Tensor, "height width"]]:
    """Predicted depth on the image's pixels, and which of these the network saw.

    Args:
        depth: on the network's grid.
        pixel_map: of the frame.
        bicubic: as published tables have it: bicubic, which overshoots at edges; where rows were
            cut or padded it is bilinear all the same.
    """
    size = pixel_map.original_size
    if (depth.shape[0], depth.shape[1]) == size and pixel_map.scale == (1.0, 1.0):
        return depth, torch.ones(size, dtype=torch.bool)
    maps = depth[None, None].float()
    whole = pixel_map.valid_rectangle() == (0, depth.shape[0], 0, depth.shape[1])
    if bicubic and whole and pixel_map.offset == (0.0, 0.0):
        resized = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)
        return resized[0, 0], torch.ones(size, dtype=torch.bool)
    seen = pixel_map.resample_to_original(torch.ones_like(maps), outside=0.0)[0, 0] > 0
    return pixel_map.resample_to_original(maps, outside=0.0)[0, 0], seen


def truth_on_network(
    depth: Map, intrinsics: Float[Tensor, "3 3"], pixel_map: PixelMap
) -> tuple[OtherMap, Float[Tensor, "3 3"]]:
    """True depth (nearest pixel, 0 in the padding) and K on the network's grid, float64."""
    rows, columns = pixel_map.network_size
    v, u = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    at = pixel_map.to_original(torch.stack([u, v], dim=-1)).round().long()
    height, width = pixel_map.original_size
    inside = (at >= 0).all(dim=-1) & (at[..., 0] < width) & (at[..., 1] < height)
    x, y = at[..., 0].clamp(0, width - 1), at[..., 1].clamp(0, height - 1)
    K = intrinsics.double().clone()
    K[0] *= pixel_map.scale[0]
    K[1] *= pixel_map.scale[1]
    K[:2, 2] = pixel_map.to_network(intrinsics[:2, 2].double())
    return depth[y, x].double() * inside, K


def check_size(depth: Map, pixel_map: PixelMap, frame: str) -> None:
    """Refuse truth on another grid than the image.

    Raises:
        InputError: if the sizes differ; names the frame.
    """
    if tuple(depth.shape) != tuple(pixel_map.original_size):
        raise InputError(
            f"frame {frame}: depth has {tuple(depth.shape)} pixels, "
            f"the image {tuple(pixel_map.original_size)}"
        )
