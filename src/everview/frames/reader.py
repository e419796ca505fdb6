"""Frames of any source, decoded and preprocessed ahead of the consumer."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.frames.folders import is_image, open_folder, open_glob, open_list
from everview.frames.frame import Frame
from everview.frames.preprocess import PATCH, Fit, check_size, preprocess, tensor_from_rgb
from everview.frames.read_ahead import ReadAhead
from everview.frames.selection import Selection
from everview.frames.source import Kind, RawFrame, Source
from everview.frames.videos import open_camera, open_url, open_video
from everview.geometry.pixel_map import PixelMap

QUEUE_SIZE = 8
"""Frames that lie ready; a live source keeps only one, so that it does not lag behind."""

BLACK_MEAN, BLACK_MAXIMUM = 2 / 255, 16 / 255
"""An image that is darker than both has nothing to see in it."""


@runtime_checkable
class TakesFrames(Protocol):
    """A network, as far as the reader needs it: for which size to preprocess.

    An attribute `fit` ("crop" or "pad") is obeyed too, where there is one.
    """

    @property
    def input_size(self) -> int:
        """Width or longer side in pixels, see `preprocess`."""
        ...


class FrameReader:
    """The frames of one source: an iterator that can be closed, and a context manager.

    A background thread decodes and preprocesses up to eight frames ahead. It ends with the frames,
    on `close()`, on leaving the `with` block, or when the reader is forgotten. Frames come once; to
    read again, call `everview.read` again.
    """

    def __init__(
        self, source: Source, selection: Selection, *, size: int | None = None, fit: Fit = "crop"
    ) -> None:
        """Take over an opened source; `size=None` leaves the original pixels."""
        self._source = source
        self._peeked: Frame | None = None
        is_live = source.kind in ("camera", "url") and source.num_frames is None
        maker = _FrameMaker(source, selection, size, fit)
        self._frames = ReadAhead(maker.frames, capacity=1 if is_live else QUEUE_SIZE)
        self.kind: Kind = source.kind
        """`video`, `images`, `camera` or `url`."""
        self.source: str = source.name
        """Path or address as given, without any password."""
        self.problems: list[str] = source.problems
        """What is wrong with the source, such as damage; grows while frames are read."""
        rate = source.frames_per_second
        per_unit = 1.0 if source.kind == "images" else rate
        self.num_frames_hint: int | None = selection.about(source.num_frames, per_unit)
        """About how many frames will come; None if unknown. Headers may lie."""
        self.frames_per_second: float | None = _thinned_rate(rate, selection)
        """About how many frames come per second of the source; None for images."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._peeked is not None:
            frame, self._peeked = self._peeked, None
            return frame
        return next(self._frames)

    def peek(self) -> Frame | None:
        """The frame that comes next, without taking it; None after the last."""
        if self._peeked is None:
            self._peeked = next(self._frames, None)
        return self._peeked

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and close the source; no more frames come."""
        self._frames.close()
        if not self._frames.is_running:  # a thread that still waits for a silent source closes it
            self._source.close()


def read(
    source: str | Path | int | Sequence[str | Path],
    *,
    model: TakesFrames | None = None,
    size: int | None = None,
    every: int = 1,
    start: float | None = None,
    end: float | None = None,
    stream: int = 0,
    fps: float | None = None,
) -> FrameReader:
    """Read frames of a video file, image folder, glob, image, camera or address.

    Bad frames are not left out: they come with `flags` (`corrupt: ...`, `black`, `other size: ...`)
    and, unless black, zeros for an image, so that the caller can skip them and tell why. A damaged
    file is read up to the break, which is told in the reader's `problems`.

    Args:
        source: a video or image file; a folder of images or one that holds `images/`; a pattern
            such as `shots/*.png`; a list of images; a camera's number (`0`, `"0"`); an address
            (`http://`, `rtsp://`, ...).
        model: a network to preprocess for, with its `input_size` and, if it has one, `fit`.
        size: preprocess to this width (a multiple of 14), whatever `model` says. With neither, the
            frames keep their original pixels.
        every: take each n-th frame.
        start: leave out what comes before: seconds after the first frame, or an image's index.
        end: leave out this and what comes after, like `start`.
        stream: which video stream: 0 is the first; a number that is too large for that is taken
            as the stream's number in the file (what `ffprobe` shows).
        fps: take at most so many frames per second, by their time stamps.

    Raises:
        InputError: if the source is absent, empty, or cannot be read; during the iteration if not
            a single frame can be decoded.
        ConfigError: if an option is out of range, or (during the iteration) no frame is left.
    """
    selection = Selection(every=every, start=start, end=end, fps=fps)
    fit: Fit = getattr(model, "fit", "crop")
    if size is None and model is not None:
        size = model.input_size
    if size is not None:
        check_size(size)
    return FrameReader(_open(source, stream), selection, size=size, fit=fit)


def _open(source: str | Path | int | Sequence[str | Path], stream: int) -> Source:
    if isinstance(source, int) or (isinstance(source, str) and source.isdecimal()):
        return open_camera(int(source))
    if isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
        return open_url(source, stream)
    if not isinstance(source, str | Path):
        return open_list(source)
    if not str(source):
        raise InputError("the source is empty; give a file, folder, glob, camera or address")
    path = Path(source).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.exists():
        return open_list([path]) if is_image(path) else open_video(path, stream)
    if any(letter in str(source) for letter in "*?["):
        return open_glob(str(path))
    raise InputError(f"{source} does not exist")


def _thinned_rate(rate: float | None, selection: Selection) -> float | None:
    if rate is None or selection.fps is None:
        return rate and rate / selection.every
    return min(rate, selection.fps)


class _FrameMaker:
    """Turns decoded pictures into frames; lives in the background thread."""

    def __init__(self, source: Source, selection: Selection, size: int | None, fit: Fit) -> None:
        self._source = source
        self._selection = selection
        self._size = size
        self._fit: Fit = fit
        self._expected: tuple[int, int] | None = None  # height and width of the good frames' images
        self._original_size = (0, 0)  # the same in the source, where all pixel maps must agree

    def frames(self) -> Iterator[Frame]:
        num_frames = num_readable = 0
        try:
            for raw in self._source.raw_frames(self._selection):
                num_frames += 1
                num_readable += raw.pixels is not None
                yield self._frame(raw)
        finally:
            self._source.close()
        if not self._source.num_seen or (num_frames and not num_readable):
            reasons = "; ".join(self._source.problems[:3])
            raise InputError(
                f"{self._source.name}: not a single frame can be decoded"
                + (f" ({reasons})" if reasons else "")
            )
        if not num_frames:
            raise ConfigError(
                f"{self._source.name}: no frame is left between start={self._selection.start} and "
                f"end={self._selection.end}; it ends after {self._source.num_seen} frames"
            )

    def _frame(self, raw: RawFrame) -> Frame:
        if raw.pixels is None:
            return self._placeholder(raw, raw.problem)
        image, pixel_map = self._prepared(raw.pixels)
        size, original_size = (image.shape[1], image.shape[2]), _size_of(raw.pixels)
        if self._expected is not None and original_size != self._original_size:
            wanted = "x".join(map(str, self._original_size))
            problem = f"other size: {original_size[0]}x{original_size[1]} instead of {wanted}"
            return self._placeholder(raw, problem, original_size)
        flags = (raw.problem,) if raw.problem else ()
        if not flags and _is_black(image, pixel_map):
            flags = ("black",)
        if not flags:
            self._expected, self._original_size = size, original_size
        return Frame(
            image=image,
            timestamp=raw.timestamp,
            index=raw.index,
            original_size=original_size,
            pixel_map=pixel_map,
            name=raw.name,
            flags=flags,
        )

    def _prepared(
        self, pixels: Image.Image | np.ndarray
    ) -> tuple[Float[Tensor, "3 H W"], PixelMap | None]:
        if self._size is None:
            return tensor_from_rgb(pixels), None
        return preprocess(pixels, self._size, self._fit)

    def _placeholder(
        self, raw: RawFrame, problem: str, original_size: tuple[int, int] | None = None
    ) -> Frame:
        height, width = self._expected or (self._size or PATCH, self._size or PATCH)
        return Frame(
            image=torch.zeros(3, height, width),
            timestamp=raw.timestamp,
            index=raw.index,
            original_size=original_size or self._original_size,
            name=raw.name,
            flags=(problem,),
        )


def _size_of(pixels: Image.Image | np.ndarray) -> tuple[int, int]:
    if isinstance(pixels, np.ndarray):
        return pixels.shape[0], pixels.shape[1]
    return pixels.height, pixels.width


def _is_black(image: Float[Tensor, "3 H W"], pixel_map: PixelMap | None) -> bool:
    if pixel_map is not None:  # padding is white
        top, bottom, left, right = pixel_map.valid_rectangle()
        image = image[:, top:bottom, left:right]
    return bool(image.max() < BLACK_MAXIMUM and image.mean() < BLACK_MEAN)
