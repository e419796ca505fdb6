"""Running out of memory, as an error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from everview.errors import EverviewError, NotEnoughMemoryError
from everview.memory.shortage import is_shortage


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
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        kind = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        raise NotEnoughMemoryError(f"there is not enough {kind} {story}") from error
