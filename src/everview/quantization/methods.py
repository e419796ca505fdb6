"""The field behind one interface: what is done to a layer before it is rounded."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from everview.errors import ConfigError
from everview.quantization.grids import Rounding
from everview.quantization.smoothing import Order, SmoothStat

Propagation = Literal["float", "quantized"]
"""Whether a block is calibrated on inputs from the float network or from the quantized prefix."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How layers are prepared and rounded."""

    order: Order = "smooth_rotate"
    """What is done to inputs."""
    stat: SmoothStat = "rotated"
    """Whose maxima `rotate_smooth` uses: the paper's (rotated) or the code's (unrotated)."""
    alpha: float = 0.5
    """Share of the difficulty that smoothing moves into the weight."""
    rotation_width: int | None = 32
    """Channels that are mixed at most; None: all of them."""
    with_special_tokens: bool = False
    """Whether camera and register tokens count in the statistic, which they dominate."""
    rounding: Rounding = "search"
    """How weights find their steps."""
    second_order: bool = False
    """Round by the second-order rule of GPTQ."""
    learning_steps: int = 0
    """Optimiser steps per block for factors and clipping; 0: none."""
    propagate: Propagation = "float"
    """Where the inputs of later blocks come from, in second order and in learning."""
    seed: int = 0
    """Of the signs of all rotations."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.learning_steps < 0:
            raise ConfigError(
                f"alpha must be in [0, 1] and learning_steps >= 0; got {self.alpha}, "
                f"{self.learning_steps}"
            )

    @property
    def is_smoothing(self) -> bool:
        """Whether it needs the statistic of activations."""
        return "smooth" in self.order

    @property
    def needs_clips(self) -> bool:
        """Whether it cannot work without calibration."""
        return self.is_smoothing or self.second_order or self.learning_steps > 0


EPOCHS, CLIPS = 15, 20
"""Of the published calibration: learning steps are their product."""

_PAPER = Method(
    order="rotate_smooth", rotation_width=None, rounding="nearest", with_special_tokens=True
)

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "nearest": Method(order="none", rounding="nearest"),
        "smoothquant": Method(order="smooth", rounding="nearest", with_special_tokens=True),
        "scale": Method(order="smooth"),
        "quarot": Method(order="rotate", rotation_width=None, rounding="nearest"),
        "gptq": Method(order="none", rounding="search", second_order=True),
        "quantvggt-initial": _PAPER,
        "quantvggt": replace(_PAPER, learning_steps=EPOCHS * CLIPS),
        "quantvggt-code-initial": replace(_PAPER, stat="unrotated"),
        "quantvggt-code": replace(_PAPER, stat="unrotated", learning_steps=EPOCHS * CLIPS),
        "everview": Method(second_order=True),
        "everview-64": Method(second_order=True, rotation_width=64),
        "everview-nearest": Method(rounding="nearest"),
        "everview-search": Method(),
        "everview-learned": Method(learning_steps=EPOCHS * CLIPS),
        "everview-full": Method(
            second_order=True, learning_steps=EPOCHS * CLIPS, propagate="quantized"
        ),
    }
)
"""Name -> method. The paper's field: `nearest`, `smoothquant`, `quarot`, `gptq`, `scale`;
`quantvggt` as in the paper and as in its code; `everview...` smooth first, then rotate."""


def pick_method(method: "str | Method") -> Method:
    """A method by name, or itself.

    Raises:
        ConfigError: if the name is unknown.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; use {', '.join(METHODS)}")
    return METHODS[method]
