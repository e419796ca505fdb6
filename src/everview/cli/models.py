"""`everview models`: known checkpoints, before anything is fetched."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from everview.weights.catalog import Checkpoint

PIPED_WIDTH = 160
"""Columns of the table where there is no terminal to ask for its width."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """List known checkpoints: source, size, heads, licence, commercial use, whether local.

    Any other checkpoint of the same layout can be used as well: give its file, its folder or its
    Hugging Face id to --model.
    """

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Print; returns the exit code."""
        from everview.weights.catalog import CATALOG

        rows = [_row(checkpoint) for checkpoint in CATALOG.values()]
        if self.json:
            sys.stdout.write(json.dumps({"models": rows}, indent=1) + "\n")
        else:
            _print_table(rows)
        return 0


def _row(checkpoint: "Checkpoint") -> dict[str, Any]:
    """One checkpoint as plain values, with what is known of it on this machine."""
    from everview.weights import hub
    from everview.weights.catalog import bundled_folder

    facts = {**dataclasses.asdict(checkpoint), "num_bytes": checkpoint.num_bytes}
    local: Path | None
    if checkpoint.bundled:
        local = bundled_folder(checkpoint.source) / checkpoint.files[0]
        local = local if local.is_file() else None
        if local is not None:
            facts |= _measured(local)
    else:
        local = hub.cached(checkpoint.source, checkpoint.files)
    return {**facts, "local": None if local is None else str(local)}


def _measured(path: Path) -> dict[str, int]:
    """Size and number of parameters of a bundled file."""
    import math

    from everview.weights.safetensors_file import open_safetensors

    shapes = [value.shape for value in open_safetensors(path).values.values()]
    return {"num_parameters": sum(map(math.prod, shapes)), "num_bytes": path.stat().st_size}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    table = Table(header_style="bold")
    for title in ("model", "size", "parameters", "heads", "licence", "commercial use", "local"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row["source"],
            _size(row["num_bytes"]),
            _millions(row["num_parameters"]),
            " ".join(row["heads"]),
            row["license"],
            row["commercial"],
            "yes" if row["local"] else "no",
        )
    console.print(table)
    for row in rows:
        access = "" if row["access"] == "open" else f"; {row['access']}"
        console.print(f"{row['source']}: {row['trained_on']}{access}", highlight=False)
        console.print(f"  licence: {row['license_url']}", highlight=False)
        console.print(f"  checked: {row['verified']}", highlight=False)
        if row["local"]:
            console.print(f"  local: {row['local']}", highlight=False, soft_wrap=True)
    console.print(
        "The licence of weights is not that of our code (Apache-2.0); read it before you use them.",
        highlight=False,
    )


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "unknown"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _millions(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:,.1f} M"
