"""How alike the procedural world is under other vector instructions, which round otherwise.

python -P benchmarks/world_machines.py [--clips 24] [-o FILE]

Clips are rendered by processes that are allowed AVX-512, AVX2 or neither, with and without JPEG
between light and pixels; counted are pixels whose colour differs by more than 1/255 or whose depth
differs by more than 1e-4, of a metre and of itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.machine import code_version, describe
from everview.world import Effects, Options, sequence

OUT = Path(__file__).resolve().parent / "results" / "world_machines.json"
INSTRUCTIONS = ("avx512", "avx2", "default")
"""As PyTorch calls them; the first is what the others are compared with."""
SIZE, FRAMES = (98, 140), 4
JPEG = {"without JPEG": 0.0, "through JPEG": 1.0}
TOLERANCE = 1e-4

Clips = list[tuple[Tensor, Tensor]]


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    parser.add_argument("--render", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.render is not None:
        torch.save({name: _rendered(options.clips, jpeg) for name, jpeg in JPEG.items()},
                   options.render)  # fmt: skip
        return 0
    first, *others = (_elsewhere(name, options.clips) for name in INSTRUCTIONS)
    result = {
        "format": "everview world machines", "format_version": 1, "code": code_version(),
        "machine": describe(torch.device("cpu")),
        "settings": {"clips": options.clips, "frames": FRAMES, "size": SIZE,
                     "compared_with": INSTRUCTIONS[0]},
        "rows": [
            {"instructions": name, "clips": kind, **_differing(first[kind], other[kind])}
            for name, other in zip(INSTRUCTIONS[1:], others, strict=True) for kind in JPEG
        ],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["rows"], indent=1))
    return 0


def _rendered(clips: int, jpeg: float) -> Clips:
    options = Options(moving=0.5, effects=Effects(compressed=jpeg))
    made = (sequence(seed, FRAMES, size=SIZE, options=options) for seed in range(clips))
    return [(clip.images, clip.depth) for clip in made]


def _elsewhere(instructions: str, clips: int) -> dict[str, Clips]:
    """The same clips from a process with these instructions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.pt"
        command = [sys.executable, "-P", __file__, "--clips", str(clips), "--render", str(path)]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": instructions}
        subprocess.run(command, check=True, env=environment)
        found: dict[str, Clips] = torch.load(path)
    return found


def _differing(clips: Clips, others: Clips) -> dict[str, Any]:
    """Shares of pixels that differ: mean over clips, and the clip with most."""
    shares: dict[str, list[float]] = {"colour": [], "depth": [], "relative_depth": []}
    for (image, depth), (other_image, other_depth) in zip(clips, others, strict=True):
        error = (depth - other_depth).abs()
        colour = (image - other_image).abs().amax(dim=1) > 1 / 255 + 1e-6
        shares["colour"].append(float(colour.float().mean()))
        shares["depth"].append(float((error > TOLERANCE).float().mean()))
        relative = error > TOLERANCE * depth.clamp(min=1)
        shares["relative_depth"].append(float(relative.float().mean()))
    return {name: {"mean": fmean(found), "most": max(found)} for name, found in shares.items()}


if __name__ == "__main__":
    sys.exit(main())
