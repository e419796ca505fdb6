"""Which bits: schemes by name, and what they mean for one layer."""

import re
from dataclasses import dataclass

import torch

from everview.errors import ConfigError
from everview.quantization.grids import FLOAT8, Grid

FP8 = "fp8"
"""Weights and activations in 8-bit floats."""
SCHEMES = ("w8a8", "w4a8", "w4a4", "w8a16", "w4a16", FP8)
"""Bits of weights and of activations; 16 leaves activations in floating point."""
FLOAT_BITS = 16
GROUP = 64
"""Inputs that share a step where weights have 4 bits and activations are floats."""


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """The grids of one linear layer."""

    weight_bits: int
    """4 or 8; stored as 4 or 8."""
    activation_bits: int
    """4 or 8 bits per entry of a token; 16: floats, only the weight is quantized."""
    group: int | None = None
    """Inputs that share a weight step; None: the whole output channel. Only with float
    activations: an integer product sums over the whole channel."""
    is_float8: bool = False
    """Whether the 8 bits of both are floats instead of integers."""

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8 or self.activation_bits not in (*range(2, 9), FLOAT_BITS):
            raise ConfigError(
                f"a layer of w{self.weight_bits}a{self.activation_bits} does not exist; weights "
                "have 2 to 8 bits, activations 2 to 8 or 16"
            )
        if self.is_float8 and (self.weight_bits, self.activation_bits) != (8, 8):
            raise ConfigError("8-bit floats have 8 bits, as weights and as activations")
        if self.group is not None and self.rounds_tokens:
            raise ConfigError("groups of inputs need float activations (w4a16): leave group out")

    @property
    def rounds_tokens(self) -> bool:
        """Whether activations are on a grid too, so that the product is one of levels."""
        return self.activation_bits != FLOAT_BITS

    @property
    def is_packed(self) -> bool:
        """Whether two weights share a byte."""
        return self.weight_bits <= 4

    @property
    def weight_grid(self) -> Grid:
        """The levels of weights."""
        return Grid(bits=self.weight_bits, is_float8=self.is_float8)

    @property
    def token_grid(self) -> Grid:
        """The levels of activations."""
        return Grid(bits=self.activation_bits, is_float8=self.is_float8)

    @property
    def level_dtype(self) -> torch.dtype:
        """In which levels are multiplied, and stored unless they are packed."""
        return FLOAT8 if self.is_float8 else torch.int8

    @property
    def name(self) -> str:
        """Such as w4a8."""
        return FP8 if self.is_float8 else f"w{self.weight_bits}a{self.activation_bits}"


def parse_scheme(text: str) -> LinearSpec:
    """The grids of a scheme such as `w4a8`; 4-bit weights with float activations get groups.

    Raises:
        ConfigError: if it is none of `SCHEMES`.
    """
    text = text.strip().lower()
    if text == FP8:
        return LinearSpec(weight_bits=8, activation_bits=8, is_float8=True)
    match = re.fullmatch(r"w(\d+)a(\d+)", text)
    if match is None or match[0] not in SCHEMES:
        raise ConfigError(f"scheme {text!r} is unknown; use {', '.join(SCHEMES)}")
    bits, activation = int(match[1]), int(match[2])
    group = GROUP if bits == 4 and activation == FLOAT_BITS else None
    return LinearSpec(weight_bits=bits, activation_bits=activation, group=group)
