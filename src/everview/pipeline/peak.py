"""How much memory is in use, and how much was at the peak."""

import ctypes
import resource
import sys
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peak of a device's memory since the last `reset`.

    On a GPU what torch has allocated; on a CPU the resident memory of the process. Where the system
    cannot reset its counter (all but Linux) the peak is that of the whole process so far.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        """Begin anew; on Linux the process first gives back what it has freed."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif CLEAR_REFS.exists():
            if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc
                trim(0)
            CLEAR_REFS.write_text("5")

    @property
    def now(self) -> int:
        """Bytes in use."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return _status("VmRSS") or self.peak

    @property
    def peak(self) -> int:
        """Most bytes in use since the last `reset`."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status("VmHWM") or _largest_ever()


def _status(name: str) -> int | None:
    """A number of /proc/self/status in bytes; None where there is none."""
    if not STATUS.exists():
        return None
    _, found, rest = STATUS.read_text().partition(f"{name}:")
    return 1024 * int(rest.split()[0]) if found else None


def _largest_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
