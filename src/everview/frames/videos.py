"""Video files, cameras and streams over the network, decoded with PyAV (FFmpeg)."""

import math
import platform
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from everview.errors import ConfigError, InputError
from everview.frames.selection import Picker, Selection
from everview.frames.source import Kind, RawFrame

TIMEOUT_SECONDS = 10.0
"""How long a network source may stay silent, both when opened and between packets."""

COLOUR_QUALITY = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Chroma at full resolution and unbiased: FFmpeg's fast path darkens by one grey level."""


class Video:
    """One video stream as a source; the position of a frame is seconds after the first one."""

    def __init__(
        self,
        container: av.container.InputContainer,
        *,
        name: str,
        kind: Kind,
        stream: int = 0,
        file: IO[bytes] | None = None,
    ) -> None:
        """Take over an opened container, and the `file` that it reads from if it is not a path."""
        self.name = name
        self.kind = kind
        self.problems: list[str] = []
        self.num_seen = 0
        self._container = container
        self._file = file
        self._stream = _choose_stream(container, stream, name, self.problems)
        self._reformatter = VideoReformatter()
        self._selection_ended = False
        self._is_live = kind == "camera" or (kind == "url" and container.duration is None)
        rate = self._stream.average_rate
        self.frames_per_second: float | None = float(rate) if rate else None
        self._seconds = _announced_seconds(container, self._stream)
        self.num_frames: int | None = self._stream.frames or None
        if not self.num_frames and self._seconds and rate:
            self.num_frames = round(self._seconds * rate)

    def raw_frames(self, selection: Selection) -> Iterator[RawFrame]:
        """Decode the wanted frames; those before and between are decoded but not converted.

        Damage ends the frames and is told in `problems`, it is not raised.
        """
        picker = Picker(selection)
        first = last = -math.inf
        for frame in self._decoded():
            seconds = self._seconds_of(frame, last)
            first, last = (seconds if first == -math.inf else first), seconds
            index, self.num_seen = self.num_seen, self.num_seen + 1
            decision = picker.decide(seconds - first)
            if decision == "stop":
                return
            if decision == "take":
                yield self._convert(frame, index, seconds)
        self._note_shortfall(last - first)

    def close(self) -> None:
        """Close the file or the device."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError as error:
                    if not self._is_live:  # a live stream recovers with its next key frame
                        raise
                    self._note_once(f"a damaged packet was skipped ({type(error).__name__})")
                    continue
                yield from frames
        except av.FFmpegError as error:
            kind = type(error).__name__
            self.problems.append(
                f"decoding stopped after {self.num_seen} frames: {kind}: {error.strerror}"
            )

    def _seconds_of(self, frame: av.VideoFrame, last: float) -> float:
        """Time stamp of a frame, continued at the average rate where the file has none."""
        if frame.pts is not None and frame.time_base:
            seconds = float(frame.pts * frame.time_base)
            if seconds < last:
                self._note_once(f"time runs backwards at frame {self.num_seen}")
            return seconds
        step = 1 / (self.frames_per_second or 30.0)
        self._note_once(f"frames without a time stamp: {1 / step:g} per second assumed")
        return 0.0 if last == -math.inf else last + step

    def _convert(self, frame: av.VideoFrame, index: int, seconds: float) -> RawFrame:
        name = f"{Path(self.name).name if self.kind == 'video' else self.name}#{index}"
        try:
            rgb = self._reformatter.reformat(
                frame, format="rgb24", interpolation=COLOUR_QUALITY, threads=1
            )
            pixels = rgb.to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            return RawFrame(None, index, seconds, name, f"corrupt: {error}")
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
        upright = np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
        problem = "corrupt: the decoder met errors in it" if frame.is_corrupt else ""
        return RawFrame(upright, index, seconds, name, problem)

    def _note_once(self, problem: str) -> None:
        kind = problem.split(" at frame ")[0]
        if not any(known.startswith(kind) for known in self.problems):
            self.problems.append(problem)

    def _note_shortfall(self, seconds: float) -> None:
        """Say so when the file ends well before its header's end, as a cut-off copy does."""
        stopped = any(problem.startswith("decoding stopped") for problem in self.problems)
        if self._seconds is None or self._is_live or stopped or not self.num_seen:
            return
        shown = seconds + 1 / (self.frames_per_second or 30.0)
        expected = self._stream.frames
        too_few = not expected or self.num_seen < 0.98 * expected - 1
        if too_few and shown < 0.95 * self._seconds - 0.1:
            self.problems.append(
                f"the file ends early: {self.num_seen} frames up to {shown:.2f} s, "
                f"its header announces {self._seconds:.2f} s"
            )


def open_video(path: Path, stream: int = 0) -> Video:
    """Open a video file.

    Args:
        path: any container and codec that FFmpeg knows.
        stream: which video stream, see `everview.read`.

    Raises:
        InputError: if the file is no video, or damaged before its first frame.
        ConfigError: if there is no such stream.
    """
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as video or image: {_reason(error)} "
            "(cut off while it was copied or recorded?)"
        ) from error
    return _guarded(container, name=str(path), kind="video", stream=stream)


def open_url(url: str, stream: int = 0) -> Video:
    """Open a stream or file by its address: http, https, rtsp, rtmp, udp, ...

    A file on a server without byte ranges, whose index comes last, is fetched first.

    Raises:
        InputError: if the address cannot be reached or holds no video.
        ConfigError: if there is no such stream.
    """
    name = re.sub(r"//[^/@]*@", "//", url)  # no password in recordings and messages
    options = {"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}
    try:
        container = av.open(url, timeout=TIMEOUT_SECONDS, options=options)
    except (av.HTTPError, av.ConnectionRefusedError, av.ProtocolNotFoundError) as error:
        raise InputError(f"{name} cannot be opened: {_reason(error)}") from error
    except (av.FFmpegError, ValueError) as error:
        container, file = _open_fetched(url, name, error)
        return _guarded(container, name=name, kind="url", stream=stream, file=file)
    return _guarded(container, name=name, kind="url", stream=stream)


def open_camera(number: int) -> Video:
    """Open a camera of this machine by its number.

    Raises:
        InputError: if there is no such camera or it is in use.
    """
    try:
        device, driver = _camera_device(number)
        container = av.open(device, format=driver, timeout=TIMEOUT_SECONDS)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"camera {number} cannot be opened: {_reason(error)} "
            f"(a file or folder of that name: write ./{number})"
        ) from error
    return _guarded(container, name=f"camera {number}", kind="camera")


def _guarded(
    container: av.container.InputContainer,
    *,
    name: str,
    kind: Kind,
    stream: int = 0,
    file: IO[bytes] | None = None,
) -> Video:
    """Make the source, or close what it would have taken over."""
    try:
        return Video(container, name=name, kind=kind, stream=stream, file=file)
    except BaseException:
        container.close()
        if file is not None:
            file.close()
        raise


def _choose_stream(
    container: av.container.InputContainer, number: int, name: str, problems: list[str]
) -> av.VideoStream:
    cover = av.stream.Disposition.attached_pic  # a song's cover is no video
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams or container.format.name == "tty":  # FFmpeg draws text files as video
        raise InputError(f"{name} holds no video stream")
    story = "; ".join(f"{i}: {_description(stream)}" for i, stream in enumerate(streams))
    by_container_index = {stream.index: stream for stream in streams}
    if 0 <= number < len(streams):
        chosen = streams[number]
    elif number in by_container_index:
        chosen = by_container_index[number]
    else:
        raise ConfigError(f"{name} has no video stream {number}; give one of {story}")
    if len(streams) > 1 and number == 0:
        problems.append(f"the file has {len(streams)} video streams, the first is read; {story}")
    chosen.thread_type = "SLICE"  # frame threads would lose other frames on other machines
    return chosen


def _description(stream: av.VideoStream) -> str:
    size = f"{stream.codec_context.width}x{stream.codec_context.height}"
    return f"{size} {stream.codec_context.name} (number {stream.index} in the file)"


def _announced_seconds(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None  # microseconds


def _open_fetched(
    url: str, name: str, error: Exception
) -> tuple[av.container.InputContainer, IO[bytes]]:
    """Fetch a file of known length into a temporary file and open that."""
    story = f"{name} cannot be opened: {_reason(error)}"
    if not url.startswith(("http://", "https://")):
        raise InputError(story) from error
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the container reads from it to its end
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            if answer.headers.get("Content-Length") is None:
                raise InputError(story) from error
            shutil.copyfileobj(answer, file)
        file.seek(0)
        return av.open(file), file
    except (av.FFmpegError, urllib.error.URLError, OSError, ValueError) as second:
        file.close()
        raise InputError(f"{story}; nor when fetched: {_reason(second)}") from second


def _camera_device(number: int) -> tuple[str, str]:
    """Name of the camera and of FFmpeg's driver on this system."""
    system = platform.system()
    if system == "Linux":
        return f"/dev/video{number}", "v4l2"
    if system == "Darwin":
        return str(number), "avfoundation"
    cameras = [d for d in av.enumerate_input_devices("dshow") if "video" in d.media_types]
    if number >= len(cameras):
        raise ValueError(f"this machine has {len(cameras)} cameras")
    return f"video={cameras[number].name}", "dshow"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
