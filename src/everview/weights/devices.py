"""Where a network runs, and in which floating-point type."""

import torch

from everview.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
"""Floating-point precisions of the aggregator that `everview.load` takes; heads stay float32."""

QUANTIZED = ("int8", "int4")
"""Precisions of quantized models, into which `everview.load` also turns others."""


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device that text names; `auto` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        ConfigError: if the name is unknown, or this machine or this PyTorch lacks the device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            f"device {device!r} is unknown; use auto, cpu, cuda, cuda:1, mps"
        ) from error
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        built = "is built for the CPU" if torch.version.cuda is None else "sees no such GPU"
        raise ConfigError(
            f"device {device!r}: PyTorch {torch.__version__} {built} "
            f"({torch.cuda.device_count()} found); use --device cpu, or see `everview doctor`"
        )
    if picked.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r} needs an Apple GPU; use --device cpu")
    return picked


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the aggregator's weights that text names.

    `auto` is float32 on a CPU and on Apple's GPU, bfloat16 on CUDA (float16 on cards before Ampere,
    which only emulate bfloat16).

    Raises:
        ConfigError: if the precision is unknown.
    """
    if precision in QUANTIZED:  # what is not quantized then: attention, residual stream
        precision = "auto" if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision {precision!r} is unknown; use {', '.join(PRECISIONS + QUANTIZED)}"
        )
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            precision
        ]
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if native else torch.float16


def scheme_of(precision: str, device: torch.device) -> str | None:
    """The quantization scheme that a precision means on a device; None for floating point.

    `int4` has integer products on a CPU (w4a8); GPUs gain more from floats (w4a16).
    """
    if precision == "int8":
        return "w8a8"
    if precision == "int4":
        return "w4a8" if device.type == "cpu" else "w4a16"
    return None
