"""Auxiliary terms: matching between frames, and motion from frame to frame."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from everview.model.network import Network, Outputs
from everview.training.losses.cameras import path_loss, relative_pose_loss, turn_loss
from everview.training.losses.objective import Objective
from everview.training.losses.target import Target, in_full_precision
from everview.training.objective.matching import Matching

WEIGHTS = {
    "flow": 2.0, "attention": 1.0, "rotation": 15.0, "translation": 5.0, "path": 0.0, "turn": 0.0,
}  # fmt: skip
"""Of the terms, unless a recipe says otherwise."""


class Guidance(nn.Module):
    """What helps a camera head off "nothing moved"; exists in training only."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.matching = Matching(network)

    def forward(
        self,
        network: Network,
        tokens: Mapping[int, Float[Tensor, "b s p c"]],
        outputs: Outputs,
        target: Target,
        still: Bool[Tensor, "b s H W"] | None = None,
    ) -> Objective:
        """Terms `flow`, `attention` (see `Matching`), `rotation`, `translation`, `path`, `turn`.

        The last four are of motion: from frame to frame, and of all pairs: distances over the
        path's length, and angles. Clips of one frame have none of them.
        """
        poses = in_full_precision(outputs).pose_encoding_iterations[-1]
        if poses.shape[1] < 2:
            nothing = {name: 0 * poses.sum() for name in WEIGHTS}
            return Objective(terms=nothing, weights=dict(WEIGHTS), diagnostics={})
        terms = self.matching(network, tokens, target, still=still)
        terms |= _motion(poses, target.pose_encoding)
        return Objective(terms=terms, weights=dict(WEIGHTS), diagnostics=identity_share(target))


def _motion(poses: Float[Tensor, "b s 9"], truth: Float[Tensor, "b s 9"]) -> dict[str, Tensor]:
    """Terms of motion, in float32: small turns are differences of nearly equal products."""
    with torch.autocast(device_type=poses.device.type, enabled=False):
        rotation, translation = relative_pose_loss(poses, truth)
        return {
            "rotation": rotation,
            "translation": translation,
            "path": path_loss(poses, truth),
            "turn": turn_loss(poses, truth),
        }


@torch.no_grad()
def identity_share(target: Target) -> dict[str, Float[Tensor, ""]]:
    """Errors of the guess that nothing moves: what the relative terms must fall below."""
    still = target.pose_encoding[:, :1].expand_as(target.pose_encoding)
    rotation, translation = relative_pose_loss(still, target.pose_encoding)
    return {"identity_rotation": rotation, "identity_translation": translation}
