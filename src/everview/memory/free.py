"""How much memory there is to use."""

import os

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device; None if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
