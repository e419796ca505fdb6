"""Auxiliary tasks that teach matching: where in the first frame is each patch?

One pose per frame is little to learn from: without help the camera head stays at "nothing moved"
for thousands of steps. The match of every patch is known exactly, asks for the same skill, and
reaches every token. Two tasks: half of the heads of two global blocks shall look at the match
(cross-entropy of their attention), and a linear readout of every kept layer shall know the
displacement. The readouts exist in training only.

The first frame and no other: its special tokens tell it apart, whereas nothing in the network says
which of two later frames came before the other.
"""

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.geometry.cameras import camera_from_pose_encoding, project_points
from everview.model.layers.block import Block
from everview.model.layers.rope import rotary_tables
from everview.model.network import Network
from everview.training.losses.target import Target

MIN_DEPTH = 0.02
"""Of the patch in the first camera, in units of the scene's scale."""

HIDDEN = 0.05
"""A patch is hidden in the first frame if it lies this share behind what is seen there."""

NUM_GUIDED = 2
"""Global blocks whose attention is guided: the earliest that heads read."""


class Matching(nn.Module):
    """Both tasks for one network; holds the linear readouts."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.config
        self.patch_size = config.patch_size
        self.layers = config.layers
        channels = 2 * config.aggregator.embed_dim
        self.readouts = nn.ModuleDict(
            {
                str(i): nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2))
                for i in self.layers
            }
        )
        for parameter in self.parameters():
            if parameter.shape[0] == 2:  # the linear maps begin at "nothing moved"
                nn.init.zeros_(parameter)

    def forward(
        self,
        network: Network,
        tokens: Mapping[int, Float[Tensor, "b s p c"]],
        target: Target,
        *,
        still: Bool[Tensor, "b s H W"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses: `flow` in patches (L1), `attention` (cross-entropy).

        Args:
            network: whose attention is guided.
            tokens: its kept layers.
            target: what is right, with depth and points.
            still: where nothing moves by itself; elsewhere matches are not known.
        """
        flow, seen = patch_flow(target, self.patch_size, still=still)
        weight = seen.to(flow.dtype)
        grid = patch_grid(target, self.patch_size)
        return {
            "flow": self._flow_loss(tokens, flow, weight),
            "attention": self._attention_loss(network, tokens, grid, flow, weight),
        }

    def _flow_loss(self, tokens: Mapping[int, Tensor], flow: Tensor, weight: Tensor) -> Tensor:
        num_patches = flow.shape[2]
        count = 2 * weight.sum().clamp_min(1)
        losses = [
            ((readout(tokens[int(i)][:, 1:, -num_patches:]) - flow).abs() * weight[..., None]).sum()
            for i, readout in self.readouts.items()
        ]
        return torch.stack(losses).mean() / count

    def _attention_loss(
        self, network: Network, tokens: Mapping[int, Tensor], grid: tuple[int, int], flow: Tensor,
        weight: Tensor,
    ) -> Tensor:  # fmt: skip
        """Among the keys of the first and the token's own frame, the match shall win.

        The target is spread over the four patches around the match with bilinear weights, so that
        the mean position under the attention is exact to less than a patch.
        """
        agg = network.aggregator
        rotary = rotary_tables(
            grid, num_special=agg.num_special, head_dim=agg.head_dim, base=agg.rope_base,
            like=flow,
        )  # fmt: skip
        target, share = _corners(flow, grid)  # b s n 4
        target = target + agg.num_special
        losses = []
        for i in self.layers[:NUM_GUIDED]:
            block = cast(Block, agg.global_blocks[i])
            inputs = tokens[i][..., : tokens[i].shape[-1] // 2]  # frame output: what it was given
            scores = _scores(block, inputs, rotary, agg.num_special)  # b h s n (2 p)
            logs = F.log_softmax(scores, dim=-1)
            heads = logs.shape[1]
            at = logs.gather(-1, target[:, None].expand(-1, heads, -1, -1, -1))  # b h s n 4
            entropy = -(at * share[:, None]).sum(dim=-1) * weight[:, None]
            losses.append(entropy.sum() / (weight.sum() * heads).clamp_min(1))
        return torch.stack(losses).mean()


def patch_grid(target: Target, patch_size: int) -> tuple[int, int]:
    """(rows, columns) of patches."""
    height, width = required(target.depth).shape[-2:]
    return height // patch_size, width // patch_size


def patch_flow(
    target: Target, patch_size: int, *, still: Bool[Tensor, "b s H W"] | None = None
) -> tuple[Float[Tensor, "b later n 2"], Bool[Tensor, "b later n"]]:
    """Where the centre of each patch is in the first frame, relative to where it is now.

    Args:
        target: with depth and points; pixels outside its mask have no match.
        patch_size: side of a patch in pixels.
        still: where nothing moves by itself; everywhere if None.

    Returns:
        displacement (x, y) in patches, for frames 1, 2, ..., 0 where it is not known; and whether
        it is: whether the patch's centre is seen in the first frame.
    """
    depth, points = required(target.depth), required(target.points)
    height, width = depth.shape[-2:]
    known = torch.ones_like(depth, dtype=torch.bool) if target.mask is None else target.mask
    known = known if still is None else known & still
    half = patch_size // 2
    rows = torch.arange(half, height, patch_size, device=depth.device)
    columns = torch.arange(half, width, patch_size, device=depth.device)
    centres = points[:, 1:, rows][:, :, :, columns].flatten(2, 3)  # b s n 3, first camera
    counts = known[:, 1:, rows][:, :, :, columns].flatten(2, 3)
    _, intrinsics = camera_from_pose_encoding(target.pose_encoding[:, :1], (height, width))
    counts = counts & (centres[..., 2] > MIN_DEPTH)
    safe = torch.where(counts[..., None], centres, centres.new_tensor([0.0, 0.0, 1.0]))
    pixels = project_points(safe, intrinsics.expand(-1, safe.shape[1], -1, -1))  # b s n 2
    column = pixels[..., 0].round().long()
    row = pixels[..., 1].round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # b s n
    first = (depth[:, 0] * known[:, 0]).flatten(1)[:, None].expand(-1, index.shape[1], -1)
    unhidden = centres[..., 2] < (1 + HIDDEN) * first.gather(2, index)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    here = torch.stack([x, y], dim=-1).flatten(0, 1).to(pixels.dtype)  # n 2
    seen = counts & inside & unhidden
    return torch.where(seen[..., None], (pixels - here) / patch_size, 0.0), seen


def required(value: Tensor | None) -> Tensor:
    """The maps of a target that guides."""
    if value is None:
        raise ConfigError(
            "who guides must know depth and points: give a teacher with both heads, or set "
            "objective.guide=truth"
        )
    return value


def _corners(
    flow: Float[Tensor, "b s n 2"], grid: tuple[int, int]
) -> tuple[Int[Tensor, "b s n 4"], Float[Tensor, "b s n 4"]]:
    """Indices of the first frame's four patches around the match, and their bilinear weights."""
    y, x = torch.meshgrid(
        torch.arange(grid[0], device=flow.device),
        torch.arange(grid[1], device=flow.device),
        indexing="ij",
    )
    column = (x.flatten() + flow[..., 0]).clamp(0, grid[1] - 1)  # b s n
    row = (y.flatten() + flow[..., 1]).clamp(0, grid[0] - 1)
    left, top = column.floor(), row.floor()
    right, bottom = (left + 1).clamp_max(grid[1] - 1), (top + 1).clamp_max(grid[0] - 1)
    across, down = column - left, row - top
    pairs = [
        (top, left, (1 - down) * (1 - across)),
        (top, right, (1 - down) * across),
        (bottom, left, down * (1 - across)),
        (bottom, right, down * across),
    ]
    index = torch.stack([(r * grid[1] + c).long() for r, c, _ in pairs], dim=-1)
    return index, torch.stack([share for _, _, share in pairs], dim=-1)


def _scores(
    block: Block, inputs: Float[Tensor, "b s p c"], rotary: tuple[Tensor, Tensor], num_special: int
) -> Float[Tensor, "b h n m k"]:
    """Scores of half of the heads: patches of later frames against the first and own frame."""
    s = inputs.shape[1]
    q, k, _ = block.attn.project(block.norm1(inputs).flatten(1, 2), rotary, s)
    guided = q.shape[1] // 2
    q, k = (u[:, :guided].unflatten(2, (s, -1)) for u in (q, k))  # b h s p d
    q = q[:, :, 1:, num_special:] * q.shape[-1] ** -0.5
    return torch.cat([q @ k[:, :, :1].mT, q @ k[:, :, 1:].mT], dim=-1)
