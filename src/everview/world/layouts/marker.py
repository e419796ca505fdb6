"""A small file that says that a folder in the layout of a benchmark was generated."""

import json
from collections.abc import Sequence
from functools import wraps
from pathlib import Path

from everview.world.clip import WorldSequence
from everview.world.layouts.plan import Writer

MARKER = "everview.json"
CONTENT = {"generated": True, "by": "everview world"}


def marked(writer: Writer) -> Writer:
    """The same writer, which leaves the marker in the folder too."""

    @wraps(writer)
    def write(root: Path, clips: Sequence[WorldSequence]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER).write_text(json.dumps(CONTENT) + "\n")
        writer(root, clips)

    return write


def is_marked(folder: Path) -> bool:
    """Whether the folder holds the marker."""
    try:
        content = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("generated") is True
