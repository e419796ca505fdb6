"""Video files, cameras and streams over the network, decoded with PyAV (FFmpeg)."""

import http
import http.client
import math
import platform
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from everview.errors import ConfigError, InputError
from everview.frames.selection import Picker, Selection
from everview.frames.source import Kind, RawFrame

TIMEOUT_SECONDS = 10.0
"""How long a network source may stay silent, both when opened and between packets."""

TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")
"""FFmpeg's drawings of text files, and of binary files that look like old text screens."""

ASSUMED_RATE = 30.0
"""Frames per second of a source that tells neither times nor a rate."""

COLOUR_QUALITY = 0x2 | 0x2000 | 0x40000
"""FFmpeg's SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND: chroma at full resolution, and
no bias. The fast path darkens by one grey level."""


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
                    self._note_once("damaged packets were skipped", type(error).__name__)
                    continue
                yield from frames
        except av.FFmpegError as error:
            kind = type(error).__name__
            self.problems.append(
                f"decoding stopped after {self.num_seen} frames: {kind}: {error.strerror}"
            )

    def _seconds_of(self, frame: av.VideoFrame, last: float) -> float:
        """Time stamp of a frame; where it is absent or not after `last`, the average rate goes on.

        Without that, old containers (AVI with frames out of order) would turn time back and forth.
        """
        step = 1 / (self.frames_per_second or ASSUMED_RATE)
        if frame.pts is None or not frame.time_base:
            self._note_once("frames without a time stamp", f"{1 / step:g} per second assumed")
            return 0.0 if last == -math.inf else last + step
        seconds = float(frame.pts * frame.time_base)
        if seconds > last:
            return seconds
        where = f"at frame {self.num_seen}: continued with {1 / step:g} per second"
        self._note_once("time stamps do not rise", where)
        return last + step

    def _convert(self, frame: av.VideoFrame, index: int, seconds: float) -> RawFrame:
        name = f"{Path(self.name).name if self.kind == 'video' else self.name}#{index}"
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", interpolation=COLOUR_QUALITY)
            pixels = rgb.to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            return RawFrame(None, index, seconds, name, f"corrupt: {error}")
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
        upright = np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
        problem = "corrupt: the decoder met errors in it" if frame.is_corrupt else ""
        return RawFrame(upright, index, seconds, name, problem)

    def _note_once(self, problem: str, details: str) -> None:
        if not any(known.startswith(problem) for known in self.problems):
            self.problems.append(f"{problem} ({details})")

    def _note_shortfall(self, seconds: float) -> None:
        """Say so when the file ends well before its header's end, as a cut-off copy does."""
        stopped = any(problem.startswith("decoding stopped") for problem in self.problems)
        if self._seconds is None or self._is_live or stopped or not self.num_seen:
            return
        shown = seconds + 1 / (self.frames_per_second or ASSUMED_RATE)
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

    Raises:
        InputError: if the address cannot be reached or holds no video.
        ConfigError: if there is no such stream.
    """
    name = re.sub(r"//[^/@]*@", "//", url)  # no password in recordings and messages
    options = {"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}
    file = _fetch_unseekable(url) if url.startswith(("http://", "https://")) else None
    try:
        container = av.open(file or url, timeout=TIMEOUT_SECONDS, options=options)
    except (av.FFmpegError, ValueError) as error:
        if file is not None:
            file.close()
        raise InputError(f"{name} cannot be opened: {_reason(error)}") from error
    return _guarded(container, name=name, kind="url", stream=stream, file=file)


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
    streams = [each for each in container.streams.video if _is_footage(each)]
    if not streams:
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


def _is_footage(stream: av.VideoStream) -> bool:
    """Whether it is neither the cover of a song nor a text file that FFmpeg would draw."""
    is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
    return not is_cover and stream.codec_context.name not in TEXT_CODECS


def _description(stream: av.VideoStream) -> str:
    size = f"{stream.codec_context.width}x{stream.codec_context.height}"
    return f"{size} {stream.codec_context.name} (number {stream.index} in the file)"


def _announced_seconds(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None  # microseconds


def _fetch_unseekable(url: str) -> IO[bytes] | None:
    """Fetch an MP4 or MOV file whose server knows no byte ranges; None for all else.

    The index of such a file may come last, and then it cannot be played while it is loaded.
    """
    request = urllib.request.Request(url, headers={"Range": "bytes=0-"})
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the container reads it to its end
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            has_ranges = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            if not has_ranges and answer.headers.get("Content-Length") is not None:
                start = answer.read(12)
                if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                    file.write(start)
                    shutil.copyfileobj(answer, file)
                    file.seek(0)
                    return file
    except (OSError, ValueError, http.client.HTTPException):
        pass  # FFmpeg tries again, and tells what is wrong
    file.close()
    return None


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
