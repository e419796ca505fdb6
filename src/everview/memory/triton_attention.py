"""Attention over keys and values in 8- or 4-bit codes, as one Triton kernel.

Can be imported without Triton, but then has no kernel; its plain twin is in `LayerMemory.attend`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from everview.memory.codes import GROUP, Codes, group_size

try:
    import triton
    from triton import language as tl
    from triton.language import constexpr
except ImportError:  # it is optional
    triton = constexpr = None

BLOCK_QUERIES = 64
"""Queries that one program answers."""
BLOCK_KEYS = 32
"""Tokens that are expanded at a time, in registers."""
LENGTHS = ("num_queries", "num_past", "num_fresh")
"""Arguments for whose values nothing is compiled anew."""


def attend_to_codes(
    queries: Float[Tensor, "b h p d"],
    codes: Codes,
    past: Mapping[str, Tensor],
    fresh: tuple[Float[Tensor, "b h f d"], Float[Tensor, "b h f d"]] | None,
    bias: Float[Tensor, "b h 1 n"] | None,
) -> Float[Tensor, "b h p d"]:
    """Softmax attention of all queries to the past in codes, then to fresh tokens as they are.

    Nothing is expanded outside registers. Sums are float32; products are in the queries' dtype,
    those of float32 as three of TF32, which is as exact but for the last bits.

    Args:
        queries: b h p d; d a multiple of 16.
        codes: for the scales of key channels; 8 or 4 bits.
        past: what `Codes.encode` gave, any part of it along the tokens.
        fresh: keys and values in the queries' dtype; None if there are none.
        bias: added to the logits, past tokens first; None: nothing.
    """
    assert codes.scale is not None, "encoding comes before attention"
    assert codes.offset is not None, "comes with the scale"
    b, h, p, d = queries.shape
    queries = _inner_contiguous(queries)
    key_codes, value_codes = past["keys"], past["values"]
    fresh = fresh or (queries[:, :, :0], queries[:, :, :0])
    keys, values = (_inner_contiguous(tensor) for tensor in fresh)
    attended = torch.empty_like(queries)
    scale, offset = codes.scale[:, :, 0], codes.offset[:, :, 0]
    no_bias = scale if bias is None else bias[:, :, 0]
    _attend[triton.cdiv(p, BLOCK_QUERIES), b * h](
        queries, key_codes, scale, offset,
        value_codes, past["value_scale"], past["value_offset"], keys, values, no_bias, attended,
        h, p, key_codes.shape[2], keys.shape[2], d**-0.5,
        *queries.stride()[:3], *key_codes.stride()[:3], *scale.stride()[:2],
        *value_codes.stride()[:3], *past["value_scale"].stride()[:3],
        *keys.stride()[:3], *values.stride()[:3], *no_bias.stride()[:2], *attended.stride()[:3],
        BITS=codes.bits, D=d, GROUP=group_size(d), HAS_BIAS=bias is not None,
        BLOCK_P=BLOCK_QUERIES, BLOCK_N=BLOCK_KEYS, BLOCK_D=triton.next_power_of_2(d),
        enable_fp_fusion=True,
    )  # fmt: skip
    return attended


def is_offered(dtype: torch.dtype, head_dim: int, capability: tuple[int, int]) -> bool:
    """Whether the kernel can be used: Triton is there, and the rest is in its reach.

    Channels have to fill groups of 16 or 32. Heads that are wider, or older GPUs, would take more
    registers and shared memory than there are.

    Args:
        dtype: of the queries.
        head_dim: channels of a head.
        capability: compute capability of the GPU.
    """
    is_known = dtype in (torch.float32, torch.float16, torch.bfloat16) and capability >= (8, 0)
    fills = group_size(head_dim) in (16, GROUP)
    return triton is not None and is_known and fills and head_dim * dtype.itemsize <= 256


def _inner_contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _jit(**options: Any) -> Callable[[Any], Any]:
    """Triton's decorator, or none."""
    return (lambda function: function) if triton is None else partial(triton.jit, **options)


@_jit()
@no_type_check  # the compiler's types are not Python's
def _unpacked(codes, n, stride, place, shift, mask, BITS: constexpr):
    """Codes of tokens n as float32, BLOCK_N BLOCK_D."""
    numbers = tl.load(codes + n[:, None] * stride + place[None, :], mask=mask, other=0)
    if BITS == 4:
        numbers = (numbers.to(tl.int32) >> shift[None, :]) & 15
    return numbers.to(tl.float32)


@_jit()
@no_type_check
def _logits(queries, keys, constant, bias, n, is_token, HAS_BIAS: constexpr):
    """Products of queries and keys, BLOCK_P BLOCK_N; -inf for what is no token."""
    logits = tl.dot(queries, tl.trans(keys), input_precision="tf32x3") + constant[:, None]
    if HAS_BIAS:
        logits += tl.load(bias + n, mask=is_token, other=0.0)[None, :]
    return tl.where(is_token[None, :], logits, float("-inf"))


@_jit()
@no_type_check
def _taken_in(top, total, weighted, logits, values):
    """The running softmax, after one more block of tokens."""
    higher = tl.maximum(top, tl.max(logits, axis=1))
    fade = tl.exp(top - higher)
    weights = tl.exp(logits - higher[:, None])
    products = tl.dot(weights.to(values.dtype), values, input_precision="tf32x3")
    return higher, total * fade + tl.sum(weights, axis=1), weighted * fade[:, None] + products


@_jit(do_not_specialize=LENGTHS)
@no_type_check
def _attend(
    queries, key_codes, key_scale, key_offset, value_codes, value_scale, value_offset,
    fresh_keys, fresh_values, bias, attended,
    num_heads, num_queries, num_past, num_fresh, softmax_scale,
    q_b, q_h, q_n, k_b, k_h, k_n, s_b, s_h, v_b, v_h, v_n, g_b, g_h, g_n,
    fk_b, fk_h, fk_n, fv_b, fv_h, fv_n, bias_b, bias_h, o_b, o_h, o_n,
    BITS: constexpr, D: constexpr, GROUP: constexpr, HAS_BIAS: constexpr,
    BLOCK_P: constexpr, BLOCK_N: constexpr, BLOCK_D: constexpr,
):  # fmt: skip
    """A block of queries of one head against the whole past, then the fresh tokens.

    Codes are centred, so that 16 bits hold them exactly, and key scales are folded into the
    queries: q . (s * code + o) = (q * s) . (code - middle) + q . (o + s * middle).

    Source: FlashAttention (arXiv 2205.14135), softmax block by block.
    """
    entry = tl.program_id(1).to(tl.int64)
    b, h = entry // num_heads, entry % num_heads
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    d = tl.arange(0, BLOCK_D)
    is_channel = d < D
    is_query = (p < num_queries)[:, None] & is_channel[None, :]
    at = b * q_b + h * q_h + p[:, None] * q_n + d[None, :]
    q = tl.load(queries + at, mask=is_query, other=0.0)
    wide = q.to(tl.float32) * softmax_scale
    scale = tl.load(key_scale + b * s_b + h * s_h + d, mask=is_channel, other=0.0)
    offset = tl.load(key_offset + b * s_b + h * s_h + d, mask=is_channel, other=0.0)
    scale, offset = scale.to(tl.float32), offset.to(tl.float32)
    middle: constexpr = 2 ** (BITS - 1)
    folded = (wide * scale[None, :]).to(q.dtype)
    constant = tl.sum(wide * (offset + scale * middle)[None, :], axis=1)
    bytes_per_token: constexpr = D * BITS // 8
    place, shift = d % bytes_per_token, d // bytes_per_token * 4
    bias += b * bias_b + h * bias_h

    top = tl.full([BLOCK_P], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_P], dtype=tl.float32)
    weighted = tl.zeros([BLOCK_P, BLOCK_D], dtype=tl.float32)
    key_codes += b * k_b + h * k_h
    value_codes += b * v_b + h * v_h
    groups = b * g_b + h * g_h + d[None, :] // GROUP
    for start in range(0, num_past, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        is_token = n < num_past
        mask = is_token[:, None] & is_channel[None, :]
        keys = _unpacked(key_codes, n, k_n, place, shift, mask, BITS) - middle
        logits = _logits(folded, keys.to(q.dtype), constant, bias, n, is_token, HAS_BIAS)
        numbers = _unpacked(value_codes, n, v_n, place, shift, mask, BITS)
        step = tl.load(value_scale + groups + n[:, None] * g_n, mask=mask, other=0.0)
        least = tl.load(value_offset + groups + n[:, None] * g_n, mask=mask, other=0.0)
        values = (numbers * step.to(tl.float32) + least.to(tl.float32)).to(q.dtype)
        top, total, weighted = _taken_in(top, total, weighted, logits, values)

    fresh_keys += b * fk_b + h * fk_h
    fresh_values += b * fv_b + h * fv_h
    bias += num_past
    as_they_are, nothing = wide.to(q.dtype), tl.zeros([BLOCK_P], dtype=tl.float32)
    for start in range(0, num_fresh, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        is_token = n < num_fresh
        mask = is_token[:, None] & is_channel[None, :]
        keys = tl.load(fresh_keys + n[:, None] * fk_n + d[None, :], mask=mask, other=0.0)
        logits = _logits(as_they_are, keys, nothing, bias, n, is_token, HAS_BIAS)
        values = tl.load(fresh_values + n[:, None] * fv_n + d[None, :], mask=mask, other=0.0)
        top, total, weighted = _taken_in(top, total, weighted, logits, values)

    at = b * o_b + h * o_h + p[:, None] * o_n + d[None, :]
    tl.store(attended + at, (weighted / total[:, None]).to(q.dtype), mask=is_query)
