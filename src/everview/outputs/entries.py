"""frames.jsonl: one line per frame of the source, written last, so that a line means finished."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from everview.errors import InputError
from everview.geometry.cameras import MIN_FIELD_OF_VIEW

Vector = tuple[float, ...]

INVALID_CAMERA = "invalid camera"
"""How the flag of a frame begins whose predicted camera cannot be."""
MIN_ROTATION = 1e-8
"""Length of a quaternion below which it has no direction."""
MAX_FIELD_OF_VIEW = math.pi - MIN_FIELD_OF_VIEW
"""Radians."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameEntry:
    """What a recording says of one frame besides its dense maps."""

    index: int
    """Number of the frame in the source."""
    row: int | None
    """Number among the finished frames, which is its place on the time axis of the dense maps and
    its line of trajectory.tum; None if the frame was skipped."""
    timestamp: float
    """Seconds in the source's clock; the index for images without time."""
    name: str = ""
    """File name of an image, or source and index."""
    flags: tuple[str, ...] = ()
    """Why it was skipped, or what is remarkable; empty if nothing."""
    pose_encoding: Vector | None = None
    """As the network gave it (float32, exact): translation 3, quaternion x y z w 4, field of view
    (h, w) 2, camera_from_world of the network's own world. None for a skipped frame."""
    intrinsics: tuple[Vector, Vector, Vector] | None = None
    """K in pixels of the dense maps (`Recording.intrinsics` also gives it for original pixels)."""
    latency: float = 0.0
    """Seconds that the network took."""
    memory: int = 0
    """Bytes that the stream's past took after this frame."""

    @property
    def has_camera(self) -> bool:
        """Whether it was finished and its camera is one, see `camera_problems`."""
        is_flagged = any(flag.startswith(INVALID_CAMERA) for flag in self.flags)
        return self.row is not None and not is_flagged

    def to_line(self) -> bytes:
        """One line of JSON; numbers that are not finite become null."""
        content = asdict(self)
        for name in ("pose_encoding", "intrinsics"):
            content[name] = _finite_or_null(content[name])
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "FrameEntry":
        """Read what `to_line` wrote; null numbers become NaN. Unknown keys are ignored."""
        content = json.loads(line)
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        for name in ("pose_encoding", "intrinsics"):
            known[name] = _tuples(known.get(name))
        known["flags"] = tuple(known.get("flags", ()))
        return cls(**known)


def read_entries(path: Path, *, start: int = 0) -> Iterator[tuple[FrameEntry, int]]:
    """Yield finished lines, each with the byte at which the next one begins.

    A last line without its line break was torn by a kill, or is being written: it is not there yet.

    Args:
        start: byte to begin at, the end of a line.

    Raises:
        InputError: if a finished line is no entry, which no kill can cause.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        position = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            try:
                entry = FrameEntry.from_line(line)
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{path} is damaged before byte {position}: {error}; "
                    "cut the file there, then continue with --resume"
                ) from error
            yield entry, position


def camera_problems(encoding: Float[np.ndarray, " 9"]) -> tuple[str, ...]:
    """Why a pose encoding describes no camera, as flags; empty if it does.

    Its matrices are finite all the same (angles are clamped, see `intrinsics_from_fov`), so that
    nothing downstream breaks; but they mean nothing.
    """
    if not np.isfinite(encoding).all():
        return (f"{INVALID_CAMERA}: pose is not finite",)
    problems = []
    if np.linalg.norm(encoding[3:7]) < MIN_ROTATION:
        problems.append("rotation of length 0")
    angles = [v for v in encoding[7:9].tolist() if not MIN_FIELD_OF_VIEW <= v <= MAX_FIELD_OF_VIEW]
    problems += [f"field of view {angle:.3g} rad" for angle in dict.fromkeys(angles)]
    return tuple(f"{INVALID_CAMERA}: {problem}" for problem in problems)


def exact_floats(values: Float[np.ndarray, " n"]) -> Vector:
    """Numbers as short decimals that give them back bit by bit (nine digits for float32)."""
    if values.dtype == np.float64:
        return tuple(values.tolist())
    return tuple(float(f"{value:.9g}") for value in values.tolist())


def _finite_or_null(value: Any) -> Any:  # noqa: ANN401  -- nested numbers
    if isinstance(value, tuple | list):
        return [_finite_or_null(item) for item in value]
    return None if value is None or not math.isfinite(value) else value


def _tuples(value: Any) -> Any:  # noqa: ANN401  -- nested numbers
    if value is None:
        return None
    return tuple(
        _tuples(item) if isinstance(item, list) else math.nan if item is None else float(item)
        for item in value
    )
