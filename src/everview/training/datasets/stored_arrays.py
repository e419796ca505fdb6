"""Files that sets are made of, read whole: arrays, depth maps, lists. Damage is named."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from everview.errors import InputError
from everview.frames.rgb import UNREADABLE, open_image
from everview.world.layouts.extras import exr_module, hdf5_module

Arrays = dict[str, np.ndarray]

_BROKEN = (*UNREADABLE, zipfile.BadZipFile, KeyError, RuntimeError)
"""What readers raise on files that are damaged, absent or of another kind."""


def read_arrays(path: Path) -> Arrays:
    """All arrays of an .npz file by name; arrays of Python objects are refused as damaged.

    Raises:
        InputError: if the file is absent or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _BROKEN as error:
        raise _unreadable(path, "an .npz file of plain arrays", error) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: if the file is absent, damaged or no object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _unreadable(path, "a JSON file", error) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; a JSON object is expected")
    return content


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an HDF5 file by their full names, such as `scene/indices`.

    Raises:
        InputError: if the file is absent or damaged.
        MissingExtraError: if h5py is not installed.
    """
    h5py = hdf5_module()
    found: Arrays = {}

    def keep(name: str, item: Any) -> None:  # noqa: ANN401  -- h5py has no types
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except _BROKEN as error:
        raise _unreadable(path, "an HDF5 file", error) from error
    return found


def read_stored_depth(path: Path) -> Float[np.ndarray, "H W"]:
    """A depth map as stored, no unit applied: 16-bit .png, .npy or .exr.

    Raises:
        InputError: if the file is absent, damaged, or no single-channel map.
        MissingExtraError: if the file is .exr and OpenEXR is not installed.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    values = _READERS[path.suffix.lower()](path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2:
        raise InputError(f"{path} has the shape {values.shape}; depth is (height, width)")
    return values.astype(np.float32)


def read_mask(path: Path) -> np.ndarray:
    """A mask image H W: true where it is brighter than a tenth.

    Raises:
        InputError: if the file is absent or damaged.
    """
    return np.asarray(open_image(path).convert("L")) > 25


def _read_png(path: Path) -> np.ndarray:
    image = open_image(path)
    if image.mode not in ("I;16", "I;16B", "I", "L"):
        raise InputError(f"{path} has the mode {image.mode}; depth is a 16-bit grey image")
    return np.asarray(image.convert("I") if image.mode != "I" else image)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except _BROKEN as error:
        raise _unreadable(path, "an .npy array", error) from error


def _read_exr(path: Path) -> np.ndarray:
    openexr = exr_module()
    try:
        with openexr.File(str(path)) as file:
            channels = file.channels()
            name = next((n for n in ("Y", "Z", "depth", "R", "RGB") if n in channels), None)
            values = None if name is None else np.array(channels[name].pixels)
    except _BROKEN as error:
        raise _unreadable(path, "an OpenEXR image", error) from error
    if values is None:
        raise InputError(f"{path} has the channels {sorted(channels)}; depth is Y, Z, depth or R")
    return values if values.ndim == 2 else values[:, :, 0]


_READERS = {".png": _read_png, ".npy": _read_npy, ".exr": _read_exr}


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    if not path.exists():
        return InputError(f"{path} does not exist")
    return InputError(f"{path} cannot be read as {kind}: {error}")


def size_of_image(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        InputError: if the file is absent or no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except UNREADABLE as error:
        raise _unreadable(path, "an image", error) from error
