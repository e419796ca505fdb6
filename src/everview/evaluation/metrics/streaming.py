"""What a stream costs: seconds per frame and memory, and whether either grows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_list
from everview.evaluation.metrics.drift import least_squares_slope

Values = Float[Array, " n"] | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds per frame. Percentiles are of nearest rank: a value that occurred."""

    frames: int
    mean: float
    median: float
    """Of two middle values their mean."""
    p90: float
    p95: float
    p99: float
    longest: float
    first_third: float
    """Median of the first third of the frames."""
    last_third: float
    """Median of the last third: above the first where the past costs time."""
    frames_per_second: float
    """Frames over the sum of their seconds."""


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes in use after each frame."""

    peak: float
    first: float
    last: float
    slope: float
    """Growth in bytes per frame, by least squares."""


def latency(seconds: Values, *, warm_up: int = 0) -> Latency:
    """Summarise the seconds that frames took, in their order.

    Args:
        seconds: of each frame, > 0.
        warm_up: frames at the beginning that do not count.

    Raises:
        ConfigError: if nothing is left after the warm-up, or a value is not finite and positive.
    """
    values = _after(seconds, warm_up, "seconds")
    if values.min() <= 0:
        raise ConfigError(f"seconds per frame must be positive, got {values.min():g}")
    p90, p95, p99 = (percentile(values, share) for share in (90, 95, 99))
    first, last = first_and_last_third(values)
    return Latency(
        frames=len(values),
        mean=float(values.mean()),
        median=float(np.median(values)),
        p90=p90,
        p95=p95,
        p99=p99,
        longest=float(values.max()),
        first_third=first,
        last_third=last,
        frames_per_second=len(values) / float(values.sum()),
    )


def first_and_last_third(values: Values) -> tuple[float, float]:
    """Medians of the first and of the last third of values, each of one value at least."""
    found = as_list(values, "values")
    third = max(1, len(found) // 3)
    return float(np.median(found[:third])), float(np.median(found[-third:]))


def percentile(values: Values, share: float) -> float:
    """The smallest value that at least `share` percent of all values do not exceed.

    Raises:
        ConfigError: if there is no value, one is not finite, or the share is not in (0, 100].
    """
    found = np.sort(as_list(values, "values"))
    if not 0 < share <= 100:
        raise ConfigError(f"a percentile lies in (0, 100], got {share}")
    return float(found[math.ceil(share / 100 * len(found) - 1e-9) - 1])


def memory_use(
    memory: Values,
    *,
    frames: Values | None = None,
    warm_up: int = 0,
) -> MemoryUse:
    """Summarise the memory in use after each frame.

    Args:
        memory: bytes.
        frames: numbers of the frames, where not each was measured.
        warm_up: measurements at the beginning that do not count.

    Raises:
        ConfigError: if nothing is left after the warm-up, a value is not finite, or the numbers of
            frames and measurements differ.
    """
    values = _after(memory, warm_up, "memory")
    at = np.arange(len(values), dtype=np.float64)
    if frames is not None:
        at = _after(frames, warm_up, "frames")
    if len(at) != len(values):
        raise ConfigError(f"{len(at)} frames and {len(values)} measurements of memory")
    return MemoryUse(
        peak=float(values.max()),
        first=float(values[0]),
        last=float(values[-1]),
        slope=least_squares_slope(at, values),
    )


def _after(values: Values, warm_up: int, name: str) -> np.ndarray:
    if warm_up < 0:
        raise ConfigError(f"a warm-up must not be negative, got {warm_up}")
    return as_list(values[warm_up:], f"{name} after a warm-up of {warm_up}")
