"""The held-out benchmark: places of the procedural world that no training has seen."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from everview.errors import ConfigError, InputError
from everview.evaluation.baselines import FIRST_SEED as BASELINE_SEED
from everview.evaluation.baselines import Habits, measure_habits
from everview.evaluation.machine import code_version, describe
from everview.evaluation.sequence_scores import METRICS, query_points, score_sequence
from everview.evaluation.show import is_streaming, mode, show
from everview.evaluation.summaries import TEACHER, summarise
from everview.geometry.prediction import Prediction
from everview.model.network import Network
from everview.weights.hashes import weights_hash
from everview.world.clip import PLAIN_SEEDS, WorldSequence, sequence
from everview.world.kinds import KINDS

FORMAT_VERSION = 2
SHAPE = 0.7
"""Height over width of clips at a network's native size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProceduralSettings:
    """Which clips, and how they are shown."""

    clips: int = 200
    """Clips per group."""
    frames: tuple[int, ...] = (8,)
    """Lengths of clips, one group each; the shorter are the beginnings of the longest."""
    speeds: tuple[float, ...] = (1.0,)
    """Motion between frames, one set of clips each."""
    kind: str = "any"
    """Kind of place, one of `everview.world.kinds.KINDS`."""
    size: tuple[int, int] | None = None
    """(height, width) of the clips in pixels; None: the network's native size."""
    points: int = 32
    """Points of the first frame that are tracked."""
    first_seed: int = 10_000_000
    """Clips have this seed and the following ones; training uses none below 2^48."""
    baseline_clips: int = 48
    """Other clips, from which the trivial guesses know the world."""
    memory: str = "full"
    """Memory policy of the stream."""

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        frames, speeds = self.frames, self.speeds
        if self.clips < 1 or min(frames, default=0) < 2 or not speeds or self.points < 1:
            raise ConfigError(
                "the procedural benchmark needs clips >= 1, frames >= 2, points >= 1 and a speed; "
                f"got {self.clips}, {frames}, {self.points}, {speeds}"
            )
        if self.kind not in KINDS:
            raise ConfigError(f"kind {self.kind!r} is unknown; known: {', '.join(KINDS)}")
        seeds = range(self.first_seed, self.first_seed + self.clips * len(speeds))
        if seeds.stop > PLAIN_SEEDS:
            raise ConfigError(
                f"seeds {seeds.start} .. {seeds.stop - 1} may have been trained on: those of "
                f"training begin at {PLAIN_SEEDS}; choose first_seed below that"
            )
        if seeds.start < 0 or (seeds.stop > BASELINE_SEED and seeds.start < 2 * BASELINE_SEED):
            raise ConfigError(
                f"seeds {seeds.start} .. {seeds.stop - 1} are below 0 or may meet those of the "
                f"baselines ({BASELINE_SEED} and up): choose first_seed below that"
            )


def evaluate_procedural(
    network: Network,
    settings: ProceduralSettings,
    *,
    teacher: Network | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Show held-out clips to a network and score them beside trivial guesses.

    A causal network is streamed, a global one sees each clip in one pass. As a longer clip begins
    like a shorter one, a stream is scored at all lengths in one go.

    Args:
        network: with loaded weights.
        settings: which clips.
        teacher: another network, which is shown the same images.
        progress: is told clips done and clips in all.

    Returns:
        Plain values for a JSON file: what ran where; per group (a speed and a length) and score
        mean, standard error, 95 % interval, median and number of clips, for each trivial guess and
        the teacher the same, the share of clips in which the network is better and the ratio of
        the means; then every clip.

    Raises:
        InputError: if the network's output of a clip is not finite; names the seed.
    """
    started = time.perf_counter()
    size = settings.size or native_size(network)
    groups = []
    total = settings.clips * len(settings.speeds)
    for number, speed in enumerate(settings.speeds):
        habits = measure_habits(speed=speed, clips=settings.baseline_clips, kind=settings.kind)
        shown: dict[int, list[dict[str, Any]]] = {frames: [] for frames in settings.frames}
        for i in range(number * settings.clips, (number + 1) * settings.clips):
            clip = _Clip(seed=settings.first_seed + i, speed=speed, size=size)
            for frames, record in _score(clip, network, teacher, settings, habits).items():
                shown[frames].append(record)
            if progress is not None:
                progress(i + 1, total)
        groups += [_group(speed, frames, records) for frames, records in shown.items()]
    return {
        "format": "everview evaluation",
        "benchmark": "procedural",
        "format_version": FORMAT_VERSION,
        "code": code_version(),
        "model": model_facts(network),
        "teacher": None if teacher is None else model_facts(teacher),
        "settings": {
            **asdict(settings),
            "size": list(size),
            "mode": mode(network),
            "first_baseline_seed": BASELINE_SEED,
        },
        "metrics": METRICS,
        "groups": groups,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe(network.device),
    }


def native_size(network: Network) -> tuple[int, int]:
    """(height, width) of clips: the network's own width, and 0.7 of it in whole patches."""
    patch, width = network.config.patch_size, network.input_size
    return patch * max(1, round(SHAPE * width / patch)), width


def plain_scores(scores: dict[str, float]) -> dict[str, float | None]:
    """For a file: seven digits, and None for NaN, which JSON does not have."""
    return {
        name: float(f"{value:.7g}") if math.isfinite(value) else None
        for name, value in scores.items()
    }


def model_facts(network: Network) -> dict[str, Any]:
    """Where a network comes from, what it is, and a hash of its weights."""
    info = {} if network.info is None else asdict(network.info)
    return {
        **info,
        "weights_sha256": weights_hash(network),
        "mode": mode(network),
        "config": network.config.to_dict(),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clip:
    seed: int
    speed: float
    size: tuple[int, int]


def _score(
    chosen: _Clip,
    network: Network,
    teacher: Network | None,
    settings: ProceduralSettings,
    habits: Habits,
) -> dict[int, dict[str, Any]]:
    """Length -> scores of one place."""
    longest = sequence(
        chosen.seed, max(settings.frames), size=chosen.size, speed=chosen.speed, kind=settings.kind
    )
    queries = query_points(chosen.seed, chosen.size, settings.points)
    results = {}
    ours, theirs = _Shown(network, settings.memory), _Shown(teacher, settings.memory)
    for frames in sorted(settings.frames, reverse=True):
        clip = beginning(longest, frames)
        try:
            scores = score_sequence(
                ours.predict(clip, queries), clip, queries=queries, habits=habits
            )
            if teacher is not None:
                said = score_sequence(
                    theirs.predict(clip, queries), clip, queries=queries, habits=habits
                )
                scores |= {f"{name}/{TEACHER}": v for name, v in said.items() if "/" not in name}
        except ConfigError as error:
            where = f"clip with seed {chosen.seed} at speed {chosen.speed:g}"
            raise InputError(f"{where}: {error}") from error
        results[frames] = {"seed": chosen.seed, "kind": clip.kind, "scores": scores}
    return {frames: results[frames] for frames in settings.frames}


class _Shown:
    """Predictions of one place at several lengths, the longest first."""

    def __init__(self, network: Network | None, memory: str) -> None:
        self._network, self._memory = network, memory
        self._streamed: list[Prediction] = []

    def predict(self, clip: WorldSequence, queries: Any) -> list[Prediction]:  # noqa: ANN401
        assert self._network is not None, "asked only where there is a network"
        if self._streamed:
            return self._streamed[: len(clip.depth)]
        found = show(self._network, clip.images, queries=queries, memory=self._memory)
        if is_streaming(self._network):
            self._streamed = found
        return found


def beginning(clip: WorldSequence, frames: int) -> WorldSequence:
    """The first frames of a clip, which are what `everview.world.sequence` gives for so many."""
    names = ("images", "depth", "valid", "world_from_camera", "intrinsics", "points", "moving")
    return replace(clip, **{name: getattr(clip, name)[:frames] for name in names})


def _group(speed: float, frames: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    scores = summarise([record["scores"] for record in records])
    clips = [{**record, "scores": plain_scores(record["scores"])} for record in records]
    return {"speed": speed, "frames": frames, "scores": scores, "clips": clips}
