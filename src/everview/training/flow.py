"""An auxiliary task that teaches matching: where was each patch in the frame before?

One pose per frame is little to learn from. The displacement of every patch is known exactly, asks
for the same skill, and reaches every token. The linear readouts exist in training only.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from everview.geometry.cameras import camera_from_pose_encoding, project_points
from everview.training.data import Batch

MAX_FLOW = 1.0
"""Image widths; patches that moved further are left out."""

MIN_DEPTH = 0.02
"""Of the patch in the earlier camera, in units of the scene's scale."""


class FlowReadout(nn.Module):
    """Linear maps from the tokens of each kept layer to a displacement per patch."""

    def __init__(self, layers: tuple[int, ...], channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.readouts = nn.ModuleDict(
            {str(i): nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2)) for i in layers}
        )
        for parameter in self.parameters():
            if parameter.shape[0] == 2:  # the linear maps begin at "nothing moved"
                nn.init.zeros_(parameter)

    def forward(
        self, tokens: Mapping[int, Float[Tensor, "b s p c"]], batch: Batch
    ) -> Float[Tensor, ""]:
        """Mean L1 error in image widths over layers and patches of all frames but the first."""
        flow, seen = patch_flow(batch, self.patch_size)
        num_patches = flow.shape[2]
        weight = seen[..., None].to(flow.dtype)
        count = 2 * weight.sum().clamp_min(1)
        losses = [
            ((readout(tokens[int(layer)][:, 1:, -num_patches:]) - flow).abs() * weight).sum()
            for layer, readout in self.readouts.items()
        ]
        return torch.stack(losses).mean() / count


def patch_flow(
    batch: Batch, patch_size: int
) -> tuple[Float[Tensor, "b s n 2"], Bool[Tensor, "b s n"]]:
    """Where the centre of each patch was in the frame before, relative to where it is.

    Returns:
        displacement (x, y) in image widths, for frames 1, 2, ...; and whether it counts: in front
        of the earlier camera and not too far. Hidden patches count too.
    """
    height, width = batch.depth.shape[-2:]
    half = patch_size // 2
    rows = torch.arange(half, height, patch_size)
    columns = torch.arange(half, width, patch_size)
    centres = batch.points[:, 1:, rows][:, :, :, columns].flatten(2, 3)  # b s n 3, first camera
    camera, intrinsics = camera_from_pose_encoding(batch.pose_encoding[:, :-1], (height, width))
    earlier = centres @ camera[..., :3, :3].mT + camera[..., None, :3, 3]  # b s n 3
    in_front = earlier[..., 2] > MIN_DEPTH
    depth = earlier[..., 2:].clamp_min(MIN_DEPTH)
    pixels = project_points(torch.cat([earlier[..., :2], depth], dim=-1), intrinsics)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    here = torch.stack([x, y], dim=-1).flatten(0, 1).to(pixels.dtype)  # n 2
    flow = (pixels - here) / width
    return flow, in_front & (flow.abs().amax(dim=-1) < MAX_FLOW)
