"""Why two results differ: what was asked, who answered, and which scores really differ."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

from everview.evaluation.reports.results import ClipResult, Metric, Part, ResultFile

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One setting in which two results differ."""

    name: str
    a: Any
    b: Any
    matters: bool
    """Whether scores cannot be compared because of it; else it may be why they differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedClips:
    """Which clips two results have in common."""

    same: int
    """In both, with the same frames."""
    other_frames: tuple[str, ...]
    """In both by name, but with other frames."""
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def all_same(self) -> bool:
        """Whether both hold exactly the same clips and frames."""
        return not (self.other_frames or self.only_a or self.only_b)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreDifference:
    """One score in two results."""

    part: str
    """Title of the part of the results; may be empty."""
    score: str
    better: str
    """lower or higher."""
    a: float | None
    """Mean that the file states, over all its clips, weighted as its protocol says."""
    b: float | None
    pairs: int
    """Clips that both hold, with a value each."""
    difference: float | None
    """Mean over pairs of b - a, all alike."""
    interval: tuple[float, float] | None
    """95 % interval of `difference`, Student's t; None below two pairs."""
    verdict: str
    """`a is better`, `b is better`, `equal`, `not told apart`; empty without an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two results side by side."""

    differences: tuple[Difference, ...]
    clips: SharedClips
    scores: tuple[ScoreDifference, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether both files answer the same question about the same frames."""
        return self.clips.all_same and not any(found.matters for found in self.differences)


def compare(a: ResultFile, b: ResultFile) -> Comparison:
    """Put two results side by side.

    Scores are compared clip by clip where both results are of one benchmark and hold clips with the
    same frames, even if other clips or settings differ.
    """
    pairs = _parts(a, b)
    return Comparison(
        differences=(
            *_differences(a.asked, b.asked, matters=True),
            *_differences(a.answered, b.answered, matters=False),
        ),
        clips=_shared(pairs),
        scores=tuple(
            _score(name, *parts, metrics={**a.metrics, **b.metrics})
            for parts in pairs
            for name in _names(*parts)
        ),
    )


def paired_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of differences, by Student's t; None below two values."""
    count = len(differences)
    if count < 2:
        return None
    mean = statistics.fmean(differences)
    factor = float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    half = factor * statistics.stdev(differences) / math.sqrt(count)
    return mean - half, mean + half


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], *, matters: bool) -> list[Difference]:
    names = list(dict.fromkeys((*a, *b)))
    return [
        Difference(name=name, a=a.get(name), b=b.get(name), matters=matters)
        for name in names
        if a.get(name) != b.get(name)
    ]


def _parts(a: ResultFile, b: ResultFile) -> list[tuple[Part, Part]]:
    """Parts of the same title; what one file lacks is an empty part."""
    ours, theirs = ({part.title: part for part in file.parts} for file in (a, b))
    titles = list(dict.fromkeys((*ours, *theirs)))
    if a.benchmark != b.benchmark:  # clips of equal names are no pairs
        return [
            pair
            for title in titles
            for pair in (
                (ours.get(title, _empty(title)), _empty(title)),
                (_empty(title), theirs.get(title, _empty(title))),
            )
            if pair[0].summary or pair[1].summary
        ]
    return [(ours.get(t, _empty(t)), theirs.get(t, _empty(t))) for t in titles]


def _empty(title: str) -> Part:
    return Part(title=title, summary={}, clips=())


def _shared(parts: Sequence[tuple[Part, Part]]) -> SharedClips:
    same = 0
    other: list[str] = []
    alone: tuple[list[str], list[str]] = ([], [])
    for a, b in parts:
        ours, theirs = ({clip.name: clip for clip in part.clips} for part in (a, b))
        for name in dict.fromkeys((*ours, *theirs)):
            label = f"{a.title}: {name}" if a.title else name
            if name not in theirs:
                alone[0].append(label)
            elif name not in ours:
                alone[1].append(label)
            elif ours[name].identity != theirs[name].identity:
                other.append(label)
            else:
                same += 1
    return SharedClips(
        same=same, other_frames=tuple(other), only_a=tuple(alone[0]), only_b=tuple(alone[1])
    )


def _names(a: Part, b: Part) -> list[str]:
    return list(dict.fromkeys((*a.summary, *b.summary)))


def _score(name: str, a: Part, b: Part, *, metrics: Mapping[str, Metric]) -> ScoreDifference:
    differences = _paired(name, a.clips, b.clips)
    interval = paired_interval(differences)
    better = metrics[name].better
    return ScoreDifference(
        part=a.title,
        score=name,
        better=better,
        a=a.summary.get(name, {}).get("mean"),
        b=b.summary.get(name, {}).get("mean"),
        pairs=len(differences),
        difference=statistics.fmean(differences) if differences else None,
        interval=interval,
        verdict=_verdict(differences, interval, better),
    )


def _paired(name: str, a: Sequence[ClipResult], b: Sequence[ClipResult]) -> list[float]:
    """Differences b - a of clips that both hold, with the same frames and a value each."""
    theirs = {(clip.name, clip.identity): clip for clip in b}
    pairs = [(clip, theirs.get((clip.name, clip.identity))) for clip in a]
    return [
        other.scores[name] - clip.scores[name]
        for clip, other in pairs
        if other is not None and name in clip.scores and name in other.scores
    ]


def _verdict(
    differences: Sequence[float], interval: tuple[float, float] | None, better: str
) -> str:
    if differences and not any(differences):
        return "equal"
    if interval is None:
        return ""
    low, high = interval
    if low <= 0 <= high:
        return "not told apart"
    return "b is better" if (low > 0) == (better == "higher") else "a is better"
