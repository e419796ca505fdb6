"""The policies by name, and how they are read from text."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, runtime_checkable

from everview.errors import ConfigError
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies.bounded import AnchorWindow, Bounded, Random, Window, check_bits
from everview.memory.policies.diversity import KeyDiversity, LateMerge, Merge, ValueAware
from everview.memory.policies.frames import Coverage, FrameCover
from everview.memory.policies.queries import AttentionMass, QueryPooled


@runtime_checkable
class MemoryPolicy(Protocol):
    """Decides how much a stream may remember, and what."""

    name: ClassVar[str]

    @property
    def text(self) -> str:
        """The policy as `parse` reads it."""
        ...

    def layer_memory(self, layer: int) -> LayerMemory:
        """An empty memory for one aggregator layer."""
        ...

    def camera_memory(self) -> LayerMemory:
        """An empty memory for one trunk block and refinement round of the camera head."""
        ...

    @property
    def camera_policy(self) -> "MemoryPolicy":
        """What the camera head forgets."""
        ...

    def balance(self, memories: Sequence[LayerMemory], frame: int) -> None:
        """Share the budget among layers; after `frame` frames."""
        ...

    def shrunk(self, per_frame: int) -> "MemoryPolicy | None":
        """The same with a smaller budget, where memory has run out; None if there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Full:
    """Keeps every token: exact, and grows by 2 * layers * tokens * width values per frame."""

    name: ClassVar[str] = "full"

    bits: int | None = None
    """See `Bounded`."""

    def __post_init__(self) -> None:
        """Refuse bits that are not offered."""
        check_bits(self.name, self.bits)

    @property
    def text(self) -> str:
        """See MemoryPolicy.text."""
        return "full" if self.bits is None else f"full:bits={self.bits}"

    def layer_memory(self, layer: int) -> LayerMemory:  # noqa: ARG002  -- all are alike
        """See MemoryPolicy.layer_memory."""
        return LayerMemory(self.bits)

    def camera_memory(self) -> LayerMemory:
        """See MemoryPolicy.camera_memory."""
        return LayerMemory()

    @property
    def camera_policy(self) -> "Full":
        """See MemoryPolicy.camera_policy."""
        return Full()

    def balance(self, memories: Sequence[LayerMemory], frame: int) -> None:
        """There is nothing to share."""

    def shrunk(self, per_frame: int) -> None:
        """Nothing may be forgotten."""


POLICIES: MappingProxyType[str, type[Full] | type[Bounded]] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            Full, Window, AnchorWindow, Random, KeyDiversity, ValueAware, QueryPooled,
            AttentionMass, FrameCover, Merge, LateMerge, Coverage,
        )
    }
)  # fmt: skip
"""Name -> policy; its fields are the keys that `parse` accepts."""

AUTO_TOKENS = 8000
"""Per layer; published evidence: as many of good quality beat 50,000 (rolling_memory.md 7.6)."""
LEAST = 2
"""Frames that fit in any case: less is refused."""
SCALE_BYTES = 4 / 64
"""Per value in codes: scale and offset of 32 values, keys have none of their own."""


def parse(text: str) -> MemoryPolicy:
    """Read a policy from text: `POLICY:key=value,...`; `auto` is what `automatic` gives.

    Raises:
        ConfigError: if the policy, a key or a value is unknown, by name, or a budget is missing.
    """
    name, _, options = text.partition(":")
    if text == "auto":
        return automatic()
    if name not in POLICIES:
        raise ConfigError(f"memory policy {name!r} is unknown; choose from {', '.join(POLICIES)}")
    policy = POLICIES[name]
    known = {field.name: field for field in fields(policy)}
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        field = known.get(key)
        if field is None:
            offered = ", ".join(known)
            hint = f"its options are {offered}" if offered else f"write {name!r} alone"
            raise ConfigError(f"memory policy {name!r} has no option {key!r}; {hint}")
        if key in values:
            raise ConfigError(f"memory policy {text!r} has {key} twice: leave one of them out")
        values[field.name] = _value(name, key, value, field.type)
    return policy(**values)


def choices() -> list[MemoryPolicy]:
    """What a plan tries where no policy was asked for, the best first; see `automatic`."""
    return [KeyDiversity(tokens=AUTO_TOKENS, frames=LEAST, bits=bits) for bits in (None, 8, 4)]


def automatic(
    *, free_bytes: int | None = None, values: int = 1, value_bytes: int = 4, per_frame: int = 0
) -> MemoryPolicy:
    """The policy where none was asked for: bounded, in at most a quarter of the free memory.

    Where that has no room for two frames, in 8 or else 4 bits; two frames are kept in any case.

    Args:
        free_bytes: None if unknown.
        values: numbers in keys and values of a token, all layers.
        value_bytes: of each as the network makes it.
        per_frame: tokens of a frame of the size that the network was made for.
    """
    if free_bytes is None:
        return KeyDiversity(tokens=AUTO_TOKENS, frames=LEAST)
    tokens, bits = 0, None
    for bits in (None, 8, 4):
        each = value_bytes if bits is None else bits / 8 + SCALE_BYTES
        tokens = int(free_bytes / 4 / each / values)
        if tokens >= LEAST * per_frame:
            break
    return KeyDiversity(tokens=max(1, min(tokens, AUTO_TOKENS)), frames=LEAST, bits=bits)


def _value(policy: str, key: str, text: str, kind: Any) -> Any:  # noqa: ANN401
    """A value of the type of its field."""
    if kind is bool:
        if text not in ("true", "false"):
            raise ConfigError(f"memory policy {policy!r}: {key} is true or false, got {text!r}")
        return text == "true"
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            offered = " or ".join(get_args(kind))
            raise ConfigError(f"memory policy {policy!r}: {key} is {offered}, got {text}")
        return text
    number = float if kind is float else int
    if kind in (float, int, int | None):
        try:
            return number(text)
        except ValueError:
            what = "number" if number is float else "whole number"
            raise ConfigError(
                f"memory policy {policy!r}: {key} is a {what}, got {text!r}"
            ) from None
    return text
