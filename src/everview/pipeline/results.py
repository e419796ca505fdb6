"""What the pipeline hands on for each frame, and to whom."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from everview.frames.frame import Frame
from everview.geometry.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameResult:
    """One frame and what became of it."""

    frame: Frame
    """The image that the network saw, or, with flags, did not see."""
    prediction: Prediction | None
    """Of this one frame (b = s = 1), on the host, as NumPy arrays; None if the frame was skipped,
    or if the stream had seen it before it was saved."""
    latency: float = 0.0
    """Seconds from handing the image to the network until the prediction was on the host."""
    notes: tuple[str, ...] = ()
    """What was remarkable about it, as flags of a frame that was finished all the same."""
    memory: int = 0
    """Bytes reserved for the stream's past after this frame."""
    taken_memory: int = 0
    """The part of `memory` that takes memory: on a CPU what was written to."""
    fixed_memory: int = 0
    """The part of `memory` that does not grow with the number of frames."""
    is_bounded: bool = False
    """Whether `memory` will not grow for ever."""


@runtime_checkable
class Sink(Protocol):
    """Takes results in the order of the source."""

    def write(self, result: FrameResult) -> None:
        """Take one result; may return before it is on disk, and raise what went wrong earlier."""
        ...

    def flush(self) -> None:
        """Return when all that was taken is on disk; raise what went wrong."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Is told how the work goes on."""

    def begin(self, num_frames: int | None) -> None:
        """Work begins; about so many frames will come, None if unknown."""
        ...

    def frame(self, result: FrameResult, *, is_new: bool) -> None:
        """A frame is through; not new are those that an earlier run had recorded."""
        ...

    def phase(self, name: str) -> None:
        """Something else than frames is being worked on, such as `preview`."""
        ...
