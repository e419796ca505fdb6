"""The tracker's transformer: attention over time, then between points through virtual tracks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.model.config import TrackHeadConfig
from everview.model.layers.block import Mlp


class PackedAttention(nn.Module):
    """Multi-head attention with the parameter names of `torch.nn.MultiheadAttention`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "n t c"], context: Float[Tensor, "n k c"]
    ) -> Float[Tensor, "n t c"]:
        """Queries from `x`, keys and values from `context`."""
        dim = x.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q = F.linear(x, weight[:dim], bias[:dim])
        k, v = F.linear(context, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        q, k, v = (u.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for u in (q, k, v))
        heads = F.scaled_dot_product_attention(q, k, v)  # n h t d
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class SelfBlock(nn.Module):
    """Self-attention and MLP; the residual starts from the normalised input, as was trained."""

    def __init__(self, config: TrackHeadConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = PackedAttention(dim, config.num_heads)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """Same shape."""
        x = self.norm1(x)
        x = x + self.attn(x, x)
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Attention to a context and MLP; the residual starts from the normalised input."""

    def __init__(self, config: TrackHeadConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = PackedAttention(dim, config.num_heads)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(
        self, x: Float[Tensor, "n t c"], context: Float[Tensor, "n k c"]
    ) -> Float[Tensor, "n t c"]:
        """Same shape as `x`."""
        x = self.norm1(x)
        x = x + self.cross_attn(x, self.norm_context(context))
        return x + self.mlp(self.norm2(x))


class UpdateTransformer(nn.Module):
    """Tokens of points over frames to a change of coordinates and features.

    Source: CoTracker2 (arXiv 2307.07635) Sec. 3.2, with virtual tracks.
    """

    def __init__(self, config: TrackHeadConfig, *, dim_in: int, dim_out: int) -> None:
        super().__init__()
        dim, depth = config.hidden_size, config.depth
        # Misspelt in every published checkpoint, so misspelt here.
        self.virual_tracks = nn.Parameter(torch.zeros(1, config.num_virtual_tracks, 1, dim))
        self.input_norm = nn.LayerNorm(dim_in)
        self.input_transform = nn.Linear(dim_in, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, dim_out)
        self.time_blocks = nn.ModuleList(SelfBlock(config) for _ in range(depth))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(config) for _ in range(depth))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(config) for _ in range(depth))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(config) for _ in range(depth))

    def forward(self, z: Float[Tensor, "b t s c"]) -> Float[Tensor, "b t s out"]:
        """Same axes, `dim_out` channels."""
        b, t, s = z.shape[:3]
        start = self.input_transform(self.input_norm(z))
        virtual = self.virual_tracks.expand(b, -1, s, -1)
        tokens = torch.cat([start, virtual], dim=1)  # b (t + v) s c
        for i, time_block in enumerate(self.time_blocks):
            tokens = time_block(tokens.flatten(0, 1)).unflatten(0, (b, -1))
            tokens = self._exchange(tokens, t, i)
        return self.flow_head(self.output_norm(tokens[:, :t] + start))

    def _exchange(self, tokens: Tensor, num_points: int, i: int) -> Float[Tensor, "b n s c"]:
        """Within each frame: points to virtual tracks, among these, and back."""
        b = len(tokens)
        by_frame = tokens.transpose(1, 2).flatten(0, 1)  # (b s) (t + v) c
        points, virtual = by_frame[:, :num_points], by_frame[:, num_points:]
        virtual = self.space_virtual2point_blocks[i](virtual, points)
        virtual = self.space_virtual_blocks[i](virtual)
        points = self.space_point2virtual_blocks[i](points, virtual)
        return torch.cat([points, virtual], dim=1).unflatten(0, (b, -1)).transpose(1, 2)
