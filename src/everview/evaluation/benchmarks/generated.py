"""Whether clips come from a folder that `everview world` wrote in the layout of a benchmark."""

from collections.abc import Iterable
from pathlib import Path

from everview.evaluation.benchmarks.clip import EvalClip
from everview.world.layouts.marker import is_marked


def is_from_world(clips: Iterable[EvalClip]) -> bool:
    """Whether a folder above any file of the clips says that it was generated."""
    folders: set[Path] = set()
    for clip in clips:
        for path in clip.files:
            folders.update(path.absolute().parents, path.resolve().parents)
    return any(map(is_marked, folders))
