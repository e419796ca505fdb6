"""Distillation: how far a student is from what its teacher says, in one of three forms."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.model.network import Outputs
from everview.training.losses.corrected_distillation import CorrectedDistillation
from everview.training.losses.objective import Objective
from everview.training.losses.paper import PaperLoss
from everview.training.losses.released_distillation import ReleasedDistillation
from everview.training.losses.supervised import ReleasedSupervision
from everview.training.losses.target import Target, in_full_precision


@runtime_checkable
class Loss(Protocol):
    """Settings of a loss that can be called: all presets are of this kind."""

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Objective:
        """Compare a network's outputs with their target."""
        ...


DISTILLATION: MappingProxyType[str, Loss] = MappingProxyType(
    {
        "corrected": CorrectedDistillation(),
        "paper": PaperLoss(alpha=0.1),
        "released": ReleasedDistillation(),
        "released-eval": ReleasedDistillation(training=False),
    }
)
"""StreamVGGT's losses by name. `corrected` is ours; in evaluation the released one differs."""

SUPERVISION: MappingProxyType[str, Loss] = MappingProxyType(
    {"paper": PaperLoss(), "released": ReleasedSupervision()}
)
"""VGGT's losses by name."""


def distillation(
    student: Outputs,
    teacher: Prediction,
    *,
    mask: Bool[Tensor, "b s H W"] | None = None,
    preset: str | Loss = "corrected",
    dense_frames: Sequence[tuple[int, int]] | None = None,
) -> Objective:
    """Compare a student with its teacher on the same clips, in float32 or better.

    Args:
        student: with gradients.
        teacher: all frames, on the student's grid; with the same query points, if with any.
        mask: pixels that count; all if None. A frame without any counts fully, except in `paper`.
        preset: name in `DISTILLATION`, or settings of one of its classes.
        dense_frames: as given to `Network.predict`.

    Raises:
        ConfigError: if the preset is unknown or the shapes of student and teacher differ.
    """
    target = Target.from_prediction(teacher, mask)
    return _compare(student, target, DISTILLATION, preset, dense_frames)


def supervision(
    outputs: Outputs,
    truth: Target,
    *,
    preset: str | Loss = "released",
    dense_frames: Sequence[tuple[int, int]] | None = None,
) -> Objective:
    """Compare a network with the truth, in float32 or better.

    Args:
        outputs: with gradients.
        truth: in units of `scene_scale`, which the network is meant to learn.
        preset: name in `SUPERVISION`, or settings of one of its classes.
        dense_frames: as given to `Network.predict`.

    Raises:
        ConfigError: if the preset is unknown or the shapes differ.
    """
    return _compare(outputs, truth, SUPERVISION, preset, dense_frames)


def _compare(
    outputs: Outputs,
    target: Target,
    presets: MappingProxyType[str, Loss],
    preset: str | Loss,
    dense_frames: Sequence[tuple[int, int]] | None,
) -> Objective:
    if isinstance(preset, str):
        if preset not in presets:
            raise ConfigError(f"preset must be one of {', '.join(presets)}; got {preset!r}")
        preset = presets[preset]
    found, expected = outputs.pose_encoding_iterations.shape[1:], target.pose_encoding.shape
    if found != expected:
        raise ConfigError(
            f"the network has poses {tuple(found)} (clips, frames, 9), the target "
            f"{tuple(expected)}: compare the same clips"
        )
    with torch.autocast(device_type=target.pose_encoding.device.type, enabled=False):
        return preset(
            in_full_precision(outputs), in_full_precision(target), dense_frames=dense_frames
        )
