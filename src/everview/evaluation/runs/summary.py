"""Statistics over clips."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Clip = Mapping[str, Any]
"""An entry of `clips` of a result file."""


def summarise(clips: Sequence[Clip], names: Sequence[str], average: str) -> dict[str, Any]:
    """Score -> mean (weighted as the protocol says), median, standard error, number of clips.

    Args:
        clips: scored ones.
        names: of scores.
        average: `clips`, all alike; `valid pixels`, by weight; `groups`, by weight within each
            group, groups alike.
    """
    return {name: _statistics([c for c in clips if _has(c, name)], name, average) for name in names}


def by_group(clips: Sequence[Clip], names: Sequence[str]) -> dict[str, Any]:
    """Group -> summary, for clips that have groups."""
    found = sorted({clip["group"] for clip in clips if clip["group"] is not None})
    return {
        group: summarise([c for c in clips if c["group"] == group], names, "weights")
        for group in found
    }


def _statistics(clips: Sequence[Clip], name: str, average: str) -> dict[str, Any]:
    values = [clip["scores"][name] for clip in clips]
    if not values:
        return {"mean": None, "median": None, "standard_error": None, "clips": 0}
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": _mean(clips, name, average),
        "median": statistics.median(values),
        "standard_error": spread,
        "clips": len(values),
    }


def _mean(clips: Sequence[Clip], name: str, average: str) -> float:
    if average == "clips":
        return statistics.fmean(clip["scores"][name] for clip in clips)
    if average == "groups":
        groups = sorted({str(clip["group"]) for clip in clips})
        parts = [[c for c in clips if str(c["group"]) == group] for group in groups]
        return statistics.fmean(_mean(part, name, "weights") for part in parts)
    weights = [clip["weight"] for clip in clips]
    return statistics.fmean((clip["scores"][name] for clip in clips), weights)


def _has(clip: Clip, name: str) -> bool:
    return clip["scores"].get(name) is not None
