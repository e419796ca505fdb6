"""Errors of tracked points: pixels, visibility, confidence."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def track_loss(
    rounds: Float[Tensor, "rounds b s t 2"],
    visibility_logits: Float[Tensor, "b s t"],
    confidence_logits: Float[Tensor, "b s t"],
    truth: Float[Tensor, "b s t 2"],
    visible: Bool[Tensor, "b s t"],
    *,
    scale: float,
    decay: float = 0.8,
) -> Float[Tensor, ""]:
    """L1 of visible points over the rounds, cross-entropy of visibility and of being within 3 px.

    Args:
        rounds: pixels after each round.
        visibility_logits, confidence_logits: before the sigmoid.
        truth: pixels.
        visible: where the point is seen.
        scale: pixels that count as an error of 1.
        decay: weight of a round relative to the next one.

    Source: VGGT released training, track term; CoTracker (arXiv 2307.07635) Sec. 3.4.
    """
    weight = visible.to(rounds.dtype)[..., None]
    count = weight.sum().clamp_min(1)
    total = rounds.new_zeros(())
    for r, estimate in enumerate(rounds):
        error = F.huber_loss(estimate / scale, truth / scale, reduction="none", delta=1.0)
        total = total + decay ** (len(rounds) - 1 - r) * (error * weight).sum() / count
    close = ((rounds[-1] - truth).norm(dim=-1) < 3).to(rounds.dtype)  # b s t
    entropy = F.binary_cross_entropy_with_logits(visibility_logits, visible.to(rounds.dtype))
    return (
        total / len(rounds)
        + entropy
        + F.binary_cross_entropy_with_logits(confidence_logits, close.detach())
    )
