"""Rounding in second order: later columns make up for the errors of earlier ones."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.quantization.grids import Grid, Steps

DAMPING = 0.01
"""Of the mean diagonal, added to the diagonal of the Hessian."""
COLUMNS_AT_ONCE = 64
"""Columns whose errors are passed on together to those behind."""


def second_order_levels(
    weight: Float[Tensor, "out n"], steps: Steps, grid: Grid, hessian: Float[Tensor, "n n"]
) -> Float[Tensor, "out n"]:
    """Levels that make the output's squared error small, not that of each weight.

    Columns are rounded in the order of falling diagonal; the error of each is spread over the
    columns that are still free.

    Args:
        weight: transformed.
        steps: per row and group of columns, (out groups).
        grid: of the weight, symmetric.
        hessian: X^T X of the transformed inputs, up to a factor.

    Source: GPTQ (arXiv 2210.17323) Algorithm 1, with the order of its `act-order` variant.
    """
    hessian = hessian.double()
    diagonal = hessian.diagonal()
    order = diagonal.argsort(descending=True, stable=True)
    damped = hessian + torch.eye(len(hessian)).to(hessian) * (DAMPING * diagonal.mean() + 1e-12)
    factor = _inverse_factor(damped[order][:, order]).to(weight.dtype)
    step = steps.step.repeat_interleave(weight.shape[1] // steps.step.shape[1], dim=1)[:, order]
    rest, levels = weight[:, order].clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], COLUMNS_AT_ONCE):
        part = slice(start, min(start + COLUMNS_AT_ONCE, weight.shape[1]))
        errors = torch.empty_like(rest[:, part])
        for i in range(part.start, part.stop):
            level = grid.round_(rest[:, i] / step[:, i]).clamp(grid.lowest, grid.highest)
            error = (rest[:, i] - level * step[:, i]) / factor[i, i]
            rest[:, i + 1 : part.stop] -= error[:, None] * factor[i, i + 1 : part.stop]
            levels[:, i], errors[:, i - start] = level, error
        rest[:, part.stop :] -= errors @ factor[part, part.stop :]
    return levels[:, order.argsort()]


def _inverse_factor(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    return torch.linalg.cholesky(inverse, upper=True)
