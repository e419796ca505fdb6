"""Which bits: schemes by name, and what they mean for one layer."""

import re
from dataclasses import dataclass

from everview.errors import ConfigError

SCHEMES = ("w8a8", "w4a8", "w4a4", "w8a16", "w4a16")
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

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8 or self.activation_bits not in (*range(2, 9), FLOAT_BITS):
            raise ConfigError(
                f"a layer of w{self.weight_bits}a{self.activation_bits} does not exist; weights "
                "have 2 to 8 bits, activations 2 to 8 or 16"
            )
        if self.group is not None and self.is_integer:
            raise ConfigError("groups of inputs need float activations (w4a16): leave group out")

    @property
    def is_integer(self) -> bool:
        """Whether the product is one of integers."""
        return self.activation_bits != FLOAT_BITS

    @property
    def is_packed(self) -> bool:
        """Whether two weights share a byte."""
        return self.weight_bits <= 4

    @property
    def name(self) -> str:
        """Such as w4a8."""
        return f"w{self.weight_bits}a{self.activation_bits}"


def parse_scheme(text: str) -> LinearSpec:
    """The grids of a scheme such as `w4a8`; 4-bit weights with float activations get groups.

    Raises:
        ConfigError: if it is none of `SCHEMES`.
    """
    match = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
    if match is None or match[0] not in SCHEMES:
        raise ConfigError(f"scheme {text!r} is unknown; use {', '.join(SCHEMES)}")
    bits, activation = int(match[1]), int(match[2])
    group = GROUP if bits == 4 and activation == FLOAT_BITS else None
    return LinearSpec(weight_bits=bits, activation_bits=activation, group=group)
