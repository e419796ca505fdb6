"""What a network's outputs are compared with: the truth of a clip, or what a teacher says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.model.network import Outputs

Record = TypeVar("Record", "Target", Outputs)
Kind = Literal["depth", "points"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The right answers for `b` clips of `s` frames, in the frame of each clip's first camera.

    Unit: one per clip, shared by poses, depth and points. Axes as in `Prediction`.
    """

    pose_encoding: Float[Tensor, "b s 9"]
    """camera_from_world; ground truth has quaternions with w >= 0, a teacher has either sign."""
    depth: Float[Tensor, "b s H W"] | None = None
    """z-depth; ignored where `mask` is false, there it may be anything."""
    points: Float[Tensor, "b s H W 3"] | None = None
    """Point map in the first camera's frame."""
    depth_confidence: Float[Tensor, "b s H W"] | None = None
    """A teacher's, >= 1; ground truth has none."""
    points_confidence: Float[Tensor, "b s H W"] | None = None
    """Like `depth_confidence`, for `points`."""
    mask: Bool[Tensor, "b s H W"] | None = None
    """Pixels that count; all if None."""
    tracks: Float[Tensor, "b s t 2"] | None = None
    """Pixels (x, y) of the queried points."""
    visibility: Float[Tensor, "b s t"] | None = None
    """Probability that the point is seen: 0 or 1 in ground truth, soft from a teacher."""
    track_confidence: Float[Tensor, "b s t"] | None = None
    """A teacher's, in [0, 1]; ground truth has none."""
    track_mask: Bool[Tensor, "b s t"] | None = None
    """Where the pixel of a track is known; everywhere if None."""

    @classmethod
    def from_prediction(
        cls, prediction: Prediction, mask: Bool[Tensor, "b s H W"] | None = None
    ) -> "Target":
        """Take what a teacher says as the right answer.

        Raises:
            ConfigError: if the prediction is on the original pixel grid, which students do not see.
        """
        if prediction.grid != "network":
            raise ConfigError(
                f'a teacher\'s prediction must be on the "network" grid, got {prediction.grid!r}: '
                "use it as it came, without at()"
            )
        names = {f.name for f in fields(cls)} & {f.name for f in fields(Prediction)}
        values = {name: getattr(prediction, name) for name in names}
        tensors = {n: torch.as_tensor(v) for n, v in values.items() if v is not None}
        return cls(**tensors, mask=mask)


@dataclass(frozen=True, kw_only=True)
class MapPairs:
    """Depth maps or point maps of student and target side by side, one pair per image."""

    value: Float[Tensor, "m H W c"]
    """What the student says; c is 1 for depth, 3 for points."""
    confidence: Float[Tensor, "m H W"]
    """The student's, >= 1."""
    truth: Float[Tensor, "m H W c"]
    """What it should say."""
    truth_confidence: Float[Tensor, "m H W"] | None
    """A teacher's."""
    mask: Bool[Tensor, "m H W"]
    """Pixels that count."""
    clip: Int[Tensor, " m"]
    """To which clip an image belongs."""
    frame: Int[Tensor, " m"]
    """Which frame of its clip an image is."""


def map_pairs(
    outputs: Outputs,
    target: Target,
    *,
    dense_frames: Sequence[tuple[int, int]] | None = None,
) -> dict[Kind, MapPairs]:
    """Bring the maps of student and target together, image by image.

    Args:
        outputs: of the student.
        target: with maps of all frames.
        dense_frames: (clip, frame) pairs of which the student has maps; all if None.

    Returns:
        Those of `depth` and `points` that both have.

    Raises:
        ConfigError: if the student's maps are not those of `dense_frames`.
    """
    kinds: tuple[Kind, ...] = ("depth", "points")
    return {
        kind: _pairs(kind, outputs, target, dense_frames)
        for kind in kinds
        if getattr(outputs, kind) is not None and getattr(target, kind) is not None
    }


def with_empty_masks_filled(pairs: MapPairs) -> MapPairs:
    """Let every pixel count in images whose mask is empty, as StreamVGGT's training does."""
    empty = ~pairs.mask.flatten(1).any(dim=1)
    return replace(pairs, mask=pairs.mask | empty[:, None, None])


def without_invalid_truth(pairs: MapPairs) -> MapPairs:
    """Put zeros where nothing is known, so that no NaN of a data set reaches a gradient."""
    return replace(pairs, truth=torch.where(pairs.mask[..., None], pairs.truth, 0.0))


def in_full_precision(record: Record) -> Record:
    """The same record with half-precision numbers as float32: losses are sums of many terms."""
    halves = (torch.float16, torch.bfloat16)
    changes = {
        f.name: value.float()
        for f in fields(record)
        if isinstance(value := getattr(record, f.name), Tensor) and value.dtype in halves
    }
    return replace(record, **changes)


def _images(
    target: Target, dense_frames: Sequence[tuple[int, int]] | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Clip and frame of every image, each of length m."""
    num_clips, num_frames = target.pose_encoding.shape[:2]
    if dense_frames is None:
        index = torch.arange(num_clips * num_frames, device=device)
        return index // num_frames, index % num_frames
    pairs = torch.tensor(list(dense_frames), device=device)
    return pairs[:, 0], pairs[:, 1]


def _pairs(
    kind: Kind, outputs: Outputs, target: Target, dense_frames: Sequence[tuple[int, int]] | None
) -> MapPairs:
    truth = getattr(target, kind)
    clip, frame = _images(target, dense_frames, truth.device)
    value, truth = getattr(outputs, kind).flatten(0, 1), truth[clip, frame]
    if value.shape != truth.shape:
        raise ConfigError(
            f"the student's {kind} is {tuple(value.shape)} (images, height, width, ...), the "
            f"target's {tuple(truth.shape)}: give dense_frames as given to the student, and a "
            "target of the same image size"
        )
    confidence = cast(Tensor, getattr(outputs, f"{kind}_confidence")).flatten(0, 1)
    trust = getattr(target, f"{kind}_confidence")
    everything = torch.ones_like(confidence, dtype=torch.bool)
    return MapPairs(
        value=value if kind == "points" else value[..., None],
        confidence=confidence,
        truth=truth if kind == "points" else truth[..., None],
        truth_confidence=None if trust is None else trust[clip, frame],
        mask=everything if target.mask is None else target.mask[clip, frame],
        clip=clip,
        frame=frame,
    )
