"""The aggregator: patch tokens of all frames exchange information."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from everview.memory.layer_memory import LayerMemory
from everview.model.config import Config
from everview.model.encoder import PatchEncoder
from everview.model.layers.block import Block
from everview.model.layers.rope import rotary_tables

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_DEVIATION = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Alternates attention within each frame and over all frames that a token may see.

    Source: VGGT (arXiv 2503.11651) Sec. 3.2; the causal form is StreamVGGT Sec. 3.2.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        agg = config.aggregator
        self.patch_size = config.patch_size
        self.is_causal = config.attention == "causal"
        self.layers = config.layers
        self.num_special = 1 + agg.num_register_tokens
        self.rope_base = agg.rope_freq
        self.head_dim = agg.embed_dim // agg.num_heads
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, agg.embed_dim))
        self.register_token = nn.Parameter(
            torch.zeros(1, 2, agg.num_register_tokens, agg.embed_dim)
        )
        self.patch_embed = PatchEncoder(config.patch_embed, config.patch_size)
        self.frame_blocks = _blocks(config)
        self.global_blocks = _blocks(config)
        # On the CPU even if the parameters are made on the meta device: no file holds these.
        mean, deviation = (
            torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            for values in (IMAGE_MEAN, IMAGE_DEVIATION)
        )
        self.image_mean: Tensor
        self.image_deviation: Tensor
        self.register_buffer("image_mean", mean, persistent=False)
        self.register_buffer("image_deviation", deviation, persistent=False)

    def forward(
        self,
        images: Float[Tensor, "b s 3 H W"],
        *,
        first_frame: int = 0,
        memories: Sequence[LayerMemory] | None = None,
    ) -> dict[int, Float[Tensor, "b s p c2"]]:
        """Frame and global output of the layers that heads read, side by side on channels.

        Args:
            images: RGB in [0, 1].
            first_frame: index in its stream of the first of these frames; frame 0 has special
                tokens of its own.
            memories: one per pair of blocks, holding earlier frames; gain these frames.
        """
        b, s = images.shape[:2]
        grid = (images.shape[3] // self.patch_size, images.shape[4] // self.patch_size)
        tokens = self._tokens_in(images, grid, first_frame)  # b s p c
        rotary = rotary_tables(
            grid, num_special=self.num_special, head_dim=self.head_dim, base=self.rope_base,
            like=tokens,
        )  # fmt: skip
        kept = {}
        for i, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            within = frame_block(tokens.flatten(0, 1), rotary)  # (b s) p c
            x = within.unflatten(0, (b, s)).flatten(1, 2)  # b (s p) c
            if self.is_causal:
                memory = None if memories is None else memories[i]
                x = cast(Block, global_block).causal(x, num_frames=s, rotary=rotary, memory=memory)
            else:
                x = global_block(x, rotary, s)
            tokens = x.unflatten(1, (s, -1))  # b s p c
            if i in self.layers:
                kept[i] = torch.cat([within.unflatten(0, (b, s)), tokens], dim=-1)
        return kept

    def _tokens_in(
        self, images: Tensor, grid: tuple[int, int], first_frame: int
    ) -> Float[Tensor, "b s p c"]:
        b, s = images.shape[:2]
        normalised = (images.flatten(0, 1) - self.image_mean) / self.image_deviation
        patches = self.patch_embed(normalised, grid).unflatten(0, (b, s))  # b s patches c
        special = torch.cat([self.camera_token, self.register_token], dim=2)  # 1 2 5 c
        num_first = 1 if first_frame == 0 else 0
        per_frame = torch.cat(
            [special[:, :1].expand(-1, num_first, -1, -1),
             special[:, 1:].expand(-1, s - num_first, -1, -1)], dim=1
        )  # fmt: skip
        return torch.cat([per_frame.expand(b, -1, -1, -1), patches], dim=2)


def _blocks(config: Config) -> nn.ModuleList:
    agg = config.aggregator
    return nn.ModuleList(
        Block(
            agg.embed_dim, agg.num_heads, mlp_ratio=agg.mlp_ratio, eps=agg.norm_eps, scale=0.01,
            qk_norm=agg.qk_norm,
        )
        for _ in range(agg.depth)
    )  # fmt: skip
