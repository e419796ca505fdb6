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
        values[field.name] = _value(name, key, value, field.type)
    return policy(**values)


def choices() -> list[MemoryPolicy]:
    """What a plan tries where no policy was asked for, the best first; see `automatic`."""
    return [KeyDiversity(tokens=AUTO_TOKENS, bits=bits) for bits in (None, 8, 4)]


def automatic(token_bytes: int = 0, free_bytes: int | None = None) -> MemoryPolicy:
    """The policy where none was asked for: bounded, in at most a quarter of the free memory.

    Args:
        token_bytes: keys and values of a token in all layers.
        free_bytes: None if unknown.
    """
    tokens = AUTO_TOKENS
    if free_bytes is not None and token_bytes:
        tokens = max(1, min(tokens, free_bytes // 4 // token_bytes))
    return KeyDiversity(tokens=tokens)


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
