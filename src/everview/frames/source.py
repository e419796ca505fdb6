"""What the reader asks of images, videos and cameras alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from everview.frames.selection import Selection

Kind = Literal["video", "images", "camera", "url"]


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One decoded frame, upright, in its original size."""

    pixels: Image.Image | np.ndarray | None
    """8-bit RGB (H W 3), or None if it could not be decoded."""
    index: int
    """Number in the source, from 0."""
    timestamp: float
    """Seconds in the source's clock, or the index for images."""
    name: str
    """For messages."""
    problem: str = ""
    """Why it must not be used, empty if nothing is wrong."""


@runtime_checkable
class Source(Protocol):
    """Something that frames come from, opened and not yet read."""

    kind: Kind
    name: str
    """Path or address, without any password."""
    num_frames: int | None
    """How many frames it claims to hold; headers may lie, live sources do not know."""
    frames_per_second: float | None
    """Average rate it claims, None for images."""
    problems: list[str]
    """What went wrong so far, one sentence each; grows while frames are read."""
    num_seen: int
    """Frames met so far, wanted or not."""

    def raw_frames(self, selection: Selection) -> Iterator[RawFrame]:
        """Decode the wanted frames in order of presentation, once."""
        ...

    def close(self) -> None:
        """Let go of files and devices; may be called twice."""
        ...
