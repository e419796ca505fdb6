"""Which parameters learn: rules by name, and a count that is checked."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from everview.errors import ConfigError


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted name fits any pattern; `*` also stands for dots."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def freeze(module: nn.Module, patterns: Iterable[str]) -> None:
    """Take parameters out of training by name.

    Every parameter itself is told: setting the attribute on a module does nothing.

    Raises:
        ConfigError: if a pattern fits no parameter; it would silently freeze nothing.
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"network.frozen: {pattern!r} fits no parameter; names are such as {names[0]} and "
                f"{names[-1]}, and `*` stands for any part of one"
            )
    for name, parameter in module.named_parameters():
        if matches(name, patterns):
            parameter.requires_grad_(False)


def num_trainable(module: nn.Module) -> int:
    """How many numbers learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def check_trainable(module: nn.Module, expected: int | None) -> None:
    """Compare the count of numbers that learn with what the recipe says.

    Raises:
        ConfigError: if it differs, or nothing learns.
    """
    found = num_trainable(module)
    if not found:
        raise ConfigError("network.frozen leaves nothing to learn: remove a pattern")
    if expected is not None and found != expected:
        raise ConfigError(
            f"network.trainable_parameters is {expected:,}, but {found:,} numbers learn: correct "
            "network.frozen or the count"
        )
