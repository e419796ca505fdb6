"""How far keys leave the range of the first frame, and what saturation and rounding then cost.

python -P benchmarks/key_range.py [--frames 1000] [--model mini] [-o FILE]

Walks of LongWorld. Errors are root mean squares over heads, channels and later frames, for scales
that cover so many times the range of the first frame (`everview.memory.codes.HEAD_ROOM`).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.benchmarks.clip import Choice, EvalClip
from everview.evaluation.benchmarks.longworld import clips
from everview.evaluation.machine import code_version, describe
from everview.model.network import Network
from everview.weights.hashes import weights_hash
from everview.weights.load import load

OUT = Path(__file__).resolve().parent / "results" / "key_range.json"
WALKS = ("corridor-steady", "street-drive")
EVERY = 40
"""Frames between two that are looked at; those between are not shown, which keys hardly notice."""
ROOMS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
BITS = (8, 4)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load(options.model)
    found = {c.name: c for c in clips(Path(), Choice(frames=options.frames)) if c.name in WALKS}
    keys = [_keys(network, found[name]) for name in WALKS]
    rows = [_row(room, keys) for room in ROOMS]
    result = {
        "format": "everview key range", "format_version": 1, "code": code_version(),
        "model": options.model, "weights_sha256": weights_hash(network),
        "frames": options.frames, "every": EVERY, "walks": WALKS,
        "machine": describe(network.device), "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(row)
    return 0


@torch.no_grad()
def _keys(network: Network, clip: EvalClip) -> list[list[Tensor]]:
    """Layer -> keys of the frames that are looked at, h p d each."""
    found: list[list[Tensor]] = []
    with network.stream("window:frames=4") as stream:
        for i in range(0, len(clip.frames), EVERY):
            stream.step(clip.image(i), dense=False)
            newest = [m.read()[0][0] for m in stream._state.layers]
            found = found or [[] for _ in newest]
            for layer, keys in zip(found, newest, strict=True):
                per_frame = layer[0].shape[1] if layer else keys.shape[1]
                layer.append(keys[:, -per_frame:].clone())
    return found


def _row(room: float, walks: list[list[list[Tensor]]]) -> dict[str, Any]:
    """Mean over layers and walks, and the worst of them."""
    beyond, saturation = [], []
    rounding: dict[int, list[float]] = {bits: [] for bits in BITS}
    for layers in walks:
        for first, *later in layers:
            low, high = first.amin(dim=1, keepdim=True), first.amax(dim=1, keepdim=True)
            half = (high - low) / 2 * room
            over = ((torch.stack(later) - (high + low) / 2).abs() - half).clamp_min(0)
            beyond.append(float((over > 0).float().mean()))
            saturation.append(float(over.square().mean().sqrt()))
            for bits in BITS:
                step = 2 * half / (2**bits - 1)
                rounding[bits].append(float((step.square() / 12).mean().sqrt()))
    return {
        "room": room,
        "beyond": _both(beyond),
        "saturation": _both(saturation),
        "rounding": {str(bits): _both(errors) for bits, errors in rounding.items()},
    }


def _both(values: list[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "worst": max(values)}


if __name__ == "__main__":
    sys.exit(main())
