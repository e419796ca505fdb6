"""The full-size network with random weights: files, memory and time per frame, float and quantized.

python -P benchmarks/quantization_full_size.py [--ways w8a8 w4a8 bfloat16 float32] [--threads 1]
                                               [--size 392 518] [--folder DIR] [-o FILE]
                                               [--calibration 4] [--method everview-nearest]

Every way runs in a process of its own, so that its peak memory is its own. A quantized way is made
from floats (by rotation and rounding, or with `--calibration` clips of two random frames by
`--method`), written, and loaded again by one more process, which measures what a user of the file
has.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import everview
from everview.evaluation.machine import code_version, describe
from everview.model.network import Network, build
from everview.model.presets import presets
from everview.quantization import SCHEMES, kernels_used, quantize
from everview.quantization.report import resident_bytes, time_parts

ROOT = Path(__file__).resolve().parents[1]
PRESET = "streamvggt-1b"


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ways", nargs="+", default=["w8a8", "w4a8", "bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=[392, 518])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--calibration", type=int, default=0, help="clips")
    parser.add_argument("--method", help="by default the one that `everview quantize` takes")
    parser.add_argument("--folder", type=Path, help="for files of a few GB; deleted afterwards")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.stage:
        print(json.dumps(_stage(options)))
        return 0
    out = options.out or ROOT / "benchmarks/results/quantization_full_size.json"
    result: dict[str, Any] = {
        "benchmark": "quantization_full_size",
        "code": code_version(),
        "machine": describe(),
        "settings": {
            "preset": PRESET, "size": options.size, "threads": options.threads,
            "repeats": options.repeats, "calibration": options.calibration,
            "method": options.method,
        },
        "ways": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for way in options.ways:
            found = _run(options, way, folder)
            if way in SCHEMES:
                found |= {f"loaded_{k}": v for k, v in _run(options, f"load {way}", folder).items()}
            result["ways"][way] = found
            out.write_text(json.dumps(result, indent=1) + "\n")
            print(way, found, flush=True)
    return 0


def _run(options: argparse.Namespace, stage: str, folder: str) -> dict[str, Any]:
    command = [
        sys.executable, "-P", __file__, "--stage", stage, "--folder", folder,
        "--threads", str(options.threads), "--repeats", str(options.repeats),
        "--size", *map(str, options.size), "--calibration", str(options.calibration),
        *(["--method", options.method] if options.method else []),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    kind, _, scheme = options.stage.partition(" ")
    started = time.perf_counter()
    if kind == "load":
        network = everview.load(options.folder / scheme, device="cpu", precision="bfloat16")
        return _measured(network, options, started)
    network = build(presets[PRESET], seed=0)
    if kind not in SCHEMES:
        network.set_precision(getattr(torch, kind))
        return _measured(network, options, started)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    clips = [
        torch.rand(2, 3, *options.size, generator=generator) for _ in range(options.calibration)
    ]
    made = quantize(network, kind, clips or None, method=options.method, in_place=True)
    seconds = time.perf_counter() - started
    folder = everview.save(made, options.folder / kind, dtype=torch.bfloat16)
    return {
        "seconds_to_quantize": round(seconds, 1),
        "file_bytes": (folder / "weights.safetensors").stat().st_size,
        "peak_bytes": _peak(),
        "kernels": kernels_used(made),
    }


def _measured(network: Network, options: argparse.Namespace, started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    peak = _peak()
    images = torch.rand(1, 3, *options.size, generator=torch.Generator().manual_seed(0))
    return {
        "seconds_to_make": round(seconds, 1),
        "peak_bytes_after_making": peak,
        "resident_bytes": resident_bytes(network),
        "ms_per_frame": time_parts(network, images, repeats=options.repeats),
        "peak_bytes": _peak(),
    }


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    raise SystemExit(main())
