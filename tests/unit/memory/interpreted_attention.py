"""Laws of the Triton kernel, run by `test_triton_attention.py` in Triton's interpreter.

A program of its own: Triton decides what it is when it is first imported.
"""

import os

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from everview.memory import triton_attention
from everview.memory.codes import EVERYTHING, Codes
from everview.memory.policies import parse

assert os.environ.get("TRITON_INTERPRET") == "1", "set by test_triton_attention.py"


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def twin(queries, codes, past, fresh, bias, dtype):
    keys, values = codes.decode_keys(past["keys"], EVERYTHING), codes.decode_values(past)
    if fresh is not None:
        keys, values = (torch.cat(both, dim=2) for both in zip((keys, values), fresh, strict=True))
    mask = None if bias is None else bias.to(dtype).expand(-1, -1, queries.shape[2], -1)
    return F.scaled_dot_product_attention(
        *(t.to(dtype) for t in (queries, keys, values)), attn_mask=mask
    )


def inputs(bits, batch, d, num, has_bias, seed, dtype=torch.float32):
    """Queries; a past that is part of a larger storage; fresh tokens; counts that are too."""
    num_queries, num_past, num_fresh = num
    heads, codes = 2, Codes(bits)
    keys, values = (normal(batch, heads, num_past + 3, d, seed=seed + i) for i in range(2))
    past = {name: t[:, :, :num_past] for name, t in codes.encode(3 * keys + 1, values).items()}
    # As projections give them: heads are not outermost in storage.
    queries = normal(batch, num_queries, heads, d, seed=seed + 2, dtype=dtype).transpose(1, 2)
    fresh = bias = None
    if num_fresh:
        fresh = tuple(
            normal(batch, num_fresh, heads, d, seed=seed + 3 + i, dtype=dtype).transpose(1, 2)
            for i in range(2)
        )
    if has_bias:
        counts = normal(batch, heads, num_past + num_fresh + 4, seed=seed + 5).abs()
        bias = counts[:, :, None, : num_past + num_fresh]
    return queries, codes, past, fresh, bias


@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    bits=st.sampled_from([8, 4]), batch=st.integers(1, 2), d=st.sampled_from([16, 32, 64, 96]),
    num=st.tuples(st.integers(1, 70), st.integers(1, 80), st.integers(0, 40)),
    has_bias=st.booleans(), seed=st.integers(0, 9999),
)  # fmt: skip
@example(bits=8, batch=2, d=64, num=(67, 65, 33), has_bias=True, seed=0)
@example(bits=4, batch=2, d=64, num=(67, 65, 33), has_bias=True, seed=1)
@example(bits=8, batch=1, d=32, num=(64, 64, 0), has_bias=False, seed=2)
@example(bits=4, batch=1, d=32, num=(1, 1, 1), has_bias=False, seed=3)
def test_the_kernel_gives_what_expanded_codes_give(bits, batch, d, num, has_bias, seed):
    given_ = inputs(bits, batch, d, num, has_bias, seed)
    exact = twin(*given_, torch.float64)
    found = triton_attention.attend_to_codes(*given_)
    rounding = float((twin(*given_, torch.float32) - exact).abs().max())
    assert float((found - exact).abs().max()) <= 4 * rounding + 2e-6


@pytest.mark.parametrize("bits", [8, 4])
def test_products_in_half_precision_are_as_exact_as_torch_s(bits):
    given_ = inputs(bits, 2, 64, (40, 70, 20), True, seed=0, dtype=torch.float16)
    exact = twin(*given_, torch.float64)
    found = triton_attention.attend_to_codes(*given_)
    assert found.dtype == torch.float16
    rounding = float((twin(*given_, torch.float16) - exact).abs().max())
    assert float((found - exact).abs().max()) <= 2 * rounding


@pytest.mark.parametrize("policy", ["full:bits=8", "full:bits=4", "late_merge:frames=3,bits=8",
                                    "random:frames=3,bits=4"])  # fmt: skip
def test_a_memory_that_takes_the_kernel_answers_as_one_that_does_not(policy, monkeypatch):
    plain, fused = (parse(policy).layer_memory(0) for _ in range(2))
    for frame in range(6):
        q, k, v = (normal(1, 2, 7, 32, seed=10 * frame + i) for i in range(3))
        for memory in (plain, fused):
            memory.append(k, v)
        expected = plain.attend(q)
        with monkeypatch.context() as patch:
            patch.setattr("everview.memory.layer_memory.is_fused", lambda *_: True)
            found = fused.attend(q)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for memory in (plain, fused):
            memory.settle()
