"""Scale, or scale and shift, that bring predicted depth to the truth. All in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from everview.errors import ConfigError

Values = Float[Tensor, " n"]
SMALLEST_SCALE = 1e-3
"""Floor of the published reweighted scale."""
SAMPLE = 100_000
"""Pixels from which the search for scale and shift starts."""


@dataclass(frozen=True, kw_only=True)
class DepthAlignment:
    """p -> scale * p + shift."""

    scale: float
    shift: float = 0.0


def median_scale(depth: Values, truth: Values) -> float:
    """Ratio of the medians; of an even number of values the lower middle one.

    Raises:
        ConfigError: if the median prediction is not positive.
    """
    middle = float(depth.median())
    if middle <= 0:
        raise ConfigError(
            f"the median of the predicted depth is {middle:g}: a scale needs a positive one"
        )
    return float(truth.median()) / middle


def absolute_scale(depth: Values, truth: Values) -> float:
    """The scale s >= 0 with the smallest sum of |s p - g|: a weighted median of g / p.

    Raises:
        ConfigError: if no prediction is positive.
    """
    positive = depth > 0
    if not positive.any():
        raise ConfigError("no predicted depth is positive: there is no scale that fits")
    # a prediction below zero pulls towards 0, whatever the scale above it
    ratio, order = (truth[positive] / depth[positive]).sort()
    weight = depth[positive][order].cumsum(0)
    pull = weight[-1] + depth.clamp(max=0).sum()  # net weight that wants a larger scale
    chosen = int(torch.searchsorted(weight, pull / 2))
    return float(ratio[min(chosen, len(ratio) - 1)]) if pull > 0 else 0.0


def weiszfeld_scale(depth: Values, truth: Values) -> float:
    """Ten reweighted least-squares steps towards the smallest absolute error.

    Kept for comparison with published tables; it does not always arrive (see `absolute_scale`).

    Raises:
        ConfigError: if the mean prediction is not positive.

    Source: evaluation protocol of CUT3R, video depth, mode "scale".
    """
    mean = depth.mean()
    if mean <= 0:
        raise ConfigError(
            f"the mean of the predicted depth is {float(mean):g}: a scale needs a positive one"
        )
    scale = truth.mean() / mean
    for _ in range(10):
        weight = 1 / ((scale * depth - truth).abs() + 1e-8)
        scale = (weight * depth * truth).sum() / (weight * depth * depth).sum()
    return float(scale.clamp_min(SMALLEST_SCALE))


def least_squares_scale(depth: Values, truth: Values) -> float:
    """The scale with the smallest sum of (s p - g)^2.

    Raises:
        ConfigError: if no positive scale is better than zero.
    """
    common = float((depth * truth).sum())
    if common <= 0:
        raise ConfigError("the predicted depth does not grow with the true one: no scale fits")
    return common / float(depth.square().sum())


def absolute_scale_shift(depth: Values, truth: Values) -> tuple[float, float]:
    """Scale and shift with the smallest sum of |s p + t - g|, to rounding.

    For a given scale the best shift is a median, and what remains is convex in the scale: one
    search along a line. Predictions that are all equal leave the scale open; it is then 1.
    """
    middle, spread = _spread(depth)
    if not spread:
        return 1.0, float((truth - depth).median())
    p = (depth - middle) / spread

    def search(p: Tensor, g: Tensor, start: float, step: float) -> float:
        def loss(scale: float) -> float:
            rest = g - scale * p
            return float((rest - rest.median()).abs().mean())

        found = minimize_scalar(
            loss, bracket=(start - step, start + step), method="brent", options={"xtol": 1e-13}
        )
        return float(found.x)

    start = float((p * (truth - truth.mean())).mean())
    step = 0.1 * float(truth.std()) + 1e-6
    if len(p) > 2 * SAMPLE:
        every = len(p) // SAMPLE
        start, step = search(p[::every], truth[::every], start, step), step / 100
    scale = search(p, truth, start, step)
    shift = float((truth - scale * p).median())
    return scale / spread, shift - scale / spread * middle


def least_squares_scale_shift(depth: Values, truth: Values) -> tuple[float, float]:
    """Linear regression of g on (p, 1); predictions that are all equal leave the scale at 1."""
    middle, spread = _spread(depth)
    if not spread:
        return 1.0, float((truth - depth).mean())
    p = (depth - middle) / spread
    scale = float((p * (truth - truth.mean())).sum() / p.square().sum()) / spread
    return scale, float(truth.mean()) - scale * middle


def adam_scale_shift(depth: Values, truth: Values) -> tuple[float, float]:
    """At most 1000 steps of Adam, step 1e-4, from the median ratio and 0, on sum |s p + t - g|.

    Kept for comparison with published tables. It moves scale and shift by about 0.1 at most, so
    that it does not arrive where the true shift is larger (see `absolute_scale_shift`).

    Raises:
        ConfigError: if the median prediction is not positive.

    Source: evaluation protocol of CUT3R and MonST3R, video depth, mode "scale and shift".
    """
    values = torch.tensor([median_scale(depth, truth), 0.0]).double()
    mean, square = torch.zeros(2).double(), torch.zeros(2).double()
    before = float("inf")
    for step in range(1, 1001):
        rest = values[0] * depth + values[1] - truth
        sign = rest.sign()
        gradient = torch.stack([(sign * depth).sum(), sign.sum()])
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient.square()
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        values = values - 1e-4 * mean / (1 - 0.9**step) / size
        loss = float(rest.abs().sum())
        if abs(before - loss) < 1e-6:
            break
        before = loss
    scale, shift = values.tolist()
    return scale, shift


SCALES: dict[str, Callable[[Values, Values], float]] = {
    "median": median_scale,
    "scale": absolute_scale,
    "weiszfeld": weiszfeld_scale,
    "scale_l2": least_squares_scale,
}
SCALES_AND_SHIFTS: dict[str, Callable[[Values, Values], tuple[float, float]]] = {
    "scale_shift": absolute_scale_shift,
    "scale_shift_l2": least_squares_scale_shift,
    "scale_shift_adam": adam_scale_shift,
}
ALIGNMENTS = ("none", *SCALES, *SCALES_AND_SHIFTS)
"""Names of all ways to align depth."""


def align_depth(depth: Values, truth: Values, alignment: str) -> DepthAlignment:
    """Find the scale and shift of valid pixels, given as two lists of finite values, float64.

    Args:
        depth: predictions.
        truth: of the same pixels.
        alignment: one of `ALIGNMENTS`.

    Raises:
        ConfigError: if there is no pixel, the alignment is unknown, or it needs a positive
            prediction and finds none.
    """
    if alignment not in ALIGNMENTS:
        raise ConfigError(f"alignment must be {', '.join(ALIGNMENTS)}; got {alignment!r}")
    if not len(truth):
        raise ConfigError("no pixel is valid: there is nothing to align")
    if alignment in SCALES:
        return DepthAlignment(scale=SCALES[alignment](depth, truth))
    if alignment == "none":
        return DepthAlignment(scale=1.0)
    scale, shift = SCALES_AND_SHIFTS[alignment](depth, truth)
    return DepthAlignment(scale=scale, shift=shift)


def _spread(values: Values) -> tuple[float, float]:
    """Mean and standard deviation; the latter is 0 where all values are equal up to rounding."""
    mean = float(values.mean())
    spread = float((values - mean).square().mean().sqrt())
    return mean, spread if spread > 1e-12 * float(values.abs().max()) else 0.0
