"""Running out of memory: many errors, one name."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from everview.errors import EverviewError, NotEnoughMemoryError

PHRASES = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""What torch's plain RuntimeErrors say on a CPU, on Apple's GPU and in libraries of CUDA."""


@contextmanager
def memory_errors(story: str) -> Iterator[None]:
    """Raise NotEnoughMemoryError for whatever tells that memory has run out in the body.

    Args:
        story: how the sentence "there is not enough memory ..." goes on: what for, what is saved,
            and what to do.
    """
    try:
        yield
    except EverviewError:
        raise
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemoryError(f"there is not enough GPU memory {story}") from error
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(p in str(error) for p in PHRASES)):
            raise
        raise NotEnoughMemoryError(f"there is not enough memory {story}") from error
