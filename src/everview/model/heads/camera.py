"""The camera head: a pose encoding per frame, refined in rounds."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.memory.layer_memory import LayerMemory
from everview.model.config import CameraHeadConfig
from everview.model.layers.block import Block, Mlp

POSE_DIM = 9
CameraMemories = Sequence[Sequence[LayerMemory]]
"""One memory per refinement round and trunk block."""


class CameraHead(nn.Module):
    """Camera tokens to pose encodings; every round modulates the tokens by the last estimate.

    Source: VGGT Sec. 3.3, camera predictions; adaptive LayerNorm as in DiT (arXiv 2212.09748).
    """

    def __init__(self, config: CameraHeadConfig, *, is_causal: bool) -> None:
        super().__init__()
        dim = config.dim_in
        self.is_causal = is_causal
        self.num_rounds = config.num_iterations
        self.trunk = nn.ModuleList(
            Block(dim, config.num_heads, mlp_ratio=config.mlp_ratio, eps=1e-5, scale=0.01)
            for _ in range(config.trunk_depth)
        )
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, POSE_DIM)

    def forward(
        self, tokens: Float[Tensor, "b s c"], memories: CameraMemories | None = None
    ) -> Float[Tensor, "rounds b s 9"]:
        """Pose encodings after each round.

        Args:
            tokens: camera token of each frame from the last aggregator layer.
            memories: of earlier frames; gain these. The same memory may stand for every round.
        """
        tokens = self.token_norm(tokens)
        raw: Tensor | None = None
        outputs = []
        for r in range(self.num_rounds):
            change = self._round(tokens, raw, None if memories is None else memories[r])
            raw = change if raw is None else raw + change
            outputs.append(_activate(raw))
        return torch.stack(outputs)

    def _round(
        self, tokens: Tensor, raw: Tensor | None, memories: Sequence[LayerMemory] | None
    ) -> Float[Tensor, "b s 9"]:
        """What one refinement round adds to the estimate before activation."""
        b, s = tokens.shape[:2]
        # The estimate is detached, as in training: a round must not game the next one.
        estimate = self.empty_pose_tokens.expand(b, s, -1) if raw is None else raw.detach()
        shift, scale, gate = self.poseLN_modulation(self.embed_pose(estimate)).chunk(3, dim=-1)
        x = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        x = gate * (x * (1 + scale) + shift) + tokens
        for i, module in enumerate(self.trunk):
            block = cast(Block, module)
            if self.is_causal:
                memory = None if memories is None else memories[i]
                x = block.causal(x, num_frames=s, memory=memory)
            else:
                x = block(x)
        return self.pose_branch(self.trunk_norm(x))


def _activate(raw: Float[Tensor, "b s 9"]) -> Float[Tensor, "b s 9"]:
    """The field of view cannot be negative; translation and quaternion leave as they are."""
    return torch.cat([raw[..., :7], F.relu(raw[..., 7:])], dim=-1)
