"""What recording a step saves: the same frames, taken and replayed in turn."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.machine import describe, synchronise
from everview.geometry.prediction import Prediction
from everview.model.capture import CapturedStream, Recorder
from everview.model.network import Network
from everview.model.stream import Stream

REMEMBERED = 8
"""Frames that aggregator and camera head remember."""
WARM_UP = REMEMBERED + 4
"""Frames until memory is full, one step was taken like that, and one was recorded."""


def measure_captured(
    network: Network, size: tuple[int, int], *, policy: str, frames: int = 50,
    record: Recorder | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Step two streams through the same random frames, one of which replays its steps.

    Args:
        network: causal, on a GPU.
        size: (height, width) of the frames in pixels.
        policy: bounded, such as `late_merge:bits=8`, without a budget.
        frames: measured ones.
        record: as `CapturedStream`.

    Returns:
        plain values: median seconds of a step taken and replayed, the median of their ratios,
        the largest difference between their predictions, policy, size, precision, machine.
    """
    text = f"{policy}{',' if ':' in policy else ':'}frames={REMEMBERED},camera={REMEMBERED}"
    eager, captured = network.stream(text), CapturedStream(network.stream(text), record)
    pairs, differences = [], []
    for i in range(WARM_UP + frames):
        image = torch.rand(3, *size, device=network.device)
        taken, expected = _timed(eager, image)
        replayed, found = _timed(captured, image)
        if i >= WARM_UP:
            pairs.append((taken, replayed))
            differences.append(_difference(found, expected))
    return {
        "policy": text,
        "seconds": {
            "taken": median(taken for taken, _ in pairs),
            "replayed": median(replayed for _, replayed in pairs),
        },
        "speed_up": median(taken / replayed for taken, replayed in pairs),
        "largest_difference": max(differences),
        "frames": frames,
        "size": list(size),
        "precision": str(network.precision).removeprefix("torch."),
        "machine": describe(network.device),
    }


def _timed(stream: Stream, image: Tensor) -> tuple[float, Prediction]:
    synchronise(image.device)
    start = time.perf_counter()
    prediction = stream.step(image)
    synchronise(image.device)
    return time.perf_counter() - start, prediction


def _difference(found: Prediction, expected: Prediction) -> float:
    """Largest, of pose encodings and depth."""
    pairs = [(found.pose_encoding, expected.pose_encoding), (found.depth, expected.depth)]
    return max(
        float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
        for a, b in pairs if a is not None and b is not None
    )  # fmt: skip
