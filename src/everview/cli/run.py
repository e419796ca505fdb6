"""`everview run`: the main job."""

import re
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from everview.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from everview.model.network import Network
    from everview.pipeline.config import RunConfig
    from everview.pipeline.results import Observer

STOPPED = 130
"""Exit code of a run that the user stopped; everything that was finished is saved."""

SMALLER_MODEL = ": take a smaller one such as mini, or keep it smaller with --precision bfloat16"
"""What to do when a model does not fit into memory."""

UNITS = {"": 1, "B": 1} | {
    f"{prefix}{end}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for end, base in (("B", 1000), ("", 1000), ("iB", 1024))
}


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What is read, and how it goes through a network; the same for `run` and `plan`."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """What to read."""
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")] = "mini"
    """Bundled name, Hugging Face id, or path of a checkpoint; see `everview models`."""
    memory: Annotated[str, tyro.conf.arg(metavar="POLICY")] = "auto"
    """What the stream remembers (POLICY:key=value,...); auto is bounded by the free memory."""
    memory_limit: Annotated[str | None, tyro.conf.arg(metavar="BYTES")] = None
    """Most that the whole process may take (on a GPU: of its memory), such as 6GB: chooses what is
    remembered, and how; what cannot fit is refused. See `everview plan`."""
    precision: Annotated[str, tyro.conf.arg(metavar="PRECISION")] = "auto"
    """float32, bfloat16, float16, int8 or int4; auto is float32 on a CPU and bfloat16 on CUDA."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest there is."""
    every: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Take each n-th frame."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="PER_SECOND")] = None
    """Take at most so many frames per second, by their time stamps."""
    start: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Begin so many seconds after the first frame; for images, at this number."""
    end: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """End before this many seconds after the first frame; for images, before this number."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Width of what the network sees, a multiple of 14; by default what it was made for."""
    stream: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Which video stream of a file with several."""

    def config(self, **others: Any) -> "RunConfig":  # noqa: ANN401
        """As the pipeline takes it, with settings of one verb."""
        from everview.pipeline.config import RunConfig

        return RunConfig(
            memory=self.memory,
            memory_limit=None if self.memory_limit is None else bytes_from_text(self.memory_limit),
            every=self.every,
            fps=self.fps,
            start=self.start,
            end=self.end,
            size=self.size,
            stream=self.stream,
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class Run(StreamOptions):
    """Turn a video into a recording: camera poses, depth, a coloured cloud and a preview.

    SOURCE is a video file, a folder of images (or one that holds images/), a pattern such as
    "shots/*.png", a camera's number, or an address such as rtsp://host/path.

    The recording is complete at every moment: kill the run and go on later with --resume.

    Exit codes: 0 done, 2 the call is wrong, 3 the input cannot be used, 4 not enough memory,
    130 stopped with Ctrl-C, everything saved.
    """

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder of the recording, new or empty; by default NAME_everview, in the current folder."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the recording in DIR, with the same other options as before."""
    checkpoint_every: Annotated[int | None, tyro.conf.arg(metavar="FRAMES")] = None
    """Save the stream's state so often: --resume then need not run the earlier frames again."""
    batch: tyro.conf.FlagCreatePairsOff[bool] = False
    """All frames at once instead of one by one; memory grows with their number."""
    view: tyro.conf.FlagCreatePairsOff[bool] = False
    """Watch the run in a viewer; not part of this version."""
    progress: Literal["auto", "bar", "json"] = "auto"
    """A bar on a terminal, else a line of JSON per second on standard output."""

    def run(self) -> int:
        """Record; returns the exit code."""
        if self.view:
            raise MissingExtraError(
                "this version has no viewer; leave --view out and look at preview.mp4 and "
                "points.ply in the recording"
            )
        if self.batch and self.memory != "auto":
            raise ConfigError(
                f"--batch keeps all frames, so that --memory {self.memory} would mean nothing: "
                "leave one of them out"
            )
        out = self.out or default_folder(self.source)
        config = self.config(batch=self.batch, checkpoint_every=self.checkpoint_every)
        return self._record(out, config)

    def _record(self, out: Path, config: "RunConfig") -> int:
        from everview.cli.progress import make_observer
        from everview.outputs.session import check_folder, record
        from everview.pipeline.shortage import memory_errors
        from everview.weights.load import load

        # programs started in the background of a script ignore the first, and `docker stop` sends
        # the second: both shall finish the files
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        check_folder(out, resume=self.resume)
        check_source(self.source)
        with make_observer(self.progress) as observer:
            observer.phase(f"loading {self.model}")
            with memory_errors(f"for the model {self.model}{SMALLER_MODEL}"):
                network = load(self.model, device=self.device, precision=self.precision)
            has_limit = config.memory_limit is not None
            outcome = record(
                network, self.source, out, config, observer=observer, resume=self.resume,
                planner=partial(planned, network, config, observer) if has_limit else None,
            )  # fmt: skip
            observer.end(out, outcome)
        return STOPPED if outcome.status == "stopped" else 0


def planned(
    network: "Network", config: "RunConfig", observer: "Observer",
    size: tuple[int, int], num_frames: int | None,
) -> "RunConfig":  # fmt: skip
    """The same settings with a policy that fits, and what the limit leaves for a past that grows.

    Raises:
        NotEnoughMemoryError: if nothing fits.
    """
    from everview.outputs.fusion import cloud_bytes, points_within
    from everview.outputs.session import recording_bytes
    from everview.pipeline.plan import make_plan

    observer.phase("planning")
    plan = make_plan(
        network, size, memory=config.memory, limit=config.memory_limit, num_frames=num_frames,
        extra_bytes=recording_bytes(size, num_frames),
    )  # fmt: skip
    assert plan.limit is not None, "a run without a limit has no plan"
    spare = 0 if plan.peak_bytes is None else plan.limit - plan.peak_bytes
    points = points_within(cloud_bytes(size, num_frames) + spare)
    room = plan.room_bytes if plan.tokens is None else None  # a bounded one takes what it says
    return replace(config, planned=plan.memory, memory_limit=room, max_points=points)


def check_source(source: str) -> None:
    """Open files for a moment, so that a wrong name is told before a large model is loaded.

    Raises:
        InputError: if it does not exist or cannot be opened.
    """
    from everview.frames.reader import read

    if not source.isdecimal() and "://" not in source:  # opening a camera twice may fail
        read(source).close()


def default_folder(source: str) -> Path:
    """Where the recording of a source goes if nothing is said: NAME_everview."""
    if source.isdecimal():
        return Path(f"camera{source}_everview")
    name = re.sub(r"[?#].*", "", source.rstrip("/")) if "://" in source else source
    stem = re.sub(r"[^\w.-]+", "_", Path(name).expanduser().resolve().stem).strip("_.")
    return Path(f"{stem or 'source'}_everview")


def bytes_from_text(text: str) -> int:
    """Read `6GB`, `512 MiB`, `1.5e9`.

    Raises:
        ConfigError: if it is no amount.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    units = {name.lower(): factor for name, factor in UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ConfigError(f"--memory-limit {text!r} is no amount of bytes; write 6GB or 512MiB")
    try:
        return int(float(match[1]) * units[match[2].lower()])
    except (ValueError, OverflowError):
        raise ConfigError(f"--memory-limit {text!r} is no number; write 6GB or 512MiB") from None
