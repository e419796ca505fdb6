"""In which precision a step is computed, and by which kernel of attention."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from everview.training.recipe.settings import ComputeSettings


def autocast_of(compute: ComputeSettings, device: torch.device) -> torch.autocast:
    """For the forward pass."""
    is_half = compute.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half)


def attention_of(compute: ComputeSettings, device: torch.device) -> AbstractContextManager[None]:
    """For the forward and the backward pass, which may compute blocks again.

    On a CPU in bfloat16 attention is made of plain products: the fused kernel there is made for
    float32, and going back through it in bfloat16 takes several times as long
    (docs/decisions/0017).
    """
    is_plain = compute.precision == "bfloat16" and device.type == "cpu"
    return _plain_attention() if is_plain else nullcontext()


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
