"""The transformer block of encoder, aggregator and camera head."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.memory.layer_memory import LayerMemory
from everview.model.layers.rope import RotaryTables, rotate


def input_dtype(projection: nn.Module) -> torch.dtype:
    """In which a projection takes its input: the dtype of its weight, or its own word.

    Quantized layers hold integers in place of a weight, and attributes `input_dtype` and `dtype`.
    """
    weight = getattr(projection, "weight", None)
    return cast(torch.dtype, projection.input_dtype) if weight is None else weight.dtype


def output_dtype(projection: nn.Module) -> torch.dtype:
    """In which it answers; see `input_dtype`."""
    weight = getattr(projection, "weight", None)
    return cast(torch.dtype, projection.dtype) if weight is None else weight.dtype


class Attention(nn.Module):
    """Multi-head attention with fused projections and optional norm of queries and keys.

    Projections run in the dtype of their weights; norms and rotation in at least float32.
    """

    def __init__(
        self, dim: int, num_heads: int, *, qk_norm: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        if qk_norm:
            self.q_norm = nn.LayerNorm(dim // num_heads, eps=eps)
            self.k_norm = nn.LayerNorm(dim // num_heads, eps=eps)
        self.qk_norm = qk_norm
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b n c"], rotary: RotaryTables | None = None, num_frames: int = 1
    ) -> Float[Tensor, "b n c"]:
        """Every token sees every other one."""
        return self.merge(F.scaled_dot_product_attention(*self.project(x, rotary, num_frames)))

    def look_back(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h n d"],
        v: Float[Tensor, "b h n d"],
        *,
        num_frames: int,
        memory: LayerMemory | None = None,
    ) -> Float[Tensor, "b h n d"]:
        """Attention in which frame s sees all tokens of frames <= s, remembered ones included.

        One call per frame on a prefix of keys and values, so no mask exists and every attention
        kernel can be used. Keys are remembered after norm and rotation.

        Args:
            q: queries of `num_frames` consecutive frames of p tokens each, n = num_frames * p.
            k: keys of the same tokens.
            v: their values.
            num_frames: of these tokens.
            memory: keys and values of earlier frames; gains these.

        Source: StreamVGGT Sec. 3.2 (causal attention) and 3.3 (cached token memory).
        """
        if memory is not None:
            memory.append(k, v)
            if num_frames == 1:
                return memory.attend(q)
            k, v = memory.read()
        p = q.shape[2] // num_frames
        first = k.shape[2] - (num_frames - 1) * p  # keys that the first of these frames sees
        if p == 1 and num_frames > 1:
            return _token_causal(q, k, v)
        outputs = [
            F.scaled_dot_product_attention(
                q[:, :, s * p : (s + 1) * p], k[:, :, : first + s * p], v[:, :, : first + s * p]
            )
            for s in range(num_frames)
        ]
        return outputs[0] if num_frames == 1 else torch.cat(outputs, dim=2)

    def project(
        self, x: Float[Tensor, "b n c"], rotary: RotaryTables | None, num_frames: int
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """Queries, keys and values as the kernel gets them: after norm and rotation."""
        qkv = self.qkv(x.to(input_dtype(self.qkv)))  # b n (3 h d)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # 3 b h n d
        if self.qk_norm:
            norm_dtype = self.q_norm.weight.dtype
            q, k = self.q_norm(q.to(norm_dtype)), self.k_norm(k.to(norm_dtype))
        if rotary is not None:
            q, k = rotate(q, rotary, num_frames), rotate(k, rotary, num_frames)
        return q.to(v.dtype), k.to(v.dtype), v

    def merge(self, heads: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n c"]:
        """The output of all heads as one branch."""
        return self.proj(heads.transpose(1, 2).flatten(2))  # b n c


def _token_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention between single tokens; earlier keys may precede those of the queries."""
    new, total = q.shape[2], k.shape[2]
    if new == total:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Mlp(nn.Module):
    """Linear, exact GELU, linear; runs in the dtype of its weights."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch out"]:
        """Token by token."""
        return self.fc2(F.gelu(self.fc1(x.to(input_dtype(self.fc1)))))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def add(self, x: Float[Tensor, "*s"], branch: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The sum x + gamma * branch, in the dtype of x."""
        return torch.addcmul(x, self.gamma, branch.to(x.dtype))


class Block(nn.Module):
    """x + ls1(attention(norm1(x))), then x + ls2(mlp(norm2(x))).

    The residual stream keeps the dtype of `x` (float32 also when projections are bfloat16).
    """

    def __init__(
        self, dim: int, num_heads: int, *, mlp_ratio: float, eps: float, scale: float,
        qk_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qk_norm=qk_norm, eps=eps)
        self.ls1 = LayerScale(dim, scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, scale)

    def forward(
        self, x: Float[Tensor, "b n c"], rotary: RotaryTables | None = None, num_frames: int = 1
    ) -> Float[Tensor, "b n c"]:
        """Every token of a batch entry sees every other one."""
        q, k, v = self.ask(x, rotary, num_frames)
        return self.answer(x, F.scaled_dot_product_attention(q, k, v))

    def causal(
        self,
        x: Float[Tensor, "b n c"],
        *,
        num_frames: int,
        rotary: RotaryTables | None = None,
        memory: LayerMemory | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Tokens see their own and earlier frames; see `Attention.look_back`.

        Args:
            x: tokens of `num_frames` consecutive frames.
            num_frames: of these tokens.
            rotary: tables for the tokens of one frame.
            memory: keys and values of earlier frames; gains those of `x`.
        """
        q, k, v = self.ask(x, rotary, num_frames)
        return self.answer(x, self.attn.look_back(q, k, v, num_frames=num_frames, memory=memory))

    def ask(
        self, x: Float[Tensor, "b n c"], rotary: RotaryTables | None, num_frames: int
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """All that comes before attention: queries, keys, values."""
        return self.attn.project(self.norm1(x), rotary, num_frames)

    def answer(
        self, x: Float[Tensor, "b n c"], heads: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b n c"]:
        """All that comes after attention: both residual branches."""
        x = self.ls1.add(x, self.attn.merge(heads))
        return self.ls2.add(x, self.mlp(self.norm2(x)))
