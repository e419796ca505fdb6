"""Scores of many clips put together: means with their uncertainty, beside those of guesses."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.sequence_scores import HIGHER_IS_BETTER, METRICS

TEACHER = "teacher"
"""Scores of another network stand beside under this name, like those of a guess."""
RESAMPLES = 2000
"""Of the bootstrap over clips; always the same draws."""
INTERVAL = (0.025, 0.975)


def summarise(clips: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Score -> statistics over clips, with those of trivial guesses and of a teacher beside.

    Every clip weighs the same; as clips of a group have equally many pairs of frames, a mean over
    clips is a mean over all their pairs too.

    Args:
        clips: results of `score_clip`; a teacher's as `score/teacher`.
    """
    summary: dict[str, Any] = {}
    for metric in METRICS:
        if metric not in clips[0]:
            continue
        names = [name for name in clips[0] if name.startswith(f"{metric}/")]
        others = {name.partition("/")[2]: _beside(metric, name, clips) for name in names}
        teacher = others.pop(TEACHER, None)
        summary[metric] = statistics_of([clip[metric] for clip in clips]) | {"baselines": others}
        if teacher is not None:
            summary[metric][TEACHER] = teacher
    return summary


def statistics_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, its standard error and 95 % interval (bootstrap), median; of clips that have a value.

    Standard error and interval are None for a single clip.
    """
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return {"clips": 0}
    spread = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
    numbers = torch.tensor(found, dtype=torch.float64)
    return {
        "mean": statistics.fmean(found),
        "standard_error": spread,
        "interval": interval(lambda drawn: numbers[drawn].mean(dim=-1), len(found)),
        "median": statistics.median(found),
        "clips": len(found),
    }


def interval(statistic: Callable[[Tensor], Tensor], count: int) -> list[float] | None:
    """95 % interval of a statistic under resampling of clips.

    Args:
        statistic: of drawn clips, given as positions (resamples, count); returns (resamples,).
        count: number of clips; below two there is no interval.
    """
    if count < 2:
        return None
    draws = torch.Generator().manual_seed(0)
    values = statistic(torch.randint(count, (RESAMPLES, count), generator=draws))
    low, high = (float(values.quantile(q)) for q in INTERVAL)
    return [low, high] if math.isfinite(low) and math.isfinite(high) else None


def _beside(metric: str, other: str, clips: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Statistics of a guess or a teacher, and how ours compares on the clips that both have."""
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    pairs = [(clip[metric], clip[other]) for clip in clips]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    better = [sign * ours < sign * theirs for ours, theirs in pairs]
    return statistics_of([clip[other] for clip in clips]) | {
        "better_in": sum(better) / len(better) if better else None,
        "ratio": _ratio(pairs),
    }


def _ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """Mean of ours over mean of theirs; None if theirs is 0."""
    if not pairs or sum(theirs for _, theirs in pairs) == 0:
        return None
    ours, theirs = torch.tensor(pairs, dtype=torch.float64).T
    return {
        "value": float(ours.mean() / theirs.mean()),
        "interval": interval(lambda i: ours[i].mean(dim=-1) / theirs[i].mean(dim=-1), len(pairs)),
    }
