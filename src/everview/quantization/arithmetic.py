"""The products of levels: what this machine can run, which of them is taken, and why.

Every product gets tokens as levels (int8) and returns the exact integer sums times the weight's
steps. They differ in the kernel, never in the result beyond the rounding of one conversion. Sums of
8-bit floats are exact up to the float32 accumulation of the kernel.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.quantization.grids import FLOAT8
from everview.quantization.packing import unpack_nibbles
from everview.quantization.spec import LinearSpec

SHIFT = 128
"""Zero point by which signed levels become the unsigned ones that oneDNN has a kernel for."""
EXACT_FLOAT32 = 1 << 24
"""Whole numbers up to here are exact in float32."""
SUMS_AT_ONCE = 1 << 20
"""Integer sums per thread that are converted together on a CPU: they stay in its cache."""
CUDA_ROWS = 17
"""Fewest rows of `torch._int_mm` on CUDA."""
CUDA_MULTIPLE = 8
"""Of which its widths must be multiples there."""
FLOAT8_MULTIPLE = 16
"""Of which the widths of `torch._scaled_mm` must be multiples on CUDA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """One way to execute a quantized layer."""

    name: str
    """Word for it in options, reports and `everview doctor`."""
    kernel: str
    """What runs, in words."""
    is_real: bool
    """Whether integers or 8-bit floats are multiplied, or (weight-only schemes) only they are
    stored; False: the result is that of the scheme, at the cost of floating point."""


REFERENCE = Arithmetic(
    name="reference", kernel="floating-point product of the levels (simulated)", is_real=False
)
INT8_ONEDNN = Arithmetic(
    name="int8_onednn", kernel="oneDNN uint8 x int8 -> int32, weight pre-packed", is_real=True
)
INT8_MM = Arithmetic(name="int8_mm", kernel="torch._int_mm int8 x int8 -> int32", is_real=True)
INT4_INT8_MM = Arithmetic(
    name="int4_int8_mm",
    kernel="4-bit weight expanded per call, torch._int_mm int8 x int8 -> int32",
    is_real=True,
)
FP8_SCALED_MM = Arithmetic(
    name="fp8_scaled_mm", kernel="torch._scaled_mm e4m3 x e4m3 -> float32", is_real=True
)
WEIGHT_ONLY = Arithmetic(
    name="weight_only", kernel="weight de-quantized per call, floating-point product", is_real=True
)

BY_SPEED = (INT8_ONEDNN, INT8_MM, INT4_INT8_MM, FP8_SCALED_MM, WEIGHT_ONLY, REFERENCE)
ARITHMETICS = {a.name: a for a in reversed(BY_SPEED)}
"""All of them, by name."""


def why_not(arithmetic: Arithmetic, spec: LinearSpec, device: torch.device) -> str | None:
    """What keeps a device from executing layers of a kind in this way; None: nothing."""
    if arithmetic is REFERENCE:
        return None if spec.rounds_tokens else "activations are floats"
    if arithmetic is WEIGHT_ONLY:
        return "activations are rounded too" if spec.rounds_tokens else None
    if not spec.rounds_tokens:
        return "activations are floats"
    if spec.is_float8 != (arithmetic is FP8_SCALED_MM):
        return "levels are 8-bit floats" if spec.is_float8 else "levels are integers"
    if spec.is_float8:
        return _why_no_float8(device)
    if spec.is_packed != (arithmetic is INT4_INT8_MM):
        return f"weights have {spec.weight_bits} bits"
    if arithmetic is INT8_ONEDNN:
        return _why_no_onednn(device)
    if device.type == "cpu":
        return None if has_integer_units() else "this CPU has no VNNI: bfloat16 would be faster"
    if device.type == "cuda":
        able = torch.cuda.get_device_capability(device) >= (7, 5)
        return None if able else "this GPU is older than Turing"
    return f"no integer product on {device.type}"


def has_integer_units() -> bool:
    """Whether this CPU multiplies int8 faster than floats (AVX-512 VNNI, AVX-VNNI or AMX)."""
    return any(
        getattr(torch.cpu, f"_is_{kind}_supported", bool)()
        for kind in ("vnni", "avx512_vnni", "amx_tile")
    )


def _why_no_onednn(device: torch.device) -> str | None:
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return "only on x86 CPUs"
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.onednn, "qlinear_pointwise"
    ):
        return "this PyTorch is built without oneDNN"
    return None if has_integer_units() else "this CPU has no VNNI: bfloat16 would be faster"


def _why_no_float8(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"8-bit floats are only emulated on {device.type}"
    able = torch.cuda.get_device_capability(device) >= (8, 9)
    return None if able else "this GPU is older than Ada"


def pick(
    spec: LinearSpec,
    device: torch.device,
    *,
    require_real: bool = False,
    wanted: str | None = None,
) -> Arithmetic:
    """The fastest arithmetic for layers of a kind; `reference` where nothing real exists.

    Args:
        require_real: refuse `reference`.
        wanted: name of the one to take.

    Raises:
        ConfigError: if the wanted one is unknown or impossible here, or nothing real is possible
            and it is required; says for each what is in the way.
    """
    if wanted is not None and wanted not in ARITHMETICS:
        raise ConfigError(f"arithmetic {wanted!r} is unknown; use {', '.join(ARITHMETICS)}")
    reasons = {a.name: why_not(a, spec, device) for a in BY_SPEED}
    if wanted is not None:
        if reasons[wanted] is not None:
            raise ConfigError(f"{wanted} cannot run {spec.name} on {device}: {reasons[wanted]}")
        picked = ARITHMETICS[wanted]
    else:
        picked = next(a for a in BY_SPEED if reasons[a.name] is None)
    if require_real and not picked.is_real:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        raise ConfigError(
            f"{spec.name} can only be simulated on {device} ({told}); take bfloat16, or do not "
            "require real integers"
        )
    return picked


Product = Callable[[Int8[Tensor, "rows n"]], Float[Tensor, "rows out"]]
"""Levels of tokens to integer sums times weight steps, float32."""


def reference_product(
    levels: Tensor,
    weight: Tensor,
    step: Float[Tensor, " out"],
) -> Float[Tensor, "rows out"]:
    """The exact sums by floating-point numbers, in the dtype of the tokens' levels.

    float64 holds all sums exactly; float32 is taken where it does so too.
    """
    dtype = levels.dtype if levels.dtype in (torch.float32, torch.float64) else torch.float32
    if weight.dtype == FLOAT8:
        return (levels.double() @ weight.double().T).to(dtype) * step.to(dtype)
    largest = _magnitude(levels) * _magnitude(weight) * levels.shape[1]
    exact = torch.float32 if largest <= EXACT_FLOAT32 else torch.float64
    return (levels.to(exact) @ weight.to(exact).T).to(dtype) * step.to(dtype)


def _magnitude(levels: Tensor) -> float:
    """The largest magnitude that occurs; NaN counts as the largest of 8 bits."""
    if not levels.numel():
        return 0.0
    low, high = float(levels.min()), float(levels.max())
    return max(-low, high) if low == low and high == high else float(SHIFT)


class OneDnnProduct:
    """oneDNN's product of unsigned tokens with a weight in its own blocked layout.

    Signed tokens would run, a thousand times slower, in a reference kernel; they cannot get there.
    """

    def __init__(self, weight: Int8[Tensor, "out n"], step: Float[Tensor, " out"]) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.step = step.contiguous()
        self.zeros = torch.zeros(len(step), dtype=torch.int32)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # Inductor cannot lower the call
    def __call__(self, levels: Int8[Tensor, "rows n"]) -> Float[Tensor, "rows out"]:
        """Shift the levels by 128, in place (flip the top bit), and multiply."""
        return self.multiply(levels.view(torch.uint8).bitwise_xor_(SHIFT))

    def multiply(self, tokens: Tensor) -> Float[Tensor, "rows out"]:
        """The product of tokens whose zero point is 128."""
        assert tokens.dtype == torch.uint8, "signed tokens fall into oneDNN's reference kernel"
        return torch.ops.onednn.qlinear_pointwise(
            tokens, 1.0, SHIFT, self.packed, self.step, self.zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip

    def weight(self) -> Int8[Tensor, "out n"]:
        """The levels, out of the blocked layout."""
        return self.packed.to_dense().T.contiguous()


def integer_product(
    levels: Int8[Tensor, "rows n"], weight: Int8[Tensor, "out n"], step: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """The product by `torch._int_mm`; on CUDA with rows and widths filled up to what it wants."""
    if levels.device.type == "cuda":
        return padded_sums(levels, weight).float().mul_(step)
    at_once = max(1, SUMS_AT_ONCE // len(weight)) * torch.get_num_threads()
    if len(levels) <= at_once:
        return torch._int_mm(levels, weight.T).float().mul_(step)
    result = torch.empty(len(levels), len(weight), dtype=torch.float32, device=levels.device)
    for i in range(0, len(levels), at_once):
        part = slice(i, i + at_once)
        torch.mul(torch._int_mm(levels[part], weight.T), step, out=result[part])
    return result


def padded_sums(levels: Int8[Tensor, "rows n"], weight: Int8[Tensor, "out n"]) -> Tensor:
    """`torch._int_mm` (rows out, int32) with zeros where CUDA wants more rows or columns."""
    rows, out = len(levels), len(weight)
    columns = -levels.shape[1] % CUDA_MULTIPLE
    levels = F.pad(levels, (0, columns, 0, max(0, CUDA_ROWS - rows)))
    weight = F.pad(weight, (0, columns, 0, -out % CUDA_MULTIPLE))
    return torch._int_mm(levels, weight.T)[:rows, :out]


def packed_product(
    levels: Int8[Tensor, "rows n"], packed: UInt8[Tensor, "out half"], step: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """The same with a weight of 4 bits, expanded for the time of the call."""
    return integer_product(levels, unpack_nibbles(packed), step)


def float8_product(
    levels: Float[Tensor, "rows n"], weight: Float[Tensor, "out n"], step: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """The product of 8-bit floats (e4m3) by `torch._scaled_mm`, sums in float32.

    Scales are 1: steps are multiplied behind it, as for integers. The kernel with a scale per row
    answers in bfloat16 and does not run on all GPUs that have 8-bit floats.
    """
    out = len(weight)
    columns = -levels.shape[1] % FLOAT8_MULTIPLE
    tokens = _padded_bytes(levels, columns, 0)
    rows = _padded_bytes(weight, columns, -out % FLOAT8_MULTIPLE)
    one = torch.ones((), device=levels.device)
    sums = torch._scaled_mm(tokens, rows.T, scale_a=one, scale_b=one, out_dtype=torch.float32)
    return sums[:, :out] * step


def _padded_bytes(levels: Tensor, columns: int, rows: int) -> Tensor:
    """Zeros on the right and below; of 8-bit floats, which `pad` does not know."""
    if not columns and not rows:
        return levels.contiguous()
    return F.pad(levels.view(torch.uint8), (0, columns, 0, rows)).view(levels.dtype)
