"""Bringing maps of a student to the scale of its target before they are compared."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from everview.training.losses.masked import sum_by

SCALES = (1e-3, 1e3)
"""Smallest and largest factor that any alignment takes."""


def divided_by_mean_norm(
    values: Float[Tensor, "m H W c"], mask: Bool[Tensor, "m H W"]
) -> Float[Tensor, "m H W c"]:
    """Every map in units of the mean length of its own valid values, within [1e-3, 1e3].

    Source: StreamVGGT released training, normalisation before the fit, in training mode.
    """
    weight = mask.to(values.dtype)
    total = (values.norm(dim=-1) * weight).sum(dim=(1, 2))
    mean = (total / (weight.sum(dim=(1, 2)) + 1e-3)).clamp(*SCALES)
    return values / mean[:, None, None, None]


def scale_and_shift(
    values: Float[Tensor, "m H W c"], truth: Float[Tensor, "m H W c"]
) -> tuple[Float[Tensor, ""], Float[Tensor, " c"]]:
    """Least-squares scale and shift of `values` to `truth` over all pixels of all maps together.

    Source: StreamVGGT released training, alignment of a frame: s = sum(x . y) / sum(x . x) of the
    centred values, shift = mean y - s mean x. The mask is not used; gradients flow through.
    """
    mean, true_mean = values.mean(dim=(0, 1, 2)), truth.mean(dim=(0, 1, 2))
    centred = values - mean
    scale = (centred * (truth - true_mean)).sum() / centred.square().sum().clamp_min(1e-6)
    return scale, true_mean - scale * mean


def unit_of_clips(
    maps: Sequence[Float[Tensor, "m H W _"]],
    weights: Sequence[Float[Tensor, "m H W"]],
    clip: Int[Tensor, " m"],
    num_clips: int,
) -> Float[Tensor, " clips"]:
    """Mean length of the values of all maps of a clip, within [1e-3, 1e3]; 1 for one without maps.

    Depth is counted from the camera and points from the first camera, so that both origins are
    known and a scale needs no shift. Gradients flow through. A ratio of two such means is positive
    whatever the student says, and noise does not shrink it, as it would a least-squares scale.

    Args:
        maps: kinds of maps that share one unit, such as depth and points.
        weights: what each pixel counts, one tensor per kind.
        clip: to which clip an image belongs.
        num_clips: also those without maps.

    Source: VGGT Sec. 3.4, coordinate normalisation, taken for student and teacher alike.
    """
    total = count = maps[0].new_zeros(num_clips)
    for values, weight in zip(maps, weights, strict=True):
        lengths = (values.norm(dim=-1) * weight).sum(dim=(1, 2))
        total = total + sum_by(lengths, clip, num_clips)
        count = count + sum_by(weight.sum(dim=(1, 2)), clip, num_clips)
    known = count > 0
    return torch.where(known, total / torch.where(known, count, 1.0), 1.0).clamp(*SCALES)
