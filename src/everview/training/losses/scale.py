"""The unit of a scene: every clip is brought to the same size before anything is compared."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def scene_scale(
    points: Float[Tensor, "b s H W 3"], mask: Bool[Tensor, "b s H W"] | None = None
) -> Float[Tensor, " b"]:
    """Mean distance of all valid points of a clip from the first camera, within [1e-6, 1e6].

    Args:
        points: in the first camera's frame.
        mask: which points count; all if None.

    Source: VGGT Sec. 3.4, ground truth coordinate normalization.
    """
    distance = points.norm(dim=-1)  # b s H W
    weight = torch.ones_like(distance) if mask is None else mask.to(distance.dtype)
    total = (distance * weight).sum(dim=(1, 2, 3))
    return (total / (weight.sum(dim=(1, 2, 3)) + 1e-3)).clamp(1e-6, 1e6)
