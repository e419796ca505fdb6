"""What data a number was measured on."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from everview.errors import InputError
from everview.evaluation.benchmarks.clip import EvalClip

WHOLE = 4 << 20
"""Bytes up to which all of a file counts."""
BLOCK = 256 << 10
"""Bytes of head, middle and tail that count of a larger file."""


def fingerprint(clips: Iterable[EvalClip]) -> tuple[str, int]:
    """SHA-256 over names and contents of all clips, and the number of their files.

    Args:
        clips: in any order.

    Raises:
        InputError: if a file cannot be read; names it.
    """
    clips = list(clips)
    files = {path.resolve() for clip in clips for path in clip.files}
    entries = sorted(f"{name} {digest}" for name, digest in clip_fingerprints(clips).items())
    return hashlib.sha256("\n".join(entries).encode()).hexdigest(), len(files)


def clip_fingerprints(clips: Iterable[EvalClip]) -> dict[str, str]:
    """Name of each clip -> SHA-256 over names and contents of its files, and its identity.

    Folders do not count, so that a moved set keeps its fingerprints.

    Raises:
        InputError: if a file cannot be read; names it.
    """
    found = {}
    for clip in clips:
        entries = [f"{path.name} {file_digest(path)}" for path in clip.files]
        text = "\n".join([*entries, clip.identity])
        found[clip.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def file_digest(path: Path) -> str:
    """SHA-256 over size and content; of large files over head, middle and tail.

    Raises:
        InputError: if the file cannot be read; names it.
    """
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1 << 17)
def _digest(path: Path, size: int, _: int) -> str:
    """Kept for as long as size and time of change stay: a run asks before and after predicting."""
    digest = hashlib.sha256(f"{size} ".encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            for start in (0, (size - BLOCK) // 2, size - BLOCK):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
