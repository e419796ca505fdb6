"""StreamVGGT's distillation loss with its faults mended; what we train with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.model.network import Outputs
from everview.training.losses.alignment import unit_of_clips
from everview.training.losses.cameras import (
    HUBER_DELTA,
    huber_errors,
    weights_of_rounds,
    with_sign_of,
)
from everview.training.losses.maps import gradient_error
from everview.training.losses.masked import masked_mean
from everview.training.losses.normals import normal_error
from everview.training.losses.objective import Objective, diagnose, weights_by_subject
from everview.training.losses.target import (
    Kind,
    MapPairs,
    Target,
    map_pairs,
    with_empty_masks_filled,
)

MOST_CONFIDENT = 20.0
"""Cap of a teacher's confidence: it is exponential, and a few pixels would outweigh all others."""


@dataclass(frozen=True, kw_only=True)
class CorrectedDistillation:
    """Teacher and student compared as two reconstructions of one scene, up to its unit.

    Against the released form: q and -q are one rotation; depth, points and translation share one
    scale per clip and no shift, so that the cloud cannot drift against its own poses; scale,
    errors, edges and normals see valid pixels only; visibility is compared on logits with soft
    targets; the track's confidence is rewarded, so that it cannot vanish; all refinement rounds are
    taught.
    Both sides are in units of the mean distance of their own valid pixels, clip by clip.

    Source: StreamVGGT Sec. 3.4, with the corrections above.
    """

    camera_weight: float = 20.0
    """Of translation and quaternion; the field of view counts half."""
    depth_weight: float = 20.0
    """Of the three terms of depth."""
    points_weight: float = 10.0
    """Of points and their regulariser."""
    normals_weight: float = 0.0
    """Of the normals of points. Their gradient has no bound where triangles are small: a student
    with a weight of 2 left its teacher's unit within 20 steps (docs/decisions/0006)."""
    track_weight: float = 0.5
    """Of the three terms of tracks."""
    scale_weight: float = 0.0
    """Of |ln scale|, which ties the student to the teacher's unit; 0 leaves its unit free."""
    huber_delta: float = HUBER_DELTA
    """Where the camera's loss turns from square to linear."""
    alpha: float = 0.1
    """Reward of confidence: it is best at alpha / error."""
    track_alpha: float = 1.0
    """Pixels of error up to which a track's confidence of 1 is best."""
    camera_decay: float = 0.6
    """Weight of a refinement round relative to the next one; 0 teaches the last one only."""
    track_decay: float = 0.8
    """The same for the tracker's rounds."""
    aligned: bool = True
    """Bring the student to the teacher's scale; False asks for the teacher's unit outright."""
    trust_teacher: bool = True
    """Weigh pixels and tracks by the teacher's own confidence, where it gives one."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare; terms as `ReleasedDistillation`, and `scale` and `track_regulariser`.

        A frame whose mask is empty counts with all of its pixels: unlabelled video has no masks.

        Raises:
            ConfigError: if student and teacher have no maps in common, without which there is no
                scale.
        """
        maps = _common_maps(outputs, target, dense_frames)
        weights = {kind: self._weight(pairs) for kind, pairs in maps.items()}
        ours, theirs = _units(maps, weights, len(target.pose_encoding))
        factor = 1 / (ours if self.aligned else theirs)
        terms = self._camera(outputs, target, factor, 1 / theirs)
        for kind, pairs in maps.items():
            terms |= self._maps(kind, _in_units(pairs, factor, 1 / theirs), weights[kind])
        if outputs.track_iterations is not None and target.tracks is not None:
            terms |= self._tracks(outputs, target)
        terms["scale"] = (theirs / ours).log().abs().mean()
        known = {
            "translation": self.camera_weight, "rotation": self.camera_weight,
            "fov": self.camera_weight / 2, "depth": self.depth_weight,
            "points": self.points_weight, "tracks": self.track_weight,
            "track": self.track_weight, "visibility": self.track_weight,
            "scale": self.scale_weight,
        }  # fmt: skip
        normals = {"points_normals": self.normals_weight} if "points" in maps else {}
        return Objective(
            terms=terms,
            weights=weights_by_subject(terms, known) | normals,
            diagnostics=diagnose(outputs, target, maps)
            | {"scale": (theirs / ours).detach().log().mean().exp()},
        )

    def _weight(self, pairs: MapPairs) -> Float[Tensor, "m H W"]:
        """What a pixel counts: 0 where invalid, 1 on average elsewhere."""
        valid = pairs.mask.to(pairs.value.dtype)
        if not self.trust_teacher or pairs.truth_confidence is None:
            return valid
        trust = pairs.truth_confidence.clamp_max(MOST_CONFIDENT)
        return trust / masked_mean(trust, pairs.mask).clamp_min(1e-6) * valid

    def _camera(
        self, outputs: Outputs, target: Target, factor: Tensor, true_factor: Tensor
    ) -> dict[str, Tensor]:
        rounds = with_sign_of(outputs.pose_encoding_iterations, target.pose_encoding)
        errors = huber_errors(
            _translation_times(rounds, factor),
            _translation_times(target.pose_encoding, true_factor),
            delta=self.huber_delta,
            decay=self.camera_decay,
        )
        return dict(zip(("translation", "rotation", "fov"), errors, strict=True))

    def _maps(self, kind: str, pairs: MapPairs, weight: Tensor) -> dict[str, Tensor]:
        """Weighted means of one kind of maps, already in a common unit."""
        error = pairs.value - pairs.truth
        main = pairs.confidence * error.abs().mean(dim=-1)
        terms = {
            kind: masked_mean(main, weight),
            f"{kind}_regulariser": -self.alpha * masked_mean(pairs.confidence.log(), weight),
        }
        if kind == "depth":
            terms["depth_gradient"] = gradient_error(error, pairs.mask)
        else:
            terms["points_normals"] = normal_error(pairs.value, pairs.truth, pairs.mask, fewest=1)
        return terms

    def _tracks(self, outputs: Outputs, target: Target) -> dict[str, Tensor]:
        rounds, truth = cast(Tensor, outputs.track_iterations), cast(Tensor, target.tracks)
        error = (rounds - truth).norm(dim=-1)  # rounds b s t
        decay = weights_of_rounds(rounds, self.track_decay)
        error = (error * decay[:, None, None, None]).sum(dim=0) / decay.sum()
        weight = torch.ones_like(error)
        if self.trust_teacher and target.track_confidence is not None:
            weight = target.track_confidence
        if target.track_mask is not None:
            weight = weight * target.track_mask
        terms = {}
        logits = outputs.track_confidence_logits
        if logits is not None:
            error = error * logits.sigmoid()
            reward = self.track_alpha * F.logsigmoid(logits)
            terms["track_regulariser"] = -masked_mean(reward, weight)
        terms["tracks"] = masked_mean(error, weight)
        if outputs.visibility_logits is not None and target.visibility is not None:
            terms["visibility"] = F.binary_cross_entropy_with_logits(
                outputs.visibility_logits, target.visibility
            )
        return terms


def _common_maps(
    outputs: Outputs, target: Target, dense_frames: Sequence[tuple[int, int]] | None
) -> dict[Kind, MapPairs]:
    maps = map_pairs(outputs, target, dense_frames=dense_frames)
    if not maps:
        raise ConfigError(
            "student and teacher have neither depth nor points in common, so that their scales "
            "cannot be compared: distil networks with the same dense heads"
        )
    return {kind: with_empty_masks_filled(pairs) for kind, pairs in maps.items()}


def _units(
    maps: dict[Kind, MapPairs], weights: dict[Kind, Tensor], num_clips: int
) -> tuple[Float[Tensor, " clips"], Float[Tensor, " clips"]]:
    """Unit of student and teacher: one per clip, over depth and points together."""
    clip = next(iter(maps.values())).clip
    counts = list(weights.values())
    ours = unit_of_clips([pairs.value for pairs in maps.values()], counts, clip, num_clips)
    theirs = unit_of_clips([pairs.truth for pairs in maps.values()], counts, clip, num_clips)
    return ours, theirs


def _in_units(pairs: MapPairs, factor: Tensor, true_factor: Tensor) -> MapPairs:
    """Both sides times the factor of their clip."""
    return replace(
        pairs,
        value=pairs.value * factor[pairs.clip, None, None, None],
        truth=pairs.truth * true_factor[pairs.clip, None, None, None],
    )


def _translation_times(
    encoding: Float[Tensor, "*rounds b s 9"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "*rounds b s 9"]:
    return torch.cat([encoding[..., :3] * factor[:, None, None], encoding[..., 3:]], dim=-1)
