"""The files of a report, sorted by what they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everview.errors import ConfigError, InputError
from everview.evaluation.reports.results import (
    ForeignResultError,
    ResultFile,
    read_json,
    read_result,
)

LATENCY = "everview latency scaling"
"""Format of the result of `benchmarks/latency_scaling.py`."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Result files of a report."""

    results: tuple[ResultFile, ...]
    latency: tuple[Mapping[str, Any], ...] = ()
    """Contents of results about latency."""
    skipped: tuple[str, ...] = ()
    """Why a file was left out, with its name."""


def read_inputs(files: Iterable[Path]) -> Inputs:
    """Read result files; a folder stands for all its `.json`.

    Raises:
        ConfigError: if no file is named.
        InputError: if a result is damaged, or none of the files is one; names it.
    """
    paths = [p for f in files for p in (sorted(f.glob("*.json")) if f.is_dir() else [f])]
    if not paths:
        raise ConfigError("name result files: everview eval report results/*.json -o report/")
    results, latency, skipped = [], [], []
    for path in paths:
        try:
            results.append(read_result(path))
        except ForeignResultError as error:
            content = _latency(path)
            if content is None:
                skipped.append(f"{path.name} ({error.what})")
            else:
                latency.append(content)
    if not results and not latency:
        raise InputError(f"none of {len(paths)} files can be reported: {skipped[0]}")
    return Inputs(results=tuple(results), latency=tuple(latency), skipped=tuple(skipped))


def _latency(path: Path) -> Mapping[str, Any] | None:
    try:
        content = read_json(path)
    except ForeignResultError:
        return None
    if content.get("format") != LATENCY:
        return None
    if not isinstance(content.get("streaming_seconds"), list):
        raise InputError(f"{path} lacks what a result holds: streaming_seconds")
    return content
