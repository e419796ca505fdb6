"""Colours of surface points, computed from their texture coordinates by integer hashing.

Every pattern knows how large a pixel is on the surface and fades what is finer than that.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

COLUMNS = (
    "red", "green", "blue", "other_red", "other_green", "other_blue",
    "checks", "cells", "period", "aspect", "noise", "slope", "cos", "sin",
)  # fmt: skip
"""Columns of a material table; `checks` is 0 none, 1 stripes, 2 checks; lengths in metres."""
_OCTAVES = 4
_MIX_1, _MIX_2, _MIX_3 = 0x27D4EB2D, 0x165667B1, 0x7FEB352D


def albedo(
    at: Float[Tensor, "2 n"],
    footprint: Float[Tensor, " n"],
    material: Int[Tensor, " n"],
    seed: Int[Tensor, " n"],
    table: Float[Tensor, "m 14"],
) -> Float[Tensor, "3 n"]:
    """Colour of surface points in [0, 1].

    Args:
        at: texture coordinates in metres.
        footprint: metres of surface that one pixel covers.
        material: row of `table`.
        seed: tells surfaces of one material apart, int32.
        table: see `COLUMNS`.
    """
    rows = table.T.contiguous().index_select(1, material)  # 14 n
    base, other = rows[:3], rows[3:6]
    checks, cells, period, aspect, noise, slope, cos, sin = rows[6:]
    u, v = at[0] * cos + at[1] * sin, at[1] * cos - at[0] * sin
    mix = _checks(u, v, period, footprint, checks) + cells * _cells(
        u, v, period=period, aspect=aspect, footprint=footprint, seed=seed
    )
    grain = _grain(u, v, footprint=footprint, slope=slope, seed=seed) * noise
    mix = (mix + 0.35 * grain).clamp_(0, 1)
    return (base + (other - base) * mix).mul_(1 + 0.45 * grain).clamp_(0.02, 1)


def hash_cells(
    x: Int[Tensor, " n"], y: Int[Tensor, " n"], seed: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """A number in [0, 1] for each integer cell; int32 arithmetic that wraps."""
    return _finish((x * _MIX_1) ^ (y * _MIX_2) ^ seed)


def _finish(h: Tensor) -> Tensor:
    h = h ^ (h >> 15)
    h.mul_(_MIX_3)
    h ^= h >> 13
    h.mul_(_MIX_1)
    return (h >> 8).bitwise_and_(0xFFFF).float().mul_(1 / 0xFFFF)


def _grain(u: Tensor, v: Tensor, *, footprint: Tensor, slope: Tensor, seed: Tensor) -> Tensor:
    """Value noise of the octaves that the pixel size allows, about -1 to 1.

    The finest octave fades out, and a coarser one in, as the footprint grows, so that the sum is
    continuous in it.
    """
    level = torch.log2(footprint * 2.2)
    finest = level.floor()
    fade = level - finest
    total = torch.zeros_like(u)
    for octave in range(_OCTAVES):
        scale = finest + octave
        amplitude = torch.exp2(slope * (scale + 3.3))  # 1 at 10 cm
        if octave == 0:
            amplitude = amplitude * (1 - fade)
        elif octave == _OCTAVES - 1:
            amplitude = amplitude * fade
        inverse = torch.exp2(-scale)
        total += amplitude * (_value_noise(u * inverse, v * inverse, seed + scale.int()) - 0.5)
    return total


def _value_noise(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Bilinear noise over integer cells with smooth steps, 0 to 1."""
    x_cell, y_cell = x.floor(), y.floor()
    fx, fy = x - x_cell, y - y_cell
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    left = x_cell.int() * _MIX_1
    right = left + _MIX_1
    top = (y_cell.int() * _MIX_2) ^ (seed * _MIX_3)
    bottom = ((y_cell.int() + 1) * _MIX_2) ^ (seed * _MIX_3)
    upper = torch.lerp(_finish(left ^ top), _finish(right ^ top), fx)
    lower = torch.lerp(_finish(left ^ bottom), _finish(right ^ bottom), fx)
    return torch.lerp(upper, lower, fy)


def _square_wave(x: Tensor, period: Tensor, footprint: Tensor) -> Tensor:
    """-1/2 and 1/2 in turn, softened over one pixel."""
    phase = x / period
    triangle = (phase - 2 * torch.floor(phase / 2) - 1).abs_().sub_(0.5)
    return (triangle * (period / footprint)).clamp_(-0.5, 0.5)


def _checks(u: Tensor, v: Tensor, period: Tensor, footprint: Tensor, kind: Tensor) -> Tensor:
    across = _square_wave(v, period, footprint)
    across = torch.where(kind > 1.5, across, 0.5)
    return (0.5 + 2 * _square_wave(u, period, footprint) * across) * kind.clamp(max=1)


def _cells(
    u: Tensor, v: Tensor, *, period: Tensor, aspect: Tensor, footprint: Tensor, seed: Tensor
) -> Tensor:
    """Tiles, bricks or planks: one tone per cell, a joint between them."""
    row = torch.floor(v / period)
    length = period * aspect
    shifted = u / length + 0.37 * row * (aspect > 1)
    column = torch.floor(shifted)
    tone = hash_cells(column.int(), row.int(), seed)
    to_end = (0.5 - (shifted - column - 0.5).abs()) * length
    to_side = (0.5 - (v / period - row - 0.5).abs()) * period
    joint = ((torch.minimum(to_end, to_side) - 0.012) / footprint + 0.5).clamp_(0, 1)
    return 0.15 + joint * (0.15 + 0.7 * tone)
