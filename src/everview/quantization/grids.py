"""Grids: which levels a row of numbers is rounded to, and back.

A row is whatever shares one step: an output channel of a weight, a token of an activation, or a
group of consecutive entries of either. All functions keep the floating-point type of their input,
so that in float64 they serve as the reference for every kernel.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError

SMALLEST_WEIGHT = 1e-5
"""Weights of a row count as at least this large, so that a zero row has a step."""

FLOAT8 = torch.float8_e4m3fn
"""8-bit floats: sign, 4 bits of exponent, 3 of mantissa; up to 448, no infinity."""
SEARCH_SHRINKS = tuple(percent / 100 for percent in range(100, 20, -1))
"""Fractions of the full step among which the search picks."""
ROWS_AT_ONCE = 64
"""Rows that are searched together: they stay in a CPU's cache."""
SEARCH_EXPONENT = 2.4
"""Power of the absolute error that the search minimises."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The levels of `bits` bits: around 0, or from 0 upwards with a level that stands for zero.

    Whole numbers, or all numbers that an 8-bit float can say.
    """

    bits: int
    """2 to 8."""
    is_symmetric: bool = True
    """Levels -2^(bits-1) ... 2^(bits-1)-1 instead of 0 ... 2^bits-1."""
    is_float8: bool = False
    """Levels are those of `FLOAT8`, the relative error of which is the same at all sizes."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"a grid has 2 to 8 bits, not {self.bits}; use 16 to keep floats")
        if self.is_float8 and not (self.bits == 8 and self.is_symmetric):
            raise ConfigError("a grid of 8-bit floats has 8 bits and is symmetric")

    @property
    def lowest(self) -> int:
        """The lowest level."""
        if self.is_float8:
            return -self.highest
        return -(1 << (self.bits - 1)) if self.is_symmetric else 0

    @property
    def highest(self) -> int:
        """The highest level."""
        if self.is_float8:
            return int(torch.finfo(FLOAT8).max)
        return (1 << (self.bits - 1)) - 1 if self.is_symmetric else (1 << self.bits) - 1

    def round_(self, scaled: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The nearest level (ties to the even one), in place; integers beyond the last stay."""
        if not self.is_float8:
            return scaled.round_()
        return scaled.copy_(scaled.clamp(self.lowest, self.highest).to(FLOAT8))


class Steps(NamedTuple):
    """Where the levels of each row lie: value = step * (level - zero)."""

    step: Float[Tensor, "*rows"]
    """Distance of two levels, > 0."""
    zero: Float[Tensor, "*rows"]
    """The level that stands for 0, a whole number; 0 everywhere on a symmetric grid."""


class ClipFactors(NamedTuple):
    """Fractions in (0, 1) of the largest and of the smallest value that a row keeps.

    Source: QuantVGGT (arXiv 2509.21302), learnable clipping; `of_logits` is its parametrisation.
    """

    high: Float[Tensor, "*rows"]
    """Multiplies the maximum."""
    low: Float[Tensor, "*rows"]
    """Multiplies the minimum."""

    @classmethod
    def of_logits(cls, high: Tensor, low: Tensor) -> "ClipFactors":
        """Factors sigmoid(logit); logits begin at 4, where 1.8 % is cut."""
        return cls(high.sigmoid(), low.sigmoid())


def fit_weights(
    weight: Float[Tensor, "*rows n"], grid: Grid, clip: ClipFactors | None = None
) -> Steps:
    """The steps of a weight, one per row (output channel).

    Symmetric: max|w| / (2^(b-1) - 1), max|w| being at least 1e-5. Asymmetric: the range from
    minimum to maximum, both of which include 0; a zero row has the range -1 ... 1.

    Args:
        clip: if given, the extrema are those of `clip_weights`.
    """
    if clip is not None:
        weight = clip_weights(weight, clip)
    if not grid.is_symmetric:
        return _fit_range(*_extrema(weight), grid)
    largest = weight.abs().amax(-1).clamp(min=SMALLEST_WEIGHT)
    return Steps(largest / grid.highest, torch.zeros_like(largest))


def clip_weights(weight: Float[Tensor, "*rows n"], clip: ClipFactors) -> Float[Tensor, "*rows n"]:
    """Every row limited to [low * min, high * max]; differentiable in the factors."""
    low = (weight.amin(-1) * clip.low).unsqueeze(-1)
    high = (weight.amax(-1) * clip.high).unsqueeze(-1)
    return weight.maximum(low).minimum(high)


def fit_tokens(x: Float[Tensor, "*tokens n"], grid: Grid, clip: ClipFactors | None = None) -> Steps:
    """The steps of activations, one per token, from nothing but that token.

    Minimum and maximum include 0. An all-zero token has step 1 (symmetric) or the range -1 ... 1.

    Args:
        clip: factors of all tokens together (one value each).
    """
    low, high = _extrema(x)
    if clip is not None:
        low, high = low * clip.low, high * clip.high
    if not grid.is_symmetric:
        return _fit_range(low, high, grid)
    largest = torch.maximum(high, -low)
    step = torch.where(largest == 0, torch.ones_like(largest), largest / grid.highest)
    return Steps(step, torch.zeros_like(step))


def to_levels(x: Float[Tensor, "*rows n"], steps: Steps, grid: Grid) -> Float[Tensor, "*rows n"]:
    """The nearest level of each entry (ties to the even one), in the dtype of `x`."""
    levels = grid.round_(x / steps.step.unsqueeze(-1)) + steps.zero.unsqueeze(-1)
    return levels.clamp(grid.lowest, grid.highest)


def from_levels(levels: Float[Tensor, "*rows n"], steps: Steps) -> Float[Tensor, "*rows n"]:
    """The values for which levels stand."""
    return (levels - steps.zero.unsqueeze(-1)) * steps.step.unsqueeze(-1)


def token_levels(
    x: Float[Tensor, "*tokens n"], grid: Grid, clip: ClipFactors | None = None
) -> tuple[Float[Tensor, "*tokens n"], Float[Tensor, "*tokens 1"]]:
    """Levels of tokens on a symmetric grid, in the dtype of `x`, and their steps.

    The same values as `fit_tokens` and `to_levels`, with fewer passes over memory.
    """
    if clip is not None:
        step = fit_tokens(x, grid, clip).step.unsqueeze(-1)
        return grid.round_(x / step).clamp_(grid.lowest, grid.highest), step
    step = x.abs().amax(-1, keepdim=True).div_(grid.highest)
    step.masked_fill_(step == 0, 1)
    return grid.round_(x / step), step  # no level lies outside: the largest defines the step


def on_grid(x: Float[Tensor, "*rows n"], steps: Steps, grid: Grid) -> Float[Tensor, "*rows n"]:
    """Rounded to the grid and back, with the gradient of the identity inside the range.

    The straight-through estimate: rounding counts as the identity, the limits do not.
    """
    scaled = x / steps.step.unsqueeze(-1)
    rounded = scaled + (grid.round_(scaled.detach().clone()) - scaled).detach()
    levels = (rounded + steps.zero.unsqueeze(-1)).clamp(grid.lowest, grid.highest)
    return from_levels(levels, steps)


def search_steps(
    weight: Float[Tensor, "*rows n"],
    grid: Grid,
    *,
    exponent: float = SEARCH_EXPONENT,
) -> Steps:
    """The step of each row, out of 1.00, 0.99 ... 0.21 of the full one, with the smallest error.

    Args:
        weight: symmetric grids only.
        exponent: power of the absolute error, summed over the row; the first minimum wins.

    Raises:
        ConfigError: if the grid is not symmetric.
    """
    if not grid.is_symmetric:
        raise ConfigError("the search for a step knows symmetric grids only: is_symmetric=True")
    parts = [_search_rows(part, grid, exponent) for part in weight.split(ROWS_AT_ONCE)]
    best = torch.cat(parts)
    return Steps(best, torch.zeros_like(best))


def _search_rows(weight: Tensor, grid: Grid, exponent: float) -> Tensor:
    """The best steps of a few rows."""
    full, zero = fit_weights(weight, grid)
    best, least = full, torch.full_like(full, torch.inf)
    for shrink in SEARCH_SHRINKS:
        steps = Steps(full * shrink, zero)
        off = from_levels(to_levels(weight, steps, grid), steps).sub_(weight)
        error = off.abs_().pow_(exponent).sum(-1)
        best = torch.where(error < least, steps.step, best)
        least = torch.minimum(error, least)
    return best


def in_groups(
    weight: Float[Tensor, "out n"], group: int | None
) -> Float[Tensor, "out groups group"]:
    """Rows cut into groups of consecutive inputs, each of which gets a step; one group if None.

    Raises:
        ConfigError: if the groups do not fill the row.
    """
    width = weight.shape[-1] if group is None else group
    if width < 1 or weight.shape[-1] % width:
        raise ConfigError(
            f"groups of {width} do not fill rows of {weight.shape[-1]}; take a divisor of it"
        )
    return weight.unflatten(-1, (-1, width))


Rounding = Literal["nearest", "search"]
"""How weights find their step: the full range of the row, or the search of `search_steps`."""


def _extrema(x: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of each row, 0 included."""
    return x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)


def _fit_range(low: Tensor, high: Tensor, grid: Grid) -> Steps:
    is_zero = (low == 0) & (high == 0)
    low, high = torch.where(is_zero, -1, low), torch.where(is_zero, 1, high)
    step = (high - low) / grid.highest
    return Steps(step, (-low / step).round())
