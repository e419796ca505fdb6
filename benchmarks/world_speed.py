"""How fast procedural places are rendered: frames per second, and what the truth costs beside.

python -P benchmarks/world_speed.py -o benchmarks/results/world_speed.json

Seconds are those of the thread, not of the clock: another program on the same core does not count.
The table in docs/world.md is written from the result; with --check nothing is measured or written,
and the exit code is 1 where the table differs. With --device cuda -o FILE the clock counts, and the
page stays as it is.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from everview.evaluation.machine import code_version, describe
from everview.world import Options, sequence
from everview.world.kinds import KINDS
from everview.world.stream import stream

PAGE = Path(__file__).parents[1] / "docs" / "world.md"
BEGIN, END = "<!-- speed: begin -->\n", "<!-- speed: end -->\n"


@dataclass(frozen=True, kw_only=True)
class WorldSpeed:
    """Render clips of several kinds and sizes and measure frames per second."""

    sizes: tuple[tuple[int, int], ...] = ((112, 112), (98, 140), (224, 224), (392, 518))
    """(height, width) in pixels, of clips as training draws them (kind `any`)."""
    clips: int = 32
    """Clips per row, each a place of its own; the median counts."""
    frames: int = 8
    """Frames of each clip."""
    threads: int = 1
    """Threads of the CPU."""
    device: str = "cpu"
    """Where clips are rendered."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path(
        "benchmarks/results/world_speed.json"
    )
    """JSON file to write."""
    check: bool = False
    """Only compare the page with the file."""

    def run(self) -> int:
        """Measure, print and write; returns the exit code."""
        if self.check:
            return int(_page(json.loads(self.out.read_text())) != PAGE.read_text())
        torch.set_num_threads(self.threads)
        for kind in KINDS:
            sequence(0, 1, kind=kind, options=Options(device=self.device))  # first calls are slow
        result: dict[str, Any] = {"clips": self.clips, "frames": self.frames}
        result["kinds"] = [self._measure((112, 112), kind) for kind in KINDS]
        result["sizes"] = [self._measure(size, "any") for size in self.sizes]
        result["streams"] = [_measure_stream(kind, self.device) for kind in KINDS[1:]]
        result |= {"load": os.getloadavg()[0], "machine": describe(self.device)}
        result["code"] = code_version()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        if self.device == "cpu":
            PAGE.write_text(_page(result))
        print(f"-> {self.out}")
        return 0

    def _measure(self, size: tuple[int, int], kind: str) -> dict[str, Any]:
        seconds, clock, tracking = [], [], []
        for seed in range(self.clips):
            wall, start = time.perf_counter(), _seconds(self.device)
            clip = sequence(
                seed, self.frames, size=size, kind=kind, options=Options(device=self.device)
            )
            middle = _seconds(self.device)
            clock.append(time.perf_counter() - wall)
            clip.tracks(torch.rand(32, 2, device=self.device) * min(size))
            tracking.append(_seconds(self.device) - middle)
            seconds.append(middle - start)
        rate = self.frames / statistics.median(seconds)
        height, width = size
        print(
            f"{kind} {height} x {width}: {rate:.1f} frames/s, "
            f"{rate * height * width / 1e6:.2f} Mpixel/s"
        )
        return {
            "kind": kind,
            "size": list(size),
            "frames_per_second": rate,
            "frames_per_second_by_the_clock": self.frames / statistics.median(clock),
            "seconds_per_clip": {
                "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)
            },
            "seconds_per_32_tracks": statistics.median(tracking),
        }  # fmt: skip


def _seconds(device: str) -> float:
    """Of this process on a CPU, of the clock once a GPU is idle."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _measure_stream(kind: str, device: str, *, chunk: int = 16, count: int = 12) -> dict[str, Any]:
    """Frames per second of an endless clip, after its first chunk."""
    seconds = []
    endless = stream(1, chunk=chunk, size=(112, 112), kind=kind, options=Options(device=device))
    next(endless)
    while len(seconds) < count:
        start = _seconds(device)
        list(islice(endless, 1))
        seconds.append(_seconds(device) - start)
    rate = chunk / statistics.median(seconds)
    print(f"{kind}, endless: {rate:.1f} frames/s")
    return {"kind": kind, "size": [112, 112], "chunk": chunk, "frames_per_second": rate}


def _page(result: dict[str, Any]) -> str:
    """docs/world.md with the table of a result."""
    lines = ["| what | size | frames / s | Mpixel / s |", "|---|---|---|---|"]
    rows = [(f"clips of kind `{row['kind']}`", row) for row in result["kinds"]]
    rows += [("clips of kind `any`", row) for row in result["sizes"][1:]]
    rows += [(f"endless `{row['kind']}`", row) for row in result["streams"]]
    for what, row in rows:
        height, width = row["size"]
        rate = row["frames_per_second"]
        pixels = rate * height * width / 1e6
        lines.append(f"| {what} | {height} x {width} | {rate:.0f} | {pixels:.1f} |")
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.exit(tyro.cli(WorldSpeed).run())
