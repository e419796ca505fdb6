"""Task -> how it is scored, what its settings are, what its scores mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import Benchmark, Choice, EvalClip
from everview.evaluation.metrics import depth_alignment
from everview.evaluation.metrics import poses as paths
from everview.evaluation.protocols import depth, long, points, poses, scan
from everview.evaluation.protocols.scores import ClipScores, Meaning, Settings
from everview.evaluation.runs.store import StoredClip

Score = Callable[[EvalClip, StoredClip, Settings], ClipScores]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One kind of comparison."""

    score: Score
    meanings: Mapping[str, Meaning]
    defaults: Callable[[str, str], dict[str, object]]
    """(task, preset) -> settings."""
    alignments: tuple[str, ...]
    """What may be asked for in place of the preset's."""
    mode: str = "streaming"
    """How frames are shown unless somebody asks for something else."""


TASKS = {
    "depth_single": Task(
        score=depth.score_single, meanings=depth.MEANINGS, defaults=depth.defaults,
        alignments=depth_alignment.ALIGNMENTS, mode="single",
    ),
    "depth_video": Task(
        score=depth.score_video, meanings=depth.MEANINGS, defaults=depth.defaults,
        alignments=depth_alignment.ALIGNMENTS,
    ),
    "points": Task(
        score=points.score_points, meanings=points.MEANINGS, defaults=points.defaults,
        alignments=points.ALIGNMENTS,
    ),
    "poses": Task(
        score=poses.score_pairs, meanings=poses.PAIRS, defaults=poses.defaults,
        alignments=("none",),
    ),
    "trajectory": Task(
        score=poses.score_trajectory, meanings=poses.TRAJECTORY, defaults=poses.defaults,
        alignments=paths.ALIGNMENTS,
    ),
    "long": Task(
        score=long.score_exact, meanings=long.MEANINGS, defaults=long.defaults,
        alignments=("sim3",),
    ),
}  # fmt: skip
SCAN = Task(
    score=scan.score_scan, meanings=points.MEANINGS, defaults=long.defaults,
    alignments=(str(scan.SETTINGS["alignment"]),),
)  # fmt: skip
"""A long stream of which only a scan is known."""


def task_of(benchmark: Benchmark) -> Task:
    """How a benchmark is scored."""
    return SCAN if benchmark.protocol.get("truth") == "scan" else TASKS[benchmark.task]


def protocol_of(benchmark: Benchmark, choice: Choice) -> dict[str, Any]:
    """All settings of the scores; those of the benchmark go before those of its task."""
    own = {"truth": None, "dense_every": 1} | dict(benchmark.protocol)
    special = scan.SETTINGS if own["truth"] == "scan" else {}
    return {
        "preset": choice.preset,
        "stride": choice.stride,
        "frames": choice.frames,
        "seed": choice.seed,
        **task_of(benchmark).defaults(benchmark.task, choice.preset),
        **special,
        **own,
    }


def check_alignment(benchmark: Benchmark, alignment: str) -> None:
    """Refuse an alignment that the benchmark does not have.

    Raises:
        ConfigError: names what it has.
    """
    known = task_of(benchmark).alignments
    if alignment not in known:
        quoted = ", ".join(f"'{name}'" if " " in name else name for name in known)
        raise ConfigError(f"alignment {alignment!r} is none of {benchmark.name}; it has: {quoted}")
