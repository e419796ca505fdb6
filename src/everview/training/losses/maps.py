"""Errors of depth maps, with the confidence that a network gives its own numbers."""

from jaxtyping import Float
from torch import Tensor


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
