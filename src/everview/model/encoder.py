"""The patch encoder: a DINOv2 vision transformer with registers, run on each frame alone."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.model.config import PatchEncoderConfig
from everview.model.layers.block import Block


class PatchProjection(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n patches c"]:
        """Tokens row by row."""
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class PatchEncoder(nn.Module):
    """Images (normalised with the ImageNet mean and deviation) to patch tokens.

    Source: DINOv2 (arXiv 2304.07193) ViT with registers (arXiv 2309.16588).
    """

    def __init__(self, config: PatchEncoderConfig, patch_size: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.base_grid = config.img_size // patch_size
        self.num_registers = config.num_register_tokens
        self.antialias = config.interpolate_antialias
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.base_grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, self.num_registers, dim))
        # Never used at inference; published checkpoints hold it, so it must have a place.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.patch_embed = PatchProjection(patch_size, dim)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, mlp_ratio=config.mlp_ratio, eps=config.norm_eps, scale=1.0)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)

    def forward(
        self, images: Float[Tensor, "n 3 H W"], grid: tuple[int, int]
    ) -> Float[Tensor, "n patches c"]:
        """Patch tokens after the final norm; cls and registers are dropped."""
        tokens = self.tokens_in(images, grid)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1 + self.num_registers :])

    def tokens_in(
        self, images: Float[Tensor, "n 3 H W"], grid: tuple[int, int]
    ) -> Float[Tensor, "n tokens c"]:
        """What the first block gets: cls, registers (without position), patches."""
        patches = self.patch_embed(images).to(self.cls_token.dtype)  # n patches c
        position = self.position_embedding(grid)  # 1 (1 + patches) c
        cls_token = (self.cls_token + position[:, :1]).expand(len(patches), -1, -1)
        registers = self.register_tokens.expand(len(patches), -1, -1)
        return torch.cat([cls_token, registers, patches + position[:, 1:]], dim=1)

    def position_embedding(self, grid: tuple[int, int]) -> Float[Tensor, "1 n c"]:
        """The embedding resized to (rows, columns) of patches; entry 0 belongs to cls."""
        if grid == (self.base_grid, self.base_grid):
            return self.pos_embed
        dtype = torch.promote_types(self.pos_embed.dtype, torch.float32)
        square = self.pos_embed[:, 1:].to(dtype).unflatten(1, (self.base_grid, self.base_grid))
        resized = F.interpolate(
            square.permute(0, 3, 1, 2), size=grid, mode="bicubic", antialias=self.antialias
        )
        patches = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)  # 1 patches c
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)
