"""Point maps of several views, brought to the truth by medians, and their central window.

Source: evaluation protocol of CUT3R (2501.12387) and StreamVGGT (2507.11539).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double

SMALLEST_RADIUS, LARGEST_RADIUS = 1e-3, 1e3
"""Limits of the predicted radius, in its own unit."""


@dataclass(frozen=True, kw_only=True)
class MedianAlignment:
    """What brings both clouds together."""

    shift: float
    """Taken away from the predicted z: its median."""
    true_shift: float
    """Taken away from the true z: its median."""
    scale: float
    """Multiplies the shifted prediction, about the origin."""

    def predicted(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Predicted points where they are compared."""
        return (points - points.new_tensor([0, 0, self.shift])) * self.scale

    def true(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """True points where they are compared."""
        return points - points.new_tensor([0, 0, self.true_shift])


def align_by_medians(predicted: Float[Array, "n 3"], true: Float[Array, "n 3"]) -> MedianAlignment:
    """Take away the median z of each cloud, then bring the prediction to the true median radius.

    The radius is the median distance from the component-wise median point. Of two middle values the
    lower one is taken, as in torch.

    Args:
        predicted: points of all valid pixels of all views, in the frame of the first camera.
        true: of the same pixels.

    Raises:
        ConfigError: if there is no point, or one is not finite.
    """
    clouds = {"predicted": as_double(predicted), "true": as_double(true)}
    for name, cloud in clouds.items():
        if not len(cloud) or not cloud.isfinite().all():
            raise ConfigError(f"the {name} points are not finite, or there are none")
    shifts = {name: float(cloud[:, 2].median()) for name, cloud in clouds.items()}
    radius = {name: _radius(cloud) for name, cloud in clouds.items()}
    return MedianAlignment(
        shift=shifts["predicted"],
        true_shift=shifts["true"],
        scale=radius["true"] / min(max(radius["predicted"], SMALLEST_RADIUS), LARGEST_RADIUS),
    )


def central_window(size: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Rows and columns of the middle of an image.

    Args:
        size: (height, width) of the image.
        side: of the square window, in pixels; cut to the image where that is smaller.
    """
    rows, columns = (
        slice(
            (length - min(length, side)) // 2, (length - min(length, side)) // 2 + min(length, side)
        )
        for length in size
    )
    return rows, columns


def _radius(points: Float[Tensor, "n 3"]) -> float:
    return float((points - points.median(dim=0).values).norm(dim=-1).median())
