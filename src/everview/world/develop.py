"""What a camera makes of light: exposure, white balance, blur, noise, compression."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.world.dice import Dice
from everview.world.motion import spline

_TAPS = 5
"""Pictures that are averaged along the motion where it blurs."""
_GRAIN = 509
"""Side of the tile of noise that is shifted from frame to frame."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """How strong the faults of the camera are, and in which share of clips."""

    exposure: float = 0.08
    """Slow wandering of the brightness, share; 0 also switches the automatic exposure off."""
    white_balance: float = 0.03
    """Slow wandering of red and blue, share."""
    vignette: float = 0.25
    """Largest loss of light in the corners, share."""
    blurred: float = 0.2
    """Share of clips with motion blur."""
    shutter: float = 0.5
    """Share of the time between frames that the shutter is open there, at most."""
    striped: float = 0.15
    """Share of clips whose noise has lines that roll."""
    compressed: float = 0.25
    """Share of clips that have been JPEG files."""

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"Effects.{name} must be between 0 and 1; got {value}")


NO_EFFECTS = Effects(
    exposure=0, white_balance=0, vignette=0, blurred=0, shutter=0, striped=0, compressed=0
)
"""A perfect camera."""


def shutter(dice: Dice, effects: Effects) -> float:
    """Share of the time between frames that the shutter of this clip is open; 0 without blur."""
    if not dice.chance("blurred", effects.blurred):
        return 0.0
    return dice.number("shutter", 0.2, 1.0) * effects.shutter


def develop(
    dice: Dice,
    images: Float[Tensor, "s 3 H W"],
    flow: Float[Tensor, "s H W 2"] | None,
    *,
    start: int,
    effects: Effects,
    noise: float,
) -> Float[Tensor, "s 3 H W"]:
    """Turn light into pictures in [0, 1]; a frame depends on its number alone.

    Args:
        dice: of the clip.
        images: light, 0 to about 1.
        flow: pixels that surfaces move while the shutter is open.
        start: number of the first frame.
        effects: strengths.
        noise: standard deviation, as a share of full scale.
    """
    if flow is not None:
        images = _blurred(images, flow)
    if effects.exposure:
        images = images * _automatic(images)
    numbers = torch.arange(start, start + len(images))
    images = images * _gain(dice, numbers, effects)[..., None, None].to(images.device)
    images = _shoulder(images * _vignette(dice, images, effects))
    if noise:
        images = images + noise * _noise(dice, numbers, images, effects)
    images = images.clamp_(0, 1)
    return _compressed(dice, images) if dice.chance("compressed", effects.compressed) else images


def _shoulder(light: Tensor) -> Tensor:
    """Bend what is brighter than 0.7 so that little of it becomes white."""
    return light.clamp(0, 0.7) + 0.3 * (1 - torch.exp((0.7 - light).clamp_(max=0) / 0.3))


def _blurred(images: Tensor, flow: Tensor) -> Tensor:
    """Mean along each pixel's own motion."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device),
        indexing="ij",
    )  # fmt: skip
    at, size = torch.stack([x, y], dim=-1), images.new_tensor([width, height])
    limit = 0.1 * width
    flow = flow.clamp(-limit, limit)
    total = torch.zeros_like(images)
    for tap in torch.linspace(-0.5, 0.5, _TAPS).tolist():
        grid = (2 * (at + tap * flow) + 1) / size - 1
        total += F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return total / _TAPS


def _automatic(images: Tensor) -> Float[Tensor, "s 1 1 1"]:
    """What an automatic exposure does about dark and bright frames: it goes half the way."""
    mean = images.clamp(0, 1).mean(dim=(1, 2, 3), keepdim=True)
    return (0.42 / mean.clamp(min=0.02)).pow(0.6).clamp(0.6, 2.5)


def _gain(dice: Dice, numbers: Tensor, effects: Effects) -> Float[Tensor, "s 3"]:
    """Brightness and white balance of each frame."""
    wander = spline(dice, "exposure", numbers / dice.number("exposure period", 4, 30), 3)
    balance = dice.uniform("white balance", (3,), -0.1, 0.1) * (effects.white_balance > 0)
    brightness = dice.number("brightness", 0.8, 1.25) if effects.exposure else 1.0
    colour = 1 + balance + effects.white_balance * wander * torch.tensor([1.0, 0.3, -1.0])
    return brightness * (1 + effects.exposure * wander[:, :1]) * colour


def _vignette(dice: Dice, images: Tensor, effects: Effects) -> Tensor:
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)
    strength = effects.vignette * dice.number("vignette") ** 2
    return 1 - strength * (x * x + y * y) / 2


def _noise(dice: Dice, numbers: Tensor, images: Tensor, effects: Effects) -> Tensor:
    """Grain of unit variance from a tile that is shifted at random; rolling lines in some clips."""
    height, width = images.shape[-2:]
    tile = _grain(str(images.device), (height // _GRAIN + 2, width // _GRAIN + 2))
    strength = dice.number("grain", 0.3, 1.7)
    striped = dice.chance("striped", effects.striped)
    parts = []
    for number in numbers.tolist():
        top, *left = dice.child(number).pick("grain", (5,), _GRAIN).tolist()
        rows = tile[top : top + height]
        grain = torch.stack([rows[:, first : first + width] for first in left[:3]])
        if striped:
            grain = grain + 1.5 * rows[:, left[3], None]
        parts.append(grain)
    return strength * torch.stack(parts)


@cache
def _grain(device: str, repeats: tuple[int, int]) -> Tensor:
    """Sums of four uniform numbers, nearly normal, with mean 0 and variance 1; repeated."""
    sums = Dice(2_000).uniform("grain", (_GRAIN, _GRAIN, 4)).sum(dim=-1)
    return ((sums - 2) * 3**0.5).repeat(*repeats).to(device)


def _compressed(dice: Dice, images: Tensor) -> Tensor:
    """Through a JPEG file and back, with the quality of the clip."""
    quality = 35 + dice.integer("quality", 60)
    pictures = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="jpeg", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    result = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    return result.to(images.device)
