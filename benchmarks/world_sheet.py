"""A contact sheet of procedural rooms, for people who would rather look.

python benchmarks/world_sheet.py -o docs/images/world.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image

from everview.world import sequence

GAP = 3
"""Pixels between pictures."""


@dataclass(frozen=True, kw_only=True)
class WorldSheet:
    """Draw one room per row and one frame per column."""

    rooms: int = 6
    """Rows."""
    frames: int = 6
    """Columns."""
    size: tuple[int, int] = (98, 140)
    """(height, width) of each picture in pixels."""
    first_seed: int = 100
    """Rooms have this seed and the following ones."""
    speed: float = 3.0
    """Motion between frames; the world's own is 1."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("docs/images/world.png")
    """Picture to write."""

    def run(self) -> None:
        """Draw and write."""
        height, width = self.size
        sheet = torch.ones(3, self.rooms * (height + GAP) - GAP, self.frames * (width + GAP) - GAP)
        for row in range(self.rooms):
            clip = sequence(self.first_seed + row, self.frames, size=self.size, speed=self.speed)
            for column, image in enumerate(clip.images):
                y, x = row * (height + GAP), column * (width + GAP)
                sheet[:, y : y + height, x : x + width] = image
        pixels = (sheet * 255).round().byte().permute(1, 2, 0).numpy()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).quantize(256).save(self.out, optimize=True)
        print(f"-> {self.out}")


if __name__ == "__main__":
    tyro.cli(WorldSheet).run()
