import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from everview.training.objective.learner import Learner
from everview.training.recipe.settings import ComputeSettings
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.setup import make_network

CPU = torch.device("cpu")
FUSED = "flash_attention_for_cpu"


def _attend(precision):
    """Gradient of queries, and the names of what was computed on the way there and back."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
    compute = ComputeSettings(precision=precision)
    with profile(activities=[ProfilerActivity.CPU]) as watched, attention_of(compute, CPU):
        with autocast_of(compute, CPU):
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
        raise ValueError("in the middle of a step")

    with (
        pytest.raises(ValueError, match="in the middle"),
        attention_of(ComputeSettings(precision="bfloat16"), CPU),
    ):
        fail()
    assert allowed() == before
    assert any(FUSED in name for name in _attend("float32")[1])


@pytest.mark.parametrize("attention", ["causal", "global"])
def test_blocks_that_are_computed_again_take_the_same_attention(
    attention, small_recipe, small_batch
):
    found = []
    for again in ("false", "true"):
        recipe = small_recipe(
            "compute.precision=bfloat16", f"compute.checkpoint_activations={again}",
            f"network.attention={attention}",
        )  # fmt: skip
        learner = Learner(make_network(recipe, CPU), recipe)
        with attention_of(recipe.compute, CPU):
            with autocast_of(recipe.compute, CPU):
                total, _ = learner(small_batch, None)
            total.backward()
        found.append([p.grad for p in learner.network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-3, atol=1e-4)
