"""Whether confidence says how large the error is: reliability curves and sparsification.

Sources: Guo et al., On calibration of modern neural networks (2017) for probabilities; Ilg et al.,
Uncertainty estimates and multi-hypotheses networks for optical flow (2018) for sparsification.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double, as_list
from everview.evaluation.metrics.drift import least_squares_slope


@dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """Error by confidence, in bins of about equally many values, least confident first."""

    confidence: Float[np.ndarray, " b"]
    """Mean of each bin."""
    error: Float[np.ndarray, " b"]
    """Mean of each bin."""
    error_median: Float[np.ndarray, " b"]
    count: Int[np.ndarray, " b"]
    rank_correlation: float
    """Spearman's, of confidence and falling error: 1 for a perfect order, 0 for none (also where
    either is constant), -1 for the reverse."""
    exponent: float | None
    """Slope of ln error over ln confidence of the bins. The losses of VGGT and StreamVGGT are
    smallest at error = alpha / confidence, which is -1. None where a bin has no error or no
    positive confidence, or all have the same confidence."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityCurve:
    """How often it happens, by how likely it was said to be."""

    probability: Float[np.ndarray, " b"]
    """Mean of each bin; bins without a value are left out."""
    frequency: Float[np.ndarray, " b"]
    """Share of outcomes that are true."""
    count: Int[np.ndarray, " b"]
    expected_error: float
    """Mean |frequency - probability|, weighted by count (ECE)."""
    largest_error: float
    """Largest of them (MCE)."""
    brier: float
    """Mean squared difference of probability and outcome."""


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """Mean error of what is left once the least confident values are taken away."""

    removed: Float[np.ndarray, " b"]
    """Share that is taken away, from 0 on."""
    error: Float[np.ndarray, " b"]
    oracle: Float[np.ndarray, " b"]
    """The same if the largest errors are taken away first: no order does better."""
    ause: float
    """Area between the two, errors divided by the mean of all: 0 is perfect."""
    aurg: float
    """Area gained on a random order, likewise: above 0 where confidence helps."""


def reliability_curve(
    confidence: Float[Array, "..."], error: Float[Array, "..."], *, bins: int = 10
) -> ReliabilityCurve:
    """Error by confidence of any range, such as depth confidence from 1 on.

    Args:
        confidence: larger is better.
        error: of the same values, >= 0.
        bins: at most so many, borders at quantiles; equal confidences are in one bin.

    Raises:
        ConfigError: if there is no value, the numbers differ, a value is not finite, an error is
            negative, or `bins` is not positive.
    """
    c, e = _checked(confidence, error)
    if bins < 1:
        raise ConfigError(f"a curve needs at least one bin, got {bins}")
    borders = np.quantile(c, np.linspace(0, 1, bins + 1)[1:-1], method="higher")
    _, which = np.unique(np.searchsorted(borders, c, side="right"), return_inverse=True)
    count = np.bincount(which)
    mean, error_mean = (np.bincount(which, values) / count for values in (c, e))
    order = np.argsort(which, kind="stable")
    parts = np.split(e[order], np.cumsum(count)[:-1])
    return ReliabilityCurve(
        confidence=mean,
        error=error_mean,
        error_median=np.array([np.median(part) for part in parts]),
        count=count,
        rank_correlation=_rank_correlation(c, -e),
        exponent=_exponent(mean, error_mean),
    )


def probability_curve(
    probability: Float[Array, "..."], outcome: Bool[Array, "..."], *, bins: int = 10
) -> ProbabilityCurve:
    """How often an event happens, by its predicted probability, such as visibility of tracks.

    Args:
        probability: 0 to 1.
        outcome: whether it happened.
        bins: of equal width over 0 .. 1; a border belongs to the bin above it.

    Raises:
        ConfigError: if there is no value, the numbers differ, a probability is outside 0 .. 1 or
            not finite, or `bins` is not positive.
    """
    p = as_list(probability, "probability")
    happened = as_double(outcome).flatten().numpy()
    if len(p) != len(happened) or bins < 1:
        raise ConfigError(f"{len(p)} probabilities, {len(happened)} outcomes, {bins} bins")
    if p.min() < 0 or p.max() > 1:
        raise ConfigError(f"probabilities from {p.min():g} to {p.max():g}: apply a sigmoid first")
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    _, which = np.unique(place, return_inverse=True)
    count = np.bincount(which)
    mean, frequency = (np.bincount(which, values) / count for values in (p, happened))
    gap = np.abs(mean - frequency)
    return ProbabilityCurve(
        probability=mean,
        frequency=frequency,
        count=count,
        expected_error=float((gap * count).sum() / len(p)),
        largest_error=float(gap.max()),
        brier=float(((p - happened) ** 2).mean()),
    )


def sparsification(
    confidence: Float[Array, "..."], error: Float[Array, "..."], *, steps: int = 20
) -> Sparsification:
    """Take away more and more of the least confident values.

    Among equal confidences the order is left to chance: the curve is its expected value.

    Args:
        confidence: larger is better.
        error: of the same values, >= 0; give squares for a curve of mean squares.
        steps: shares 0, 1 / steps ... (steps - 1) / steps are taken away.

    Raises:
        ConfigError: if there is no value, the numbers differ, a value is not finite, an error is
            negative, or `steps` is not positive.
    """
    c, e = _checked(confidence, error)
    if steps < 1:
        raise ConfigError(f"a curve needs at least one step, got {steps}")
    removed = np.arange(steps) / steps
    kept = len(e) - (np.arange(steps) * len(e)) // steps
    _, group = np.unique(-c, return_inverse=True)
    expected = (np.bincount(group, e) / np.bincount(group))[group]
    curve, oracle = (
        np.cumsum(values)[kept - 1] / kept
        for values in (expected[np.argsort(-c, kind="stable")], np.sort(e))
    )
    mean = float(e.mean())
    ause, aurg = (
        float((gap[1:] + gap[:-1]).sum()) / (2 * steps * mean) if mean > 0 else 0.0
        for gap in (curve - oracle, mean - curve)
    )
    return Sparsification(removed=removed, error=curve, oracle=oracle, ause=ause, aurg=aurg)


def _checked(confidence: Array, error: Array) -> tuple[np.ndarray, np.ndarray]:
    c, e = as_list(confidence, "confidence"), as_list(error, "error")
    if len(c) != len(e):
        raise ConfigError(f"{len(c)} values of confidence and {len(e)} errors")
    if e.min() < 0:
        raise ConfigError(f"errors must not be negative, got {e.min():g}")
    return c, e


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    spread = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / spread if spread > 0 else 0.0


def _exponent(confidence: np.ndarray, error: np.ndarray) -> float | None:
    if len(confidence) < 2 or confidence.min() <= 0 or error.min() <= 0:
        return None
    return least_squares_slope(np.log(confidence), np.log(error))
