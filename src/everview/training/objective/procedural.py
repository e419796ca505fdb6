"""Our own loss with exact truth: relative errors of depth, every refinement round of cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.model.network import Outputs
from everview.training.losses.cameras import absolute_errors, with_sign_of
from everview.training.losses.maps import differences
from everview.training.losses.masked import masked_mean
from everview.training.losses.objective import Objective, diagnose
from everview.training.losses.target import (
    MapPairs,
    Target,
    map_pairs,
    without_invalid_truth,
)
from everview.training.losses.tracks import track_loss

SMALLEST_DEPTH = 1e-6
DISTANCES = (1, 2, 4, 8, 16, 32)
"""Pixels between the two that a difference of depth compares: from edges to whole things."""
ROUND_DECAY = 0.6
"""Weight of a refinement round of cameras relative to the next one, as in VGGT's training."""


@dataclass(frozen=True, kw_only=True)
class ProceduralSupervision:
    """5 camera + 2.5 fov + depth + 2 depth_gradient + scale + points + 0.5 tracks.

    Depth errors are taken in logarithms, so that near and far surfaces count alike. What all
    pixels of a clip have in common is the term `scale`; `depth` is the rest, which else would all
    have one sign where the scale is off, and say nothing of shape. Tracks are in tenths of the
    image's width.
    """

    camera_weight: float = 5.0
    """Of translation and rotation, summed over refinement rounds."""
    fov_weight: float = 2.5
    """Of the fields of view, likewise."""
    gradient_weight: float = 2.0
    """Of differences of depth between pixels near each other."""
    track_weight: float = 0.5
    """Of the track term."""
    alpha: float = 0.1
    """Reward of confidence."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare; terms are those of the sum above."""
        terms = _cameras(outputs, target)
        maps = map_pairs(outputs, target, dense_frames=dense_frames)
        maps = {kind: without_invalid_truth(pairs) for kind, pairs in maps.items()}
        if "depth" in maps:
            terms |= self._depth(maps["depth"])
        if "points" in maps:
            pairs = maps["points"]
            error = (pairs.value - pairs.truth).abs().mean(dim=-1)
            terms["points"] = self._weighed(error, pairs)
        if outputs.track_iterations is not None and target.tracks is not None:
            terms["tracks"] = _tracks(outputs, target)
        weights = dict.fromkeys(terms, 1.0) | {
            "camera": self.camera_weight,
            "fov": self.fov_weight,
            "depth_gradient": self.gradient_weight,
            "tracks": self.track_weight,
        }
        return Objective(
            terms=terms,
            weights={name: weights[name] for name in terms},
            diagnostics=diagnose(outputs, target, maps),
        )

    def _depth(self, pairs: MapPairs) -> dict[str, Tensor]:
        truth = torch.where(pairs.mask[..., None], pairs.truth, 1.0)
        error = pairs.value.clamp_min(SMALLEST_DEPTH).log() - truth.clamp_min(SMALLEST_DEPTH).log()
        shape, scale, known = _without_scale(error[..., 0], pairs)
        return {
            "depth": self._weighed(shape.abs(), pairs),
            "depth_gradient": _relief(error, pairs),
            "scale": masked_mean(scale.abs(), known),
        }

    def _weighed(self, error: Tensor, pairs: MapPairs) -> Tensor:
        """Mean over valid pixels of the error, and of error * c - alpha ln c as seen by c alone.

        Source: VGGT Eq. 2 (aleatoric uncertainty, Kendall and Gal 2016), with the error not
        squared; there c also weighs the error, so that what is easy counts most. Seitzer et al.,
        "On the pitfalls of heteroscedastic uncertainty estimation" (2022), beta = 1, is this.
        """
        confidence = pairs.confidence
        uncertainty = error.detach() * confidence - self.alpha * confidence.log()
        return masked_mean(error + uncertainty, pairs.mask)


def _cameras(outputs: Outputs, target: Target) -> dict[str, Tensor]:
    """L1 of pose encodings, later rounds counting more; q and -q are the same rotation."""
    truth = target.pose_encoding
    rounds = with_sign_of(outputs.pose_encoding_iterations, truth)
    translation, rotation, fov = absolute_errors(rounds, truth, decay=ROUND_DECAY)
    return {"camera": translation + rotation, "fov": fov}


def _relief(error: Float[Tensor, "m H W 1"], pairs: MapPairs) -> Tensor:
    """L1 of differences, mean over both axes and all `DISTANCES` of which any pair is known.

    What lies in front of what, however far it all is: errors of whole rooms, which are the
    largest, take no part in it. Source: the multi-scale gradient term of Li and Snavely,
    "MegaDepth" (2018), Eq. 4; here at every pixel.
    """
    total, known = error.new_zeros(()), error.new_zeros(())
    for axis in (1, 2):
        for apart in (d for d in DISTANCES if d < pairs.mask.shape[axis]):
            difference, both = differences(error, pairs.mask, axis=axis, apart=apart)
            total = total + masked_mean(difference.abs().squeeze(-1), both)
            known = known + both.any()
    return total / known.clamp_min(1)


def _without_scale(
    error: Float[Tensor, "m H W"], pairs: MapPairs
) -> tuple[Float[Tensor, "m H W"], Float[Tensor, " clips"], Bool[Tensor, " clips"]]:
    """Errors of logarithms less their median in the clip; their mean by clip; which clips have any.

    The median is what scores take off, and a constant; the mean moves with every pixel.
    """
    shape, means, known = torch.zeros_like(error), [], []
    for clip in pairs.clip.unique():
        images = pairs.clip == clip
        valid = error[images][pairs.mask[images]]
        middle = valid.detach().median() if valid.numel() else 0.0
        shape = torch.where(images[:, None, None], error - middle, shape)
        means.append(valid.mean() if valid.numel() else valid.sum())
        known.append(valid.numel() > 0)
    return shape, torch.stack(means), torch.tensor(known, device=error.device)


def _tracks(outputs: Outputs, target: Target) -> Tensor:
    visibility, confidence = outputs.visibility_logits, outputs.track_confidence_logits
    rounds, tracks, seen = outputs.track_iterations, target.tracks, target.visibility
    assert rounds is not None, "the caller has looked"
    assert tracks is not None, "the caller has looked"
    assert seen is not None, "procedural tracks come with their visibility"
    assert visibility is not None, "every tracker says it"
    assert confidence is not None, "presets that are trained say it"
    assert target.depth is not None, "procedural clips have depth"
    known = torch.where(seen[..., None] > 0.5, tracks, 0.0)
    scale = target.depth.shape[-1] / 10
    return track_loss(rounds, visibility, confidence, known, seen > 0.5, scale=scale)
