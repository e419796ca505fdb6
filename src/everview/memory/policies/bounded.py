"""What all bounded policies have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.candidates import Slots
from everview.memory.codes import BITS
from everview.memory.layer_memory import LayerMemory
from everview.memory.slots import SlotMemory

CAMERA_FRAMES = 256
"""Frames that the camera head remembers: the first and the latest."""
MOST = 2**31 - 1
"""Of tokens or frames of a budget: no machine holds more, and sizes in bytes stay below 2^63."""


@dataclass(frozen=True, kw_only=True)
class Bounded(ABC):
    """A policy that keeps at most so many tokens per layer.

    The frame that arrives attends to all of the memory and to itself; then as many tokens are
    forgotten as are too many (docs/decisions/0010). Cost per frame and layer besides: see each.
    """

    name: ClassVar[str]
    """As `parse` reads it."""
    protects_first_frame: ClassVar[bool] = True
    """The first frame, in whose coordinates everything is told, is never forgotten."""
    whole_frames: ClassVar[bool] = False
    """Tokens of a frame are kept or forgotten together; the budget is cut to whole frames."""
    watches_queries: ClassVar[bool] = False
    """Needs the queries of the newest frame."""
    counts: ClassVar[bool] = False
    """Tokens may stand for several: attention gets a bias of their note `log_count`."""
    notes: ClassVar[tuple[str, ...]] = ()
    """Names of float32 numbers that are kept beside each token."""

    tokens: int | None = None
    """Tokens per layer, those of the first frame included."""
    frames: int | None = None
    """The same in frames' worth of tokens; of both, whichever is more."""
    camera: int = CAMERA_FRAMES
    """Frames that the camera head remembers."""
    bits: int | None = None
    """Of a channel of a key or value: 16, 8 or 4; None: as the network makes them."""

    def __post_init__(self) -> None:
        """Refuse budgets that are missing or below their least, and unknown bits."""
        check_bits(self.name, self.bits)
        if self.tokens is None and self.frames is None:
            raise ConfigError(
                f"memory policy {self.name!r} needs a budget: {self.name}:tokens=8000 (per layer, "
                f"first frame included) or {self.name}:frames=10"
            )
        for key, least in (("tokens", 1), ("frames", 2), ("camera", 2)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(
                    f"memory policy {self.name!r}: {key} must be >= {least}, got {value}"
                )
            if value is not None and value > MOST:
                raise ConfigError(
                    f"memory policy {self.name!r}: {key} must be <= {MOST}, got {value}; write "
                    "full to forget nothing"
                )

    @property
    def text(self) -> str:
        """See MemoryPolicy.text."""
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                shown.append(f"{field.name}={str(value).lower()}")
        return f"{self.name}:{','.join(shown)}"

    def layer_memory(self, layer: int) -> LayerMemory:
        """The memory of one aggregator layer."""
        return SlotMemory(self, layer)

    def camera_memory(self) -> LayerMemory:
        """The memory of one trunk block and refinement round of the camera head."""
        return self.camera_policy.layer_memory(0)

    @property
    def camera_policy(self) -> "CameraWindow":
        """What the camera head forgets."""
        return CameraWindow(frames=self.camera)

    def tokens_for(self, per_frame: int) -> int:
        """Tokens of a layer, given those of a frame.

        Raises:
            ConfigError: if there is no room for the protected frame and a new one.
        """
        budget = max(self.tokens or 0, (self.frames or 0) * per_frame)
        if self.whole_frames:
            budget -= budget % per_frame
        least = self.least_tokens(per_frame)
        if budget < least:
            raise ConfigError(
                f"memory policy {self.text!r} holds {budget} tokens per layer, but frames of this "
                f"size have {per_frame} and {least} are the least: write {self.name}:tokens={least}"
                " or more"
            )
        return budget

    def most_tokens(self, per_frame: int, layers: int) -> int:  # noqa: ARG002
        """The most that one of so many layers ever holds after a frame."""
        return self.tokens_for(per_frame)

    def shrunk(self, per_frame: int) -> "Bounded | None":
        """The same with three quarters of the budget; None if there is nothing to take.

        Args:
            per_frame: tokens of a frame.
        """
        budget = self.tokens_for(per_frame)
        smaller = max(3 * budget // 4, self.least_tokens(per_frame))
        if self.whole_frames:
            smaller -= smaller % per_frame
        return replace(self, tokens=smaller, frames=None) if smaller < budget else None

    def least_tokens(self, per_frame: int) -> int:
        """The smallest budget: a new frame and, if it is protected, the first one."""
        return 2 * per_frame if self.protects_first_frame else per_frame

    @abstractmethod
    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Which candidates to forget; heads is 1 where all heads forget the same.

        Args:
            slots: all candidates: what is remembered but the protected frame, then the newest
                frame.
            count: how many.
        """

    def arrive(self, slots: Slots) -> None:  # noqa: B027  -- most note nothing
        """Note what the policy keeps beside each token: assign to `slots.notes`."""

    def is_routine(self, frame: int) -> bool:  # noqa: ARG002
        """Whether the host does for this frame what it did for the one before; 1 is the first."""
        return True

    def balance(self, memories: Sequence[LayerMemory], frame: int) -> None:  # noqa: B027
        """Share the budget among layers; after `frame` frames."""


def check_bits(policy: str, bits: int | None) -> None:
    """Raise ConfigError for bits that are not offered."""
    if bits is not None and bits not in BITS:
        raise ConfigError(
            f"memory policy {policy!r}: bits must be {', '.join(map(str, BITS))}, got {bits}; "
            "without it keys and values stay as the network makes them"
        )


def most(redundancy: Num[Tensor, "b heads c"], count: int) -> Int[Tensor, "b heads count"]:
    """The most redundant candidates."""
    return redundancy.topk(count, dim=-1, sorted=False).indices


def kept_back(redundancy: Float[Tensor, "b heads c"], num_new: int) -> Float[Tensor, "b heads c"]:
    """The same with the newest frame out of reach."""
    redundancy[..., redundancy.shape[-1] - num_new :] = -torch.inf
    return redundancy


@dataclass(frozen=True, kw_only=True)
class Window(Bounded):
    """The latest tokens only. No cost beyond the copy of a frame's tokens."""

    name: ClassVar[str] = "window"
    protects_first_frame: ClassVar[bool] = False

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """The oldest."""
        return most(-slots.order[:, :1], count)


@dataclass(frozen=True, kw_only=True)
class AnchorWindow(Window):
    """The first frame and the latest tokens, as StreamingLLM (arXiv 2309.17453) and STream3R."""

    name: ClassVar[str] = "anchor_window"
    protects_first_frame: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class CameraWindow(AnchorWindow):
    """What the camera head forgets: all but the first frame and the latest."""

    name: ClassVar[str] = "camera"


@dataclass(frozen=True, kw_only=True)
class Random(Bounded):
    """Every past token with the same probability: the control. Cost: M hashes."""

    name: ClassVar[str] = "random"
    seed: int = 0
    """Of the choice."""

    def __post_init__(self) -> None:
        """See Bounded."""
        super().__post_init__()
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(
                f"memory policy {self.name!r}: seed must be from -2^63 to 2^63 - 1, got {self.seed}"
            )

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Those with the largest hash, which each token has for life: a reservoir sample."""
        heads = torch.arange(slots.order.shape[1], device=slots.order.device)
        salt = _hashed(torch.full_like(heads, self.seed)) + heads + 4096 * slots.layer
        return most(_hashed(slots.order + _hashed(salt)[:, None]), count)


def _hashed(numbers: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """SplitMix64's mixing (Steele, Lea, Flood 2014), on signed integers that wrap."""
    x = numbers * -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
