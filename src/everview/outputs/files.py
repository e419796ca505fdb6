"""Writing files so that a kill at any moment leaves either the old one or the new one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ending of files that are still being written; whoever finds one may delete it."""
FOREIGN_PARTIAL = (".tmp*", "*.tmp")
"""How libraries that write here, such as safetensors, name theirs."""


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place in one step.

    Guards against the end of the process, not against a power cut: the file is not flushed to the
    disk's platter, the operating system's own buffers are trusted.

    Args:
        path: the file as readers know it.
        write: gets the path of the file to fill. It has the same ending as `path`, because some
            writers choose the format by it.
    """
    partial = path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file in one step; not-a-number has no place in it and raises ValueError."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def remove_partial_files(folder: Path) -> None:
    """Delete what an earlier process left half-written, here and in the folders below."""
    for pattern in (f"*{PARTIAL}", f"*{PARTIAL}.*", *FOREIGN_PARTIAL):
        for path in folder.rglob(pattern):
            if path.is_file():
                path.unlink(missing_ok=True)
