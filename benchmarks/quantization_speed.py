"""The four linear layers of a full-size block: float32, bfloat16, integers and fp8, in one run.

python -P benchmarks/quantization_speed.py [--tokens 1041] [--threads 1] [--repeats 15]
                                           [--device cpu] [-o FILE]

On a GPU what goes into quantized layers is bfloat16, as in the network there; schemes that it can
only simulate are left out.

Ways take turns, so that a busy machine disturbs all alike; the median and the fastest of all turns
are written. 1041 tokens are one frame of 392 x 518 pixels: 28 x 37 patches and 5 special tokens.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from everview.evaluation.machine import code_version, describe
from everview.quantization.arithmetic import pick
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import parse_scheme

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1024
LAYERS = {
    "qkv": (WIDTH, 3 * WIDTH), "proj": (WIDTH, WIDTH),
    "fc1": (WIDTH, 4 * WIDTH), "fc2": (4 * WIDTH, WIDTH),
}  # fmt: skip
"""Name -> inputs, outputs. Values feed `proj`, so its rotation is folded into them."""
FOLDED = ("proj",)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1041)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    times: dict[str, dict[str, float]] = {}
    fastest: dict[str, dict[str, float]] = {}
    kernels: dict[str, str] = {}
    for layer, (width, out) in LAYERS.items():
        ways = _ways(layer, width, out, options, kernels)
        measured = _in_turns(ways, options.repeats, options.device)
        for way, seconds in measured.items():
            times.setdefault(way, {})[layer] = 1e3 * statistics.median(seconds)
            fastest.setdefault(way, {})[layer] = 1e3 * min(seconds)
    result = {
        "benchmark": "quantization_speed",
        "code": code_version(),
        "machine": describe(options.device),
        "settings": {
            "tokens": options.tokens, "threads": options.threads, "repeats": options.repeats,
        },
        "kernels": kernels,
        "ms_median": _with_sums(times),
        "ms_fastest": _with_sums(fastest),
        "ratios": _ratios(_with_sums(times)),
        "ratios_of_fastest": _ratios(_with_sums(fastest)),
    }  # fmt: skip
    where = f"t{options.threads}" if options.device.type == "cpu" else options.device.type
    out_file = options.out or ROOT / "benchmarks/results" / f"quantization_speed_{where}.json"
    out_file.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps({k: result[k] for k in ("ms_median", "ratios", "ratios_of_fastest")}, indent=1)
    )
    return 0


def _ways(
    layer: str, width: int, out: int, options: argparse.Namespace, kernels: dict[str, str]
) -> dict[str, Callable[[], Tensor]]:
    device = options.device
    x = torch.randn(options.tokens, width).to(device)
    linear = nn.Linear(width, out).requires_grad_(requires_grad=False).to(device)
    half, x_half = copy.deepcopy(linear).bfloat16(), x.bfloat16()
    given = x if device.type == "cpu" else x_half
    ways: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: linear(x),
        "bfloat16": lambda: half(x_half),
    }
    for way, scheme, block in (
        ("w8a8", "w8a8", None), ("w8a8, rotation 64", "w8a8", 64),
        ("w8a8, rotation 32", "w8a8", 32), ("w4a8", "w4a8", None),
        ("w4a8, rotation 32", "w4a8", 32), ("w4a4, rotation 32", "w4a4", 32),
        ("w4a16", "w4a16", None), ("fp8", "fp8", None), ("fp8, rotation 32", "fp8", 32),
    ):  # fmt: skip
        if not pick(parse_scheme(scheme), device).is_real:
            continue
        rotation = None if block is None or layer in FOLDED else Rotation(None, block)
        # before `fc2` nothing can take over factors: there is a vector to multiply with
        before = torch.ones(width) if rotation is not None and layer == "fc2" else None
        made = QuantizedLinear.of(
            linear.weight, linear.bias, parse_scheme(scheme),
            InputTransform(before=before, rotation=rotation),
        ).execute_with(require_real=True)  # fmt: skip
        kernels[way] = made.arithmetic.kernel
        made.dtype = given.dtype
        ways[way] = lambda made=made: made(given)
    return ways


def _in_turns(
    ways: dict[str, Callable[[], Tensor]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for turn in range(repeats + 2):
            for way, run in ways.items():
                wait()
                start = time.perf_counter()
                run()
                wait()
                if turn > 1:  # the first two warm caches and allocator
                    seconds[way].append(time.perf_counter() - start)
    return seconds


def _with_sums(times: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        way: {k: round(v, 2) for k, v in {**of, "block": sum(of.values())}.items()}
        for way, of in times.items()
    }


def _ratios(times: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times as fast as floats; share of the time that the rotation takes."""
    ratios = {}
    for way, of in times.items():
        ratios[way] = {
            "x_float32": round(times["float32"]["block"] / of["block"], 2),
            "x_bfloat16": round(times["bfloat16"]["block"] / of["block"], 2),
        }
        plain = way.partition(",")[0]
        if plain != way and plain in times:
            ratios[way]["rotation_share"] = round(1 - times[plain]["block"] / of["block"], 3)
    return ratios


if __name__ == "__main__":
    raise SystemExit(main())
