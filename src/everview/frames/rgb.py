"""Any still picture to upright 8-bit RGB, the way a viewer would show it."""

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from everview.errors import ConfigError, InputError

Picture = str | Path | Image.Image | np.ndarray | Tensor
"""A path, a Pillow image, an array (H, W) or (H, W, 1 to 4 channels), or a tensor (3, H, W).

Arrays hold uint8, uint16 or floats in [0, 1]; tensors uint8 or floats in [0, 1]. Floats are rounded
to 8 bits, as the published loader would see the picture."""

RANGE_SLACK = 1e-3
"""How far floats may lie outside [0, 1], by rounding errors."""

UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow's for a broken PNG chunk
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are damaged or no images."""

WHITE = (255, 255, 255, 255)


def rgb_from_picture(picture: Picture, *, strict_reference: bool = False) -> Image.Image:
    """Give the picture as an upright, opaque Pillow image of mode RGB.

    EXIF orientation is applied, transparency of any kind is laid on white, 16-bit values are
    divided by 257. `strict_reference=True` does what the published loader does instead: EXIF is
    ignored, only mode RGBA is laid on white, other modes lose their alpha, 16 bits saturate.

    Raises:
        InputError: if a file is absent or damaged, or holds floating-point pixels.
        ConfigError: if an array or tensor has another dtype, shape or range than `Picture` says.
    """
    if isinstance(picture, Tensor):
        picture = _array_from_tensor(picture)
    if isinstance(picture, np.ndarray):
        image = image_from_array(picture, strict_reference=strict_reference)
    elif isinstance(picture, Image.Image):
        image = picture
    else:
        image = open_image(_path(picture))
    if strict_reference:
        return _reference_rgb(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return _opaque(_eight_bit(image))


def open_image(path: Path) -> Image.Image:
    """Read an image file completely, in the mode that it is stored in.

    Raises:
        InputError: if the file is absent or cannot be decoded to its end.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def image_from_array(array: np.ndarray, *, strict_reference: bool = False) -> Image.Image:
    """Wrap H W [C] values: 1 channel is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or array.size == 0:
        raise ConfigError(
            f"an image array is (H, W) or (H, W, C) with 1 to 4 channels; got {array.shape}"
        )
    if np.issubdtype(array.dtype, np.floating):
        array = _bytes_from_floats(array)
    if array.dtype not in (np.uint8, np.uint16):
        raise ConfigError(
            f"an image array holds uint8, uint16 or floats in [0, 1]; got {array.dtype}"
        )
    if array.dtype == np.uint16:
        array = np.minimum(array, 255) if strict_reference else (array + np.uint32(128)) // 257
        array = array.astype(np.uint8)
    if array.ndim == 3 and channels == 1:
        array = array[:, :, 0]
    return Image.fromarray(array)


def _path(picture: object) -> Path:
    if isinstance(picture, str | Path):
        return Path(picture)
    raise ConfigError(
        "a picture is a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W); got "
        f"{type(picture).__name__} (of a Frame give `frame.image`)"
    )


def _array_from_tensor(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.numel():
        raise ConfigError(
            f"an image tensor is (3, H, W), channels first; got {tuple(tensor.shape)}: give one "
            "image at a time"
        )
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ConfigError(f"an image tensor holds uint8 or floats in [0, 1]; got {tensor.dtype}")
    values = tensor.detach().cpu()
    values = values if tensor.dtype in (torch.uint8, torch.float64) else values.float()
    return values.permute(1, 2, 0).contiguous().numpy()  # H W 3


def _bytes_from_floats(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # also if not a number
        raise ConfigError(
            f"floats of an image lie in [0, 1]; got {low:.4g} .. {high:.4g}: divide 8-bit values "
            "by 255, clamp what a resize has left outside"
        )
    return np.rint(array * 255).clip(0, 255).astype(np.uint8)


def _reference_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits; Pillow itself reads 16-bit colour files as 8 bits."""
    if image.mode == "F":
        raise InputError(
            "floating-point pixels have no agreed range; save the image with 8 or 16 bits"
        )
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).clip(0, 65535)  # mode I: 16 bits in a 32-bit field
    return image_from_array(values.astype(np.uint16))


def _opaque(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")
