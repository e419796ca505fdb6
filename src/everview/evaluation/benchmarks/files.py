"""Files of benchmarks, read whole; damage is named."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import InputError
from everview.frames.rgb import UNREADABLE, open_image

DPT_TAG = 202021.25
"""First float32 of Sintel's files."""


def home_of(root: Path, *names: str) -> Path:
    """The set's own folder: one of `names` below `root`, or `root` itself.

    Raises:
        InputError: if `root` is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder")
    return next((root / name for name in names if (root / name).is_dir()), root)


def folders_in(folder: Path) -> list[Path]:
    """Folders directly below, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """Files of a folder by name.

    Raises:
        InputError: if the folder is absent or has none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is absent or no folder")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not found:
        raise InputError(f"{folder} has no file {' or '.join(patterns)}")
    return found


def existing(path: Path) -> Path:
    """The path itself.

    Raises:
        InputError: if there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    return path


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        InputError: if it is absent or no text.
    """
    try:
        return existing(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error


def read_rows(path: Path) -> list[list[float]]:
    """Numbers of each line; empty lines and those that begin with # do not count.

    Raises:
        InputError: if a word is no number; names file and line.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            rows.append(_numbers(line.split(), f"{path}, line {number}"))
    return rows


def read_matrix(path: Path) -> Float[Tensor, "4 4"]:
    """A pose as four lines of four numbers, float64.

    Raises:
        InputError: if the file is absent or holds something else.
    """
    return matrix(read_rows(path), str(path))


def matrix(rows: Sequence[Sequence[float]], where: str) -> Float[Tensor, "4 4"]:
    """16 numbers, or 12 without the last row, as a pose in float64.

    Raises:
        InputError: if there are not so many; says where.
    """
    values = [value for row in rows for value in row]
    if len(values) == 12:
        values += [0.0, 0.0, 0.0, 1.0]
    if len(values) != 16:
        raise InputError(f"{where} holds {len(values)} numbers; a pose has 16")
    return torch.tensor(values, dtype=torch.float64).reshape(4, 4)


def finite_pose(pose: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"] | None:
    """None where the set's tracking was lost."""
    return pose if bool(pose.isfinite().all()) else None


def read_depth_png(
    path: Path, *, step: float, nothing: Iterable[int] = (0,), largest: float = float("inf")
) -> Float[Tensor, "H W"]:
    """A 16-bit PNG as depth, 0 where there is none.

    Args:
        path: of the file.
        step: depth of the stored value 1.
        nothing: stored values that mean no depth.
        largest: depth beyond which a value does not count.

    Raises:
        InputError: if the file is absent, damaged or no 16-bit grey image.
    """
    image = open_image(existing(path))
    if image.mode not in ("I;16", "I;16B", "I"):
        raise InputError(f"{path} has the mode {image.mode}; depth is a 16-bit grey image")
    try:
        stored = np.asarray(image).astype(np.int64)
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    depth = stored * step
    valid = ~np.isin(stored, list(nothing)) & (depth <= largest)
    return torch.from_numpy(np.where(valid, depth, 0.0).astype(np.float32))


def read_depth_npy(path: Path) -> Float[Tensor, "H W"]:
    """A depth map of floats, 0 where it is not finite or not positive.

    Raises:
        InputError: if the file is absent, damaged or no map.
    """
    try:
        values = np.load(existing(path), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} cannot be read as an .npy array: {error}") from error
    values = values.squeeze()
    if values.ndim != 2:
        raise InputError(f"{path} has the shape {values.shape}; depth is (height, width)")
    return clean(torch.from_numpy(values.astype(np.float32)))


def read_depth_raw(path: Path, size: tuple[int, int]) -> Float[Tensor, "H W"]:
    """Bare little-endian float32 of a known size, as ETH3D has it; infinity means none.

    Raises:
        InputError: if the file is absent or has another number of values.
    """
    values = np.fromfile(existing(path), "<f4")
    if values.size != size[0] * size[1]:
        raise InputError(
            f"{path} holds {values.size} values; the image has {size[0]} x {size[1]} pixels"
        )
    return clean(torch.from_numpy(values.reshape(size)))


def read_dpt(path: Path) -> Float[Tensor, "H W"]:
    """Sintel's depth: tag, width, height, then float32 row by row.

    Raises:
        InputError: if the tag or the length is wrong.
    """
    raw = existing(path).read_bytes()
    if len(raw) < 12 or np.frombuffer(raw, "<f4", 1)[0] != np.float32(DPT_TAG):
        raise InputError(f"{path} does not begin with the tag {DPT_TAG} of a .dpt file")
    width, height = np.frombuffer(raw, "<i4", 2, offset=4).tolist()
    if len(raw) != 12 + 4 * width * height:
        raise InputError(f"{path} is cut off: {len(raw)} bytes for {height} x {width} pixels")
    return clean(
        torch.from_numpy(np.frombuffer(raw, "<f4", offset=12).reshape(height, width).copy())
    )


def read_cam(path: Path) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
    """Sintel's camera: K, and camera_from_world, both float64.

    Raises:
        InputError: if the tag or the length is wrong.
    """
    raw = existing(path).read_bytes()
    if len(raw) != 4 + 21 * 8 or np.frombuffer(raw, "<f4", 1)[0] != np.float32(DPT_TAG):
        raise InputError(f"{path} is no .cam file: it needs the tag {DPT_TAG} and 21 doubles")
    values = np.frombuffer(raw, "<f8", offset=4).copy()
    intrinsics = torch.from_numpy(values[:9].reshape(3, 3))
    return intrinsics, matrix([values[9:].tolist()], str(path))


def clean(depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Depth with 0 for whatever is no depth."""
    return torch.where(depth.isfinite() & (depth > 0), depth, 0.0)


def _numbers(words: Sequence[str], where: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
