"""Original pixels to network input, equal to the published loaders to the bit."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.frames.rgb import Picture, rgb_from_picture
from everview.geometry.pixel_map import PixelMap

PATCH = 14
"""Side of the square that the patch encoder sees at once, in pixels."""

Fit = Literal["crop", "pad"]


class Preprocessed(NamedTuple):
    """A network input and the way back to the original pixels."""

    image: Float[Tensor, "3 H W"]
    """RGB in [0, 1]; H and W are multiples of 14."""
    pixel_map: PixelMap
    """Where each network pixel lies in the upright original, cut rows and padding included."""


class PreprocessedBatch(NamedTuple):
    """Network inputs of one common size."""

    images: Float[Tensor, "s 3 H W"]
    """RGB in [0, 1], padded with white where the single images were smaller."""
    pixel_maps: tuple[PixelMap, ...]
    """One for each image, the padding to the common size included."""


def preprocess(
    image: Picture, size: int = 518, fit: Fit = "crop", strict_reference: bool = False
) -> Preprocessed:
    """Resize one image for the network as the published loader does (Pillow's bicubic).

    `fit="crop"`: the width becomes `size`, the height follows the aspect ratio rounded to
    multiples of 14, and rows above `size` are cut equally at top and bottom (portrait images).
    `fit="pad"`: the longer side becomes `size` and white fills the square.

    Args:
        image: a path, a Pillow image, an array H W [C] (uint8, uint16, or floats in [0, 1]), or a
            tensor 3 H W (uint8 or floats in [0, 1]); floats are rounded to 8 bits.
        size: width, longer side or side of the square in pixels; a multiple of 14.
        fit: what happens to images that are not landscape.
        strict_reference: reproduce the published loader's treatment of alpha, EXIF orientation
            and 16 bits too. The default shows the image as a viewer would, and gives very wide
            images one row of patches where the published loader fails.

    Raises:
        ConfigError: if `size` or `fit` is not allowed, or an array or tensor is no image.
        InputError: if a file is absent or damaged, or (strict only) an image is too thin.
    """
    _check(size, fit)
    rgb = rgb_from_picture(image, strict_reference=strict_reference)
    width, height = rgb.size
    rows, columns = _resized(height, width, size, fit, strict_reference)
    result = tensor_from_rgb(_resize(rgb, rows, columns))
    top = left = 0
    if fit == "crop" and rows > size:
        top = -((rows - size) // 2)
        result = result[:, -top : size - top].clone()
    elif fit == "pad":
        top, left = (size - rows) // 2, (size - columns) // 2
        result = _pad(result, size, size)
    pixel_map = PixelMap(
        original_size=(height, width),
        network_size=(result.shape[1], result.shape[2]),
        scale=(columns / width, rows / height),
        offset=(float(left), float(top)),
    )
    return Preprocessed(result, pixel_map)


def preprocess_batch(
    images: Sequence[Picture],
    size: int = 518,
    fit: Fit = "crop",
    strict_reference: bool = False,
) -> PreprocessedBatch:
    """Preprocess several images and pad them with white to the largest height and width.

    Raises:
        ConfigError, InputError: as `preprocess`; also if there is no image.
    """
    if not images:
        raise ConfigError("preprocess_batch needs at least one image; got none")
    singles = [preprocess(image, size, fit, strict_reference) for image in images]
    height = max(single.image.shape[1] for single in singles)
    width = max(single.image.shape[2] for single in singles)
    padded = torch.stack([_pad(single.image, height, width) for single in singles])
    maps = [_padded_map(single.pixel_map, height, width) for single in singles]
    return PreprocessedBatch(padded, tuple(maps))


def preprocess_square(
    image: Picture, size: int = 518, strict_reference: bool = False
) -> Preprocessed:
    """Centre the image on a black square and resize that, as the published square loader does.

    Nothing is cut and the aspect ratio is kept exactly, at the price of black borders.

    Raises:
        ConfigError, InputError: as `preprocess`.
    """
    _check(size, "pad")
    rgb = rgb_from_picture(image, strict_reference=strict_reference)
    width, height = rgb.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    canvas = Image.new("RGB", (side, side))
    canvas.paste(rgb, (left, top))
    pixel_map = PixelMap(
        original_size=(height, width),
        network_size=(size, size),
        scale=(size / side, size / side),
        offset=(left * size / side, top * size / side),
    )
    return Preprocessed(tensor_from_rgb(_resize(canvas, size, size)), pixel_map)


def tensor_from_rgb(rgb: Image.Image | np.ndarray) -> Float[Tensor, "3 H W"]:
    """8-bit RGB (H W 3) to float32 in [0, 1], channels first."""
    values = np.asarray(rgb).transpose(2, 0, 1).copy()  # 3 H W; Pillow's own are read-only
    return torch.from_numpy(values).float().div_(255)


def check_size(size: int) -> None:
    """Refuse sizes that do not consist of whole patches.

    Raises:
        ConfigError: unless `size` is a positive multiple of 14; names the nearest one.
    """
    if size < PATCH or size % PATCH:
        near = max(PATCH, PATCH * round(size / PATCH))
        raise ConfigError(f"size must be a positive multiple of {PATCH}; got {size}: use {near}")


def _check(size: int, fit: str) -> None:
    check_size(size)
    if fit not in ("crop", "pad"):
        raise ConfigError(f'fit must be "crop" or "pad"; got {fit!r}')


def _resized(height: int, width: int, size: int, fit: Fit, strict: bool) -> tuple[int, int]:
    """Rows and columns after the resize, before rows are cut or padding is added."""
    if fit == "crop" or width >= height:
        rows = PATCH * round(height * (size / width) / PATCH)  # half to even, as published
        return _at_least_one_patch(rows, height, width, strict), size
    columns = PATCH * round(width * (size / height) / PATCH)
    return size, _at_least_one_patch(columns, height, width, strict)


def _at_least_one_patch(length: int, height: int, width: int, strict: bool) -> int:
    if length >= PATCH:
        return length
    story = f"an image of {height}x{width} (height x width) is too thin: its short side is less"
    story = f"{story} than half a patch of {PATCH} pixels after the resize"
    if strict:
        raise InputError(
            f"{story}; the published loader cannot read it, strict_reference=False can"
        )
    warnings.warn(f"{story}; it is stretched to one patch", stacklevel=4)
    return PATCH


def _resize(rgb: Image.Image, rows: int, columns: int) -> Image.Image:
    if rgb.size == (columns, rows):  # bicubic at scale 1 is the identity
        return rgb
    return rgb.resize((columns, rows), Image.Resampling.BICUBIC)


def _pad(image: Float[Tensor, "3 h w"], height: int, width: int) -> Float[Tensor, "3 H W"]:
    """Centre on white; an odd rest goes to the right and the bottom."""
    _, rows, columns = image.shape
    top, left = (height - rows) // 2, (width - columns) // 2
    if (rows, columns) == (height, width):
        return image
    padded = image.new_ones(3, height, width)
    padded[:, top : top + rows, left : left + columns] = image
    return padded


def _padded_map(pixel_map: PixelMap, height: int, width: int) -> PixelMap:
    rows, columns = pixel_map.network_size
    left, top = pixel_map.offset
    offset = (left + (width - columns) // 2, top + (height - rows) // 2)
    return dataclasses.replace(pixel_map, network_size=(height, width), offset=offset)
