"""Random numbers by hashing: the same on every machine, in any order of asking."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SIGNED_RANGE = 1 << 64


def _signed(value: int) -> int:
    """The two's complement reading of the low 64 bits."""
    value %= _SIGNED_RANGE
    return value - _SIGNED_RANGE if value >= _SIGNED_RANGE // 2 else value


_STEP = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def splitmix(state: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Mix 64-bit integers so that near inputs give unrelated outputs.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators (2014); int64
    wraps, the shifts are made logical by a mask.
    """
    z = state + _STEP
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _MULTIPLY_1
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _MULTIPLY_2
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def hash_label(label: str) -> int:
    """Turn a name into 64 bits (FNV-1a)."""
    value = 0xCBF29CE484222325
    for byte in label.encode():
        value = ((value ^ byte) * 0x100000001B3) % _SIGNED_RANGE
    return _signed(value)


class Dice:
    """Numbers that depend on a seed and the label under which they are asked for, on nothing else.

    Args:
        seed: any integer; its low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._key = splitmix(torch.tensor(_signed(seed)))

    def uniform(
        self, label: str, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Float[Tensor, "..."]:
        """Numbers in [low, high), float32."""
        key = splitmix(self._key ^ hash_label(label))
        counter = torch.arange(math.prod(shape)).reshape(shape)
        bits = (splitmix(key + counter) >> 40) & 0xFFFFFF  # 24 bits fill a float32
        return low + (high - low) * bits.float() / 0x1000000

    def number(self, label: str, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""
        return float(self.uniform(label, low=low, high=high))

    def integer(self, label: str, stop: int) -> int:
        """One of 0 .. stop - 1."""
        return min(int(self.number(label) * stop), stop - 1)

    def chance(self, label: str, probability: float) -> bool:
        """True with this probability."""
        return self.number(label) < probability

    def pick(self, label: str, shape: tuple[int, ...], stop: int) -> Int[Tensor, "..."]:
        """Integers in 0 .. stop - 1."""
        return (self.uniform(label, shape) * stop).long().clamp(max=stop - 1)
