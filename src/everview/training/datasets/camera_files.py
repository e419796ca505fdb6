"""Intrinsics and poses out of .npz files, under the names that such files use."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from everview.errors import InputError
from everview.training.datasets.stored_arrays import Arrays

INTRINSICS = ("intrinsics", "camera_intrinsics", "intrinsic", "K")
"""Names of K in pixels: 3 3, or fx fy cx cy, or width height fx fy cx cy."""
POSES = ("pose", "poses", "camera_pose", "cam2world", "world_from_camera", "trajectories")
"""Names of world_from_camera, 4 4 or 3 4."""
IMAGES = ("images", "image_names", "names")
"""Names of the list of a scene's frames."""
GROUPS = ("groups", "image_groups", "sets")
"""Names of the groups of frames that see the same: n k positions in the list, -1 for none."""


def intrinsics_of(arrays: Arrays, path: Path) -> Float[np.ndarray, "*frames 3 3"]:
    """K in pixels, of one frame or of all.

    Raises:
        InputError: if no array of a known name and shape is there.
    """
    values = _named(arrays, INTRINSICS, path).astype(np.float64)
    if values.shape[-2:] == (3, 3):
        return values
    if values.shape[-1] in (4, 6):
        fx, fy, cx, cy = np.moveaxis(values[..., -4:], -1, 0)
        result = np.zeros((*values.shape[:-1], 3, 3))
        result[..., 0, 0], result[..., 1, 1], result[..., 2, 2] = fx, fy, 1.0
        result[..., 0, 2], result[..., 1, 2] = cx, cy
        return result
    raise InputError(
        f"{path}: intrinsics have the shape {values.shape}; expected (3, 3), (fx fy cx cy) or "
        "(width height fx fy cx cy)"
    )


def poses_of(arrays: Arrays, path: Path) -> Float[np.ndarray, "*frames 4 4"]:
    """world_from_camera, of one frame or of all; also from a rotation and a translation.

    Raises:
        InputError: if no array of a known name and shape is there.
    """
    if "R_cam2world" in arrays and "t_cam2world" in arrays:
        translation = arrays["t_cam2world"].reshape(*arrays["R_cam2world"].shape[:-1], 1)
        values = np.concatenate([arrays["R_cam2world"], translation], axis=-1)
    else:
        values = _named(arrays, POSES, path)
    values = values.astype(np.float64)
    if values.shape[-2:] == (4, 4):
        return values
    if values.shape[-2:] == (3, 4):
        last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (*values.shape[:-2], 1, 4))
        return np.concatenate([values, last], axis=-2)
    raise InputError(f"{path}: poses have the shape {values.shape}; expected (4, 4) or (3, 4)")


def names_of(arrays: Arrays, path: Path) -> list[str]:
    """Names of a scene's frames without folder and ending, in the order of its arrays.

    Raises:
        InputError: if there is no list of images.
    """
    names = [
        item.decode() if isinstance(item, bytes) else str(item)
        for item in _named(arrays, IMAGES, path).tolist()
    ]
    return [name.rsplit("/", 1)[-1].removesuffix(".jpg").removesuffix(".png") for name in names]


def groups_of(arrays: Arrays) -> tuple[tuple[int, ...], ...]:
    """Groups of positions in the list of images; empty if the file has none."""
    name = next((name for name in GROUPS if name in arrays), None)
    if name is None:
        return ()
    return tuple(tuple(i for i in row if i >= 0) for row in arrays[name].tolist())


def number_of(arrays: Arrays, name: str, path: Path) -> float:
    """One number.

    Raises:
        InputError: if it is absent or no single number.
    """
    values = _named(arrays, (name,), path)
    if values.size != 1:
        raise InputError(f"{path}: {name} has the shape {values.shape}; one number is expected")
    return float(values.reshape(()))


def _named(arrays: Arrays, names: Sequence[str], path: Path) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InputError(
        f"{path} has the arrays {', '.join(sorted(arrays)) or 'none'}; expected one of "
        f"{', '.join(names)}"
    )
