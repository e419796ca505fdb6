"""In which precision a step is computed, and by which kernel of attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from everview.training.recipe.settings import ComputeSettings


@contextmanager
def precision_of(compute: ComputeSettings, device: torch.device) -> Iterator[None]:
    """A context for the forward pass; the backward pass follows what was done in it.

    On a CPU in bfloat16 attention is made of plain products. Its kernel there is quick in float32
    only: going back through it in bfloat16 takes ten times as long as through the products, and
    was a third of a step.
    """
    is_half = compute.precision == "bfloat16"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half):
        if is_half and device.type == "cpu":
            with _plain_attention():
                yield
        else:
            yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Products in the dtype of queries and keys, not in float32."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # holds for CPUs too
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
