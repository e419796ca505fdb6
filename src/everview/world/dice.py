"""Random numbers by hashing: the same on every machine, in any order of asking."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int, UInt
from torch import Tensor

_RANGE = 1 << 64
_STEP = 0x9E3779B97F4A7C15
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB


def splitmix(state: UInt[np.ndarray, "*shape"]) -> UInt[np.ndarray, "*shape"]:
    """Mix 64-bit integers so that near inputs give unrelated outputs.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators (2014).
    """
    z = state + np.uint64(_STEP)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLY_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLY_2)
    return z ^ (z >> np.uint64(31))


def hash_label(label: str) -> int:
    """Turn a name into 64 bits (FNV-1a), read as a signed number."""
    value = _fnv(label)
    return value - _RANGE if value >= _RANGE // 2 else value


class Dice:
    """Numbers that depend on a seed and the label under which they are asked for, on nothing else.

    Args:
        seed: any integer; its low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._key = _mix(seed % _RANGE)

    def child(self, *numbers: int) -> "Dice":
        """Dice of their own for a place in an endless world, such as a block of a street."""
        key = self._key
        for number in numbers:
            key = _mix(key ^ (number % _RANGE))
        return Dice(key)

    def uniform(
        self, label: str, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Float[Tensor, "..."]:
        """Numbers in [low, high), float32."""
        key = np.uint64(_mix(self._key ^ _fnv(label)))
        state = splitmix(np.arange(math.prod(shape), dtype=np.uint64) + key)
        bits = (state >> np.uint64(40)).astype(np.float32)  # 24 bits fill a float32
        return low + (high - low) * torch.from_numpy(bits).reshape(shape) / 0x1000000

    def number(self, label: str, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high), the first of `uniform`."""
        share = (_mix(_mix(self._key ^ _fnv(label))) >> 40) / 0x1000000
        return low + (high - low) * share

    def integer(self, label: str, stop: int) -> int:
        """One of 0 .. stop - 1."""
        return min(int(self.number(label) * stop), stop - 1)

    def chance(self, label: str, probability: float) -> bool:
        """True with this probability."""
        return self.number(label) < probability

    def pick(self, label: str, shape: tuple[int, ...], stop: int) -> Int[Tensor, "..."]:
        """Integers in 0 .. stop - 1."""
        return (self.uniform(label, shape) * stop).long().clamp(max=stop - 1)


def _mix(z: int) -> int:
    """`splitmix` of one Python integer."""
    z = (z + _STEP) % _RANGE
    z = (z ^ (z >> 30)) * _MULTIPLY_1 % _RANGE
    z = (z ^ (z >> 27)) * _MULTIPLY_2 % _RANGE
    return z ^ (z >> 31)


def _fnv(label: str) -> int:
    value = 0xCBF29CE484222325
    for byte in label.encode():
        value = ((value ^ byte) * 0x100000001B3) % _RANGE
    return value
