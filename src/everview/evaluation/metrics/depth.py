"""Errors of depth maps, after an alignment in scale.

Formulas and names as in the depth evaluations of MonST3R, CUT3R and their successors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError

Array = Tensor | np.ndarray
SMALLEST_DEPTH = 1e-5
"""Predictions are clamped here before logarithms and ratios, and only there."""


@dataclass(frozen=True, kw_only=True)
class DepthErrors:
    """Means over valid pixels; units of the truth."""

    abs_rel: float
    """|p - g| / g."""
    sq_rel: float
    """(p - g)^2 / g."""
    rmse: float
    """Root of the mean of (p - g)^2."""
    log_rmse: float
    """Root of the mean of (ln p - ln g)^2."""
    delta1: float
    """Share of pixels with max(p / g, g / p) < 1.25."""
    delta2: float
    """The same below 1.25^2."""
    delta3: float
    """The same below 1.25^3."""
    num_pixels: int
    """Valid pixels: where the truth is finite and positive and the mask is true."""
    scale: float
    """What predictions were multiplied with; the mean over frames if each had its own."""


def depth_errors(
    depth: Float[Array, "*s H W"],
    truth: Float[Array, "..."],
    *,
    mask: Bool[Array, "..."] | None = None,
    alignment: str = "median",
    per_frame: bool = False,
    clip: tuple[float, float] | None = None,
) -> DepthErrors:
    """Compare depth maps with the truth, in float64.

    Args:
        depth: predictions; AbsRel, SqRel and RMSE take them as they are, negative ones included.
        truth: of the same shape; pixels that are not finite or not positive do not count.
        mask: pixels that count; all if None.
        alignment: `none`; `median`: ratio of the (lower) medians; `scale`: the scale with the
            smallest absolute error, exact; `weiszfeld`: ten steps towards that, as published.
        per_frame: align each frame by itself and average the frames' errors, weighted by their
            valid pixels; frames without any have no weight. Else all frames share one scale.
        clip: limits of the aligned prediction.

    Raises:
        ConfigError: if shapes differ, the alignment is unknown, no pixel is valid, a prediction at
            a valid pixel is not finite, or the alignment needs a positive one and finds none.
    """
    p, g, valid = _prepared(depth, truth, mask)
    if not per_frame or p.ndim == 2:
        return _errors(p[valid], g[valid], alignment, clip)
    frames = zip(p.flatten(0, -3), g.flatten(0, -3), valid.flatten(0, -3), strict=True)
    return mean_depth_errors(
        [_errors(p_[v_], g_[v_], alignment, clip) for p_, g_, v_ in frames if v_.any()]
    )


def mean_depth_errors(errors: list[DepthErrors]) -> DepthErrors:
    """Average several results, weighted by their valid pixels.

    Raises:
        ConfigError: if there is none.
    """
    if not errors:
        raise ConfigError("no result to average: no frame has a valid pixel")
    total = sum(e.num_pixels for e in errors)
    names = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta1", "delta2", "delta3", "scale")
    means = {n: sum(getattr(e, n) * e.num_pixels for e in errors) / total for n in names}
    return DepthErrors(**means, num_pixels=total)


def median_scale(depth: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
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


def absolute_scale(depth: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
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


def weiszfeld_scale(depth: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """Ten reweighted least-squares steps towards the smallest absolute error.

    Kept for comparison with published tables; it does not always arrive (see `absolute_scale`).

    Source: evaluation protocol of CUT3R, video depth, mode "scale".
    """
    scale = truth.mean() / depth.mean()
    for _ in range(10):
        weight = 1 / ((scale * depth - truth).abs() + 1e-8)
        scale = (weight * depth * truth).sum() / (weight * depth * depth).sum()
    return float(scale.clamp_min(1e-3))


def _prepared(depth: Array, truth: Array, mask: Array | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps in float64, and which pixels count."""
    p, g = torch.as_tensor(depth).double(), torch.as_tensor(truth).double()
    if p.shape != g.shape or (mask is not None and mask.shape != g.shape):
        raise ConfigError(
            f"depth {tuple(p.shape)}, truth {tuple(g.shape)} and mask must have one shape: "
            "resample the depth to the truth's pixels"
        )
    valid = g.isfinite() & (g > 0)
    if mask is not None:
        valid &= torch.as_tensor(mask)
    num_valid = int(valid.sum())
    if not num_valid:
        raise ConfigError("no pixel is valid: the mask is empty or the truth nowhere positive")
    num_bad = int((~p[valid].isfinite()).sum())
    if num_bad:
        raise ConfigError(
            f"{num_bad} of {num_valid} valid pixels have a prediction that is not finite: correct "
            "it, or leave these pixels out with mask=... and report how many they are"
        )
    return p, g, valid


def _errors(p: Tensor, g: Tensor, alignment: str, clip: tuple[float, float] | None) -> DepthErrors:
    """Errors of valid pixels, given as two lists of values."""
    scale = _scale(p, g, alignment)
    p = p * scale
    if clip is not None:
        p = p.clamp(*clip)
    error, positive = p - g, p.clamp_min(SMALLEST_DEPTH)
    ratio = torch.maximum(positive / g, g / positive)
    delta1, delta2, delta3 = (float((ratio < 1.25**k).double().mean()) for k in (1, 2, 3))
    return DepthErrors(
        abs_rel=float((error.abs() / g).mean()),
        sq_rel=float((error.square() / g).mean()),
        rmse=float(error.square().mean().sqrt()),
        log_rmse=float((positive.log() - g.log()).square().mean().sqrt()),
        delta1=delta1,
        delta2=delta2,
        delta3=delta3,
        num_pixels=len(g),
        scale=scale,
    )


def _scale(p: Tensor, g: Tensor, alignment: str) -> float:
    if alignment == "none":
        return 1.0
    ways = {"median": median_scale, "scale": absolute_scale, "weiszfeld": weiszfeld_scale}
    if alignment not in ways:
        raise ConfigError(f"alignment must be none, {', '.join(ways)}; got {alignment!r}")
    return ways[alignment](p, g)
