"""Image folders, globs, lists and single images, in natural order."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from everview.errors import ConfigError, InputError
from everview.frames.rgb import UNREADABLE, rgb_from_picture
from everview.frames.selection import Picker, Selection
from everview.frames.source import Kind, RawFrame

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Image files that are read, in lower or upper case."""


class ImageFiles:
    """Image files as a source; the position of an image is its index in the sorted list."""

    kind: Kind = "images"
    frames_per_second: float | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.paths = tuple(paths)
        self.num_frames: int | None = len(self.paths)
        self.problems: list[str] = []
        self.num_seen = 0

    def raw_frames(self, selection: Selection) -> Iterator[RawFrame]:
        """Read the wanted images; one that cannot be read comes without pixels.

        Raises:
            ConfigError: if `selection` thins by time, which images do not have.
        """
        if selection.fps is not None:
            raise ConfigError("images have no time, so fps cannot thin them out: use every")
        picker = Picker(selection)
        for index, path in enumerate(self.paths):
            decision = picker.decide(index)
            if decision == "stop":
                return
            self.num_seen += 1
            if decision == "take":
                yield self._read(index, path)

    def close(self) -> None:
        """Nothing is held open between images."""

    def _read(self, index: int, path: Path) -> RawFrame:
        try:
            pixels = rgb_from_picture(path)
        except (InputError, *UNREADABLE) as error:
            reason = str(error.__cause__ or error)
            self.problems.append(f"{path.name} cannot be read: {reason}")
            return RawFrame(None, index, float(index), path.name, f"corrupt: {reason}")
        return RawFrame(pixels, index, float(index), path.name)


def natural_key(path: Path) -> list[tuple[bool, int, str]]:
    """Sort key that compares digits as numbers: `img2` before `img10`."""
    parts = re.split(r"(\d+)", str(path).lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file; hidden files are none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def open_folder(folder: Path) -> ImageFiles:
    """Take the images of a folder, or of its sub-folder `images` where it has one.

    Raises:
        InputError: if there is no image.
    """
    inner = folder / "images"
    home = inner if inner.is_dir() else folder
    paths = [path for path in home.iterdir() if is_image(path) and path.is_file()]
    if not paths:
        raise InputError(f"{home} holds no images ({_readable()})")
    return ImageFiles(str(folder), sorted(paths, key=natural_key))


def open_glob(pattern: str) -> ImageFiles:
    """Take the images that a pattern such as `shots/*.png` matches.

    Raises:
        InputError: if it matches no image.
    """
    found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - any root
    paths = [path for path in found if is_image(path) and path.is_file()]
    if not paths:
        raise InputError(f"{pattern} matches no images ({_readable()})")
    return ImageFiles(pattern, sorted(paths, key=natural_key))


def open_list(paths: Sequence[str | Path]) -> ImageFiles:
    """Take these image files in the given order.

    Raises:
        InputError: if the list is empty, or a file is absent or of no image type.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if not is_image(path):
            raise InputError(f"{path} is no image; a list holds images only ({_readable()})")
    if not files:
        raise InputError(f"the list of images is empty ({_readable()})")
    return ImageFiles(files[0].name if len(files) == 1 else f"{len(files)} images", files)


def _readable() -> str:
    return "read are " + " ".join(EXTENSIONS) + ", upper-case too"
