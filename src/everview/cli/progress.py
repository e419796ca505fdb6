"""How a run shows its progress: a bar for people, lines of JSON for programs."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from everview.outputs.session import Outcome
from everview.pipeline.results import FrameResult
from everview.pipeline.run import bytes_as_text

SECONDS_BETWEEN_LINES = 1.0


class Bar:
    """A progress bar with frames per second, memory and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[memory]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=None, speed="", memory="")
        self._rate = _Rate()

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, num_frames: int | None) -> None:
        """See Observer.begin."""
        self._progress.update(self._task, total=num_frames, description="frames")

    def frame(self, result: FrameResult, *, is_new: bool) -> None:
        """See Observer.frame."""
        self._rate.count()
        self._progress.update(
            self._task,
            advance=1,
            description="frames" if is_new else "replaying",
            speed=f"{self._rate.per_second():.1f} frames/s",
            memory=f"memory {bytes_as_text(result.memory)}",
        )

    def phase(self, name: str) -> None:
        """See Observer.phase."""
        self._progress.update(self._task, description=name)

    def end(self, folder: Path, outcome: Outcome) -> None:
        """Say what came out and where."""
        self._progress.stop()
        print_outcome(self._console, folder, outcome)


class JsonLines:
    """One object per line on standard output: begin, progress (each second), phase, end."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._num_frames: int | None = None
        self._last_line = 0.0

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to give back."""

    def begin(self, num_frames: int | None) -> None:
        """See Observer.begin."""
        self._num_frames = num_frames
        self._print("begin", frames_expected=num_frames)

    def frame(self, result: FrameResult, *, is_new: bool) -> None:
        """See Observer.frame."""
        self._rate.count()
        if time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        speed = self._rate.per_second()
        left = None if self._num_frames is None else max(0, self._num_frames - self._rate.total)
        self._print(
            "progress",
            frames=self._rate.total,
            index=result.frame.index,
            replaying=not is_new,
            frames_per_second=round(speed, 3),
            memory_bytes=result.memory,
            seconds_left=None if left is None or not speed else round(left / speed, 1),
        )

    def phase(self, name: str) -> None:
        """See Observer.phase."""
        self._print("phase", name=name)

    def end(self, folder: Path, outcome: Outcome) -> None:
        """Say what came out and where."""
        self._print(
            "end",
            status=outcome.status,
            out=str(folder),
            frames_finished=outcome.num_finished,
            frames_skipped=outcome.num_skipped,
            problems=list(outcome.problems),
        )

    def _print(self, event: str, **content: Any) -> None:  # noqa: ANN401  -- JSON values
        print(json.dumps({"event": event, **content}), flush=True)


def make_observer(kind: Literal["auto", "bar", "json"]) -> Bar | JsonLines:
    """What fits standard output, or what was asked for."""
    if kind == "json" or (kind == "auto" and not sys.stdout.isatty()):
        return JsonLines()
    return Bar(Console(highlight=False, soft_wrap=True))


def print_outcome(console: Console, folder: Path, outcome: Outcome) -> None:
    """The last lines of a run, for people."""
    skipped = f", {outcome.num_skipped} skipped" if outcome.num_skipped else ""
    console.print(f"{outcome.num_finished} frames {outcome.status}{skipped}: {folder}")
    for problem in outcome.problems:
        console.print(f"note: {problem}", markup=False)
    if (folder / "preview.mp4").exists():
        console.print(f"look at {folder / 'preview.mp4'}, {folder / 'points.ply'}")


class _Rate:
    """Frames per second over the last seconds, so that a slow start is soon forgotten."""

    def __init__(self) -> None:
        self.total = 0
        self._times: list[float] = []

    def count(self) -> None:
        self.total += 1
        self._times = [*self._times[-30:], time.monotonic()]

    def per_second(self) -> float:
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(1e-9, self._times[-1] - self._times[0])
