"""Similarity transforms that lay one set of points on another."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """The map x -> scale * rotation @ x + translation."""

    scale: float
    """> 0; 1 for a rigid motion."""
    rotation: Float[Tensor, "3 3"]
    """Proper: determinant +1."""
    translation: Float[Tensor, " 3"]
    """In units of the target."""

    def apply(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Move points of the source into the target's frame."""
        return self.scale * points @ self.rotation.T + self.translation


def umeyama(
    source: Float[Tensor, "n 3"] | Float[np.ndarray, "n 3"],
    target: Float[Tensor, "n 3"] | Float[np.ndarray, "n 3"],
    *,
    with_scale: bool = True,
    allow_line: bool = False,
) -> Similarity:
    """Find the similarity with the smallest sum of squared distances from source to target.

    Args:
        source: points to be moved.
        target: where each of them should be.
        with_scale: False keeps the scale at 1 (a rigid motion).
        allow_line: accept points on a line, which leave the turn about that line open: one of the
            equally good answers is then given. The distances do not depend on which.

    Raises:
        ConfigError: if there is no pair of points, a coordinate is not finite, all points of one
            set coincide, or the rotation is not determined and `allow_line` is False.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point
    patterns (1991), Eq. 34 to 43.
    """
    source, target = torch.as_tensor(source), torch.as_tensor(target)
    _check(source, target)
    source_mean, target_mean = source.mean(dim=0), target.mean(dim=0)
    x, y = source - source_mean, target - target_mean
    _check_spread(x, "source", source_mean)
    _check_spread(y, "target", target_mean)
    left, values, right = torch.linalg.svd(y.T @ x / len(x))
    if not allow_line and values[1] <= values[0] * _rank_tolerance(x.dtype):
        raise ConfigError(
            "the points lie on a line (or are uncorrelated), so that no unique rotation aligns "
            "them: give points that spread in two directions, or pass allow_line=True where any "
            "of the best rotations will do"
        )
    signs = torch.ones_like(values)
    signs[2] = (torch.det(left) * torch.det(right)).sign()
    rotation = left @ torch.diag(signs) @ right
    scale = float((values * signs).sum() / x.square().sum() * len(x)) if with_scale else 1.0
    return Similarity(
        scale=scale,
        rotation=rotation,
        translation=target_mean - scale * rotation @ source_mean,
    )


def _rank_tolerance(dtype: torch.dtype) -> float:
    """Below this share of the largest singular value the second one is rounding."""
    return 10 * torch.finfo(dtype).eps


def _check(source: Tensor, target: Tensor) -> None:
    if not len(source):
        raise ConfigError("alignment needs at least one pair of points, got none")
    for name, points in (("source", source), ("target", target)):
        num_bad = int((~points.isfinite()).any(dim=-1).sum())
        if num_bad:
            raise ConfigError(
                f"{num_bad} of {len(points)} {name} points are not finite: leave these pairs out"
            )


def _check_spread(centred: Tensor, name: str, mean: Tensor) -> None:
    """Refuse points that all coincide, up to the rounding of their coordinates."""
    radius = float(centred.norm(dim=-1).max())
    if radius <= _rank_tolerance(centred.dtype) * max(1e-300, float(mean.norm())):
        raise ConfigError(
            f"all {len(centred)} {name} points coincide: scale and rotation of an alignment need "
            "at least two different places"
        )
