"""Errors of depth maps, after an alignment in scale, or in scale and shift.

Formulas and names as in the depth evaluations of MonST3R, CUT3R and their successors.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double
from everview.evaluation.metrics.depth_alignment import DepthAlignment, align_depth

SMALLEST_DEPTH = 1e-5
"""Predictions are clamped here before logarithms and ratios, and only there."""
SMALLEST_DISPARITY = 1e-8
"""Aligned disparities are clamped here before they are inverted."""


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
    shift: float = 0.0
    """What was added to predictions afterwards; likewise."""


def depth_errors(
    depth: Float[Array, "*s H W"],
    truth: Float[Array, "..."],
    *,
    mask: Bool[Array, "..."] | None = None,
    alignment: str = "median",
    per_frame: bool = False,
    clip: tuple[float, float] | None = None,
    disparity: bool = False,
) -> DepthErrors:
    """Compare depth maps with the truth, in float64.

    Args:
        depth: predictions; AbsRel, SqRel and RMSE take them as they are, negative ones included.
        truth: of the same shape; pixels that are not finite or not positive do not count.
        mask: pixels that count; all if None.
        alignment: `none`; `median`: ratio of the (lower) medians; `scale`: the scale with the
            smallest absolute error, exact; `weiszfeld`: ten steps towards that, as published;
            `scale_l2`: least squares; `scale_shift`: scale and shift with the smallest absolute
            error, exact; `scale_shift_adam`: a thousand steps towards that, as published;
            `scale_shift_l2`: linear regression.
        per_frame: align each frame by itself and average the frames' errors, weighted by their
            valid pixels; frames without any have no weight. Else all frames share one scale.
        clip: limits of the aligned prediction.
        disparity: the prediction is inverse depth: it is aligned to the inverse of the truth, and
            inverted then.

    Raises:
        ConfigError: if shapes differ, the alignment is unknown, no pixel is valid, a prediction at
            a valid pixel is not finite, the alignment needs a positive one and finds none, or an
            error is too large for a number.
    """
    p, g, valid = _prepared(depth, truth, mask)
    if not per_frame or p.ndim == 2:
        return _errors(p[valid], g[valid], alignment, clip, disparity)
    frames = zip(p.flatten(0, -3), g.flatten(0, -3), valid.flatten(0, -3), strict=True)
    return mean_depth_errors(
        [_errors(p_[v], g_[v], alignment, clip, disparity) for p_, g_, v in frames if v.any()]
    )


def mean_depth_errors(errors: list[DepthErrors]) -> DepthErrors:
    """Average several results, weighted by their valid pixels.

    Raises:
        ConfigError: if there is none.
    """
    if not errors:
        raise ConfigError("no result to average: no frame has a valid pixel")
    total = sum(e.num_pixels for e in errors)
    names = (
        "abs_rel",
        "sq_rel",
        "rmse",
        "log_rmse",
        "delta1",
        "delta2",
        "delta3",
        "scale",
        "shift",
    )
    means = {n: sum(getattr(e, n) * e.num_pixels for e in errors) / total for n in names}
    return DepthErrors(**means, num_pixels=total)


def _prepared(depth: Array, truth: Array, mask: Array | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps in float64, and which pixels count."""
    p, g = as_double(depth), as_double(truth)
    if p.shape != g.shape or (mask is not None and mask.shape != g.shape):
        raise ConfigError(
            f"depth {tuple(p.shape)}, truth {tuple(g.shape)} and mask must have one shape: "
            "resample the depth to the truth's pixels"
        )
    valid = g.isfinite() & (g > 0)
    if mask is not None:
        valid &= torch.as_tensor(mask).cpu()
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


def _errors(
    p: Tensor, g: Tensor, alignment: str, clip: tuple[float, float] | None, disparity: bool
) -> DepthErrors:
    """Errors of valid pixels, given as two lists of values."""
    p, found = _aligned(p, g, alignment, disparity=disparity)
    if clip is not None:
        p = p.clamp(*clip)
    error, positive = p - g, p.clamp_min(SMALLEST_DEPTH)
    ratio = torch.maximum(positive / g, g / positive)
    delta1, delta2, delta3 = (float((ratio < 1.25**k).double().mean()) for k in (1, 2, 3))
    means = {
        "abs_rel": float((error.abs() / g).mean()),
        "sq_rel": float((error.square() / g).mean()),
        "rmse": float(error.square().mean().sqrt()),
        "log_rmse": float((positive.log() - g.log()).square().mean().sqrt()),
    }
    for name, value in means.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"{name} is {value}: the true depth goes from {float(g.min()):g} to "
                f"{float(g.max()):g}; leave impossible values out with mask=..."
            )
    return DepthErrors(
        **means,
        delta1=delta1,
        delta2=delta2,
        delta3=delta3,
        num_pixels=len(g),
        scale=found.scale,
        shift=found.shift,
    )


def _aligned(
    p: Tensor, g: Tensor, alignment: str, *, disparity: bool
) -> tuple[Tensor, DepthAlignment]:
    """Predicted depth of valid pixels in the unit of the truth."""
    found = align_depth(p, 1 / (g + 1e-8) if disparity else g, alignment)
    p = found.scale * p + found.shift
    if disparity:
        p = 1 / p.clamp_min(SMALLEST_DISPARITY)
    if not p.isfinite().all():
        raise ConfigError(
            f"with scale {found.scale:g} and shift {found.shift:g} the prediction is not finite"
        )
    return p, found
