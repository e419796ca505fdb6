"""Means over the pixels that count."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ENOUGH = 1000
"""Values below which no outlier is cut."""
LARGEST_ERROR = 100.0
"""Clamp of single values where outliers are cut, in scene units, as in VGGT's released training."""


def masked_mean(
    values: Float[Tensor, "*axes"], weight: Float[Tensor, "*axes"] | Bool[Tensor, "*axes"]
) -> Float[Tensor, ""]:
    """Weighted mean; 0, still a function of `values`, where all weights are 0."""
    weight = weight.to(values.dtype)
    total = weight.sum()
    return (values * weight).sum() / torch.where(total > 0, total, 1.0)


def sum_by(
    values: Float[Tensor, " m"], group: Int[Tensor, " m"], num_groups: int
) -> Float[Tensor, " groups"]:
    """Sum of the values of each group; 0 for a group without any."""
    return values.new_zeros(num_groups).index_add(0, group, values)


def mean_without_outliers(values: Float[Tensor, " n"], *, keep: float = 0.98) -> Float[Tensor, ""]:
    """Mean of the smaller ones of many values.

    Args:
        values: errors.
        keep: values at or above this quantile (nearest rank) are left out; 1 keeps all.

    Source: VGGT released training: lists of more than 1000 values are clamped at 100 and cut at
    the quantile, unless that leaves 1000 or fewer.
    """
    if not 0 < keep < 1 or len(values) <= ENOUGH:
        return values.mean() if len(values) else values.sum()
    values = values.clamp_max(LARGEST_ERROR)
    rank = round((len(values) - 1) * keep)
    limit = values.detach().kthvalue(rank + 1).values
    kept = values[values < limit]
    return kept.mean() if len(kept) > ENOUGH else values.mean()
