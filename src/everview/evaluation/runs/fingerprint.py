"""What data a number was measured on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from everview.evaluation.benchmarks.clip import EvalClip


def fingerprint(clips: Iterable[EvalClip], root: Path) -> tuple[str, int]:
    """SHA-256 over names and sizes of all files that clips read, and their number.

    Clips without files count with their identity. Contents are not read: that would take hours for
    large sets.

    Args:
        clips: in any order.
        root: names are relative to it.
    """
    files = {path.resolve() for clip in clips for path in clip.files}
    home = root.resolve()
    entries = {f"{_name(path, home)} {path.stat().st_size}" for path in files}
    entries |= {f"{clip.name} {clip.identity}" for clip in clips if clip.identity}
    digest = hashlib.sha256("\n".join(sorted(entries)).encode())
    return digest.hexdigest(), len(files)


def _name(path: Path, home: Path) -> str:
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else path.name
