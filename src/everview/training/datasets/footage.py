"""Plain video files and image folders: pictures without any truth, for distillation."""

from collections.abc import Sequence
from pathlib import Path

import torch

from everview.errors import InputError
from everview.frames.folders import is_image, natural_key
from everview.frames.frame import Frame
from everview.frames.reader import read
from everview.training.datasets.declaration import SamplingRules
from everview.training.datasets.view import Dataset, Links, View

RULES = SamplingRules(max_gap=8, video=1.0, fixed_gap=0.5)

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".m4v")


class FootageScene:
    """One video or image folder.

    A video is decoded from its beginning up to the last frame that is asked for, so that random
    windows of a long one are slow: let `ffmpeg` write its frames to a folder first.
    """

    links: Links | None = None
    max_gap: int | None = None

    def __init__(self, source: Path) -> None:
        """Open the source to see how long it is.

        Raises:
            InputError: if it cannot be opened or does not tell its length.
        """
        self.source = source
        self.name = source.name
        with read(source) as reader:
            hint = reader.num_frames_hint
        if not hint:
            raise InputError(
                f"{source} does not tell how many frames it holds: write its frames to a folder "
                "and train on that"
            )
        self._length = hint

    @property
    def num_ordered(self) -> int:
        """All frames."""
        return len(self)

    def __len__(self) -> int:
        return self._length

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames in one pass.

        Raises:
            InputError: if the source ends before, or one of the frames is damaged.
        """
        wanted, found = set(positions), {}
        with read(self.source) as reader:
            for frame in reader:
                if frame.index in wanted:
                    found[frame.index] = self._view(frame)
                if len(found) == len(wanted):
                    break
        missing = sorted(wanted - found.keys())
        if missing:
            raise InputError(f"{self.source} ends before its frame {missing[0]}")
        return [found[position] for position in positions]

    def _view(self, frame: Frame) -> View:
        if not frame.usable:
            raise InputError(f"{self.source} {frame.name}: {'; '.join(frame.flags)}")
        size = (frame.image.shape[1], frame.image.shape[2])
        return View(
            image=frame.image,
            depth=torch.zeros(size),
            valid=torch.zeros(size, dtype=torch.bool),
            world_from_camera=torch.full((4, 4), torch.nan),
            intrinsics=torch.full((3, 3), torch.nan),
            has_depth=False,
            has_pose=False,
            has_intrinsics=False,
            time=float(frame.timestamp),
            index=frame.index,
            label=f"footage/{self.name}/{frame.index}",
        )


def is_footage(path: Path) -> bool:
    """Whether this is a video file, or a folder with images in it or in its `images`."""
    if path.is_file():
        return path.suffix.lower() in VIDEOS
    home = path / "images" if (path / "images").is_dir() else path
    return path.is_dir() and any(is_image(item) for item in home.iterdir())


def open_footage(path: Path) -> Dataset:
    """A video, an image folder, or a folder of videos and image folders.

    Raises:
        InputError: if there is neither.
    """
    sources = [path] if is_footage(path) else []
    if not sources and path.is_dir():
        sources = sorted((item for item in path.iterdir() if is_footage(item)), key=natural_key)
    if not sources:
        raise InputError(f"{path} holds no video ({' '.join(VIDEOS)}) and no folder of images")
    return Dataset(name="footage", rules=RULES, scenes=tuple(map(FootageScene, sources)))
