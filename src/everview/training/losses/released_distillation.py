"""StreamVGGT's distillation loss exactly as released, its oddities included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.model.network import Outputs
from everview.training.losses.alignment import divided_by_mean_norm, scale_and_shift
from everview.training.losses.cameras import HUBER_DELTA, huber_errors
from everview.training.losses.maps import gradient_error_everywhere
from everview.training.losses.masked import masked_mean
from everview.training.losses.normals import normal_error_everywhere
from everview.training.losses.objective import Objective, diagnose, weights_by_subject
from everview.training.losses.target import (
    MapPairs,
    Target,
    map_pairs,
    with_empty_masks_filled,
)


@dataclass(frozen=True, kw_only=True)
class FrameErrors:
    """Depth or points of one frame of all clips, after alignment."""

    scale: Float[Tensor, ""]
    """What the student's values were multiplied with."""
    shift: Float[Tensor, " c"]
    """What was added then."""
    main: Float[Tensor, ""]
    """Confidence times absolute error, mean over valid pixels and channels."""
    gradient: Float[Tensor, ""]
    """Of neighbour differences (depth) or of normals (points)."""
    regulariser: Float[Tensor, ""]
    """- alpha ln confidence, mean over valid pixels."""


@dataclass(frozen=True, kw_only=True)
class ReleasedDistillation:
    """20 camera + 20 depth + 10 points + 0.5 track.

    Kept on purpose: raw quaternions are compared, so that q and -q differ; each frame is aligned
    by a scale and a shift of its own, over all pixels and all clips of the batch at once, while the
    translation is not; the depth gradient is averaged over invalid pixels too; normals see neither
    mask nor border; visibility passes a second sigmoid. `CorrectedDistillation` mends these.

    One deviation: corner normals count as cosine 0, see `normal_error_everywhere`.

    Source: StreamVGGT released training; Sec. 3.4 of the paper has other forms, see `PaperLoss`.
    """

    camera_weight: float = 20.0
    """Of translation and quaternion; the field of view counts half."""
    depth_weight: float = 20.0
    """Of the three terms of depth."""
    points_weight: float = 10.0
    """Of the three terms of points."""
    track_weight: float = 0.5
    """0.05 times 10."""
    huber_delta: float = HUBER_DELTA
    """Where the camera's loss turns from square to linear."""
    alpha: float = 0.1
    """Reward of confidence."""
    training: bool = True
    """Divide each map by its own mean norm first; the released loss does so in training only."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare; a frame whose mask is empty counts with all of its pixels.

        Terms: `translation`, `rotation`, `fov`; `depth`, `depth_gradient`, `depth_regulariser`;
        `points`, `points_normals`, `points_regulariser`; `tracks`, `visibility`.

        Raises:
            ConfigError: if one of student and teacher has tracks without visibility or confidence.
        """
        last = outputs.pose_encoding_iterations[-1:]
        errors = huber_errors(last, target.pose_encoding, delta=self.huber_delta)
        terms = dict(zip(("translation", "rotation", "fov"), errors, strict=True))
        maps = map_pairs(outputs, target, dense_frames=dense_frames)
        maps = {kind: with_empty_masks_filled(pairs) for kind, pairs in maps.items()}
        diagnostics = diagnose(outputs, target, maps)
        for kind, pairs in maps.items():
            frames = self.frames(pairs)
            terms |= _mean_over_frames(kind, frames)
            diagnostics |= _alignment(kind, frames)
        if outputs.track_iterations is not None and target.tracks is not None:
            terms |= _tracks(outputs, target)
        known = {
            "translation": self.camera_weight, "rotation": self.camera_weight,
            "fov": self.camera_weight / 2, "depth": self.depth_weight,
            "points": self.points_weight, "tracks": self.track_weight,
            "visibility": self.track_weight,
        }  # fmt: skip
        return Objective(
            terms=terms, weights=weights_by_subject(terms, known), diagnostics=diagnostics
        )

    def frames(self, pairs: MapPairs) -> list[FrameErrors]:
        """The errors of every frame of the clips, in order."""
        return [self._frame(pairs, pairs.frame == f) for f in pairs.frame.unique()]

    def _frame(self, pairs: MapPairs, chosen: Tensor) -> FrameErrors:
        value, truth = pairs.value[chosen], pairs.truth[chosen]
        mask, confidence = pairs.mask[chosen], pairs.confidence[chosen]
        if self.training:
            value, truth = divided_by_mean_norm(value, mask), divided_by_mean_norm(truth, mask)
        scale, shift = scale_and_shift(value, truth)
        aligned = scale * value + shift
        error = aligned - truth
        return FrameErrors(
            scale=scale,
            shift=shift,
            main=masked_mean(confidence * error.abs().mean(dim=-1), mask),
            gradient=gradient_error_everywhere(error, mask) if error.shape[-1] == 1
            else normal_error_everywhere(aligned, truth),
            regulariser=-self.alpha * masked_mean(confidence.log(), mask),
        )  # fmt: skip


def _mean_over_frames(kind: str, frames: list[FrameErrors]) -> dict[str, Tensor]:
    names = {
        "main": kind,
        "gradient": "depth_gradient" if kind == "depth" else "points_normals",
        "regulariser": f"{kind}_regulariser",
    }
    return {
        name: torch.stack([getattr(frame, part) for frame in frames]).mean()
        for part, name in names.items()
    }


@torch.no_grad()
def _alignment(kind: str, frames: list[FrameErrors]) -> dict[str, Tensor]:
    return {
        f"{kind}_scale": torch.stack([frame.scale for frame in frames]).mean(),
        f"{kind}_shift": torch.stack([frame.shift.norm() for frame in frames]).mean(),
    }


def _tracks(outputs: Outputs, target: Target) -> dict[str, Tensor]:
    """Student's confidence times pixel distance, and times a doubly squashed cross-entropy."""
    logits = (outputs.visibility_logits, outputs.track_confidence_logits)
    if any(part is None for part in (*logits, target.visibility)):
        raise ConfigError(
            "distilled tracks need visibility and confidence of the student and visibility of the "
            "teacher: give both the same query points, or neither"
        )
    visible, confidence = (cast(Tensor, part).sigmoid() for part in logits)
    error = (cast(Tensor, outputs.track_iterations)[-1] - cast(Tensor, target.tracks)).norm(dim=-1)
    entropy = F.binary_cross_entropy_with_logits(
        visible, cast(Tensor, target.visibility), reduction="none"
    )
    return {"tracks": (confidence * error).mean(), "visibility": (confidence * entropy).mean()}
