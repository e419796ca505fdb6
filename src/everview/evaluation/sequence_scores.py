"""How well predictions of one clip agree with its truth, and what trivial guesses do."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.baselines import Habits, measure_habits
from everview.evaluation.camera_scores import camera_scores
from everview.evaluation.clip_truth import ClipTruth, world_truth
from everview.evaluation.metrics.depth import DepthErrors, depth_errors
from everview.geometry.cameras import fov_from_intrinsics
from everview.geometry.prediction import Prediction
from everview.world.clip import WorldSequence
from everview.world.dice import Dice

HIGHER_IS_BETTER = frozenset({"delta1", "auc30", "auc15", "auc5", "auc30_apart"})
"""Of all other scores less is better."""

METRICS = {
    "abs_rel": "mean of |depth error| / depth; one scale per clip, by medians",
    "delta1": "share of pixels whose depth is within a factor 1.25; same scale",
    "rotation_degrees": "error of the relative rotation, mean over all pairs of frames, degrees",
    "direction_degrees": "error of the direction from camera to camera, mean over all pairs of "
    "frames whose true baseline is at least 5 % of the median depth, degrees",
    "auc30": "relative pose AUC at 30 degrees over all pairs of frames; the direction, without its "
    "sign, counts where the true baseline is at least 5 % of the median depth",
    "auc15": "the same at 15 degrees",
    "auc5": "the same at 5 degrees",
    "auc30_apart": "the same at 30 degrees, of these pairs alone",
    "length_error": "|estimated / true baseline - 1|, mean over the same pairs; scale of the depth",
    "ate": "RMS distance of camera centres after Sim(3), as a share of the path's length; clips "
    "whose path is shorter than 5 % of the median depth have none",
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
        As `score_clip`, and tracks.

    Raises:
        ConfigError: as `score_clip`.
    """
    scores = score_clip(predictions, world_truth(sequence), habits=habits)
    return scores | _track_scores(predictions, sequence, queries)


def score_clip(
    predictions: Sequence[Prediction], truth: ClipTruth, *, habits: Habits | None = None
) -> dict[str, float]:
    """Score the frames of any clip, in order, with trivial guesses beside.

    Args:
        predictions: one per frame (s = 1), or one of all frames; on the network's grid.
        truth: at least two frames, on the same grid; without depth only cameras are scored.
        habits: what trivial guesses know of the procedural world; measured if None.

    Returns:
        Scores under the names of `METRICS`; the same scores of trivial guesses under
        `name/guess`, such as `abs_rel/constant_depth`. NaN where a clip has nothing to compare
        (a camera that stands still has no path).

    Raises:
        ConfigError: if the number of frames differs, or a prediction is not finite.
    """
    habits = _usual_habits() if habits is None else habits
    encodings = torch.cat([torch.as_tensor(p.pose_encoding)[0] for p in predictions]).float().cpu()
    if len(encodings) != len(truth):
        raise ConfigError(
            f"predictions of {len(encodings)} frames for a clip of {len(truth)}: give one for "
            "each frame, in order"
        )
    scores, scale = _depth_scores(predictions, truth)
    scores |= _depth_guesses(truth, habits)
    poses = torch.cat([torch.as_tensor(p.world_from_camera)[0] for p in predictions]).cpu()
    scores |= camera_scores(poses, truth, scale=scale)
    scores |= _camera_guesses(truth, habits)
    true_fov = fov_from_intrinsics(truth.intrinsics, truth.size)
    scores["fov_degrees"] = _mean_degrees(encodings[:, 7:] - true_fov)
    scores["fov_degrees/mean_camera"] = _mean_degrees(habits.fov(truth.size) - true_fov)
    return scores | _point_scores(predictions, truth, habits, scale)


def _depth_scores(
    predictions: Sequence[Prediction], truth: ClipTruth
) -> tuple[dict[str, float], float | None]:
    """Scores, and the factor from predicted to true lengths; that is None without true depth."""
    if truth.unit is None or truth.depth is None:
        return {}, None
    depth = _joined(predictions, "depth")
    if depth is None:
        return {}, 1.0
    errors = depth_errors(depth, truth.depth, mask=truth.valid)
    return _named(errors), errors.scale


def _depth_guesses(truth: ClipTruth, habits: Habits) -> dict[str, float]:
    if truth.unit is None or truth.depth is None:
        return {}
    guesses = {
        "constant_depth": torch.ones_like(truth.depth),
        "row_prior": habits.rows(truth.size).expand_as(truth.depth),
        "mean_depth_map": habits.depth(truth.size).expand_as(truth.depth),
    }
    scores: dict[str, float] = {}
    for name, depth in guesses.items():
        scores |= _named(depth_errors(depth, truth.depth, mask=truth.valid), f"/{name}")
    return scores


def _camera_guesses(truth: ClipTruth, habits: Habits) -> dict[str, float]:
    """Standing still, and going straight on at constant speed; both never turn."""
    still = torch.eye(4).expand(len(truth), 4, 4)
    return {
        **camera_scores(still, truth, scale=truth.unit, guess="/standing_still"),
        **camera_scores(habits.path(len(truth)), truth, scale=truth.unit, guess="/straight_line"),
    }


def _point_scores(
    predictions: Sequence[Prediction], truth: ClipTruth, habits: Habits, scale: float | None
) -> dict[str, float]:
    if truth.unit is None or truth.depth is None or scale is None:
        return {}
    usual = depth_errors(habits.depth(truth.size).expand_as(truth.depth), truth.depth)
    guess = habits.points(len(truth), truth.size) * usual.scale
    scores = {"points/mean_depth_map": _points_error(guess, truth)}
    points = _joined(predictions, "points")
    if points is not None:
        scores["points"] = _points_error(points * scale, truth)
    return scores


def _joined(predictions: Sequence[Prediction], name: str) -> Tensor | None:
    """A field of all frames, s ..., or None if the network has no such head."""
    parts = [getattr(prediction, name) for prediction in predictions]
    if any(part is None for part in parts):
        return None
    return torch.cat([torch.as_tensor(part)[0].float().cpu() for part in parts])


def _named(errors: DepthErrors, guess: str = "") -> dict[str, float]:
    return {f"abs_rel{guess}": errors.abs_rel, f"delta1{guess}": errors.delta1}


def _points_error(points: Float[Tensor, "s H W 3"], truth: ClipTruth) -> float:
    assert truth.points is not None, "asked for only with depth"
    true = truth.points[truth.valid]  # n 3
    return float((points[truth.valid] - true).norm(dim=-1).mean() / true.norm(dim=-1).mean())


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
