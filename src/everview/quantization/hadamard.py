"""Rotations by Hadamard matrices, applied as a few small products."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError

PALEY_PRIME = 11
"""Its quadratic residues give the base matrix of order 12."""
BASE = PALEY_PRIME + 1


@lru_cache
def sylvester(order: int) -> Float[Tensor, "n n"]:
    """Sylvester's matrix of +-1 in natural order, float64; `order` is a power of two."""
    assert is_power_of_two(order), "callers split other widths first"
    matrix = torch.ones(1, 1, dtype=torch.float64)
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.kron(two, matrix)
    return matrix


@lru_cache
def paley() -> Float[Tensor, "12 12"]:
    """Paley's matrix of order 12 (+-1, float64): a border, and -1 where j - i is a residue."""
    residues = {k * k % PALEY_PRIME for k in range(1, PALEY_PRIME)}
    index = torch.arange(PALEY_PRIME)
    difference = (index[None] - index[:, None]) % PALEY_PRIME
    core = torch.ones(PALEY_PRIME, PALEY_PRIME, dtype=torch.float64)
    core[torch.isin(difference, torch.tensor(sorted(residues)))] = -1
    matrix = torch.ones(BASE, BASE, dtype=torch.float64)
    matrix[0, 1:] = -1
    matrix[1:, 1:] = core
    return matrix


def is_power_of_two(number: int) -> bool:
    """Whether it is 1, 2, 4, 8, ..."""
    return number > 0 and number & (number - 1) == 0


def has_hadamard(order: int) -> bool:
    """Whether one of our matrices has this order: a power of two, or 12 times one."""
    return is_power_of_two(order) or (order % BASE == 0 and is_power_of_two(order // BASE))


def block_of(width: int, largest: int | None = None) -> int:
    """The block width of the rotation of `width` channels.

    Args:
        width: number of channels.
        largest: at most this wide; None for the whole width where a Hadamard matrix has it, else
            (100, 336, 720 ...) the largest power of two that divides it.

    Raises:
        ConfigError: if the width is odd, so that no rotation by Hadamard matrices exists.
    """
    if width % 2:
        raise ConfigError(
            f"{width} channels are odd in number and cannot be rotated by Hadamard matrices; "
            "take order='smooth' or keep the layer in float"
        )
    if has_hadamard(width) and (largest is None or width <= largest):
        return width
    block = width & -width  # the largest power of two that divides it
    while largest is not None and block > largest:
        block //= 2
    return block


@lru_cache
def factors(order: int) -> tuple[Tensor, ...]:
    """Small matrices (+-1, float64) whose Kronecker product is the Hadamard matrix of this order.

    Orders up to 64 are one matrix; 1024 is two of 32, 4096 two of 64.
    """
    if not is_power_of_two(order):
        rest = () if order == BASE else factors(order // BASE)
        return (paley().T.contiguous(), *rest)
    if order <= 64:
        return (sylvester(order),)
    exponent = order.bit_length() - 1
    parts = -(-exponent // 6)
    left = 1 << (exponent // parts)
    return (sylvester(left), *factors(order // left))


@dataclass(frozen=True, eq=False)
class Rotation:
    """x -> (x * signs) @ (I ⊗ Had_block) / sqrt(block): orthonormal, without a dense matrix.

    Source: QuaRot (arXiv 2404.00456); QuantVGGT Sec. 3.2, randomised Hadamard transform.
    """

    signs: Float[Tensor, " n"] | None
    """+-1 per channel; None: all +1."""
    block: int
    """Channels that are mixed; divides the width."""

    @classmethod
    def random(
        cls, width: int, generator: torch.Generator, *, largest: int | None = None
    ) -> "Rotation":
        """Random signs; the block of `block_of`."""
        signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1
        return cls(signs, block_of(width, largest))

    def apply(self, x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        """Rotate each row, in the dtype of `x`."""
        if self.signs is not None:
            x = x * self.signs.to(x)
        return mix(x, self.block)

    def undo(self, x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        """The inverse of `apply`."""
        x = mix(x, self.block, is_transposed=True)
        return x if self.signs is None else x * self.signs.to(x)

    def matrix(self, width: int) -> Float[Tensor, "n n"]:
        """The dense matrix R of x @ R, float64: for tests and pictures."""
        return self.apply(torch.eye(width, dtype=torch.float64))


def mix(
    x: Float[Tensor, "*rows n"], block: int, *, is_transposed: bool = False
) -> Float[Tensor, "*rows n"]:
    """X @ (I ⊗ Had_block) / sqrt(block) by one small product per Kronecker factor.

    Raises:
        ConfigError: if there is no Hadamard matrix of this order, or it does not divide the width.
    """
    if not has_hadamard(block) or x.shape[-1] % block:
        raise ConfigError(
            f"no Hadamard rotation in blocks of {block} for {x.shape[-1]} channels; a block is a "
            "power of two, or 12 times one, and divides the width"
        )
    if block == 1:
        return x
    matrices = small_matrices(block, x.dtype, x.device)
    y = x.unflatten(-1, (-1, *(len(m) for m in matrices)))  # rows blocks f1 f2 ...
    for axis, matrix in enumerate(matrices):
        place = axis - len(matrices)
        used = matrix.T if is_transposed else matrix
        y = (y.transpose(place, -1) @ used).transpose(place, -1)
    return y.flatten(-1 - len(matrices))


@lru_cache(maxsize=64)
def small_matrices(block: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Orthonormal factors of the Hadamard matrix of this order, on a device."""
    return tuple((m * len(m) ** -0.5).to(device=device, dtype=dtype) for m in factors(block))
