"""Single files of training sets: pictures, depth, masks, arrays."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from everview.errors import ConfigError
from everview.world.layouts.extras import exr_module, hdf5_module

LARGEST_STEP = 65535


def write_picture(path: Path, image: Float[Tensor, "3 H W"]) -> None:
    """RGB in [0, 1] as 8-bit JPEG or PNG."""
    values = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(values).save(path, quality=95, subsampling=0)
    else:
        Image.fromarray(values).save(path)


def write_mask(path: Path, mask: Bool[Tensor, "H W"]) -> None:
    """White where true."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255).save(path)


def write_depth_steps(
    path: Path, depth: Float[Tensor, "H W"], *, step: float, nothing: int = 0
) -> None:
    """Depth as 16-bit PNG; what is beyond its range counts as no depth.

    Args:
        path: file to write.
        depth: z-depth; 0 where there is none.
        step: depth of the stored value 1.
        nothing: stored where there is no depth, or more than fits.
    """
    steps = np.rint(depth.double().cpu().numpy() / step)
    fits = (steps > 0) & (steps <= LARGEST_STEP)
    values = np.where(fits, steps, nothing).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_depth_floats(path: Path, depth: Float[Tensor, "H W"]) -> None:
    """Depth as float32, exactly: `.npy` or `.exr`.

    Raises:
        ConfigError: if the file has another ending.
        MissingExtraError: if it is `.exr` and OpenEXR is not installed.
    """
    values = depth.float().cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".exr":
        openexr = exr_module()
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        with openexr.File(header, {"Y": values}) as file:
            file.write(str(path))
    else:
        raise ConfigError(f"depth as floats goes to .npy or .exr; got {path.name}")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Arrays by name as .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)


def write_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by full name as HDF5.

    Raises:
        MissingExtraError: if h5py is not installed.
    """
    with hdf5_module().File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def clean_depth(depth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Depth with 0 for whatever is no depth."""
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)
