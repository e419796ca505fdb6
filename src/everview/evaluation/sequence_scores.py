"""How well predictions of one procedural clip agree with its truth, and what trivial guesses do."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.baselines import Habits, measure_habits
from everview.evaluation.metrics.depth import DepthErrors, depth_errors
from everview.evaluation.metrics.poses import motion_errors, path_errors, rmse
from everview.geometry.cameras import fov_from_intrinsics
from everview.geometry.prediction import Prediction
from everview.world.clip import WorldSequence
from everview.world.dice import Dice

HIGHER_IS_BETTER = frozenset({"delta1"})
"""Of all other scores less is better."""

METRICS = {
    "abs_rel": "mean of |depth error| / depth; one scale per clip, by medians",
    "delta1": "share of pixels whose depth is within a factor 1.25; same scale",
    "rotation_degrees": "error of the rotation from frame to frame, RMS, degrees",
    "direction_degrees": "error of the direction of motion from frame to frame, mean, degrees",
    "length_error": "|estimated / true distance - 1| from frame to frame, mean; scale of the depth",
    "ate": "RMS distance of camera centres after Sim(3), as a share of the path's length",
    "fov_degrees": "error of the two fields of view, mean, degrees",
    "points": "mean distance of points in the first camera's frame over their mean distance from "
    "it; scale of the depth",
    "track_pixels": "distance of tracked points from the truth where they are seen, mean, pixels",
}
"""Score -> meaning, in words for people."""


def query_points(seed: int, size: tuple[int, int], count: int = 32) -> Float[Tensor, "t 2"]:
    """Pixels (x, y) of the first frame that are to be followed; the same for the same seed."""
    height, width = size
    limit = torch.tensor([width - 1.0, height - 1.0])
    return Dice(seed).uniform("evaluation queries", (count, 2)) * limit


def score_sequence(
    predictions: Sequence[Prediction],
    sequence: WorldSequence,
    *,
    queries: Float[Tensor, "t 2"] | None = None,
    habits: Habits | None = None,
) -> dict[str, float]:
    """Score the frames of a procedural clip, in order, with trivial guesses beside.

    Args:
        predictions: one per frame (s = 1), or one of all frames; on the network's grid.
        sequence: the truth; at least two frames.
        queries: pixels of the first frame that were tracked from there on; without them, or
            without a track head, tracks are not scored.
        habits: what trivial guesses know of the world; measured (a few seconds) if None.

    Returns:
        Scores under the names of `METRICS`; the same scores of trivial guesses under
        `name/guess`, such as `abs_rel/constant_depth`. NaN where a clip has nothing to compare
        (a point that is never seen again).

    Raises:
        ConfigError: if the number of frames differs, or a prediction is not finite.
    """
    habits = _usual_habits() if habits is None else habits
    poses = torch.cat([torch.as_tensor(p.pose_encoding)[0] for p in predictions]).cpu()
    if len(poses) != len(sequence.depth):
        raise ConfigError(
            f"predictions of {len(poses)} frames for a clip of {len(sequence.depth)}: give one for "
            "each frame, in order"
        )
    scores: dict[str, float] = {}
    depth, scale = _joined(predictions, "depth"), 1.0
    if depth is not None:
        errors = depth_errors(depth, sequence.depth)
        scale = errors.scale
        scores |= _depth_scores(errors)
    scores |= _depth_guesses(sequence, habits)
    scores |= _pose_scores(predictions, sequence, scale)
    scores |= _pose_guesses(sequence, habits)
    size = (sequence.depth.shape[1], sequence.depth.shape[2])
    true_fov = fov_from_intrinsics(sequence.intrinsics, size)
    scores["fov_degrees"] = _mean_degrees(poses[:, 7:] - true_fov)
    scores["fov_degrees/mean_camera"] = _mean_degrees(habits.fov(size) - true_fov)
    points = _joined(predictions, "points")
    if points is not None:
        scores["points"] = _points_error(points * scale, sequence)
    scores |= _track_scores(predictions, sequence, queries)
    return scores


def _joined(predictions: Sequence[Prediction], name: str) -> Tensor | None:
    """A field of all frames, s ..., or None if the network has no such head."""
    parts = [getattr(prediction, name) for prediction in predictions]
    if any(part is None for part in parts):
        return None
    return torch.cat([torch.as_tensor(part)[0].float().cpu() for part in parts])


def _depth_scores(errors: DepthErrors, guess: str = "") -> dict[str, float]:
    return {f"abs_rel{guess}": errors.abs_rel, f"delta1{guess}": errors.delta1}


def _depth_guesses(sequence: WorldSequence, habits: Habits) -> dict[str, float]:
    truth = sequence.depth
    size = (truth.shape[1], truth.shape[2])
    constant = depth_errors(torch.ones_like(truth), truth)
    usual = depth_errors(habits.depth(size).expand_as(truth), truth)
    points = habits.points(len(truth), size) * usual.scale
    return {
        **_depth_scores(constant, "/constant_depth"),
        **_depth_scores(usual, "/mean_depth_map"),
        "points/mean_depth_map": _points_error(points, sequence),
    }


def _pose_scores(
    predictions: Sequence[Prediction], sequence: WorldSequence, scale: float
) -> dict[str, float]:
    poses = torch.cat([torch.as_tensor(p.world_from_camera)[0] for p in predictions]).cpu()
    return _motion_scores(poses, sequence, scale) | {"ate": _path_error(poses, sequence)}


def _pose_guesses(sequence: WorldSequence, habits: Habits) -> dict[str, float]:
    """Standing still, and going straight on; both never turn."""
    frames, unit = len(sequence.depth), float(sequence.depth[sequence.valid].median())
    still, line = torch.eye(4).expand(frames, 4, 4), habits.path(frames)
    return {
        **_motion_scores(still, sequence, unit, "/standing_still"),
        **_motion_scores(line, sequence, unit, "/straight_line"),
        "ate/straight_line": _path_error(line, sequence),
    }


def _motion_scores(
    poses: Tensor, sequence: WorldSequence, scale: float, guess: str = ""
) -> dict[str, float]:
    errors = motion_errors(poses, sequence.world_from_camera)
    wrong_length = (errors.length_ratio * scale - 1).abs()
    return {
        f"rotation_degrees{guess}": rmse(errors.rotation_degrees),
        f"direction_degrees{guess}": float(errors.direction_degrees.nanmean()),
        f"length_error{guess}": float(wrong_length.nanmean()),
    }


def _path_error(poses: Tensor, sequence: WorldSequence) -> float:
    errors = path_errors(poses, sequence.world_from_camera, alignment="sim3")
    return errors.rmse / errors.path_length


def _points_error(points: Float[Tensor, "s H W 3"], sequence: WorldSequence) -> float:
    truth = sequence.points[sequence.valid]  # n 3
    distance = (points[sequence.valid] - truth).norm(dim=-1).mean()
    return float(distance / truth.norm(dim=-1).mean())


def _track_scores(
    predictions: Sequence[Prediction], sequence: WorldSequence, queries: Tensor | None
) -> dict[str, float]:
    """Of all frames but the first, where the points are given."""
    frames = len(sequence.depth)
    parts = [torch.as_tensor(p.tracks)[0].cpu() for p in predictions if p.tracks is not None]
    if queries is None or not parts:
        return {}
    tracks = torch.cat(parts)[-(frames - 1) :, : len(queries)]
    truth, visible = sequence.tracks(queries)
    return {
        "track_pixels": _pixels_off(tracks, truth[1:], visible[1:]),
        "track_pixels/standing_still": _pixels_off(
            queries.expand_as(tracks), truth[1:], visible[1:]
        ),
    }


def _pixels_off(
    tracks: Float[Tensor, "s t 2"], truth: Float[Tensor, "s t 2"], visible: Bool[Tensor, "s t"]
) -> float:
    return float((tracks - truth).norm(dim=-1)[visible].mean())


def _mean_degrees(radians: Tensor) -> float:
    return float(torch.rad2deg(radians.abs().mean()))


@cache
def _usual_habits() -> Habits:
    return measure_habits(clips=16)
