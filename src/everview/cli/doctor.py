"""`everview doctor`: what this machine has, and what will be fast here."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import tyro


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Examine machine, device, precision, attention kernels, decoder and extras; takes seconds.

    Put its output into a report of a problem.
    """

    device: str = "auto"
    """Which device to examine: cpu, cuda, cuda:1, mps; auto takes what `run` would take."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of text."""

    def run(self) -> int:
        """Print; returns the exit code."""
        from everview.cli.diagnosis import diagnose

        found = diagnose(self.device)
        if self.json:
            sys.stdout.write(json.dumps(found, indent=1) + "\n")
        else:
            print("\n".join(_lines(found)))
        return 0


def _lines(found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    memory = machine["memory_bytes"]
    speeds = ", ".join(
        f"{name} {speed / 1e9:,.0f} GFLOP/s"
        for name, speed in found["matrix_product_flops"].items()
    )
    return [
        f"everview   {found['everview']}, PyTorch {machine['torch']}, Python {machine['python']}",
        f"machine    {machine['processor']}, {machine['cores']} cores, "
        f"{'unknown' if memory is None else f'{memory / 1e9:.0f} GB'} of memory",
        f"system     {machine['platform']}",
        f"devices    {', '.join(found['devices'])}",
        f"taken      {found['device']}, weights in {found['precision']}",
        f"speed      matrix products: {speeds}",
        *_attention(found["attention"]),
        *_memory(found["memory"]),
        *_quantization(found["quantization"]),
        f"decoder    PyAV {found['decoder']['pyav']}, "
        f"libavcodec {found['decoder']['ffmpeg'].get('libavcodec', 'unknown')}; "
        f"decodes {', '.join(found['decoder']['codecs'])}",
        *(_extra(name, extra) for name, extra in found["extras"].items()),
        *(f"here       {line}" for line in found["advice"]),
    ]


def _attention(kernels: dict[str, dict[str, list[str]]]) -> list[str]:
    """One line per situation: the kernel that is taken, then what else would work."""
    return [
        f"attention  {situation}: "
        + "; ".join(f"{dtype} {' > '.join(names)}" for dtype, names in by_dtype.items())
        for situation, by_dtype in kernels.items()
    ]


def _memory(by_bits: dict[str, str]) -> list[str]:
    """One line per kernel that attends to a memory in codes, and for which bits."""
    by_kernel: dict[str, list[str]] = {}
    for bits, kernel in by_bits.items():
        by_kernel.setdefault(kernel, []).append(bits)
    return [f"memory     bits {', '.join(bits)}: {kernel}" for kernel, bits in by_kernel.items()]


def _quantization(schemes: dict[str, dict[str, Any]]) -> list[str]:
    """One line per arithmetic: the schemes that it runs, and its kernel."""
    by_arithmetic: dict[str, list[str]] = {}
    for scheme, found in schemes.items():
        how = found["arithmetic"] if found["is_real"] else f"{found['arithmetic']} (simulated)"
        by_arithmetic.setdefault(f"{how}: {found['kernel']}", []).append(scheme)
    return [f"quantized  {', '.join(names)}: {how}" for how, names in by_arithmetic.items()]


def _extra(name: str, extra: dict[str, Any]) -> str:
    if not extra["missing"]:
        return f"extra      {name}: installed"
    return f"extra      {name}: lacks {', '.join(extra['missing'])}; {extra['install']}"
