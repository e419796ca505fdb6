"""Errors of pose encodings: translation 3, quaternion x y z w 4, field of view 2."""

from jaxtyping import Float
from torch import Tensor

from everview.geometry.rotations import matrix_from_quaternion

MAX_TRANSLATION_ERROR = 100.0
"""Clamp of a single translation error, in scene units, as in VGGT's released training."""


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


def _between(encoding: Tensor, gap: int) -> tuple[Tensor, Tensor]:
    """Rotation (b s 3 3) and translation (b s 3) from each frame to the one `gap` later."""
    rotation = matrix_from_quaternion(encoding[..., 3:7])
    translation = encoding[..., :3]
    relative = rotation[:, gap:] @ rotation[:, :-gap].mT
    moved = (relative @ translation[:, :-gap, :, None]).squeeze(-1)
    return relative, translation[:, gap:] - moved
