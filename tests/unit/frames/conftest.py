"""Small videos and images, made on the spot."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

TESTS = Path(__file__).parents[2]
VIDEOS = TESTS / "data" / "videos"
GOLDEN = TESTS / "golden" / "preprocess"
OFFICE = TESTS.parent / "src" / "everview" / "assets" / "clips" / "office.mp4"
MILLISECONDS = Fraction(1, 1000)


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that tells its number: the grey of its left half is 40 + 5 * (number mod 32)."""
    pixels = np.full((height, width, 3), 200, np.uint8)
    pixels[:, : width // 2] = 40 + 5 * (number % 32)
    return pixels


MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Write pictures at given times (ms); the name's ending says which container."""

    def make(
        name: str,
        pictures: Sequence[np.ndarray] | None = None,
        times: Sequence[int] | None = None,
        codec: str = "libx264",
        options: dict[str, str] | None = None,
        time_base: Fraction = MILLISECONDS,
    ) -> Path:
        path = tmp_path / name
        if pictures is None:
            pictures = [picture(i) for i in range(len(times) if times else 10)]
        times = times or [40 * i for i in range(len(pictures))]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = time_base
            for pixels, time in zip(pictures, times, strict=True):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, MILLISECONDS
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write numbered pictures as image files with the given names."""

    def make(names: Sequence[str], folder: str = "shots", **sizes: int) -> Path:
        home = tmp_path / folder
        home.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(number, **sizes)).save(home / name)
        return home

    return make


@pytest.fixture
def no_thread_left():
    """Fail if a reader's thread outlives the test."""
    import threading

    yield
    alive = [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name]
    assert not alive
