"""What a stream forgets. So far nothing: bounded policies join this table."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from everview.errors import ConfigError


@runtime_checkable
class MemoryPolicy(Protocol):
    """Decides how much a stream may remember."""

    @property
    def text(self) -> str:
        """The policy as `parse` reads it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Full:
    """Keeps every token: exact, and grows by 2 * layers * tokens * width values per frame."""

    @property
    def text(self) -> str:
        """See MemoryPolicy.text."""
        return "full"


POLICIES: MappingProxyType[str, Callable[..., MemoryPolicy]] = MappingProxyType({"full": Full})
"""Name -> policy; the keyword arguments are the keys that `parse` accepts."""


def parse(text: str) -> MemoryPolicy:
    """Read a policy from text: `POLICY:key=value,...`; `auto` stands for `full` for now.

    Raises:
        ConfigError: if the policy or a key is unknown, by name.
    """
    name, _, options = text.partition(":")
    if name == "auto":
        name = "full"
    if name not in POLICIES:
        raise ConfigError(f"memory policy {name!r} is unknown; choose from {', '.join(POLICIES)}")
    if options:
        key = options.partition("=")[0]
        raise ConfigError(f"memory policy {name!r} has no option {key!r}; write {name!r} alone")
    return POLICIES[name]()
