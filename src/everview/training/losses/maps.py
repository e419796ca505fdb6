"""Errors of depth and point maps, with the confidence that a network gives its own numbers."""

from jaxtyping import Bool, Float
from torch import Tensor

from everview.training.losses.masked import LARGEST_ERROR, masked_mean

STRIDES = (1, 2, 4, 8)
"""Every pixel, every second, fourth and eighth: how VGGT's released training looks at edges."""


def confidence_loss(
    error: Float[Tensor, "b s H W"], confidence: Float[Tensor, "b s H W"], *, alpha: float
) -> Float[Tensor, ""]:
    """The mean of error * c - alpha ln c: c is best at alpha / error, but at least 1.

    Source: VGGT Eq. 2 (aleatoric uncertainty, Kendall and Gal 2016), with the error not squared.
    """
    return (error * confidence - alpha * confidence.log()).mean()


def gradient_loss(
    value: Float[Tensor, "b s H W"], truth: Float[Tensor, "b s H W"]
) -> Float[Tensor, ""]:
    """L1 between neighbour differences, horizontal plus vertical: keeps edges where they are.

    Source: VGGT Eq. 2, gradient term.
    """
    error = value - truth
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def differences(
    error: Float[Tensor, "m H W c"], mask: Bool[Tensor, "m H W"], *, axis: int, apart: int = 1
) -> tuple[Float[Tensor, "m h w c"], Bool[Tensor, "m h w"]]:
    """The pixel so many further along an axis (1 down, 2 right) minus each, and if both count.

    The difference of errors is the error of differences.
    """
    pairs = mask.shape[axis] - apart
    both = mask.narrow(axis, 0, pairs) & mask.narrow(axis, apart, pairs)
    return error.narrow(axis, apart, pairs) - error.narrow(axis, 0, pairs), both


def gradient_error_everywhere(
    error: Float[Tensor, "m H W 1"], mask: Bool[Tensor, "m H W"]
) -> Float[Tensor, ""]:
    """L1 of neighbour differences: summed where both pixels count, divided by all positions.

    Source: StreamVGGT released training, gradient term of depth; both directions cut to
    (H - 1, W - 1) and averaged.
    """
    right, both_right = differences(error, mask, axis=2)
    down, both_down = differences(error, mask, axis=1)
    across = (right.abs() * both_right[..., None])[:, :-1].mean()
    along = (down.abs() * both_down[..., None])[:, :, :-1].mean()
    return (across + along) / 2


def gradient_error(
    error: Float[Tensor, "m H W c"], mask: Bool[Tensor, "m H W"]
) -> Float[Tensor, ""]:
    """L1 of neighbour differences, mean over the pairs in which both pixels count."""
    parts = []
    for axis in (1, 2):
        difference, both = differences(error, mask, axis=axis)
        parts.append(masked_mean(difference.abs().mean(dim=-1), both))
    return (parts[0] + parts[1]) / 2


def gradient_error_by_stride(
    error: Float[Tensor, "m H W c"], mask: Bool[Tensor, "m H W"]
) -> Float[Tensor, ""]:
    """L1 of neighbour differences, clamped at 100, at strides 1, 2, 4, 8.

    Source: VGGT released training, gradient term of depth: at each stride the sum over both
    directions divided by the number of valid pixels; the mean of the four.
    """
    total = error.new_zeros(())
    for stride in STRIDES:
        coarse, seen = error[:, ::stride, ::stride], mask[:, ::stride, ::stride]
        count = seen.sum().clamp_min(1)
        for axis in (1, 2):
            difference, both = differences(coarse, seen, axis=axis)
            clamped = difference.abs().clamp_max(LARGEST_ERROR)
            total = total + (clamped * both[..., None]).sum() / count
    return total / len(STRIDES)
