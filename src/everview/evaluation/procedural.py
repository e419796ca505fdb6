"""The held-out benchmark: rooms of the procedural world that no training has seen."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from everview.errors import ConfigError, InputError
from everview.evaluation.baselines import FIRST_SEED as BASELINE_SEED
from everview.evaluation.baselines import Habits, measure_habits
from everview.evaluation.machine import code_version, describe
from everview.evaluation.sequence_scores import (
    HIGHER_IS_BETTER,
    METRICS,
    query_points,
    score_sequence,
)
from everview.geometry.prediction import Prediction
from everview.model.network import Network
from everview.weights.hashes import weights_hash
from everview.world.clip import WorldSequence, sequence

FORMAT_VERSION = 1
SHAPES = (0.7, 0.6, 0.8)
"""Height over width of the clips, in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProceduralSettings:
    """Which clips, and how they are shown."""

    clips: int = 50
    """Clips per group."""
    frames: int = 16
    """Of each clip, streamed one by one."""
    speeds: tuple[float, ...] = (1.0, 3.0)
    """Motion between frames, one group of clips each."""
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
        if self.clips < 1 or self.frames < 2 or not self.speeds or self.points < 1:
            raise ConfigError(
                "the procedural benchmark needs clips >= 1, frames >= 2, points >= 1 and a speed; "
                f"got {self.clips}, {self.frames}, {self.points}, {self.speeds}"
            )
        seeds = range(self.first_seed, self.first_seed + self.clips * len(self.speeds))
        if seeds.start < 0 or (seeds.stop > BASELINE_SEED and seeds.start < 2 * BASELINE_SEED):
            raise ConfigError(
                f"seeds {seeds.start} .. {seeds.stop - 1} are below 0 or may meet those of the "
                f"baselines ({BASELINE_SEED} and up): choose first_seed below that"
            )


def evaluate_procedural(
    network: Network,
    settings: ProceduralSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Stream held-out clips through a network and score them beside trivial guesses.

    Args:
        network: causal, with loaded weights.
        settings: which clips.
        progress: is told clips done and clips in all.

    Returns:
        Plain values for a JSON file: what ran where, and per group and score mean, median,
        standard error of the mean, number of clips, and for each trivial guess the same and the
        share of clips in which the network is better; then every clip.

    Raises:
        InputError: if the network's output of a clip is not finite; names the seed.
    """
    started = time.perf_counter()
    groups = []
    total = settings.clips * len(settings.speeds)
    for number, speed in enumerate(settings.speeds):
        habits = measure_habits(speed=speed, clips=settings.baseline_clips)
        seeds, scores = [], []
        for i in range(settings.clips):
            seed = settings.first_seed + number * settings.clips + i
            seeds.append(seed)
            scores.append(_score_clip(network, settings, seed=seed, speed=speed, habits=habits))
            if progress is not None:
                progress(number * settings.clips + i + 1, total)
        clips = [_record(network, *clip) for clip in zip(seeds, scores, strict=True)]
        groups.append({"speed": speed, "scores": summarise(scores), "clips": clips})
    return {
        "benchmark": "procedural",
        "format_version": FORMAT_VERSION,
        "code": code_version(),
        "model": _model(network),
        "settings": {**asdict(settings), "mode": "streaming", "first_baseline_seed": BASELINE_SEED},
        "metrics": METRICS,
        "groups": groups,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe(network.device),
    }


def stream_clip(
    network: Network,
    clip: WorldSequence,
    *,
    queries: torch.Tensor | None = None,
    memory: str = "full",
) -> list[Prediction]:
    """Show a clip frame by frame; points of the first frame are followed through the others."""
    predictions = []
    with network.stream(memory) as stream:
        for image in clip.images:
            predictions.append(stream.step(image))
            if queries is not None and len(predictions) == 1 and network.track_head is not None:
                stream.track(queries)
    return predictions


def clip_size(network: Network, index: int) -> tuple[int, int]:
    """(height, width) of the n-th clip: the network's own width, and shapes in turn."""
    patch, width = network.config.patch_size, network.input_size
    return patch * max(1, round(SHAPES[index % len(SHAPES)] * width / patch)), width


def summarise(clips: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Score -> statistics over clips, with those of the trivial guesses beside.

    Args:
        clips: results of `score_sequence`.
    """
    summary: dict[str, Any] = {}
    for metric in METRICS:
        if metric not in clips[0]:
            continue
        guesses = {
            name.partition("/")[2]: _statistics([clip[name] for clip in clips])
            | {"better_in": _share_better(metric, name, clips)}
            for name in clips[0]
            if name.startswith(f"{metric}/")
        }
        summary[metric] = _statistics([clip[metric] for clip in clips]) | {"baselines": guesses}
    return summary


def _score_clip(
    network: Network, settings: ProceduralSettings, *, seed: int, speed: float, habits: Habits
) -> dict[str, float]:
    size = clip_size(network, seed)
    clip = sequence(seed, settings.frames, size=size, speed=speed)
    queries = query_points(seed, size, settings.points)
    predictions = stream_clip(network, clip, queries=queries, memory=settings.memory)
    try:
        return score_sequence(predictions, clip, queries=queries, habits=habits)
    except ConfigError as error:
        raise InputError(f"clip with seed {seed} at speed {speed:g}: {error}") from error


def _record(network: Network, seed: int, scores: dict[str, float]) -> dict[str, Any]:
    """One clip for the file; JSON has no NaN."""
    plain = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    return {"seed": seed, "size": list(clip_size(network, seed)), "scores": plain}


def _statistics(values: Sequence[float]) -> dict[str, Any]:
    """Of the clips that have a value at all."""
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return {"clips": 0}
    spread = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
    return {
        "mean": statistics.fmean(found),
        "standard_error": spread,
        "median": statistics.median(found),
        "clips": len(found),
    }


def _share_better(metric: str, guess: str, clips: Sequence[dict[str, float]]) -> float | None:
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    pairs = [(sign * clip[metric], sign * clip[guess]) for clip in clips]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return sum(ours < theirs for ours, theirs in pairs) / len(pairs) if pairs else None


def _model(network: Network) -> dict[str, Any]:
    info = {} if network.info is None else asdict(network.info)
    return {**info, "weights_sha256": weights_hash(network), "config": network.config.to_dict()}
