"""Plan: what a stream will take, found out before it begins.

peak = what the process takes with the network loaded + what a step takes for a moment + the
stream's past. The first two are measured in a rehearsal of two steps, the last is a formula
(`everview.memory.size`). Attention to a large past, and forgetting, take longer and more for a
moment than in the rehearsal: that is measured on one layer, filled with random tokens.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from everview.errors import ConfigError, NotEnoughMemoryError
from everview.memory.policies import MemoryPolicy, choices, parse
from everview.memory.policies.bounded import Bounded
from everview.memory.size import TokenShape, filled, memory_bytes, timed_frame
from everview.model.config import Config
from everview.model.network import Network
from everview.pipeline.peak import PeakMemory
from everview.pipeline.run import bytes_as_text

REHEARSAL = "window:frames=2"
"""Policy of the rehearsal; its bytes are taken off again."""
TRIED = 50_000
"""Tokens that a layer is filled with at most to see what it takes; with more in proportion."""
TIMED = 3
"""Repetitions of a timed frame; the fastest counts."""
MARGIN = 1.03
"""Of what a message names: the same process measures a few MB more or less the next time."""
SHARES = (1.0, 0.9, 0.0)
"""Of what is free beside two frames, tried in turn, as what a step takes is not quite linear."""
SMALLER = (0.75, 0.5, 0.35)
"""Widths that are tried where nothing fits, as shares of the one that was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A memory policy and what it will take."""

    memory: str
    """The policy, as `Network.stream` takes it."""
    size: tuple[int, int]
    """(height, width) of what the network sees."""
    frame_tokens: int
    """Tokens of a frame."""
    tokens: int | None
    """Tokens per layer at most; None if all are kept."""
    bits: int | None
    """Of keys and values; None: as the network makes them."""
    base_bytes: int
    """The process with the network loaded."""
    step_bytes: int
    """What a step takes for a moment."""
    extra_bytes: int
    """What the program takes besides, such as a recorder."""
    state_bytes: int | None
    """The stream's past in the end; None if it grows and the source's length is unknown."""
    written_bytes: int | None
    """The part of it that a source of this length writes to; on a CPU the rest takes nothing."""
    limit: int | None
    """What was allowed."""
    seconds_per_frame: float
    """With a past of this size."""

    @property
    def peak_bytes(self) -> int | None:
        """All together."""
        state = self.written_bytes
        return None if state is None else self._without_state() + state

    @property
    def room_bytes(self) -> int | None:
        """What the limit leaves for the stream's past."""
        if self.limit is None:
            return None
        return max(1, self.limit - self._without_state())

    def _without_state(self) -> int:
        return self.base_bytes + self.step_bytes + self.extra_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"peak_bytes": self.peak_bytes}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rehearsal:
    base_bytes: int
    step_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """A frame in one layer with its past."""

    scratch_bytes: int
    seconds: float


def make_plan(
    network: Network,
    size: tuple[int, int],
    *,
    memory: str = "auto",
    limit: int | None = None,
    num_frames: int | None = None,
    extra_bytes: int = 0,
) -> Plan:
    """Choose a policy that fits, or check one that was asked for.

    Args:
        network: causal, loaded.
        size: (height, width) of the frames as the network sees them.
        memory: policy; `auto` with a limit becomes key_diversity with 8,000 tokens per layer if
            they fit, else in 8 or 4 bits, else with as many tokens as fit.
        limit: bytes of the whole process, or of a GPU's memory; None: as much as there is.
        num_frames: length of the source, for policies that grow; None if unknown.
        extra_bytes: what the program takes besides, such as a recorder.

    Raises:
        ConfigError: if the network is not causal or the policy cannot hold a frame.
        NotEnoughMemoryError: if nothing fits, with what would.
    """
    planner = _Planner(network, size, limit, num_frames, extra_bytes)
    if memory != "auto" or limit is None:
        policy = _resolved(network, memory)
        plan = planner.plan(policy)
        peak = plan.peak_bytes
        if limit is not None and peak is not None and peak > limit:
            raise NotEnoughMemoryError(
                f"{memory} at {size[0]}x{size[1]} needs {bytes_as_text(peak)} at its peak, the "
                f"limit is {bytes_as_text(limit)}. {planner.what_fits(policy)}"
            )
        return plan
    for policy in planner.candidates():
        plan = planner.plan(policy)
        assert plan.peak_bytes is not None, "candidates are bounded"
        if plan.peak_bytes <= limit:
            return plan
    raise NotEnoughMemoryError(
        f"a stream at {size[0]}x{size[1]} does not fit into {bytes_as_text(limit)}. "
        f"{planner.what_fits()}"
    )


def _resolved(network: Network, memory: str) -> MemoryPolicy:
    if memory != "auto":
        return parse(memory)
    with network.stream("auto") as stream:
        return parse(stream.report().policy)


class _Planner:
    """Plans for one network and size."""

    def __init__(
        self, network: Network, size: tuple[int, int], limit: int | None, num_frames: int | None,
        extra_bytes: int,
    ) -> None:  # fmt: skip
        self._network, self._size, self._extra = network, size, extra_bytes
        self._limit, self._num_frames = limit, num_frames
        self._rehearsal = _rehearse(network, size)
        self._trials: dict[tuple[str, int], _Trial] = {}
        self._shape = layer_shape(network.config, size, network.precision, network.device)
        self._camera = _camera_shape(network)

    def plan(self, policy: MemoryPolicy) -> Plan:
        shape, rehearsal = self._shape, self._rehearsal
        tokens = policy.tokens_for(shape.per_frame) if isinstance(policy, Bounded) else None
        trial = self._trial(policy, self._past(tokens))
        short = self._trial(parse(REHEARSAL), 2 * shape.per_frame)
        longer = shape.layers * max(0.0, trial.seconds - short.seconds)
        return Plan(
            memory=policy.text,
            size=self._size,
            frame_tokens=shape.per_frame,
            tokens=tokens,
            bits=getattr(policy, "bits", None),
            base_bytes=rehearsal.base_bytes,
            step_bytes=max(rehearsal.step_bytes, trial.scratch_bytes),
            extra_bytes=self._extra,
            state_bytes=self._state(policy),
            written_bytes=self._written(policy),
            limit=self._limit,
            seconds_per_frame=rehearsal.seconds + longer,
        )

    def candidates(self) -> Iterator[Bounded]:
        """Policies for `auto`, the best first: many tokens as they are, then in few bits."""
        assert self._limit is not None, "without a limit there is nothing to try"
        room = self._limit - self._rehearsal.base_bytes - self._extra
        offered = [policy for policy in choices() if isinstance(policy, Bounded)]
        yield from (policy for policy in offered if (self._written(policy) or 0) <= room)
        for policy in offered[1:]:
            yield from self._largest(policy, self._limit)

    def what_fits(self, policy: MemoryPolicy | None = None) -> str:
        """The rest of a message: what to type instead of a policy, or of `auto`."""
        assert self._limit is not None, "only a limit can be too small"
        advice = []
        if policy is not None:
            needed = _round_up(int(MARGIN * (self.plan(policy).peak_bytes or 0)))
            advice.append(f"--memory-limit {needed} is enough for this policy")
        if policy is not None and MARGIN * self.least_bytes() <= self._limit:
            advice.append("--memory auto fits this limit")
        else:
            least = _round_up(int(MARGIN * self.least_bytes()))
            with_auto = " with --memory auto" if policy is not None else ""
            advice.append(f"the least at this size is --memory-limit {least}{with_auto}")
        for share in SMALLER:
            patch = self._network.config.patch_size
            height, width = (max(patch, int(v * share) // patch * patch) for v in self._size)
            other = _Planner(
                self._network, (height, width), self._limit, self._num_frames, self._extra
            )
            peak = other.least_bytes() if policy is None else other.plan(policy).peak_bytes
            if MARGIN * (peak or 0) <= self._limit:
                advice.append(f"--size {width} fits")
                break
        return "Of what could be done: " + "; ".join(advice)

    def least_bytes(self) -> int:
        """The peak with the smallest policy that is offered."""
        smallest = [policy for policy in choices() if isinstance(policy, Bounded)][-1]
        return self._reserved_peak(smallest, smallest.least_tokens(self._shape.per_frame))

    def _largest(self, policy: Bounded, limit: int) -> Iterator[Bounded]:
        """The same policy with as many tokens as fit all through, if at least two frames do."""
        least = policy.least_tokens(self._shape.per_frame)
        low = self._reserved_peak(policy, least)
        most = max(least + 1, policy.tokens or 0)
        per_token = (self._reserved_peak(policy, most) - low) / (most - least)
        more = min(limit - low, per_token * (most - least)) / per_token
        if more >= 0:
            for share in SHARES:
                yield replace(policy, tokens=least + int(share * more))

    def _reserved_peak(self, policy: Bounded, tokens: int) -> int:
        """Peak with another budget, all of it taken."""
        sized = replace(policy, tokens=tokens)
        step = max(self._rehearsal.step_bytes, self._trial(sized, tokens).scratch_bytes)
        return self._rehearsal.base_bytes + step + self._extra + (self._state(sized) or 0)

    def _written(self, policy: MemoryPolicy) -> int | None:
        return self._state(policy, written=self._network.device.type == "cpu")

    def _state(self, policy: MemoryPolicy, *, written: bool = False) -> int | None:
        layers, camera = (
            memory_bytes(which, shape, num_frames=self._num_frames, written=written)
            for which, shape in ((policy, self._shape), (policy.camera_policy, self._camera))
        )
        if layers is None or camera is None:
            return None
        return layers + camera + self._tokens_bytes()

    def _tokens_bytes(self) -> int:
        """The latest frame's tokens in the layers that the heads read."""
        aggregator = self._network.aggregator
        width = 2 * self._network.config.aggregator.embed_dim
        return len(aggregator.layers) * self._shape.per_frame * width * 4

    def _past(self, tokens: int | None) -> int:
        """Tokens of a layer in the end; of a past that grows without end, those of a short one."""
        known = [] if self._num_frames is None else [self._num_frames * self._shape.per_frame]
        known += [] if tokens is None else [tokens]
        return min(known, default=2 * self._shape.per_frame)

    def _trial(self, policy: MemoryPolicy, tokens: int) -> _Trial:
        """What one layer takes for a frame, attention and forgetting; measured once for each."""
        key = policy.text, tokens
        if key not in self._trials:
            self._trials[key] = _try_layer(policy, self._shape, tokens)
        return self._trials[key]


@torch.no_grad()
def _rehearse(network: Network, size: tuple[int, int]) -> _Rehearsal:
    """Two steps of a stream that forgets at once."""
    if network.config.attention != "causal":
        raise ConfigError("a plan is for a stream, which needs a causal network such as mini")
    image = torch.zeros(3, *size)
    peak = PeakMemory(network.device)
    with network.stream(REHEARSAL) as stream:
        stream.step(image)
        base = peak.now
        peak.reset()
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            stream.step(image).numpy()
            seconds.append(time.perf_counter() - started)
        highest = peak.peak
        state = stream.report().state_bytes
    return _Rehearsal(base_bytes=base - state, step_bytes=highest - base, seconds=min(seconds))


@torch.no_grad()
def _try_layer(policy: MemoryPolicy, shape: TokenShape, tokens: int) -> _Trial:
    """Frames in one layer that is filled before."""
    tried = min(tokens, TRIED)
    if isinstance(policy, Bounded) and tried < tokens:
        policy = replace(policy, tokens=tried - tried % shape.per_frame, frames=None)
        tried = policy.tokens_for(shape.per_frame)
    peak = PeakMemory(shape.device)
    memory = filled(policy, shape, tried)
    peak.reset()
    before = peak.now
    seconds = min(timed_frame(memory, shape) for _ in range(TIMED))
    scratch = peak.peak - before
    del memory
    peak.reset()  # gives back what was taken for the trial
    return _Trial(scratch_bytes=scratch * tokens // tried, seconds=seconds * tokens / tried)


def layer_shape(
    config: Config, size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> TokenShape:
    """What the aggregator's layers remember of frames of this (height, width)."""
    aggregator = config.aggregator
    patches = (size[0] // config.patch_size) * (size[1] // config.patch_size)
    return TokenShape(
        layers=aggregator.depth,
        heads=aggregator.num_heads,
        head_dim=aggregator.embed_dim // aggregator.num_heads,
        per_frame=1 + aggregator.num_register_tokens + patches,
        dtype=dtype,
        device=device,
    )


def _camera_shape(network: Network) -> TokenShape:
    camera = network.config.camera_head
    return TokenShape(
        layers=camera.num_iterations * camera.trunk_depth,
        heads=camera.num_heads,
        head_dim=camera.dim_in // camera.num_heads,
        per_frame=1,
        dtype=torch.float32,
        device=network.device,
    )


def _round_up(num_bytes: int) -> str:
    """In MB, never less than it is."""
    return f"{-(-num_bytes // 10**6)}MB"
