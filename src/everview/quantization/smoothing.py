"""Smoothing and rotation of a layer's input, and what becomes of its weight."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import InputError
from everview.quantization.hadamard import Rotation

Order = Literal["smooth_rotate", "rotate_smooth", "rotate", "smooth", "none"]
"""What is done to a layer's input, first to last."""
SmoothStat = Literal["rotated", "unrotated"]
"""Whose column maxima `rotate_smooth` divides by: |W R| (the paper's), |W| (the published code)."""

MOMENTUM = 0.95
SMALLEST_FACTOR = 1e-5


class ChannelMaxima:
    """Running maximum of |x| per channel: mean over the batch of the maximum over tokens.

    The first batch sets the value, later ones move it by 1 - momentum.

    Source: QuantVGGT's published calibration (design page, Sec. 2.4).
    """

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self.momentum = momentum
        self.value: Tensor | None = None

    def update(self, x: Float[Tensor, "batch tokens n"]) -> None:
        """Take one batch into account.

        Raises:
            InputError: if a value is not finite.
        """
        new = x.abs().amax(1).mean(0)
        if not new.isfinite().all():
            raise InputError("activations that are not finite (NaN or infinity)")
        if self.value is None:
            self.value = new
        else:
            self.value = self.momentum * self.value + (1 - self.momentum) * new


def smoothing_factors(
    activation_max: Float[Tensor, " n"], weight_max: Float[Tensor, " n"], *, alpha: float = 0.5
) -> Float[Tensor, " n"]:
    """By what each input channel is divided, and its weight column multiplied.

    c = max(a^alpha / w^(1 - alpha), 1e-5).

    Args:
        activation_max: a, largest |x| per channel.
        weight_max: w, largest |W| per column.
        alpha: how much of the difficulty goes to the weight: 0 none, 1 all.

    Source: SmoothQuant (arXiv 2211.10438) Eq. 4.
    """
    tiny = torch.finfo(weight_max.dtype).tiny
    factors = activation_max**alpha / weight_max.clamp(min=tiny) ** (1 - alpha)
    return factors.clamp(min=SMALLEST_FACTOR, max=1 / SMALLEST_FACTOR)


@dataclass(frozen=True, kw_only=True, eq=False)
class InputTransform:
    """x -> (x * before) R * after, and its exact inverse on the weight's columns.

    Without rounding the layer's output does not change: x' W'^T = x W^T.
    """

    before: Float[Tensor, " n"] | None = None
    """Multiplies the input ahead of the rotation."""
    rotation: Rotation | None = None
    """None: not rotated."""
    after: Float[Tensor, " n"] | None = None
    """Multiplies the rotated input."""

    def of_input(self, x: Float[Tensor, "*tokens n"]) -> Float[Tensor, "*tokens n"]:
        """The input whose grid is taken."""
        if self.before is not None:
            x = x * self.before.to(x)
        if self.rotation is not None:
            x = self.rotation.apply(x)
        return x if self.after is None else x * self.after.to(x)

    def of_weight(self, weight: Float[Tensor, "out n"]) -> Float[Tensor, "out n"]:
        """The weight that belongs to it."""
        if self.before is not None:
            weight = weight / self.before.to(weight)
        if self.rotation is not None:
            weight = self.rotation.apply(weight)
        return weight if self.after is None else weight / self.after.to(weight)


def plan_transform(
    weight: Float[Tensor, "out n"],
    activation_max: Float[Tensor, " n"] | None,
    order: Order,
    *,
    rotation: Rotation | None = None,
    stat: SmoothStat = "rotated",
    alpha: float = 0.5,
) -> InputTransform:
    """The transform of one order.

    Args:
        weight: of the layer, as it is.
        activation_max: `ChannelMaxima` of the input where it is smoothed: as it is for `smooth` and
            `smooth_rotate`, rotated for `rotate_smooth`; None: nothing is smoothed.
        rotation: for the orders that rotate.
        stat: whose maxima `rotate_smooth` uses.
    """
    is_rotating = order in ("rotate", "rotate_smooth", "smooth_rotate")
    assert not is_rotating or rotation is not None, "the caller draws the rotation"
    used = rotation if is_rotating else None
    if activation_max is None or order in ("rotate", "none"):
        return InputTransform(rotation=used)
    judged = weight
    if order == "rotate_smooth" and stat == "rotated":
        assert rotation is not None
        judged = rotation.apply(weight)
    inverse = 1 / smoothing_factors(activation_max, judged.abs().amax(0), alpha=alpha)
    if order == "rotate_smooth":
        return InputTransform(rotation=used, after=inverse)
    return InputTransform(before=inverse, rotation=used)
