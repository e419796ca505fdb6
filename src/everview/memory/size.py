"""What a policy's memory takes, before it is taken."""

import dataclasses
import math
import time

import torch

from everview.memory.layer_memory import LayerMemory
from everview.memory.policies import MemoryPolicy
from everview.memory.policies.bounded import Bounded

SAMPLE = 2
"""Frames' worth of tokens from which bytes per token are taken."""
PIECES = 16
"""Appends by which a memory is filled."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenShape:
    """The tokens that one layer remembers."""

    layers: int
    """Layers that are alike."""
    heads: int
    head_dim: int
    per_frame: int
    """Tokens of a frame."""
    dtype: torch.dtype
    device: torch.device
    batch: int = 1


def memory_bytes(
    policy: MemoryPolicy, shape: TokenShape, *, num_frames: int | None, written: bool = False
) -> int | None:
    """Bytes that all layers reserve in the end; exact, or with `budget=adaptive` the most.

    layers * ((budget + per_frame) * bytes of a token + bytes of the scales) for a bounded policy.
    `full` doubles its storage, so it has room for a power of two of frames.

    Args:
        num_frames: length of the stream, for policies that grow; None if unknown.
        written: only what a stream of this length ever writes to: on a CPU the system gives no
            memory for the rest.

    Returns:
        None if the policy grows and the length is unknown.

    Raises:
        ConfigError: if the budget is below the policy's least.
    """
    most = None if num_frames is None else num_frames * shape.per_frame
    if isinstance(policy, Bounded):
        room = policy.most_tokens(shape.per_frame, shape.layers) + shape.per_frame
        small = dataclasses.replace(policy, tokens=SAMPLE * shape.per_frame, frames=None)
        sample = small.layer_memory(0), (SAMPLE + 1) * shape.per_frame
    elif most is None:
        return None
    else:
        room = shape.per_frame * 2 ** max(0, (num_frames or 1) - 1).bit_length()
        sample = policy.layer_memory(0), shape.per_frame
    per_token, fixed = _bytes(sample[0], shape, room=sample[1])
    tokens = min(room, most) if written and most is not None else room
    return shape.layers * (tokens * per_token + fixed)


def filled(policy: MemoryPolicy, shape: TokenShape, tokens: int) -> LayerMemory:
    """The memory of one layer with so many random tokens in it, at least those of a frame."""
    memory = policy.layer_memory(0)
    timed_frame(memory, shape)
    piece = shape.per_frame * math.ceil(tokens / shape.per_frame / PIECES)
    while memory.num_tokens < tokens:
        timed_frame(memory, shape, tokens=min(piece, tokens - memory.num_tokens))
    return memory


def timed_frame(memory: LayerMemory, shape: TokenShape, *, tokens: int | None = None) -> float:
    """Seconds of a random frame in one layer: attention to all that is held, and forgetting."""
    keys, values = (_random(shape, tokens or shape.per_frame) for _ in range(2))
    queries = _random(shape, shape.per_frame)
    _wait(shape.device)
    started = time.perf_counter()
    memory.append(keys, values)
    memory.attend(queries)
    memory.settle()
    _wait(shape.device)
    return time.perf_counter() - started


def _random(shape: TokenShape, tokens: int) -> torch.Tensor:
    size = (shape.batch, shape.heads, tokens, shape.head_dim)
    return torch.randn(size, device=shape.device).to(shape.dtype)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _bytes(memory: LayerMemory, shape: TokenShape, *, room: int) -> tuple[int, int]:
    """Bytes of a token, and of what does not depend on their number."""
    tokens = _random(shape, shape.per_frame)
    memory.append(tokens, tokens)
    fixed = memory.scale_bytes
    return (memory.reserved_bytes - fixed) // room, fixed
