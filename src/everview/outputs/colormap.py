"""Depth as colour, without a plotting library."""

import numpy as np
from jaxtyping import Float, UInt8

INFERNO = np.array(
    [
        [0.0002189403691192265, 0.001651004631001012, -0.01948089843709184],
        [0.1065134194856116, 0.5639564367884091, 3.932712388889277],
        [11.60249308247187, -3.972853965665698, -15.9423941062914],
        [-41.70399613139459, 17.43639888205313, 44.35414519872813],
        [77.162935699427, -33.40235894210092, -81.80730925738993],
        [-71.31942824499214, 32.62606426397723, 73.20951985803202],
        [25.13112622477341, -12.24266895238567, -23.07032500287172],
    ]
)
"""Red, green, blue as polynomials of sixth order, constant term first: a fit to matplotlib's
perceptually uniform `inferno` (CC0) by M. Zucker (CC0); largest error about 0.01."""
MISSING = np.array([40, 44, 52], np.uint8)
"""Colour of pixels without a value."""


def inferno(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours from black over red to pale yellow for 0 .. 1; values beyond are clamped."""
    powers = np.clip(values, 0, 1)[..., None] ** np.arange(len(INFERNO))
    return np.rint(np.clip(powers @ INFERNO, 0, 1) * 255).astype(np.uint8)


def colour_depth(
    depth: Float[np.ndarray, "H W"], *, near: float, far: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Depth as colour: near is bright, far is dark, even steps of inverse depth.

    Args:
        depth: z-depth > 0; NaN becomes grey.
        near: depth with the brightest colour.
        far: depth with the darkest colour, > near.
    """
    table = inferno(np.linspace(0.05, 1, 1024))
    valid = np.isfinite(depth)
    inverse = 1 / np.where(valid, depth, far)
    level = (inverse - 1 / far) / (1 / near - 1 / far)
    colours = table[(np.clip(level, 0, 1) * 1023).astype(np.int32)]
    return np.where(valid[..., None], colours, MISSING)
