"""VGGT's loss with ground truth as its training code was released; it differs from the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from everview.model.network import Outputs
from everview.training.losses.cameras import absolute_errors, weights_of_rounds
from everview.training.losses.maps import gradient_error_by_stride
from everview.training.losses.masked import masked_mean, mean_without_outliers
from everview.training.losses.normals import normal_error
from everview.training.losses.objective import Objective, diagnose, weights_by_subject
from everview.training.losses.target import (
    Kind,
    MapPairs,
    Target,
    map_pairs,
    without_invalid_truth,
)

FEWEST_PIXELS = 100
"""Valid pixels below which a term counts as 0."""
CLOSE = 3.0
"""Pixels within which a track counts as accurate."""


@dataclass(frozen=True, kw_only=True)
class ReleasedSupervision:
    """5 camera + depth + points, absolute: predictions are not normalised, only the truth is.

    Source: VGGT released training (Sec. 3.4 of the paper has other forms, see `PaperLoss`).
    """

    camera_weight: float = 5.0
    """Of translation and quaternion; the field of view counts half."""
    camera_decay: float = 0.6
    """Weight of a refinement round relative to the next one."""
    gamma: float = 1.0
    """Weight of the error within the confidence term."""
    alpha: float = 0.2
    """Reward of confidence."""
    keep: float = 0.98
    """Quantile of the per-pixel values above which they are left out; 1 keeps all."""
    track_weight: float = 0.0
    """The released code has no active track term; its commented-out form is only watched at 0."""
    track_decay: float = 0.8
    """Weight of a tracker round relative to the next one."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare; pixels whose truth is invalid never count.

        Terms: `translation`, `rotation`, `fov`; `depth_confidence` (error times confidence minus
        reward), `depth_error` (error alone), `depth_gradient`; `points_confidence`, `points_error`,
        `points_normals`; with tracks `tracks`, `visibility`, `track_confidence`.
        """
        terms = self._camera(outputs, target)
        maps = map_pairs(outputs, target, dense_frames=dense_frames)
        maps = {kind: without_invalid_truth(pairs) for kind, pairs in maps.items()}
        for kind, pairs in maps.items():
            terms |= self.maps(kind, pairs)
        if outputs.track_iterations is not None and target.tracks is not None:
            terms |= track_errors(outputs, target, decay=self.track_decay)
        known = {
            "translation": self.camera_weight, "rotation": self.camera_weight,
            "fov": self.camera_weight / 2, "depth": 1.0, "points": 1.0,
            "tracks": self.track_weight, "track": self.track_weight,
            "visibility": self.track_weight,
        }  # fmt: skip
        return Objective(
            terms=terms,
            weights=weights_by_subject(terms, known),
            diagnostics=diagnose(outputs, target, maps),
        )

    def maps(self, kind: Kind, pairs: MapPairs) -> dict[str, Tensor]:
        """The three terms of depth or points; all 0 below 100 valid pixels."""
        edges = "depth_gradient" if kind == "depth" else "points_normals"
        if int(pairs.mask.sum()) < FEWEST_PIXELS:
            nothing = 0 * (pairs.value.sum() + pairs.confidence.sum())
            return {f"{kind}_confidence": nothing, f"{kind}_error": nothing, edges: nothing}
        difference = pairs.value - pairs.truth
        error = difference.norm(dim=-1)[pairs.mask]
        confidence = pairs.confidence[pairs.mask]
        weighed = self.gamma * error * confidence - self.alpha * confidence.log()
        return {
            f"{kind}_confidence": mean_without_outliers(weighed, keep=self.keep),
            f"{kind}_error": mean_without_outliers(error, keep=self.keep),
            edges: gradient_error_by_stride(difference, pairs.mask) if kind == "depth"
            else normal_error(pairs.value, pairs.truth, pairs.mask),
        }  # fmt: skip

    def _camera(self, outputs: Outputs, target: Target) -> dict[str, Tensor]:
        """A clip with at most 100 valid pixels in its first frame does not count."""
        rounds, truth = outputs.pose_encoding_iterations, target.pose_encoding
        names = ("translation", "rotation", "fov")
        if target.mask is not None:
            good = target.mask[:, 0].sum(dim=(1, 2)) > FEWEST_PIXELS
            if not bool(good.any()):
                return dict.fromkeys(names, 0 * rounds.sum())
            rounds, truth = rounds[:, good], truth[good]
        errors = absolute_errors(rounds, truth, decay=self.camera_decay)
        return dict(zip(names, errors, strict=True))


def track_errors(outputs: Outputs, target: Target, *, decay: float) -> dict[str, Tensor]:
    """L1 in pixels over the rounds, cross-entropy of visibility and of being within 3 px.

    Source: VGGT released training, commented-out track term.
    """
    rounds, truth = cast(Tensor, outputs.track_iterations), cast(Tensor, target.tracks)
    known = torch.ones_like(truth[..., 0], dtype=torch.bool)
    known = known if target.track_mask is None else target.track_mask
    truth = torch.where(known[..., None], truth, 0.0)
    errors = [masked_mean((r - truth).abs().mean(dim=-1), known) for r in rounds]
    total = (torch.stack(errors) * weights_of_rounds(rounds, decay)).sum()
    close = ((rounds[-1] - truth).norm(dim=-1) < CLOSE) & known
    terms = {"tracks": total / len(rounds)}
    if outputs.visibility_logits is not None and target.visibility is not None:
        terms["visibility"] = F.binary_cross_entropy_with_logits(
            outputs.visibility_logits, target.visibility
        )
    if outputs.track_confidence_logits is not None:
        terms["track_confidence"] = F.binary_cross_entropy_with_logits(
            outputs.track_confidence_logits, close.detach().to(truth.dtype)
        )
    return terms
