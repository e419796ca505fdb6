"""Which kernel attends to keys and values in codes."""

import torch
from torch import Tensor

FUSED = "Triton, codes read block by block"
BY_HEAD = "scaled_dot_product_attention, codes expanded head by head"
BY_LAYER = "scaled_dot_product_attention, codes expanded layer by layer"


def is_fused(queries: Tensor, bits: int) -> bool:
    """Whether the Triton kernel serves these queries; else codes are expanded for torch's kernel.

    It does on a GPU that Triton compiles for, with 8 or 4 bits, float32, float16 or bfloat16
    queries and 16 or a multiple of 32 channels per head.
    """
    if not queries.is_cuda or bits == 16:
        return False
    from everview.memory.triton_attention import is_offered

    capability = torch.cuda.get_device_capability(queries.device)
    return is_offered(queries.dtype, queries.shape[-1], capability)


def kernel_for_codes(device: torch.device, dtype: torch.dtype, bits: int) -> str:
    """What attends to codes there, in words; for heads of 64 channels."""
    if is_fused(torch.empty(1, 1, 1, 64, dtype=dtype, device=device), bits):
        return FUSED
    return BY_HEAD if device.type == "cpu" else BY_LAYER
