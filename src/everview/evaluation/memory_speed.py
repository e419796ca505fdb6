"""What remembering costs: a step of every policy, beside a cache that is concatenated anew.

One layer, random tokens, the same run: seconds of attention alone over the same number of tokens,
of a frame with our memory (write, attend, forget), and of a frame with the straightforward cache
that users of the peers have: keys and values concatenated per frame, and where something is
forgotten, what stays gathered into new tensors.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from everview.evaluation.machine import describe, synchronise
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies import parse
from everview.memory.reference import survivors
from everview.memory.size import TokenShape

BARE = "full"
PLAIN = "concatenated"
"""Name of the straightforward cache in results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySpeedSettings:
    """What to measure."""

    policies: Sequence[str]
    """Names and options without a budget, such as `key_diversity` or `window:bits=8`."""
    frames: Sequence[int]
    """Frames' worth of tokens of the past."""
    repetitions: int = 7
    """Frames that are timed; the median counts."""


class Concatenated:
    """A cache as it is first written: concatenated per frame; forgets as InfiniteVGGT does."""

    def __init__(self, budget: int | None = None) -> None:
        self._budget = budget
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def frame(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Take tokens in, forget what is too much, attend."""
        if self._keys is not None and self._values is not None:
            keys = torch.cat([self._keys, keys], dim=2)
            values = torch.cat([self._values, values], dim=2)
        if self._budget is not None and keys.shape[2] > self._budget:
            index, _ = survivors(keys, anchors=queries.shape[2], budget=self._budget)
            index = index[..., None].expand(-1, -1, -1, keys.shape[3])
            keys, values = keys.gather(2, index), values.gather(2, index)
        self._keys, self._values = keys, values
        return F.scaled_dot_product_attention(queries, keys, values)


@torch.no_grad()
def measure_memory_speed(shape: TokenShape, settings: MemorySpeedSettings) -> dict[str, Any]:
    """Seconds of a frame in one layer, by policy and length of the past.

    Returns:
        plain values for a JSON file; per policy and length `seconds`, `attention_seconds` (the
        kernel alone over as many tokens), `concatenated_seconds` (a cache that grows for `full`,
        one that forgets for the others), and medians of ratios of neighbouring turns:
        `update_share` (what is not attention, over attention) and `speed_up`.
    """
    rows = []
    for frames in settings.frames:
        tokens = frames * shape.per_frame
        for policy in settings.policies:
            is_bare = policy.startswith(BARE)
            steps = (
                _attention(shape, tokens + shape.per_frame),
                _plain(shape, tokens, None if is_bare else tokens),
                _ours(shape, tokens, _with_budget(policy, tokens)),
            )
            attention, plain, ours = _seconds(steps, shape, settings.repetitions)
            rows.append(
                {
                    "policy": policy,
                    "frames": frames,
                    "tokens": tokens,
                    "seconds": statistics.median(ours),
                    "attention_seconds": statistics.median(attention),
                    "concatenated_seconds": statistics.median(plain),
                    "update_share": _median_ratio(ours, attention) - 1,
                    "speed_up": _median_ratio(plain, ours),
                }
            )
    return {
        "format": "everview memory speed",
        "format_version": 1,
        "rows": rows,
        "shape": {
            "heads": shape.heads,
            "head_dim": shape.head_dim,
            "tokens_per_frame": shape.per_frame,
            "precision": str(shape.dtype).removeprefix("torch."),
        },
        "machine": describe(shape.device),
    }


def _with_budget(policy: str, tokens: int) -> str:
    if policy.startswith(BARE):
        return policy
    name, _, options = policy.partition(":")
    return f"{name}:tokens={tokens}" + (f",{options}" if options else "")


Step = Callable[[Tensor, Tensor, Tensor], Any]


def _attention(shape: TokenShape, tokens: int) -> Step:
    keys, values = _random(shape, tokens), _random(shape, tokens)
    return lambda queries, *_: F.scaled_dot_product_attention(queries, keys, values)


def _plain(shape: TokenShape, tokens: int, budget: int | None) -> Step:
    cache = Concatenated(budget)
    for size in (shape.per_frame, tokens - shape.per_frame):
        cache.frame(_random(shape, shape.per_frame), _random(shape, size), _random(shape, size))
    if budget is not None:
        return cache.frame

    def at_this_length(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        before = cache._keys, cache._values
        result = cache.frame(queries, keys, values)
        cache._keys, cache._values = before
        return result

    return at_this_length


def _ours(shape: TokenShape, tokens: int, text: str) -> Step:
    memory = parse(text).layer_memory(0)
    for size in (shape.per_frame, tokens - shape.per_frame):
        _frame(memory, _random(shape, shape.per_frame), _random(shape, size), _random(shape, size))
    is_full = text.startswith(BARE)

    def step(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        result = _frame(memory, queries, keys, values)
        if is_full:
            memory.truncate(tokens)  # costs nothing: the next frame overwrites
        return result

    return step


def _frame(memory: LayerMemory, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    memory.append(keys, values)
    result = memory.attend(queries)
    memory.settle()
    return result


def _seconds(steps: Sequence[Step], shape: TokenShape, repetitions: int) -> list[list[float]]:
    """Of every step, in turns, so that a slower machine slows all; the first does not count."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(repetitions + 1):
        tokens = [_random(shape, shape.per_frame) for _ in range(3)]
        for step, found in zip(steps, seconds, strict=True):
            synchronise(shape.device)
            started = time.perf_counter()
            step(*tokens)
            synchronise(shape.device)
            found.append(time.perf_counter() - started)
    return [found[1:] for found in seconds]


def _median_ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _random(shape: TokenShape, tokens: int) -> Tensor:
    size = (shape.batch, shape.heads, tokens, shape.head_dim)
    return torch.randn(size, device=shape.device).to(shape.dtype)
