"""A teacher made worse on purpose, to see how much of its faults reaches the student."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.cameras import transform_points
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import (
    invert_rigid,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rigid,
)
from everview.training.losses.cameras import with_sign_of

OUTLIER = (2.0, 5.0)
"""Range of the factor by which an outlier is too far, or, as often, too near."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How wrong a teacher is made; all 0 leaves it as it is."""

    noise: float = 0.0
    """Standard deviation of ln(depth), of each pixel by itself."""
    outliers: float = 0.0
    """Share of pixels, and of tracks, that are far off; in [0, 1]."""
    scale: float = 0.0
    """Standard deviation of the ln of one factor per clip on depth and points, not on poses."""
    flicker: float = 0.0
    """The same with a factor for each frame."""
    rotation: float = 0.0
    """Standard deviation in degrees of a turn of each camera but the first."""
    translation: float = 0.0
    """Standard deviation per axis of a shift of these cameras, as a share of the mean distance."""
    tracks: float = 0.0
    """Standard deviation in pixels of tracked points in all frames but the first."""

    def __post_init__(self) -> None:
        """Refuse strengths that mean nothing."""
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < math.inf:
                raise ConfigError(
                    f"Faults.{field.name} must be >= 0 and finite, got {getattr(self, field.name)}"
                )
        if self.outliers > 1:
            raise ConfigError(f"Faults.outliers is a share in [0, 1], got {self.outliers}")

    def times(self, strength: float) -> "Faults":
        """The same faults stronger or weaker, for a curve; outliers stop at all pixels."""
        values = {field.name: strength * getattr(self, field.name) for field in fields(self)}
        return Faults(**values | {"outliers": min(1.0, values["outliers"])})


def degrade(prediction: Prediction, faults: Faults, *, seeds: Sequence[int]) -> Prediction:
    """Make a prediction worse; confidences stay, as the teacher does not know of its faults.

    Pixels err along their rays, so that points and depth err together; points move with their
    wrong cameras. The first camera stays: it is the frame of reference.

    Args:
        prediction: of the network's grid.
        faults: how much of what.
        seeds: one per clip. Faults are a function of the seed: the same clip is wrong in the same
            way whenever it comes, and in the same direction at other strengths.

    Returns:
        With one round of poses.

    Raises:
        ConfigError: if there are not as many seeds as clips, or the grid is the original one.
    """
    num_clips = prediction.pose_encoding.shape[0]
    if len(seeds) != num_clips or prediction.grid != "network":
        raise ConfigError(
            f"degrade() needs one seed per clip and the network's grid; got {len(seeds)} seeds for "
            f"{num_clips} clips, grid {prediction.grid!r}"
        )
    dice = _Dice(seeds, torch.as_tensor(prediction.pose_encoding).device)
    changed = _with_wrong_maps(prediction, faults, dice)
    changed = _with_wrong_cameras(changed, faults, dice)
    return _with_wrong_tracks(changed, faults, dice)


class _Dice:
    """Random numbers per clip, drawn on the CPU so that they are the same on every device."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.device = device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers: clips, then `shape`."""
        return self._stacked(lambda generator: torch.randn(shape, generator=generator))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1): clips, then `shape`."""
        return self._stacked(lambda generator: torch.rand(shape, generator=generator))

    def _stacked(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators]).to(self.device)


def _with_wrong_maps(prediction: Prediction, faults: Faults, dice: _Dice) -> Prediction:
    frames, size = prediction.pose_encoding.shape[1], prediction.network_size
    noise, clip, frame = dice.normal(frames, *size), dice.normal(1, 1, 1), dice.normal(frames, 1, 1)
    chosen = dice.uniform(frames, *size) < faults.outliers
    low, high = (math.log(factor) for factor in OUTLIER)
    far = (low + (high - low) * dice.uniform(frames, *size)) * dice.normal(frames, *size).sign()
    logarithm = faults.noise * noise + faults.scale * clip + faults.flicker * frame + chosen * far
    factor = logarithm.exp()  # b s H W
    changed = prediction
    if prediction.depth is not None:
        changed = replace(changed, depth=torch.as_tensor(prediction.depth) * factor)
    if prediction.points is not None:
        world_from_camera = torch.as_tensor(prediction.world_from_camera)
        centre = world_from_camera[..., None, None, :3, 3]
        points = torch.as_tensor(prediction.points)
        changed = replace(changed, points=centre + factor[..., None] * (points - centre))
    return changed


def _with_wrong_cameras(prediction: Prediction, faults: Faults, dice: _Dice) -> Prediction:
    encoding = torch.as_tensor(prediction.pose_encoding)
    frames = encoding.shape[1]
    turn, move = dice.normal(frames, 3), dice.normal(frames, 3)
    if not faults.rotation and not faults.translation:
        return replace(prediction, pose_encoding_iterations=encoding[None])
    wrong_from_right = _small_motions(
        turn * math.radians(faults.rotation), move * faults.translation * _distance(prediction)
    )
    camera_from_world = torch.as_tensor(prediction.camera_from_world)
    wrong = wrong_from_right @ camera_from_world
    rotation = quaternion_from_matrix(wrong[..., :3, :3])
    new = torch.cat([wrong[..., :3, 3], rotation, encoding[..., 7:]], dim=-1)
    new = with_sign_of(new, encoding)
    new = torch.cat([encoding[:, :1], new[:, 1:]], dim=1)
    changed = replace(prediction, pose_encoding=new, pose_encoding_iterations=new[None])
    if prediction.points is None:
        return changed
    moved = transform_points(
        invert_rigid(wrong) @ camera_from_world, torch.as_tensor(prediction.points)
    )
    points = torch.cat([torch.as_tensor(prediction.points)[:, :1], moved[:, 1:]], dim=1)
    return replace(changed, points=points)


def _with_wrong_tracks(prediction: Prediction, faults: Faults, dice: _Dice) -> Prediction:
    if prediction.tracks is None:
        return prediction
    tracks = torch.as_tensor(prediction.tracks)
    shape = tracks.shape[1:]
    chosen = dice.uniform(*shape[:2], 1) < faults.outliers
    height, width = prediction.network_size
    anywhere = dice.uniform(*shape) * tracks.new_tensor([width - 1, height - 1])
    wrong = torch.where(chosen, anywhere, tracks + faults.tracks * dice.normal(*shape))
    return replace(prediction, tracks=torch.cat([tracks[:, :1], wrong[:, 1:]], dim=1))


def _distance(prediction: Prediction) -> Float[Tensor, "b 1 1"]:
    """Mean length of each clip's points, else of its depth; 1 if it has neither."""
    maps = prediction.points if prediction.points is not None else prediction.depth
    if maps is None:
        return cast(Tensor, prediction.pose_encoding).new_ones(len(prediction.pose_encoding), 1, 1)
    values = torch.as_tensor(maps)
    lengths = values.norm(dim=-1) if values.ndim == 5 else values
    return lengths.mean(dim=(1, 2, 3))[:, None, None]


def _small_motions(
    turn: Float[Tensor, "b s 3"], move: Float[Tensor, "b s 3"]
) -> Float[Tensor, "b s 4 4"]:
    """Rigid motions from rotation vectors (radians) and shifts."""
    angle = turn.norm(dim=-1, keepdim=True)
    axis = turn / angle.clamp_min(1e-12)
    quaternion = torch.cat([axis * torch.sin(angle / 2), torch.cos(angle / 2)], dim=-1)
    return rigid(matrix_from_quaternion(quaternion), move)
