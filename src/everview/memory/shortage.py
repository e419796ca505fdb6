"""Running out of memory: many errors, one question."""

import torch

PHRASES = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""What torch's plain RuntimeErrors say on a CPU, on Apple's GPU and in libraries of CUDA."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error tells that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)
