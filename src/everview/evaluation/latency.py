"""How long a step of a stream takes, where the time goes, and how it grows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from everview.evaluation.machine import describe, matrix_product_speed, synchronise
from everview.evaluation.metrics.streaming import first_and_last_third, latency
from everview.model.network import Network


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySettings:
    """What to measure."""

    size: tuple[int, int]
    """(height, width) of the frames in pixels."""
    frames: int = 30
    """Measured frames, after the warm-up; the past grows by one with each."""
    warm_up: int = 3
    """Frames before the measurement."""
    memory: str = "full"
    """Memory policy of the stream."""


def count_flop() -> FlopCounterMode:
    """A counter of floating-point operations that knows the attention kernel of CPUs too."""

    def of_attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401
        return sdpa_flop_count(q, k, v)

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: of_attention})


@dataclass(slots=True)
class AttentionClock:
    """Seconds spent in attention kernels."""

    device: torch.device
    seconds: float = 0.0
    calls: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every attention call inside the block."""
        kernel = F.scaled_dot_product_attention

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  -- same as the kernel
            synchronise(self.device)
            start = time.perf_counter()
            result = kernel(*args, **kwargs)
            synchronise(self.device)
            self.seconds += time.perf_counter() - start
            return result

        F.scaled_dot_product_attention = timed
        try:
            yield
        finally:
            F.scaled_dot_product_attention = kernel


def measure_latency(network: Network, settings: LatencySettings) -> dict[str, Any]:
    """Step through random frames and report seconds per frame.

    The network's parameters no longer require gradients afterwards.

    Returns:
        plain values for a JSON file: `seconds_per_frame` (median, p95, first, last), `attention`
        and `elsewhere` seconds of the first and last third, FLOP per frame, share of the measured
        peak of matrix products, cache bytes, the machine and the settings.
    """
    device = network.device
    dtype = network.precision
    network.requires_grad_(False)  # the FLOP counter would register gradient hooks
    peak = matrix_product_speed(dtype, device)
    image = torch.rand(3, *settings.size, device=device)
    total, attention = [], []
    with network.stream(settings.memory) as stream:
        for _ in range(settings.warm_up):
            stream.step(image)
        with count_flop() as counter:
            stream.step(image)
        for _ in range(settings.frames):
            clock = AttentionClock(device)
            synchronise(device)
            start = time.perf_counter()
            with clock.running():
                stream.step(image)
            synchronise(device)
            total.append(time.perf_counter() - start)
            attention.append(clock.seconds)
        report = stream.report()
    whole = latency(total)
    flop = counter.get_total_flops()
    elsewhere = [t - a for t, a in zip(total, attention, strict=True)]
    return {
        "seconds_per_frame": {
            "median": whole.median,
            "p95": whole.p95,
            "first": total[0],
            "last": total[-1],
        },
        "frames_per_second": 1 / whole.median,
        "attention_seconds": _thirds(attention),
        "elsewhere_seconds": _thirds(elsewhere),
        "flop_per_frame": flop,
        "share_of_matrix_product_peak": flop / whole.median / peak,
        "matrix_product_flop_per_second": peak,
        "cache_bytes": report.cache_bytes,
        "tokens": report.tokens,
        "precision": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in network.parameters()),
        "size": list(settings.size),
        "frames": settings.frames,
        "warm_up": settings.warm_up,
        "memory": report.policy,
        "machine": describe(device),
    }


def _thirds(values: list[float]) -> dict[str, float]:
    """What grows with the past shows here."""
    first, last = first_and_last_third(values)
    return {"first_third": first, "last_third": last}
