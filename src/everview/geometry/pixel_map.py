"""Where a network pixel lies in the original image, and back."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelMap:
    """The resize and crop (or pad) that turned an upright original image into network input.

    In edge coordinates, where a pixel spans [i, i + 1], network = original * scale + offset, per
    axis. Pixel coordinates elsewhere are indices (centre of the first pixel at 0), so half a pixel
    is added and removed around the formula.
    """

    original_size: tuple[int, int]
    """(height, width) in pixels, after EXIF or container rotation."""
    network_size: tuple[int, int]
    """(height, width) in pixels."""
    scale: tuple[float, float]
    """(x, y): network pixels per original pixel."""
    offset: tuple[float, float] = (0.0, 0.0)
    """(x, y) in network pixels: > 0 where padding was added, < 0 where rows were cut."""

    def to_network(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Original pixel coordinates (x, y) to network pixel coordinates."""
        scale, offset = points.new_tensor(self.scale), points.new_tensor(self.offset)
        return (points + 0.5) * scale + offset - 0.5

    def to_original(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Network pixel coordinates (x, y) to original pixel coordinates."""
        scale, offset = points.new_tensor(self.scale), points.new_tensor(self.offset)
        return (points + 0.5 - offset) / scale - 0.5

    def intrinsics_to_original(
        self, intrinsics: Float[Tensor, "*batch 3 3"]
    ) -> Float[Tensor, "*batch 3 3"]:
        """K of the network's grid to K of the original grid: the same rays, other pixels."""
        result = intrinsics.clone()
        scale = intrinsics.new_tensor(self.scale)
        result[..., 0, :2] = intrinsics[..., 0, :2] / scale[0]
        result[..., 1, :2] = intrinsics[..., 1, :2] / scale[1]
        result[..., :2, 2] = self.to_original(intrinsics[..., :2, 2])
        return result

    def valid_rectangle(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the network pixels that show the image, not padding."""
        sides = []
        for axis, (original, network) in enumerate(
            zip(self.original_size, self.network_size, strict=True)
        ):
            scale, offset = self.scale[1 - axis], self.offset[1 - axis]
            first, last = offset, original * scale + offset
            sides += [max(0, round(first)), min(network, round(last))]
        return sides[0], sides[1], sides[2], sides[3]

    def resample_to_original(
        self, values: Float[Tensor, "n c H W"], *, outside: float
    ) -> Float[Tensor, "n c height width"]:
        """Sample dense maps on the original pixel grid, bilinearly.

        Args:
            values: maps on the network's grid.
            outside: what original pixels get that the network did not see (cropped rows).
        """
        height, width = self.original_size
        grid_y, grid_x = torch.meshgrid(
            torch.arange(height, dtype=values.dtype, device=values.device),
            torch.arange(width, dtype=values.dtype, device=values.device),
            indexing="ij",
        )
        at = self.to_network(torch.stack([grid_x, grid_y], dim=-1))  # height width 2
        size = at.new_tensor(self.network_size[::-1])  # (W, H)
        normalised = (2 * at + 1) / size - 1  # pixel i spans [i, i + 1]: align_corners=False
        sampled = F.grid_sample(
            values,
            normalised.expand(len(values), -1, -1, -1),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        seen = ((at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6)).all(dim=-1)  # height width
        return torch.where(seen, sampled, outside)

    def as_dict(self) -> dict[str, tuple[float, ...]]:
        """Plain values for a JSON file; `PixelMap(**...)` reads them back."""
        return asdict(self)
