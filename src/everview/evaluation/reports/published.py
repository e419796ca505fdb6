"""Numbers as the papers print them, to stand beside our own; the facts are in `published.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

NOT_FOUND = "-"
"""Cell of a value that was not found in any paper."""
USUAL = ""
"""Value of a setting that our result files leave null; TOML knows no null."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One method in one table."""

    method: str
    source: str
    """Paper in whose table the row stands; empty: any of the table's."""
    values: Mapping[str, float]
    """Score, by the name of our result files -> value; only those that were found."""
    remark: str = ""
    """Why there is no value, such as `out of memory`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """One table: methods that were measured in the same way."""

    benchmark: str
    """Name of `everview eval list`."""
    setting: str
    """Which frames, which alignment, whose table; for people."""
    metrics: tuple[str, ...]
    """Scores in the table's order."""
    rows: tuple[PublishedRow, ...]
    source: tuple[str, ...]
    """Papers in which it stands."""
    protocol: Mapping[str, Any]
    """What is known of how it was measured, by the names of `protocol` of our result files; None as
    there: what the benchmark does by itself."""
    is_comparable: bool = True
    """False where the papers' own protocol is none that our runs have."""
    clip: str | None = None
    """The only clip that it is about; None: a mean over all."""
    note: str = ""
    """What to know before comparing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCost:
    """Time or memory of one method."""

    quantity: str
    unit: str
    method: str
    conditions: str
    value: float
    source: str


def published_tables(benchmark: str | None = None) -> tuple[PublishedTable, ...]:
    """All tables, or those of one benchmark, in the order of the file."""
    tables = tuple(map(_table, _content()["tables"]))
    return tuple(t for t in tables if benchmark is None or t.benchmark == benchmark)


def published_costs() -> tuple[PublishedCost, ...]:
    """Published times and memory, in the order of the file."""
    names = ("quantity", "unit", "method", "conditions", "value", "source")
    rows = _content()["costs"]["rows"]
    return tuple(PublishedCost(**dict(zip(names, row, strict=True))) for row in rows)


def set_sizes(benchmark: str) -> dict[str, tuple[int, ...]]:
    """How many `clips` or `frames` a whole set has; several where copies differ; empty: unknown."""
    found = _content()["sets"].get(benchmark, {})
    return {what: tuple(numbers) for what, numbers in found.items()}


def arxiv_numbers() -> dict[str, str]:
    """Paper -> its number at arXiv, of those that have one here."""
    return dict(_content()["papers"])


@cache
def _content() -> dict[str, Any]:
    text = files("everview.evaluation.reports").joinpath("published.toml").read_text("utf-8")
    return tomllib.loads(text)


def _table(entry: Mapping[str, Any]) -> PublishedTable:
    return PublishedTable(
        benchmark=entry["benchmark"],
        setting=entry["setting"],
        metrics=tuple(entry["metrics"]),
        rows=tuple(_row(cells, entry["metrics"]) for cells in entry["rows"]),
        source=tuple(entry["source"]),
        protocol={n: None if v == USUAL else v for n, v in entry["protocol"].items()},
        is_comparable=entry.get("comparable", True),
        clip=entry.get("clip"),
        note=entry.get("note", ""),
    )


def _row(cells: list[Any], metrics: list[str]) -> PublishedRow:
    method, source, *values = cells
    if len(values) == 1 and isinstance(values[0], str):
        return PublishedRow(method=method, source=source, values={}, remark=values[0])
    pairs = zip(metrics, values, strict=True)
    found = {name: float(value) for name, value in pairs if value != NOT_FOUND}
    return PublishedRow(method=method, source=source, values=found)
