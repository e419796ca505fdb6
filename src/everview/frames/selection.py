"""Which frames of a source are wanted."""

import math
from dataclasses import dataclass
from typing import Literal

from everview.errors import ConfigError

Decision = Literal["take", "skip", "stop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A stretch of the source, thinned out."""

    every: int = 1
    """Take each n-th frame of the stretch, its first included."""
    start: float | None = None
    """Position of the first frame: seconds after the source's first frame, or an image's index."""
    end: float | None = None
    """Position before which the stretch ends, like `start`; the frame at `end` is left out."""
    fps: float | None = None
    """At most so many frames per second, by their time stamps; not together with `every`."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every must be 1 or more; got {self.every}")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ConfigError(f"fps must be above 0; got {self.fps}")
        if self.fps is not None and self.every != 1:
            raise ConfigError(
                f"every={self.every} and fps={self.fps:g} both thin the frames out: give one"
            )
        if self.start is not None and self.start < 0:
            raise ConfigError(f"start must be 0 or more; got {self.start:g}")
        if self.end is not None and self.end <= (self.start or 0):
            raise ConfigError(f"end must be after start={self.start or 0:g}; got {self.end:g}")

    @property
    def takes_all(self) -> bool:
        """Whether no frame is left out."""
        return self == Selection()

    def about(self, num_frames: int | None, rate: float | None) -> int | None:
        """Estimate how many frames are taken of `num_frames` that come `rate` per unit.

        The unit is that of `start`: a second, or an image (rate 1).
        """
        if num_frames is None or (rate is None and not self.takes_all):
            return num_frames if self.takes_all else None
        rate = rate or 1.0
        last = num_frames if self.end is None else min(num_frames, math.ceil(self.end * rate))
        count = max(0, last - math.ceil((self.start or 0) * rate))
        if self.fps is not None and self.fps < rate:
            return math.ceil(count * self.fps / rate)
        return math.ceil(count / self.every)


class Picker:
    """Decides frame by frame; one per pass through a source."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._num_within = 0
        self._last_slot = -1

    def decide(self, position: float) -> Decision:
        """Say what to do with the next frame, at `position` (unit as `Selection.start`)."""
        wanted = self._selection
        if wanted.end is not None and position >= wanted.end:
            return "stop"
        if position < (wanted.start or 0):
            return "skip"
        if wanted.fps is not None:
            return self._decide_by_time(position - (wanted.start or 0), wanted.fps)
        self._num_within += 1
        return "take" if (self._num_within - 1) % wanted.every == 0 else "skip"

    def _decide_by_time(self, seconds: float, fps: float) -> Decision:
        # one frame for each slot of 1 / fps; the tolerance is for times rounded to milliseconds
        slot = math.floor(seconds * fps + 1e-2)
        if slot <= self._last_slot:
            return "skip"
        self._last_slot = slot
        return "take"
