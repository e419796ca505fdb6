"""How much memory there is to use."""

from pathlib import Path

import torch

ROOT = Path("/")
"""Where `proc` and `sys` are."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device; None if the system does not tell.

    On a CPU what Linux says is available, which includes what it keeps of files only as long as
    nobody needs the room, and no more than what is left of the process's control group.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [n for n in (_available(), *_left_of_groups()) if n is not None]
    return max(0, min(known)) if known else None


def _available() -> int | None:
    numbers = _numbers(ROOT / "proc/meminfo")
    return 1024 * numbers["MemAvailable"] if "MemAvailable" in numbers else None


def _left_of_groups() -> list[int]:
    """Of the process's control group and those above it, versions 1 and 2."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names, base = ("memory.max", "memory.current"), ROOT / "sys/fs/cgroup"
        if "memory" in controllers.split(","):
            names, base = ("memory.limit_in_bytes", "memory.usage_in_bytes"), base / "memory"
        elif controllers:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be that of the host: then the top is the container's own.
        for folder in [f for f in (group, *group.parents) if f.is_relative_to(base)]:
            most, used = (_number(folder / name) for name in names)
            if most is not None and used is not None:
                left.append(most - used + _numbers(folder / "memory.stat").get("inactive_file", 0))
    return left


def _number(path: Path) -> int | None:
    """A file's one number; None if there is none, or it is `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _numbers(path: Path) -> dict[str, int]:
    """Lines such as `name: 12 kB` or `name 12`; none if the file cannot be read."""
    try:
        words = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
