"""How fast procedural rooms are rendered: frames per second, and what the truth costs beside.

python benchmarks/world_speed.py -o benchmarks/results/world_speed.json
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from everview.evaluation.machine import code_version, describe
from everview.world import sequence


@dataclass(frozen=True, kw_only=True)
class WorldSpeed:
    """Render clips of several sizes and measure frames per second."""

    sizes: tuple[tuple[int, int], ...] = ((112, 112), (98, 140), (224, 224), (392, 518))
    """(height, width) in pixels."""
    clips: int = 12
    """Clips per size, each a room of its own; the median counts."""
    frames: int = 8
    """Frames of each clip."""
    threads: int = 1
    """Threads of the CPU."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path(
        "benchmarks/results/world_speed.json"
    )
    """JSON file to write."""

    def run(self) -> None:
        """Measure, print and write."""
        torch.set_num_threads(self.threads)
        sequence(0, 1)  # first calls are slow
        result: dict[str, Any] = {"clips": self.clips, "frames": self.frames}
        result["sizes"] = [self._measure(size) for size in self.sizes]
        result |= {"machine": describe(), "code": code_version()}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"-> {self.out}")

    def _measure(self, size: tuple[int, int]) -> dict[str, Any]:
        seconds, tracking = [], []
        for seed in range(self.clips):
            start = time.perf_counter()
            clip = sequence(seed, self.frames, size=size)
            middle = time.perf_counter()
            clip.tracks(torch.rand(32, 2) * min(size))
            tracking.append(time.perf_counter() - middle)
            seconds.append(middle - start)
        per_clip = statistics.median(seconds)
        rate = self.frames / per_clip
        height, width = size
        print(
            f"{height} x {width}: {rate:.1f} frames/s, {rate * height * width / 1e6:.2f} Mpixel/s"
        )
        return {
            "size": list(size),
            "frames_per_second": rate,
            "seconds_per_clip": {"median": per_clip, "min": min(seconds), "max": max(seconds)},
            "seconds_per_32_tracks": statistics.median(tracking),
        }


if __name__ == "__main__":
    tyro.cli(WorldSpeed).run()
