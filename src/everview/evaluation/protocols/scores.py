"""What a protocol says of one clip, and what its settings are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]
"""The `protocol` of a result file."""


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """Scores of one clip."""

    scores: dict[str, float]
    weight: float = 1.0
    """Its share of the mean."""
    details: dict[str, Any] = field(default_factory=dict)
    """Facts that are no score."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Lists over the frames named by `frame`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What a score is."""

    meaning: str
    unit: str = ""
    better: str = "lower"
