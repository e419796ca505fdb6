"""Stored numbers to depth, sky and validity."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.training.datasets.declaration import DepthCode


class DepthMap(NamedTuple):
    """Depth of one frame."""

    depth: Float[np.ndarray, "H W"]
    """z-depth; 0 where it is not valid."""
    sky: Bool[np.ndarray, "H W"] | None
    """Where the code says sky; None if the code has no sky."""


def decode_depth(
    stored: Float[np.ndarray, "H W"], code: DepthCode, *, full_scale: float = 1.0
) -> DepthMap:
    """Apply unit, sky and cuts.

    Args:
        stored: numbers of the file.
        code: what they mean.
        full_scale: the number that `code.full_scale` names, from the camera file.
    """
    depth = stored * np.float32(code.unit * full_scale)
    sky = None if np.isinf(code.sky_from) else depth >= np.float32(code.sky_from)
    valid = np.isfinite(depth) & (depth > 0) & (depth <= code.largest)
    if sky is not None:
        valid &= ~sky
    if code.percentile is not None and valid.any():
        valid &= depth <= np.percentile(depth[valid], code.percentile)
    return DepthMap(np.where(valid, depth, np.float32(0)), sky)


def to_grid(values: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c H W"]:
    """Nearest values on another pixel grid: an edge's depth is never a mixture of its sides."""
    if values.shape[1:] == size:
        return values
    return F.interpolate(values[None], size=size, mode="nearest-exact")[0]


def mask_to_grid(mask: np.ndarray | None, size: tuple[int, int]) -> Bool[Tensor, "H W"] | None:
    """The same for a mask."""
    if mask is None:
        return None
    return to_grid(torch.from_numpy(mask.astype(np.float32))[None], size)[0] > 0
