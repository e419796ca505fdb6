"""Attention over codes by one kernel: in Triton's interpreter, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from everview.memory import parse, triton_attention
from everview.memory.code_kernels import BY_HEAD, BY_LAYER, FUSED, is_fused, kernel_for_codes

INTERPRETED = Path(__file__).with_name("interpreted_attention.py")
WITHOUT_TRITON = importlib.util.find_spec("triton") is None
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(WITHOUT_TRITON, reason='needs Triton: pip install "everview[gpu]"'),
]


def on_gpu(test):
    for mark in needs_gpu:
        test = mark(test)
    return test


@pytest.mark.skipif(WITHOUT_TRITON, reason='needs Triton: pip install "everview[gpu]"')
def test_the_kernel_in_triton_s_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INTERPRETED)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=Path(__file__).parents[3],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_cpu_never_takes_the_kernel():
    queries = torch.zeros(1, 2, 3, 64)
    assert not any(is_fused(queries, bits) for bits in (16, 8, 4))
    assert kernel_for_codes(queries.device, torch.float32, 8) == BY_HEAD


@pytest.mark.parametrize(("dtype", "head_dim", "capability", "offered"), [
    (torch.float32, 64, (8, 0), True),
    (torch.bfloat16, 32, (9, 0), True),
    (torch.float16, 128, (8, 6), True),
    (torch.float32, 128, (9, 0), False),  # too much shared memory
    (torch.bfloat16, 40, (9, 0), False),  # tensor cores take multiples of 16
    (torch.bfloat16, 48, (9, 0), False),  # groups of 24 channels
    (torch.bfloat16, 96, (9, 0), True),
    (torch.float64, 64, (9, 0), False),
    (torch.float16, 64, (7, 5), False),
])  # fmt: skip
def test_what_is_out_of_reach_is_expanded(monkeypatch, dtype, head_dim, capability, offered):
    monkeypatch.setattr(triton_attention, "triton", object())
    assert triton_attention.is_offered(dtype, head_dim, capability) == offered
    monkeypatch.setattr(triton_attention, "triton", None)
    assert not triton_attention.is_offered(dtype, head_dim, capability)


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("policy", ["full", "late_merge:tokens=300", "random:tokens=300"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("d", [32, 64])
def test_on_a_gpu_too_the_kernel_gives_what_expanded_codes_give(
    monkeypatch, dtype, policy, bits, d
):
    text = f"{policy}{',' if ':' in policy else ':'}bits={bits}"
    plain, fused = (parse(text).layer_memory(0) for _ in range(2))
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(2, 3, 101, d, generator=draws).to("cuda", dtype) for _ in range(3))
        for memory in (plain, fused):
            memory.append(k, v)
        assert is_fused(q, bits)
        found = fused.attend(q)
        with monkeypatch.context() as patch:
            patch.setattr("everview.memory.layer_memory.is_fused", lambda *_: False)
            expected = plain.attend(q)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        for memory in (plain, fused):
            memory.settle()


@on_gpu
def test_the_kernel_that_is_named_is_the_one_that_is_taken():
    device = torch.device("cuda")
    assert kernel_for_codes(device, torch.bfloat16, 8) == FUSED
    assert kernel_for_codes(device, torch.bfloat16, 16) == BY_LAYER
