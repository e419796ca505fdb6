"""Errors of pose encodings: translation 3, quaternion x y z w 4, field of view 2."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.geometry.rotations import matrix_from_quaternion

MAX_TRANSLATION_ERROR = 100.0
"""Clamp of a single translation error, in scene units, as in VGGT's released training."""
TINY = 1e-12
"""Keeps the gradient of a distance of 0 finite."""
SHORTEST_PATH = 0.05
"""Of a clip, in scene units; shorter ones are said to stand still."""
HUBER_DELTA = 0.1
"""Where the Huber loss turns from square to linear, in StreamVGGT's released training."""


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
    if align_sign:
        rounds = with_sign_of(rounds, truth)
    translation, rotation, fov = absolute_errors(rounds, truth, decay=decay)
    return translation + rotation + 0.5 * fov


def absolute_errors(
    rounds: Float[Tensor, "rounds b s 9"], truth: Float[Tensor, "b s 9"], *, decay: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """L1 of translation (clamped at 100), quaternion and field of view, mean over elements.

    Round k of K counts decay^(K - k), and the sum is divided by K.

    Source: VGGT released training, camera term.
    """
    errors = (rounds - truth).abs()
    errors = torch.cat([errors[..., :3].clamp_max(MAX_TRANSLATION_ERROR), errors[..., 3:]], dim=-1)
    return _by_part(errors, weights_of_rounds(rounds, decay) / len(rounds))


def huber_errors(
    rounds: Float[Tensor, "rounds b s 9"],
    truth: Float[Tensor, "b s 9"],
    *,
    delta: float = HUBER_DELTA,
    decay: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Huber loss of translation, quaternion and field of view, mean over elements.

    Args:
        rounds: pose encoding after each refinement round.
        truth: pose encoding.
        delta: e^2 / (2 delta) for errors up to it, |e| - delta / 2 beyond.
        decay: weight of a round relative to the next one, the weights adding up to 1; at 0 only
            the last round counts.

    Source: StreamVGGT Sec. 3.4, camera term; delta from the released training.
    """
    weights = weights_of_rounds(rounds, decay)
    return _by_part(huber(rounds - truth, delta), weights / weights.sum())


def huber(error: Float[Tensor, "*axes"], delta: float) -> Float[Tensor, "*axes"]:
    """e^2 / (2 delta) for |e| <= delta, |e| - delta / 2 beyond: of slope 1 far out."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=delta, reduction="none")


def weights_of_rounds(
    rounds: Float[Tensor, "rounds ..."], decay: float
) -> Float[Tensor, " rounds"]:
    """decay^(K - k) for the k-th of K rounds: 1 for the last one, which is the only one at 0."""
    return rounds.new_tensor([decay**k for k in reversed(range(len(rounds)))])


def is_flipped(
    rounds: Float[Tensor, "*rounds b s 9"], truth: Float[Tensor, "b s 9"]
) -> Bool[Tensor, "*rounds b s"]:
    """Whether the quaternion points away from the true one, of which -q would be nearer."""
    return (rounds[..., 3:7] * truth[..., 3:7]).sum(dim=-1) < 0


def with_sign_of(
    rounds: Float[Tensor, "*rounds b s 9"], truth: Float[Tensor, "b s 9"]
) -> Float[Tensor, "*rounds b s 9"]:
    """The same cameras, written with that of q and -q that is nearer to the true quaternion."""
    sign = torch.where(is_flipped(rounds, truth), -1.0, 1.0)[..., None].to(rounds.dtype)
    return torch.cat([rounds[..., :3], rounds[..., 3:7] * sign, rounds[..., 7:]], dim=-1)


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


def path_loss(estimate: Float[Tensor, "b s 9"], truth: Float[Tensor, "b s 9"]) -> Float[Tensor, ""]:
    """Error of the way from one camera centre to another over the length of the path, all pairs.

    What ATE measures as a share of the path: a clip of small steps counts as much as one of large
    steps, of which the terms in scene units see more. The error is a distance in the coordinates of
    the world, not squared.
    """
    ours, true = _centres(estimate), _centres(truth)
    length = (true[:, 1:] - true[:, :-1]).norm(dim=-1).sum(dim=1).clamp_min(SHORTEST_PATH)
    error = ours - true
    apart = error[:, :, None] - error[:, None]  # b s s 3
    return ((apart.square().sum(dim=-1) + TINY).sqrt() / length[:, None, None]).mean()


def turn_loss(estimate: Float[Tensor, "b s 9"], truth: Float[Tensor, "b s 9"]) -> Float[Tensor, ""]:
    """Error of the rotation from one frame to another, all pairs, in radians.

    What the evaluation's relative rotation measures. It is the chord 2 sin(angle / 2), whose
    gradient is finite where the error is 0.
    """
    ours, true = (matrix_from_quaternion(pose[..., 3:7]) for pose in (estimate, truth))
    error = ours[:, :, None] @ ours[:, None].mT - true[:, :, None] @ true[:, None].mT  # b s s 3 3
    return ((error.square().sum(dim=(-2, -1)) / 2 + TINY).sqrt()).mean()


def _centres(encoding: Float[Tensor, "b s 9"]) -> Float[Tensor, "b s 3"]:
    """Of cameras, in the world."""
    turned = matrix_from_quaternion(encoding[..., 3:7]).mT
    return -(turned @ encoding[..., :3, None]).squeeze(-1)


def _by_part(errors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Translation, quaternion, field of view: mean over elements, weighted sum over rounds."""
    means = [part.mean(dim=(1, 2, 3)) for part in errors.split([3, 4, 2], dim=-1)]  # rounds each
    return means[0] @ weights, means[1] @ weights, means[2] @ weights


def _between(encoding: Tensor, gap: int) -> tuple[Tensor, Tensor]:
    """Rotation (b s 3 3) and translation (b s 3) from each frame to the one `gap` later."""
    rotation = matrix_from_quaternion(encoding[..., 3:7])
    translation = encoding[..., :3]
    relative = rotation[:, gap:] @ rotation[:, :-gap].mT
    moved = (relative @ translation[:, :-gap, :, None]).squeeze(-1)
    return relative, translation[:, gap:] - moved
