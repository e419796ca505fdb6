"""The machine that a number was measured on."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads, memory, accelerator and versions, as plain values."""
    device = torch.device(device)
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
    }
    if device.type == "cuda":
        described["accelerator"] = torch.cuda.get_device_name(device)
    return described


def code_version() -> dict[str, Any]:
    """Version of this package and, if it runs from a checkout, the commit and what was changed."""
    home = Path(__file__).parent
    commit = _git(home, "rev-parse", "HEAD")
    found: dict[str, Any] = {"everview": version("everview")}
    if commit:
        found |= {"commit": commit, "changed": bool(_git(home, "status", "--porcelain", "."))}
    return found


def matrix_product_speed(
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    side: int = 2048,
    seconds: float = 1.0,
) -> float:
    """Best measured speed of square matrix products, in FLOP/s: the peak to compare with.

    Args:
        side: of the matrices.
        seconds: how long to measure.
    """
    device = torch.device(device)
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None if it is absent or the folder is no checkout of this package."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
