"""Colours of surface points: a pattern and a noise from the bank, tinted by a material."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.world.bank import LEVELS, SIDE, SLOT_ROWS, WIDTH, texture_bank

COLUMNS = (
    "slot", "u_rate", "v_rate", "cos", "sin", "contrast",
    "noise_slot", "noise_rate", "noise_tone", "noise_light",
    "dark_red", "dark_green", "dark_blue", "red", "green", "blue",
    "light_red", "light_green", "light_blue", "gloss", "mirror", "glow",
)  # fmt: skip
"""Columns of a material table. Rates are repeats per metre; the three colours are those of tone 0,
1/2 and 1; gloss, mirror and glow are shares."""
_LOG_SIDE = float(LEVELS - 1)


def albedo(
    at: tuple[Float[Tensor, "s n"], Float[Tensor, "s n"]],
    footprint: Float[Tensor, "s n"],
    material: Float[Tensor, "22 s n"],
) -> Float[Tensor, "3 s n"]:
    """Colour of surface points in [0, 1].

    Args:
        at: texture coordinates in metres.
        footprint: metres of surface that one pixel covers.
        material: rows as in `COLUMNS`, of each point.
    """
    slot, u_rate, v_rate, cos, sin, contrast = material[:6]
    noise_slot, noise_rate, noise_tone, noise_light = material[6:10]
    u, v = at[0] * cos + at[1] * sin, at[1] * cos - at[0] * sin
    pattern = sample(slot, u * u_rate, v * v_rate, footprint * u_rate)
    noise = sample(noise_slot, u * noise_rate, v * noise_rate, footprint * noise_rate).sub_(0.5)
    tone = pattern.sub_(0.5).mul_(contrast).addcmul_(noise, noise_tone).add_(0.5)
    low, high = (2 * tone).clamp_(0, 1), (2 * tone).sub_(1).clamp_(0, 1)
    dark, middle, light = material[10:13], material[13:16], material[16:19]
    colour = dark + (middle - dark) * low
    colour += (light - middle) * high
    return colour.mul_(1 + noise * noise_light).clamp_(0.01, 1)


def sample(
    slot: Float[Tensor, "*n"] | float,
    u: Float[Tensor, "*n"],
    v: Float[Tensor, "*n"],
    width: Float[Tensor, "*n"],
) -> Float[Tensor, "*n"]:
    """Look up the bank, interpolated within and between copies of half the size.

    Args:
        slot: which pattern.
        u: in repeats of the pattern.
        v: likewise.
        width: of a pixel, in repeats.
    """
    level = (width.clamp(min=1e-9).log2() + _LOG_SIDE).clamp_(0, _LOG_SIDE - 0.001)
    finer = level.floor()
    x, y = u - u.floor(), v - v.floor()
    fine = _look_up(slot, x, y, finer)
    return fine.lerp_(_look_up(slot, x, y, finer + 1), level.sub_(finer))


def _look_up(slot: Tensor | float, x: Tensor, y: Tensor, level: Tensor) -> Tensor:
    """Interpolate within one copy; its first row follows from the sizes of those above."""
    bank = texture_bank(str(x.device))
    rows = bank.shape[2]
    size = torch.exp2(_LOG_SIDE - level)
    first = 2 * SIDE + 1 + 2 * level - 2 * size + slot * SLOT_ROWS
    grid = x.new_empty(*x.shape, 2)
    torch.addcmul(torch.full_like(x, 2 / WIDTH - 1), x, size, value=2 / WIDTH, out=grid[..., 0])
    grid[..., 1] = first.addcmul_(y, size).mul_(2 / rows).sub_(1)
    flat = F.grid_sample(bank, grid.reshape(1, 1, -1, 2), align_corners=False)
    return flat.reshape(x.shape)
