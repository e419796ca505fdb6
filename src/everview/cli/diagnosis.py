"""What `everview doctor` finds out: devices, kernels, speed, decoder, extras."""

import importlib.metadata
import platform
import re
import warnings
from collections import defaultdict
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from everview.evaluation.machine import describe, matrix_product_speed
from everview.memory.code_kernels import kernel_for_codes
from everview.memory.codes import BITS
from everview.model.config import Config
from everview.model.presets import presets
from everview.quantization.arithmetic import pick
from everview.quantization.spec import SCHEMES, parse_scheme
from everview.weights.devices import pick_device, pick_dtype

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
"""Kernels of scaled_dot_product_attention, the better ones first."""

CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores")
"""Video codecs that people ask about."""

FULL_SIZE = (392, 518)
"""Height and width in pixels that a 4:3 video has for the published models."""


def diagnose(device: str = "auto", *, seconds: float = 0.5) -> dict[str, Any]:
    """Examine this machine.

    Args:
        device: as in `everview.load`.
        seconds: how long to measure each dtype.

    Raises:
        ConfigError: if the device is unknown or absent.
    """
    target = pick_device(device)
    speeds = {
        str(dtype).removeprefix("torch."): matrix_product_speed(dtype, target, seconds=seconds)
        for dtype in (torch.float32, torch.bfloat16)
    }
    found = {
        "everview": importlib.metadata.version("everview"),
        "machine": describe(target),
        "devices": available_devices(),
        "device": str(target),
        "precision": str(pick_dtype("auto", target)).removeprefix("torch."),
        "matrix_product_flops": speeds,
        "attention": attention_kernels(target),
        "memory": memory_kernels(target, pick_dtype("auto", target)),
        "quantization": quantization_kernels(target),
        "decoder": decoder(),
        "extras": extras(),
    }
    return {**found, "advice": advice(found)}


def available_devices() -> list[str]:
    """Names for --device that work here."""
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def attention_kernels(device: torch.device) -> dict[str, dict[str, list[str]]]:
    """Kernels that can serve each situation and dtype, the one that is taken first.

    A stream's new frame sees all that is held, without a mask; several causal frames at once need
    one.
    """
    q = torch.randn(1, 2, 12, 64, device=device)
    mask = torch.ones(12, 12, dtype=torch.bool, device=device).tril()
    return {
        situation: {
            str(dtype).removeprefix("torch."): [
                name for name, kernel in BACKENDS.items() if _works(q.to(dtype), attend_to, kernel)
            ]
            for dtype in (torch.float32, torch.bfloat16)
        }
        for situation, attend_to in (("without mask", None), ("with mask", mask))
    }


def memory_kernels(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Bits of a memory -> what attends to it there."""
    return {str(bits): kernel_for_codes(device, dtype, bits) for bits in BITS}


def quantization_kernels(device: torch.device) -> dict[str, dict[str, Any]]:
    """Scheme -> the arithmetic that is taken for it, its kernel, and whether it is real."""
    picked = {scheme: pick(parse_scheme(scheme), device) for scheme in SCHEMES}
    return {
        scheme: {"arithmetic": a.name, "kernel": a.kernel, "is_real": a.is_real}
        for scheme, a in picked.items()
    }


def decoder() -> dict[str, Any]:
    """Versions of PyAV and FFmpeg, and which of the usual codecs they decode."""
    import av
    from av.codec import codecs_available

    libraries = {name: ".".join(map(str, v)) for name, v in av.library_versions.items()}
    return {
        "pyav": av.__version__,
        "ffmpeg": libraries,
        "codecs": [name for name in CODECS if name in codecs_available],
    }


def extras() -> dict[str, dict[str, Any]]:
    """Optional parts: whether they are installed, what is missing, and the line that adds them."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for requirement in importlib.metadata.requires("everview") or ():
        package, _, marker = requirement.partition(";")
        if "platform_system" in marker and platform.system() not in marker:
            continue
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", package.strip())
        if extra and name:
            wanted[extra[1]].append(name[0])
    return {
        extra: {"missing": missing, "install": f'pip install "everview[{extra}]"'}
        for extra, packages in wanted.items()
        for missing in [[package for package in packages if not _is_installed(package)]]
    }


def advice(found: dict[str, Any]) -> list[str]:
    """What to expect here, in sentences; the numbers are bounds, not measurements."""
    single, half = (found["matrix_product_flops"][name] for name in ("float32", "bfloat16"))
    lines = [
        f"The full-size model takes at least {_bound(single):.2g} s per frame in float32 and "
        f"{_bound(half):.2g} s in bfloat16 at {FULL_SIZE[0]}x{FULL_SIZE[1]}: its matrix products "
        "alone, at the speed measured here.",
        "The bundled model is far smaller; `everview bench latency --model mini` measures it.",
    ]
    if found["device"] == "cpu":
        better = half > 1.3 * single
        lines.append(
            f"bfloat16 is {half / single:.1f} times as fast as float32 here: "
            + (
                "use --precision bfloat16 for the full-size model."
                if better
                else "stay with float32."
            )
        )
    memory = found["machine"]["memory_bytes"]
    if memory is not None and memory < 8e9:
        lines.append(
            f"{memory / 1e9:.0f} GB of memory are too few for the full-size model in float32 "
            "(5.0 GB of weights); in bfloat16 it holds 3.2 GB of weights."
        )
    if found["device"] != "cpu" and "flash" not in found["attention"]["without mask"]["bfloat16"]:
        lines.append("No flash attention here: long streams will be slow on this device.")
    return lines


def aggregator_flops(config: Config, size: tuple[int, int]) -> float:
    """Floating-point operations of one frame in the encoder and the blocks, nothing in the past.

    Per token and block 24 C^2 for the projections and 4 P C for attention, P tokens per frame of C
    channels (architecture of VGGT, arXiv 2503.11651).
    """
    aggregator = config.aggregator
    patches = (size[0] // config.patch_size) * (size[1] // config.patch_size)
    tokens = 1 + aggregator.num_register_tokens + patches
    blocks = config.patch_embed.depth + 2 * aggregator.depth
    width = aggregator.embed_dim
    per_token = (8 + 4 * aggregator.mlp_ratio) * width**2 + 4 * tokens * width
    return blocks * tokens * per_token


def _bound(speed: float) -> float:
    return aggregator_flops(presets["streamvggt-1b"], FULL_SIZE) / speed


def _works(q: torch.Tensor, mask: torch.Tensor | None, kernel: SDPBackend) -> bool:
    """Whether a kernel takes these inputs; PyTorch warns about each reason why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with sdpa_kernel(kernel):
                F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        except RuntimeError:
            return False
    return True


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
