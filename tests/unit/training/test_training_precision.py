import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from everview.training.recipe.settings import ComputeSettings
from everview.training.run.precision import precision_of

CPU = torch.device("cpu")
FUSED = "flash_attention_for_cpu"


def _attend(precision):
    """Gradient of queries, and the names of what was computed on the way there and back."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        with precision_of(ComputeSettings(precision=precision), CPU):
            out = F.scaled_dot_product_attention(q, k, v)
        out.float().square().sum().backward()
    return q.grad, {event.key for event in watched.key_averages()}


def test_attention_on_a_cpu_in_bfloat16_is_made_of_products():
    right, names = _attend("float32")
    assert any(FUSED in name for name in names)
    found, names = _attend("bfloat16")
    assert not any(FUSED in name for name in names)
    torch.testing.assert_close(found, right, rtol=0.05, atol=0.05)


def test_what_follows_a_step_computes_as_before():
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    before = allowed()

    def fail():
        assert allowed()
        assert torch.is_autocast_enabled("cpu")
        raise ValueError("in the middle of a step")

    half = precision_of(ComputeSettings(precision="bfloat16"), CPU)
    with pytest.raises(ValueError, match="in the middle"), half:
        fail()
    assert allowed() == before
    assert not torch.is_autocast_enabled("cpu")
    assert any(FUSED in name for name in _attend("float32")[1])
