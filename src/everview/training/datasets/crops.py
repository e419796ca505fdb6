"""Cut and scale views to the size of a batch; intrinsics follow."""

import dataclasses

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.training.datasets.view import View

Rectangle = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels; bottom and right are not included."""


def fit_view(view: View, size: tuple[int, int], *, extra_pixels: int = 0) -> View:
    """Cut symmetrically about the principal point, scale so that `size` is covered, cut to `size`.

    Args:
        view: what to fit.
        size: (height, width) wanted.
        extra_pixels: the scaled image is at least so many pixels larger than needed, and what is
            shown is that much smaller.
    """
    view = cut(view, centred_rectangle(view))
    height, width = view.size
    factor = max((size[0] + extra_pixels) / height, (size[1] + extra_pixels) / width)
    scaled = (max(size[0], round(height * factor)), max(size[1], round(width * factor)))
    view = scale(view, scaled)
    x, y = principal_point(view)
    top = _clamp(round(y - size[0] / 2), 0, scaled[0] - size[0])
    left = _clamp(round(x - size[1] / 2), 0, scaled[1] - size[1])
    return cut(view, (top, top + size[0], left, left + size[1]))


def centred_rectangle(view: View) -> Rectangle:
    """Largest part of the image with the principal point at (W / 2, H / 2).

    A principal point in the outer tenth of the image leaves too little: then all is kept.
    """
    height, width = view.size
    x, y = principal_point(view)
    half_width, half_height = min(x, width - x), min(y, height - y)
    if half_width < width / 10 or half_height < height / 10:
        return 0, height, 0, width
    rows = round(y - half_height), round(y + half_height)
    return *rows, round(x - half_width), round(x + half_width)


def principal_point(view: View) -> tuple[float, float]:
    """(x, y) in pixels; the middle of the image where the camera is not known."""
    if not view.has_intrinsics:
        return view.size[1] / 2, view.size[0] / 2
    return float(view.intrinsics[0, 2]), float(view.intrinsics[1, 2])


def cut(view: View, rectangle: Rectangle) -> View:
    """A part of the view."""
    top, bottom, left, right = rectangle
    if rectangle == (0, view.size[0], 0, view.size[1]):
        return view
    intrinsics = view.intrinsics.clone()
    intrinsics[0, 2] -= left
    intrinsics[1, 2] -= top

    def part(mask: Bool[Tensor, "H W"] | None) -> Bool[Tensor, "h w"] | None:
        return None if mask is None else mask[top:bottom, left:right]

    return dataclasses.replace(
        view,
        image=view.image[:, top:bottom, left:right],
        depth=view.depth[top:bottom, left:right],
        valid=view.valid[top:bottom, left:right],
        sky=part(view.sky),
        foreground=part(view.foreground),
        intrinsics=intrinsics,
    )


def scale(view: View, size: tuple[int, int]) -> View:
    """The whole view in another size: colours smoothed, depth and masks from the nearest pixel."""
    if view.size == size:
        return view
    factors = view.intrinsics.new_tensor([size[1] / view.size[1], size[0] / view.size[0]])
    intrinsics = view.intrinsics.clone()
    intrinsics[:2] *= factors[:, None]
    intrinsics[:2, 2] += (factors - 1) / 2  # pixel i spans [i - 1/2, i + 1/2]
    image = F.interpolate(
        view.image[None], size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return dataclasses.replace(
        view,
        image=image[0].clamp(0, 1),
        depth=_nearest(view.depth, size),
        valid=_nearest(view.valid.float(), size) > 0,
        sky=None if view.sky is None else _nearest(view.sky.float(), size) > 0,
        foreground=(
            None if view.foreground is None else _nearest(view.foreground.float(), size) > 0
        ),
        intrinsics=intrinsics,
    )


def _nearest(values: Float[Tensor, "H W"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    return F.interpolate(values[None, None], size=size, mode="nearest-exact")[0, 0]


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
