"""Correlation of a point's feature with a window of each feature map, at several scales."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class CorrelationPyramid:
    """Answers: how well does a feature match the cells around a place, at every level?

    Correlation with the whole map followed by bilinear sampling is linear in the map, so only the
    cells around the window are ever read: t * (2 r + 2)^2 * c products per frame and level instead
    of t * h * w * c.

    Args:
        maps: normalised feature maps.
        num_levels: level l is the 2 x 2 average of level l - 1.
        radius: half side of the window, in cells of the level.
    """

    def __init__(self, maps: Float[Tensor, "b s c h w"], num_levels: int, radius: int) -> None:
        self.radius = radius
        self.batch, self.frames, self.channels = maps.shape[:3]
        level = maps.flatten(0, 1)  # (b s) c h w
        self.levels = []
        for i in range(num_levels):
            if i > 0:
                level = F.avg_pool2d(level, 2)
            self.levels.append((level.shape[-2:], level.permute(0, 2, 3, 1).flatten(0, 2)))

    def sample(
        self, feature: Float[Tensor, "b s t c"], coords: Float[Tensor, "b s t 2"]
    ) -> Float[Tensor, "b s t values"]:
        """Correlations of all levels, window by window; x is the slow axis of a window.

        Args:
            feature: per frame and point.
            coords: (x, y) in cells of level 0; cells outside the map correlate with 0.
        """
        flat = feature.flatten(0, 1) / self.channels**0.5  # (b s) t c
        centre = coords.flatten(0, 1)  # (b s) t 2
        windows = [
            self._window(cells, size, flat, centre / 2**i)
            for i, (size, cells) in enumerate(self.levels)
        ]
        return torch.cat(windows, dim=-1).unflatten(0, (self.batch, self.frames))

    def _window(
        self, cells: Tensor, size: torch.Size, feature: Tensor, centre: Tensor
    ) -> Float[Tensor, "n t values"]:
        """The (2 r + 1)^2 samples around `centre` of one level."""
        n = len(feature)
        offsets = torch.arange(-self.radius, self.radius + 2, device=centre.device)
        x, x_inside, x_weight = _axis(centre[..., 0], offsets, size[1])
        y, y_inside, y_weight = _axis(centre[..., 1], offsets, size[0])
        frame = torch.arange(n, device=centre.device)[:, None, None, None] * (size[0] * size[1])
        index = frame + y[:, :, None, :] * size[1] + x[:, :, :, None]  # n t (x) (y)
        around = cells[index.flatten()].view(*index.shape, -1)  # n t x y c
        products = torch.einsum("ntxyc,ntc->ntxy", around, feature).to(x_weight.dtype)
        products = products * (x_inside[:, :, :, None] & y_inside[:, :, None, :])
        products = torch.lerp(products[:, :, :-1], products[:, :, 1:], x_weight[..., None, None])
        products = torch.lerp(products[..., :-1], products[..., 1:], y_weight[..., None, None])
        return products.flatten(2)  # n t (x y)


def _axis(
    centre: Float[Tensor, "n t"], offsets: Tensor, size: int
) -> tuple[Tensor, Tensor, Float[Tensor, "n t"]]:
    """Cell indices around a centre, which of them exist, and the weight of the upper neighbour."""
    low = centre.floor()
    cell = low.long()[..., None] + offsets  # n t k
    if size == 1:  # a single cell is hit wherever one looks
        return torch.zeros_like(cell), torch.ones_like(cell, dtype=torch.bool), centre * 0
    return cell.clamp(0, size - 1), (cell >= 0) & (cell < size), centre - low


def sample_bilinear(
    maps: Float[Tensor, "b c h w"], at: Float[Tensor, "b t 2"]
) -> Float[Tensor, "b t c"]:
    """Sample maps at (x, y) in cells, the border repeated outside."""
    last = (max(maps.shape[-1] - 1, 1), max(maps.shape[-2] - 1, 1))
    normalised = torch.stack([2 * at[..., axis] / last[axis] - 1 for axis in (0, 1)], dim=-1)
    sampled = F.grid_sample(
        maps, normalised[:, :, None], mode="bilinear", padding_mode="border", align_corners=True
    )  # b c t 1
    return sampled.squeeze(-1).transpose(1, 2)
