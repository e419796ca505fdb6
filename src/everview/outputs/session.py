"""A whole run: source in, recording out, stopped and continued as often as need be."""

import errno
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import av

from everview.errors import ConfigError, EverviewError, InputError, NotEnoughMemoryError
from everview.frames.reader import FrameReader, read
from everview.outputs.entries import read_entries
from everview.outputs.files import PARTIAL
from everview.outputs.fusion import FusionConfig, cloud_bytes
from everview.outputs.manifest import check_same_run, new_manifest, read_manifest
from everview.outputs.preview import write_preview
from everview.outputs.recorder import LINES, MANIFEST, TRAJECTORY, Recorder
from everview.outputs.recording import Recording
from everview.outputs.writer import BackgroundWriter
from everview.pipeline.config import RunConfig
from everview.pipeline.results import FrameResult, Observer
from everview.pipeline.run import MemoryGuard, Recorded, batch_results, pass_on, stream_results
from everview.pipeline.shortage import memory_errors
from everview.weights.hashes import weights_hash

STATE = "state.safetensors"
FILES = frozenset(
    (MANIFEST, LINES, TRAJECTORY, STATE, "dense.zarr", "tail", "points.ply", "preview.mp4",
     "preview.png")
)  # fmt: skip
"""All that a recording consists of."""

Planner = Callable[[tuple[int, int], int | None], RunConfig]
"""(height, width) as the network sees it, and about how many frames come -> settings."""

RUN_BYTES = 75_000_000
"""What recording takes beside network and cloud: decoder, encoder, disk format. Measured (slow test
of plans)."""
LOOK_AHEAD = 32
"""Frames in which a usable one is searched before a recording is begun; they are held meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended."""

    status: Literal["finished", "stopped"]
    """`stopped`: by the user; everything that was finished is saved."""
    num_finished: int
    """Frames with a prediction, earlier runs included."""
    num_skipped: int
    """Frames that could not be used."""
    problems: tuple[str, ...] = ()
    """What is wrong with the source, one sentence each; also among the flags of recording.json."""


def record(
    network: Any,  # noqa: ANN401  -- a Network, or a fake one in tests
    source: str,
    folder: Path,
    config: RunConfig,
    *,
    observer: Observer,
    resume: bool = False,
    planner: Planner | None = None,
) -> Outcome:
    """Read a source, run the network over it and write a recording as it goes.

    Args:
        network: loaded and on its device.
        source: see `everview.read`.
        folder: new or empty, or with `resume` an earlier recording of the same.
        resume: go on after the last finished frame, from the saved state if there is one, else by
            running the frames again without writing them.
        planner: gives the settings anew, once the size of the frames is known.

    Raises:
        ConfigError: if the folder is taken, or holds a recording of something else.
        InputError: if the source cannot be used, has no usable frame, or has changed since.
        NotEnoughMemoryError: if the past outgrows memory or its limit; what was finished is saved.
    """
    is_new = check_folder(folder, resume=resume)
    if network.config.attention != "causal" and not config.batch:
        raise ConfigError(
            "this network (global attention) sees all frames at once: add --batch, or take a "
            "causal one such as mini"
        )
    with _open_source(source, network, config) as reader:
        if planner is not None:
            config = planner(*_size_of(reader))
        manifest = _describe(network, reader, source, config)
        run = _Run(network, reader, folder, config, observer)
        if is_new:
            return run.go(manifest)
        if reader.kind in ("camera", "url") and reader.num_frames_hint is None:
            raise ConfigError(
                f"{reader.source} is live and cannot be gone on with: its past is gone. Record to "
                "a new folder with -o"
            )
        earlier = read_manifest(folder)
        check_same_run(earlier, manifest, folder)
        return _complete(folder, observer) if earlier["status"] == "finished" else run.go(None)


def source_size(
    network: Any,  # noqa: ANN401
    source: str,
    config: RunConfig,
) -> tuple[tuple[int, int], int | None]:
    """(height, width) of the source's frames as the network sees them, and about how many come.

    Raises:
        InputError: if the source cannot be used or has no frame.
    """
    with _open_source(source, network, config) as reader:
        return _size_of(reader)


def recording_bytes(size: tuple[int, int], num_frames: int | None) -> int:
    """About what a recording takes beside the network.

    Args:
        size: (height, width) as the network sees it.
        num_frames: None if unknown.
    """
    return RUN_BYTES + cloud_bytes(size, num_frames)


def _size_of(reader: FrameReader) -> tuple[tuple[int, int], int | None]:
    frame = reader.peek()
    if frame is None:
        raise InputError(f"{reader.source} has no frame")
    return (frame.image.shape[1], frame.image.shape[2]), reader.num_frames_hint


def is_recording_of(folder: Path, source_name: str) -> bool:
    """Whether a folder holds a recording of a source with this file name, and nothing else.

    Args:
        source_name: last part of the source's path.
    """
    if not (folder / MANIFEST).is_file():
        return False
    names = {path.name for path in folder.iterdir() if PARTIAL not in path.name}
    source = read_manifest(folder)["source"]
    return names <= FILES and Path(source["path"]).name == source_name


def check_folder(folder: Path, *, resume: bool) -> bool:
    """Whether a recording can begin (True) or go on (False) in this folder.

    Raises:
        ConfigError: if it holds anything and shall not be, or cannot be, continued.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a new folder with -o")
    if not folder.exists() or not any(PARTIAL not in path.name for path in folder.iterdir()):
        return True
    is_recording = (folder / "recording.json").exists()
    if not resume:
        advice = "add --resume to go on with it, or " if is_recording else ""
        raise ConfigError(f"{folder} is not empty; {advice}name a new folder with -o")
    if not is_recording:
        raise ConfigError(f"{folder} holds no recording to --resume; name a new folder with -o")
    return False


class _Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        network: Any,  # noqa: ANN401
        reader: FrameReader,
        folder: Path,
        config: RunConfig,
        observer: Observer,
    ) -> None:
        self._network, self._reader, self._config = network, reader, config
        self._folder, self._observer = folder, observer
        self._stream: Any = None

    def go(self, manifest: dict[str, Any] | None) -> Outcome:
        """Run to the end, or until stopped; a new recording is begun with `manifest`."""
        self._observer.begin(self._reader.num_frames_hint)
        limit = self._config.memory_limit
        if manifest is None:
            return self._go_through(self._resume(), MemoryGuard(limit, None), None)
        is_planned = self._config.planned is not None  # what fits was found out already
        guard = MemoryGuard(limit, None if is_planned else self._reader.num_frames_hint)
        with memory_errors(_TOO_LITTLE_FOR_ALL if self._config.batch else _TOO_LITTLE_FOR_FIRST):
            results = self._results(0, None)
            beginning = _beginning(results, guard)
            manifest["memory_policy"] = self._stream and self._stream.report().policy
        max_points = self._config.max_points
        fusion = None if max_points is None else FusionConfig(max_points=max_points)
        recorder = Recorder.create(self._folder, manifest, fusion)
        return self._go_through(recorder, guard, itertools.chain(beginning, results))

    def _go_through(
        self, recorder: Recorder, guard: MemoryGuard, results: Iterator[FrameResult] | None
    ) -> Outcome:
        """Record all results; None: those that come when the recording goes on."""
        try:
            with _finishing(recorder, self._reader), _disk_errors(), memory_errors(_TOO_LITTLE):
                if results is None:
                    earlier = recorder.manifest.get("memory_policy")
                    results = self._results(recorder.num_rows, earlier)
                self._record(results, recorder, guard)
        except KeyboardInterrupt:
            return self._end(recorder, "stopped")
        except EverviewError:
            self._end(recorder, "stopped")
            raise
        return self._end(recorder, "finished")

    def _resume(self) -> Recorder:
        self._observer.phase("reading what was recorded")
        return Recorder.resume(self._folder)

    def _results(self, num_rows: int, policy: str | None) -> Iterator[FrameResult]:
        if self._config.batch:
            return batch_results(self._network, self._reader)
        self._stream, num_seen = self._start_stream(num_rows, policy)
        return stream_results(self._stream, self._reader, num_seen=num_seen)

    def _start_stream(self, num_rows: int, policy: str | None) -> tuple[Any, int]:
        """The saved state, unless it is ahead of what was recorded; else a new stream.

        Args:
            policy: what the earlier run chose, to choose the same.
        """
        if num_rows and (self._folder / STATE).exists():
            stream = self._network.resume(self._folder / STATE)
            if stream.num_frames <= num_rows:
                return stream, stream.num_frames
        chosen = policy or self._config.planned or self._config.memory
        return self._network.stream(chosen), 0

    def _record(
        self, results: Iterator[FrameResult], recorder: Recorder, guard: MemoryGuard
    ) -> None:
        recorded = _recorded(self._folder, recorder.num_entries)
        num_rows, every = recorder.num_rows, self._config.checkpoint_every
        with BackgroundWriter(recorder) as writer:
            for result in pass_on(results, writer, self._observer, recorded=recorded):
                guard.check(result)
                num_new = 0 if self._stream is None else self._stream.num_frames - num_rows
                if every and num_new > 0 and result.prediction is not None and not num_new % every:
                    writer.flush()  # a state must never be ahead of what is recorded
                    self._stream.save(self._folder / STATE)

    def _end(self, recorder: Recorder, status: Literal["finished", "stopped"]) -> Outcome:
        num_seen = 0 if self._stream is None else self._stream.num_frames
        if self._config.checkpoint_every and num_seen and num_seen == recorder.num_rows:
            self._observer.phase("saving the state")
            self._stream.save(self._folder / STATE)
        _preview(self._folder, self._observer)
        counts = recorder.manifest["counts"]
        return Outcome(
            status=status,
            num_finished=counts["finished"],
            num_skipped=counts["skipped"],
            problems=tuple(self._reader.problems),
        )


def _beginning(results: Iterator[FrameResult], guard: MemoryGuard) -> list[FrameResult]:
    """Results up to the first prediction, or `LOOK_AHEAD` if that comes later.

    The first prediction shows whether source, network and memory go together, before anything is
    written.
    """
    seen = []
    for result in itertools.islice(results, LOOK_AHEAD):
        guard.check(result, is_saved=False)
        seen.append(result)
        if result.prediction is not None:
            break
    return seen


def _open_source(source: str, network: Any, config: RunConfig) -> FrameReader:  # noqa: ANN401
    return read(
        source,
        model=network,
        size=config.size,
        every=config.every,
        start=config.start,
        end=config.end,
        stream=config.stream,
        fps=config.fps,
    )


def _describe(
    network: Any,  # noqa: ANN401
    reader: FrameReader,
    source: str,
    config: RunConfig,
) -> dict[str, Any]:
    is_file = reader.kind in ("video", "images")
    info = {} if network.info is None else asdict(network.info)
    precision = info.get("precision", str(network.dtype).removeprefix("torch."))
    return new_manifest(
        source={
            "kind": reader.kind,
            "path": str(Path(source).expanduser().resolve()) if is_file else reader.source,
        },
        model={
            **{name: list(v) if isinstance(v, tuple) else v for name, v in info.items()},
            "fingerprint": weights_hash(network),
            "config": network.config.to_dict(),
        },
        settings={
            **config.numbers(),
            "size": config.size or network.input_size,
            "device": network.device.type,
            "precision": precision,
        },
    )


def _recorded(folder: Path, count: int) -> Iterator[Recorded]:
    """The first `count` lines of frames.jsonl, which is growing meanwhile."""
    for entry, _ in itertools.islice(read_entries(folder / LINES), count):
        yield Recorded(entry.index, entry.row is None)


def _complete(folder: Path, observer: Observer) -> Outcome:
    """An earlier run has done everything, but perhaps was killed before the preview."""
    if not (folder / "preview.mp4").exists():
        _preview(folder, observer)
    manifest = read_manifest(folder)
    return Outcome(
        status="finished",
        num_finished=manifest["counts"]["finished"],
        num_skipped=manifest["counts"]["skipped"],
        problems=tuple(manifest["flags"]),
    )


def _preview(folder: Path, observer: Observer) -> None:
    """A preview that cannot be made is no reason to fail: it can be made again."""
    observer.phase("preview")
    try:
        write_preview(Recording.open(folder))
    except (av.FFmpegError, OSError) as error:
        observer.phase(f"no preview: {error}")


@contextmanager
def _finishing(recorder: Recorder, reader: FrameReader) -> Iterator[None]:
    """Close the recording, whatever ends the run."""
    status, reason = "failed", None
    try:
        yield
        status = "finished"
    except KeyboardInterrupt:
        status, reason = "stopped", "by the user"
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        recorder.manifest["flags"] = list(reader.problems)
        recorder.close(status, reason)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Give a full disk a name."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise NotEnoughMemoryError(
            "the disk is full; all finished frames are saved. Make room and go on with --resume"
        ) from error


_TOO_LITTLE = (
    "for another frame; all finished frames are saved. Take fewer or smaller frames (--every, "
    "--end, --size), or --precision bfloat16"
)
_TOO_LITTLE_FOR_FIRST = (
    "for the first frame. Take smaller frames (--size), --precision bfloat16, or a smaller model"
)
_TOO_LITTLE_FOR_ALL = (
    "for all frames at once. Leave --batch out (causal models take them one by one), or take fewer "
    "or smaller frames (--every, --end, --size)"
)
