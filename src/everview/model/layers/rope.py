"""Rotary position embedding in two dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor

RotaryTables = tuple[Tensor, Tensor]
"""Cosine and signed sine, each (p, d): what `rotate` multiplies with."""


def rotary_tables(
    grid: tuple[int, int], *, num_special: int, head_dim: int, base: float, like: Tensor
) -> RotaryTables:
    """Tables for the tokens of one frame: special tokens first, then patches row by row.

    Special tokens stand at position (0, 0), which is the identity; patch (row, column) at
    (row + 1, column + 1). The first half of a head's channels turns with y, the second with x.

    Args:
        grid: (rows, columns) of patches.
        num_special: camera and register tokens.
        head_dim: channels per head, a multiple of 4.
        base: base frequency.
        like: tensor whose device the tables get; their dtype is at least float32.

    Source: RoFormer (arXiv 2104.09864) Eq. 15, per axis, split-half pairs (j, j + quarter).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    quarter = head_dim // 4
    exponent = torch.arange(quarter, device=like.device, dtype=dtype) / quarter
    frequencies = base**-exponent  # quarter
    rows = torch.arange(1, grid[0] + 1, device=like.device, dtype=dtype)
    columns = torch.arange(1, grid[1] + 1, device=like.device, dtype=dtype)
    y = rows.repeat_interleave(grid[1])  # (rows columns)
    x = columns.repeat(grid[0])
    positions = torch.nn.functional.pad(torch.stack([y, x], dim=-1), (0, 0, num_special, 0))
    angles = positions[..., None] * frequencies  # p 2 quarter
    cosine, sine = angles.cos(), angles.sin()
    cosine = torch.stack([cosine, cosine], dim=2).flatten(1)  # p d
    sine = torch.stack([-sine, sine], dim=2).flatten(1)  # p d
    return cosine, sine


def rotate(
    x: Float[Tensor, "b h n d"], tables: RotaryTables, num_frames: int
) -> Float[Tensor, "b h n d"]:
    """Rotate queries or keys; positions repeat from frame to frame, n = num_frames * p."""
    cosine, sine = tables
    by_frame = x.unflatten(2, (num_frames, -1))  # b h s p d
    halves = by_frame.unflatten(-1, (2, 2, -1))  # b h s p (y x) (first second) quarter
    swapped = halves.flip(-2).flatten(-3)  # b h s p d
    return torch.addcmul(by_frame * cosine, swapped, sine).flatten(2, 3)
