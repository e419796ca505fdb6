"""The loss as VGGT's paper writes it, which StreamVGGT's paper takes with a teacher as truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from everview.model.network import Outputs
from everview.training.losses.cameras import HUBER_DELTA, huber
from everview.training.losses.maps import differences
from everview.training.losses.masked import sum_by
from everview.training.losses.objective import Objective, diagnose, weights_by_subject
from everview.training.losses.target import MapPairs, Target, map_pairs, without_invalid_truth


@dataclass(frozen=True, kw_only=True)
class PaperLoss:
    """L = L_camera + L_depth + L_points + 0.05 L_track, absolute: the network learns the unit.

    The papers sum over frames and leave the norms over pixels and queries open; these are means
    here, so that weights do not depend on the image size, and so is the sum over clips.

    Source: VGGT Sec. 3.4, Eq. 1 and 2; StreamVGGT Sec. 3.4.
    """

    huber_delta: float = HUBER_DELTA
    """Not stated in the papers; this one is from StreamVGGT's released training."""
    alpha: float = 0.2
    """Reward of confidence; not stated in the papers; from VGGT's released training."""
    track_weight: float = 0.05
    """The papers' lambda."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare; only the last refinement rounds count.

        Terms: `camera`; `depth`, `depth_gradient`, `depth_regulariser`, the same of `points`; with
        tracks `tracks`, `visibility`.
        """
        error = huber(outputs.pose_encoding_iterations[-1] - target.pose_encoding, self.huber_delta)
        terms = {"camera": error.sum(dim=(1, 2)).mean()}
        maps = map_pairs(outputs, target, dense_frames=dense_frames)
        maps = {kind: without_invalid_truth(pairs) for kind, pairs in maps.items()}
        for kind, pairs in maps.items():
            terms |= self._maps(kind, pairs, len(target.pose_encoding))
        if outputs.track_iterations is not None and target.tracks is not None:
            terms |= _tracks(outputs, target)
        known = {"camera": 1.0, "depth": 1.0, "points": 1.0}
        known |= {"tracks": self.track_weight, "visibility": self.track_weight}
        return Objective(
            terms=terms,
            weights=weights_by_subject(terms, known),
            diagnostics=diagnose(outputs, target, maps),
        )

    def _maps(self, kind: str, pairs: MapPairs, num_clips: int) -> dict[str, Tensor]:
        error, confidence = pairs.value - pairs.truth, pairs.confidence
        gradient = confidence.new_zeros(())
        for axis in (1, 2):
            difference, both = differences(error, pairs.mask, axis=axis)
            trust = confidence.narrow(axis, 0, both.shape[axis])
            size = difference.norm(dim=-1) * trust
            gradient = gradient + _sum_over_frames(size, both, pairs, num_clips)
        main = error.norm(dim=-1) * confidence
        reward = self.alpha * confidence.log()
        return {
            kind: _sum_over_frames(main, pairs.mask, pairs, num_clips),
            f"{kind}_gradient": gradient,
            f"{kind}_regulariser": -_sum_over_frames(reward, pairs.mask, pairs, num_clips),
        }


def _sum_over_frames(values: Tensor, mask: Tensor, pairs: MapPairs, num_clips: int) -> Tensor:
    """Mean over the valid pixels of each image, sum over the frames of a clip, mean over clips."""
    weight = mask.to(values.dtype)
    per_image = (values * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1)
    return sum_by(per_image, pairs.clip, num_clips).mean()


def _tracks(outputs: Outputs, target: Target) -> dict[str, Tensor]:
    """Euclidean pixel error of known points and cross-entropy of visibility, summed over frames.

    Source: VGGT Sec. 3.4, tracking loss; visibility as in CoTracker2 (arXiv 2307.07635).
    """
    tracks = cast(Tensor, outputs.track_iterations)[-1]
    truth = cast(Tensor, target.tracks)
    known = target.track_mask
    weight = torch.ones_like(truth[..., 0]) if known is None else known.to(truth.dtype)
    error = (tracks - torch.where(weight[..., None] > 0, truth, 0.0)).norm(dim=-1) * weight
    mean = error.sum(dim=2) / weight.sum(dim=2).clamp_min(1)  # b s
    terms = {"tracks": mean.sum(dim=1).mean()}
    if outputs.visibility_logits is not None and target.visibility is not None:
        entropy = F.binary_cross_entropy_with_logits(
            outputs.visibility_logits, target.visibility, reduction="none"
        )
        terms["visibility"] = entropy.mean(dim=2).sum(dim=1).mean()
    return terms
