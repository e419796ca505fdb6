"""Errors of point tracks, as TAP-Vid has them.

Source: Doersch et al., TAP-Vid: a benchmark for tracking any point in a video (2022, 2211.03726),
Sec. 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double

THRESHOLDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pixels of an image of 256 x 256."""
RASTER = 256


@dataclass(frozen=True, kw_only=True)
class TrackErrors:
    """Shares, 0 to 1, higher is better; of one clip."""

    delta_average: float
    """Mean over the thresholds of `within`."""
    occlusion_accuracy: float
    """Share of points and frames whose visibility is right."""
    average_jaccard: float
    """Mean over the thresholds of `jaccard`."""
    within: dict[float, float]
    """Threshold -> share of visible points nearer to the truth than it."""
    jaccard: dict[float, float]
    """Threshold -> true positives over true positives, misses and false positives."""
    num_visible: int
    """Pairs of point and frame where the truth is visible, that count."""


def track_errors(
    tracks: Float[Array, "s n 2"],
    true_tracks: Float[Array, "s n 2"],
    visible: Bool[Array, "s n"],
    true_visible: Bool[Array, "s n"],
    *,
    size: tuple[int, int],
    query_frames: Int[Array, " n"] | None = None,
    mode: str = "first",
    thresholds: Sequence[float] = THRESHOLDS,
) -> TrackErrors:
    """Compare the tracks of a clip.

    Where the truth is visible a prediction that says "visible" and lies within the threshold is a
    true positive. One that says "visible" and lies outside it, or where the truth is hidden, is a
    false positive. Jaccard is true positives / (visible truths + false positives).

    Args:
        tracks: predicted pixels (x, y) of each frame and point.
        true_tracks: of the same; values where the truth is hidden do not matter.
        visible: prediction; threshold probabilities first.
        true_visible: truth.
        size: (height, width) of the images. Both axes are scaled to 256 pixels before distances
            are taken, as published.
        query_frames: frame in which each point was asked for; 0 if None.
        mode: `first`: frames after the query count; `strided`: all but the query do.
        thresholds: pixels of an image of 256 x 256.

    Raises:
        ConfigError: if shapes differ, the mode is unknown, no point is visible where it counts, or
            a pixel is not finite where the truth is visible.
    """
    ours, theirs = as_double(tracks), as_double(true_tracks)
    seen, really = (torch.as_tensor(v).cpu().bool() for v in (visible, true_visible))
    if (
        ours.ndim != 3
        or ours.shape != theirs.shape
        or not seen.shape == really.shape == ours.shape[:2]
    ):
        raise ConfigError(
            f"tracks {tuple(ours.shape)} and {tuple(theirs.shape)} must be (frames, points, 2), "
            f"visibilities {tuple(seen.shape)} and {tuple(really.shape)} (frames, points)"
        )
    counts = _that_count(ours.shape[0], ours.shape[1], query_frames, mode)
    really_counts = really & counts
    if not really_counts.any():
        raise ConfigError("no point is visible after its query: there is no track to compare")
    _check_finite(ours, theirs, really_counts)
    scale = ours.new_tensor([RASTER / size[1], RASTER / size[0]])
    squared = ((ours - theirs) * scale).square().sum(dim=-1)
    within, jaccard = {}, {}
    for threshold in thresholds:
        near = squared < threshold**2  # false where a hidden point is not a number
        within[threshold] = float((near & really_counts).sum() / really_counts.sum())
        hits = (near & seen & really_counts).sum()
        false = (seen & counts & ~(near & really)).sum()
        jaccard[threshold] = float(hits / (really_counts.sum() + false))
    return TrackErrors(
        delta_average=sum(within.values()) / len(within),
        occlusion_accuracy=float((seen == really)[counts].double().mean()),
        average_jaccard=sum(jaccard.values()) / len(jaccard),
        within=within,
        jaccard=jaccard,
        num_visible=int(really_counts.sum()),
    )


def _that_count(
    frames: int, points: int, query_frames: Array | None, mode: str
) -> Bool[Tensor, "s n"]:
    """Which frames of each point are compared."""
    if mode not in ("first", "strided"):
        raise ConfigError(f"mode must be first or strided, got {mode!r}")
    query = torch.zeros(points) if query_frames is None else torch.as_tensor(query_frames).cpu()
    if query.shape != (points,):
        raise ConfigError(f"{tuple(query.shape)} query frames for {points} points")
    frame = torch.arange(frames)[:, None]
    return frame > query if mode == "first" else frame != query


def _check_finite(ours: Tensor, theirs: Tensor, counts: Tensor) -> None:
    for name, tracks in (("predicted", ours), ("true", theirs)):
        bad = ~tracks.isfinite().all(dim=-1) & counts
        if bad.any():
            frame, point = bad.nonzero()[0].tolist()
            raise ConfigError(
                f"{int(bad.sum())} {name} pixels are not finite where the truth is visible (first: "
                f"frame {frame}, point {point}): correct them, or leave these points out"
            )
