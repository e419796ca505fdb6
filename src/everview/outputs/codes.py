"""Positive numbers of a wide range in few bits: whole-number steps of the logarithm."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt


@dataclass(frozen=True, kw_only=True, slots=True)
class LogCode:
    """Maps [low, high] to the codes 1 .. largest, in equal steps of the logarithm.

    value = exp(offset + (code - 1) * scale). Code 0 means that there is no value (not finite, or
    <= 0). Values beyond the range get its nearest end. So the relative error is at most
    `relative_error` everywhere within the range, near and far alike.
    """

    low: float
    """Smallest value, > 0."""
    high: float
    """Largest value, > low."""
    bits: int
    """8 or 16."""

    @property
    def dtype(self) -> np.dtype:
        """What the codes are held in."""
        return np.dtype(f"uint{self.bits}")

    @property
    def offset(self) -> float:
        """Logarithm of the value with code 1."""
        return math.log(self.low)

    @property
    def scale(self) -> float:
        """Step of the natural logarithm from one code to the next."""
        return (math.log(self.high) - self.offset) / (2**self.bits - 2)

    @property
    def relative_error(self) -> float:
        """Half a step: largest |decoded - value| / value within the range."""
        return math.expm1(self.scale / 2)

    def encode(self, values: Float[np.ndarray, "*shape"]) -> UInt[np.ndarray, "*shape"]:
        """Values to codes; whatever is not finite or not above 0 becomes 0."""
        valid = np.isfinite(values) & (values > 0)
        logarithm = np.log(np.where(valid, values, 1.0))
        code = np.rint((logarithm - self.offset) / self.scale) + 1
        code = np.clip(code, 1, 2**self.bits - 1)
        return np.where(valid, code, 0).astype(self.dtype)

    def decode(self, codes: UInt[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Codes to float32 values; 0 becomes NaN."""
        values = np.exp(np.float32(self.offset) + (codes.astype(np.float32) - 1) * self.scale)
        return np.where(codes == 0, np.float32("nan"), values).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """What a reader without this package needs; the attributes of a stored array."""
        return {
            "kind": "log",
            "formula": "value = exp(offset + (code - 1) * scale); code 0: no value",
            "low": self.low,
            "high": self.high,
            "bits": self.bits,
            "offset": self.offset,
            "scale": self.scale,
            "relative_error": self.relative_error,
        }


DEPTH_CODE = LogCode(low=1e-4, high=1e4, bits=16)
"""Eight decades of scene units; relative error at most 1.5e-4 (float16 has 4.9e-4)."""
CONFIDENCE_CODE = LogCode(low=1.0, high=2e4, bits=8)
"""Confidences are >= 1 and serve to rank and cut; relative error at most 2 percent."""
