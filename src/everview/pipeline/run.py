"""Frames through a network and on to a sink, one by one or all at once."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from everview.errors import InputError, NotEnoughMemoryError
from everview.frames.frame import Frame
from everview.pipeline.results import FrameResult, Observer, Sink

SHOWN = 3
"""How many reasons a message lists."""


@runtime_checkable
class HeldBytes(Protocol):
    """A stream's report, as far as the pipeline needs it."""

    @property
    def state_bytes(self) -> int:
        """Everything reserved for the stream's past."""
        ...

    @property
    def taken_bytes(self) -> int:
        """The part of it that takes memory: on a CPU what was written to."""
        ...

    @property
    def fixed_bytes(self) -> int:
        """The part of it that does not grow with the number of frames."""
        ...

    @property
    def is_bounded(self) -> bool:
        """Whether it will not grow for ever."""
        ...

    @property
    def shortages(self) -> int:
        """How often memory ran out and the stream went on with less."""
        ...

    @property
    def policy(self) -> str:
        """What is forgotten."""
        ...


@runtime_checkable
class FrameStream(Protocol):
    """A network's stream, as far as the pipeline needs it."""

    def step(self, image: Any) -> Any:  # noqa: ANN401  -- Frame in, Prediction out
        """Predict the next frame."""
        ...

    def report(self) -> HeldBytes:
        """How the stream stands."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """A frame that an earlier run has dealt with."""

    index: int
    """Number in the source."""
    was_skipped: bool
    """Whether the network did not see it."""


def stream_results(
    stream: FrameStream, frames: Iterable[Frame], *, num_seen: int = 0
) -> Iterator[FrameResult]:
    """Give the usable frames to a stream, one by one; the others come out as skipped.

    Args:
        num_seen: this many usable frames are already part of the stream's past: they are only
            passed on, without a prediction.

    Raises:
        InputError: after the last frame, if none was usable.
    """
    num_usable = num_frames = 0
    problems: dict[str, str] = {}
    shortages = stream.report().shortages
    for frame in frames:
        num_frames += 1
        num_usable += frame.usable
        _note_problem(problems, frame)
        if not frame.usable or num_usable <= num_seen:
            yield FrameResult(frame=frame, prediction=None)
            continue
        started = time.perf_counter()
        prediction = stream.step(frame).numpy()  # on the host: waits for a GPU to be done
        latency = time.perf_counter() - started
        report = stream.report()
        notes: tuple[str, ...] = ()
        if report.shortages > shortages:
            shortages = report.shortages
            notes = (f"memory ran out: the stream went on with {report.policy}",)
        yield FrameResult(
            frame=frame,
            prediction=prediction,
            latency=latency,
            notes=notes,
            memory=report.state_bytes,
            taken_memory=report.taken_bytes,
            fixed_memory=report.fixed_bytes,
            is_bounded=report.is_bounded,
        )
    if num_frames and not num_usable:
        raise _none_usable(num_frames, problems)


def batch_results(
    network: Callable[[list[Frame]], Any], frames: Iterable[Frame]
) -> Iterator[FrameResult]:
    """Give all usable frames to a network at once; memory grows with their number.

    The latency of each is its share of the whole.

    Raises:
        InputError: if no frame is usable.
    """
    everything = list(frames)
    usable = [frame for frame in everything if frame.usable]
    if not usable:
        problems: dict[str, str] = {}
        for frame in everything:
            _note_problem(problems, frame)
        raise _none_usable(len(everything), problems)
    started = time.perf_counter()
    predictions = network(usable).numpy()
    latency = (time.perf_counter() - started) / len(usable)
    num_usable = 0
    for frame in everything:
        prediction = predictions.frame(num_usable) if frame.usable else None
        num_usable += frame.usable
        yield FrameResult(frame=frame, prediction=prediction, latency=latency)


def _note_problem(problems: dict[str, str], frame: Frame) -> None:
    """Remember up to three kinds of problem, each with the first frame that had it."""
    for flag in frame.flags:
        if len(problems) < SHOWN:
            problems.setdefault(flag, frame.name)


def _none_usable(num_frames: int, problems: dict[str, str]) -> InputError:
    reasons = [f"{flag} ({name})" if name else flag for flag, name in problems.items()]
    return InputError(f"none of {num_frames} frames is usable: {'; '.join(reasons)}")


def pass_on(
    results: Iterable[FrameResult],
    sink: Sink,
    observer: Observer,
    *,
    recorded: Iterable[Recorded] = (),
) -> Iterator[FrameResult]:
    """Write each result to the sink, then yield it; those of an earlier run are not written again.

    Args:
        recorded: what the earlier run has dealt with, in order; empty for a new run.

    Raises:
        InputError: if the source is not what it was in the earlier run.
    """
    earlier = iter(recorded)
    for result in results:
        known = next(earlier, None)
        if known is None:
            sink.write(result)
        elif known != Recorded(result.frame.index, not result.frame.usable):
            raise InputError(
                f"the source has changed since the recording began: where it had frame "
                f"{known.index}{' (skipped)' * known.was_skipped}, there is now frame "
                f"{result.frame.index}{' (skipped)' * (not result.frame.usable)}; record anew"
            )
        observer.frame(result, is_new=known is None)
        yield result
    if (missing := next(earlier, None)) is not None:
        raise InputError(
            f"the source has changed since the recording began: it now ends before frame "
            f"{missing.index}; record anew"
        )


class MemoryGuard:
    """Watches the bytes of a stream's past, before they are needed where possible."""

    def __init__(self, limit: int | None, num_frames: int | None) -> None:
        """Set up.

        Args:
            limit: bytes; None watches nothing.
            num_frames: about how many frames will come; None if unknown.
        """
        self._limit = limit
        self._num_frames = num_frames
        self._is_first = True

    def check(self, result: FrameResult, *, is_saved: bool = True) -> None:
        """Look at the past after one more frame.

        Args:
            is_saved: whether a recording has begun, which can be gone on with.

        Raises:
            NotEnoughMemoryError: after the first frame, if the whole source would not fit; later,
                if the limit is passed.
        """
        if self._limit is None or result.prediction is None:
            return
        is_first, self._is_first = self._is_first, False
        if is_first and self._num_frames is not None and not result.is_bounded:
            self._check_forecast(result, self._limit, self._num_frames)
        if result.taken_memory > self._limit:
            saved, again = "nothing has been written yet", ""
            if is_saved:
                saved, again = "all frames so far are saved", " and go on with --resume"
            raise NotEnoughMemoryError(
                f"the stream's past takes {bytes_as_text(result.taken_memory)} after frame "
                f"{result.frame.index}, the limit leaves {bytes_as_text(self._limit)} for it; "
                f"{saved}. Raise --memory-limit{again}, forget more "
                "(--memory key_diversity:tokens=4000) or take fewer or smaller frames (--every, "
                "--end, --size)"
            )

    def _check_forecast(self, first: FrameResult, limit: int, num_frames: int) -> None:
        """Storage doubles when it is full, so it holds a power of two of frames."""
        growing = first.memory - first.fixed_memory
        needed = first.fixed_memory + growing * 2 ** max(0, num_frames - 1).bit_length()
        if needed > limit:
            room = max(0, limit - first.fixed_memory) // max(1, growing)
            fitting = 2 ** (room.bit_length() - 1) if room else 0
            raise NotEnoughMemoryError(
                f"{num_frames} frames need {bytes_as_text(needed)} for the stream's past, the "
                f"limit is {bytes_as_text(limit)}: that is enough for {fitting} frames of this "
                "size. Take fewer or smaller ones (--every, --end, --size) or raise --memory-limit"
            )


def bytes_as_text(num_bytes: int) -> str:
    """For messages: in the largest decimal unit that it fills, with one digit."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"
