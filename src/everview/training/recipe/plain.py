"""Nested dataclasses from plain values, as YAML and command lines give them, and back."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

import yaml

from everview.errors import ConfigError


def to_plain(value: Any) -> Any:  # noqa: ANN401  -- any setting
    """Mappings, lists and scalars that YAML can hold."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    return value


def from_plain(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401  -- any type
    """The value as the type that a setting has.

    Args:
        kind: dataclass, scalar, Literal, X | None, tuple or Mapping.
        value: plain.
        where: name of the setting, for messages.

    Raises:
        ConfigError: if a key is unknown or a value is of another type; names the setting.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _record(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        (only,) = (part for part in inner if part is not type(None))
        return None if value is None else from_plain(only, value, where)
    if origin is Literal:
        if value not in inner:
            raise _refused(where, f"one of {', '.join(map(repr, inner))}", value)
        return value
    if origin is tuple:
        return _sequence(inner, value, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _refused(where, "a mapping of names to values", value)
        return {str(k): from_plain(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(kind, value, where)


def with_overrides(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of plain settings with `part.field=value` applied, values written as in YAML.

    A number picks from a list (`stages.0.images=8`). Whether the names exist is found out by
    `from_plain`.

    Raises:
        ConfigError: if an override is no `name=value`, or names no item of a list.
    """
    result = _copied(plain)
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator or not name.strip():
            raise ConfigError(
                f"{override!r} sets nothing: write --set optimiser.learning_rate=1e-4"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override!r}: {text!r} is no YAML value ({error})") from error
        _assign(result, name.strip().split("."), value, name)
    return result


def _record(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise _refused(where, f"settings of {kind.__name__}", value)
    hints = typing.get_type_hints(kind)
    unknown = sorted(str(key) for key in value if key not in hints)
    if unknown:
        raise ConfigError(
            f"{where} has no setting {unknown[0]!r}; it has {', '.join(sorted(hints))}"
        )
    return kind(**{k: from_plain(hints[k], v, f"{where}.{k}") for k, v in value.items()})


def _sequence(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401
    is_open = inner[-1] is Ellipsis
    count = "a list" if is_open else f"a list of {len(inner)}"
    if not isinstance(value, list | tuple) or (not is_open and len(value) != len(inner)):
        raise _refused(where, count, value)
    kinds = [inner[0]] * len(value) if is_open else inner
    return tuple(
        from_plain(kind, part, f"{where}.{i}")
        for i, (kind, part) in enumerate(zip(kinds, value, strict=True))
    )


def _scalar(kind: type, value: Any, where: str) -> Any:  # noqa: ANN401
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # text too: YAML takes 1e-4 for a word
        except ValueError:
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise _refused(where, names[kind], value)


def _refused(where: str, wanted: str, value: Any) -> ConfigError:  # noqa: ANN401
    return ConfigError(f"{where} must be {wanted}; got {value!r}")


def _copied(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def _assign(target: Any, path: Sequence[str], value: Any, name: str) -> None:  # noqa: ANN401
    head, *rest = path
    if isinstance(target, list):
        if not head.isdecimal() or int(head) >= len(target):
            raise ConfigError(f"{name}: {head!r} is none of the items 0 .. {len(target) - 1}")
        key: Any = int(head)
    else:
        key = head
    if not rest:
        target[key] = value
        return
    if not isinstance(target, list) and not isinstance(target.get(key), dict | list):
        target[key] = {}
    _assign(target[key], rest, value, name)
