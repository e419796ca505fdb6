"""Integers of 4 bits, two to a byte."""

import torch
from jaxtyping import Int8, UInt8
from torch import Tensor

from everview.errors import ConfigError


def pack_nibbles(levels: Int8[Tensor, "out n"]) -> UInt8[Tensor, "out half"]:
    """Levels -8 ... 7 in half the bytes: column j in the low, j + n/2 in the high half of byte j.

    Raises:
        ConfigError: if the number of columns is odd.
    """
    if levels.shape[-1] % 2:
        raise ConfigError(
            f"{levels.shape[-1]} columns of 4 bits do not fill bytes; keep the layer at 8 bits"
        )
    assert int(levels.min()) >= -8, "a level of 4 bits"
    assert int(levels.max()) <= 7, "a level of 4 bits"
    low, high = (levels + 8).to(torch.uint8).chunk(2, dim=-1)
    return low | (high << 4)


def unpack_nibbles(packed: UInt8[Tensor, "out half"]) -> Int8[Tensor, "out n"]:
    """The levels of `pack_nibbles`."""
    return torch.cat([packed & 15, packed >> 4], dim=-1).to(torch.int8) - 8
