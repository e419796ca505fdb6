"""What is punished: cameras, depth, points, tracks. All means over elements; smaller is better."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.geometry.rotations import matrix_from_quaternion

MAX_TRANSLATION_ERROR = 100.0
"""Clamp of a single translation error, in scene units, as in VGGT's released training."""


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


def camera_loss(
    rounds: Float[Tensor, "rounds b s 9"],
    truth: Float[Tensor, "b s 9"],
    *,
    decay: float = 0.6,
    align_sign: bool = True,
) -> Float[Tensor, ""]:
    """L1 of translation, quaternion and half the field of view; later rounds count more.

    Args:
        rounds: pose encoding after each refinement round.
        truth: pose encoding, quaternion with w >= 0.
        decay: weight of a round relative to the next one.
        align_sign: compare with q or -q, whichever is nearer; both are the same rotation.

    Source: VGGT released training, camera term: L1 was found more stable than the paper's Huber.
    """
    num_rounds = len(rounds)
    total = rounds.new_zeros(())
    for r, estimate in enumerate(rounds):
        quaternion = estimate[..., 3:7]
        if align_sign:
            sign = (quaternion * truth[..., 3:7]).sum(-1, keepdim=True).detach().sign()
            quaternion = quaternion * sign + quaternion * (sign == 0)
        translation = (estimate[..., :3] - truth[..., :3]).abs().clamp_max(MAX_TRANSLATION_ERROR)
        rotation = (quaternion - truth[..., 3:7]).abs()
        fov = (estimate[..., 7:] - truth[..., 7:]).abs()
        loss = translation.mean() + rotation.mean() + 0.5 * fov.mean()
        total = total + decay ** (num_rounds - 1 - r) * loss
    return total / num_rounds


def relative_pose_loss(
    estimate: Float[Tensor, "b s 9"], truth: Float[Tensor, "b s 9"], *, gap: int = 1
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """L1 of rotation matrix and translation from each frame to the one `gap` frames later.

    Errors common to both frames cancel, so that small motions get a clear gradient.

    Returns:
        rotation term and translation term, apart.
    """
    rotation, translation = _between(estimate, gap)
    true_rotation, true_translation = _between(truth, gap)
    return (
        (rotation - true_rotation).abs().mean(),
        (translation - true_translation).abs().mean(),
    )


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


def _between(encoding: Tensor, gap: int) -> tuple[Tensor, Tensor]:
    """Rotation (b s 3 3) and translation (b s 3) from each frame to the one `gap` later."""
    rotation = matrix_from_quaternion(encoding[..., 3:7])
    translation = encoding[..., :3]
    relative = rotation[:, gap:] @ rotation[:, :-gap].mT
    moved = (relative @ translation[:, :-gap, :, None]).squeeze(-1)
    return relative, translation[:, gap:] - moved
