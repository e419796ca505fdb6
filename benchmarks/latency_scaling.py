"""Seconds for the newest of n frames: streaming against the offline network on all n again.

python -P benchmarks/latency_scaling.py [--model mini] [--frames 100] [--device auto] [-o FILE]

The offline network has the same weights and global attention, as VGGT; it must see all frames anew
when one arrives. Both are measured in turns, so that a drifting machine meets both. Writes
benchmarks/results/latency_scaling.json and docs/images/latency_scaling.png. StreamVGGT Sec. 4.4
gives 0.07 s against 4.7 s at 40 frames for the 1.2B networks on its GPU.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from everview.evaluation.machine import code_version, describe, synchronise
from everview.evaluation.procedural import native_size
from everview.weights.load import load
from everview.world.clip import sequence

ROOT = Path(__file__).resolve().parents[1]
OFFLINE_AT = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)
REPEATS = 3


def main() -> int:
    """Return the exit code."""
    options = _options()
    torch.set_num_threads(options.threads)
    result = _measure(options)
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    _draw(result, ROOT / "docs" / "images" / "latency_scaling.png")
    print(options.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "latency_scaling.json"
    )
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    streaming = load(options.model, device=options.device)
    offline = load(
        options.model,
        device=options.device,
        config=replace(streaming.config, attention="global"),
    )
    device, size = streaming.device, native_size(streaming)
    images = sequence(10_000_000, options.frames, size=size).images.to(device)

    def seconds(work: Callable[[], Any]) -> float:
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        return time.perf_counter() - start

    steps: list[list[float]] = [[] for _ in range(options.frames)]
    passes: dict[int, list[float]] = {n: [] for n in OFFLINE_AT if n <= options.frames}
    for repeat in range(REPEATS + 1):  # the first warms up and does not count
        stream = streaming.stream("full")
        for i in range(options.frames):
            taken = seconds(lambda i=i, stream=stream: stream.step(images[i]))
            if repeat:
                steps[i].append(taken)
            if i + 1 in passes and (repeat or i < 3):
                taken = seconds(lambda i=i: offline(images[None, : i + 1]))
                if repeat:
                    passes[i + 1].append(taken)
        print(f"pass {repeat} of {REPEATS}", flush=True)
    newest = [statistics.median(values) for values in steps]
    again = {n: statistics.median(values) for n, values in passes.items()}
    return {
        "format": "everview latency scaling",
        "format_version": 1,
        "code": code_version(),
        "model": options.model,
        "size": list(size),
        "precision": str(streaming.precision).removeprefix("torch."),
        "repeats": REPEATS,
        "streaming_seconds": newest,
        "offline_seconds": {str(n): value for n, value in again.items()},
        "ratio": {str(n): value / newest[n - 1] for n, value in again.items()},
        "machine": describe(device),
    }


def _draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
    newest = result["streaming_seconds"]
    axis.plot(range(1, len(newest) + 1), newest, label="streaming: one step")
    again = {int(n): value for n, value in result["offline_seconds"].items()}
    axis.plot(list(again), list(again.values()), marker="o", label="offline: all frames again")
    axis.set(xlabel="frames so far", ylabel="seconds for the newest frame", yscale="log")
    axis.set_title(f"{result['model']}, {result['precision']}, {result['machine']['processor']}")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
