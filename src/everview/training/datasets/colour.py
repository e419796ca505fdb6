"""Random colours, one draw for all frames of a sample."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageEnhance
from torch import Tensor

from everview.errors import ConfigError
from everview.frames.preprocess import tensor_from_rgb

Change = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourJitter:
    """How far colours may move."""

    brightness: float = 0.5
    """Factor of 1 - x .. 1 + x."""
    contrast: float = 0.5
    """Factor of 1 - x .. 1 + x, about the image's mean."""
    saturation: float = 0.5
    """Factor of 1 - x .. 1 + x."""
    hue: float = 0.1
    """Shift of -x .. x of the colour circle, at most 0.5."""

    def __post_init__(self) -> None:
        """Refuse factors below 0 and shifts beyond the circle."""
        factors = (self.brightness, self.contrast, self.saturation)
        if not all(0 <= factor <= 1 for factor in factors) or not 0 <= self.hue <= 0.5:
            raise ConfigError(
                "ColourJitter.brightness, contrast and saturation lie in [0, 1], hue in [0, 0.5]; "
                f"got {(*factors, self.hue)}"
            )

    def draw(self, dice: random.Random) -> "ColourChange":
        """Strengths and their order."""
        limits = (self.brightness, self.contrast, self.saturation)
        strengths = [1 + dice.uniform(-limit, limit) for limit in limits]
        strengths.append(dice.uniform(-self.hue, self.hue))
        steps = list(zip(_CHANGES, strengths, strict=True))
        dice.shuffle(steps)
        return ColourChange(tuple(steps))


@dataclass(frozen=True, slots=True)
class ColourChange:
    """Drawn strengths in the order in which they are applied."""

    steps: tuple[tuple[Change, float], ...]

    def apply(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
        """Change one image; the result is rounded to 8 bits."""
        values = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0)
        picture = Image.fromarray(values.contiguous().numpy())
        for change, strength in self.steps:
            picture = change(picture, strength)
        return tensor_from_rgb(picture)


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _hue(image: Image.Image, shift: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(shift * 255)) % 256
    channels = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", channels).convert("RGB")


_CHANGES: tuple[Change, ...] = (_brightness, _contrast, _saturation, _hue)
