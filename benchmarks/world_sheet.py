"""A contact sheet of procedural places, for people who would rather look.

python -P benchmarks/world_sheet.py -o docs/images/world.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image
from torch import Tensor

from everview.outputs.colormap import inferno
from everview.world import Options, sequence
from everview.world.clip import WorldSequence

GAP = 3
"""Pixels between pictures."""
ROWS = (
    ("room", 0), ("room", 31), ("room", 37), ("corridor", 0), ("corridor", 7), ("street", 0),
    ("street", 2), ("street", 7), ("terrain", 2), ("terrain", 1),
)  # fmt: skip
"""Kind and seed of each row."""


@dataclass(frozen=True, kw_only=True)
class WorldSheet:
    """Draw one place per row: frames, then depth and what moves in the last of them."""

    frames: int = 5
    """Columns of frames; two more show depth, and moving things in white."""
    size: tuple[int, int] = (112, 150)
    """(height, width) of each picture in pixels."""
    speed: float = 3.0
    """Motion between frames; the world's own is 1."""
    seed: int | None = None
    """Instead of the chosen places draw eight of any kind, from this seed on."""
    kind: str = "any"
    """Kind of those places."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("docs/images/world.png")
    """Picture to write."""

    def run(self) -> None:
        """Draw and write."""
        rows = ROWS
        if self.seed is not None:
            rows = tuple((self.kind, self.seed + i) for i in range(8))
        height, width = self.size
        rows_high, columns_wide = len(rows) * (height + GAP), (self.frames + 2) * (width + GAP)
        sheet = torch.ones(3, rows_high - GAP, columns_wide - GAP)
        for row, (kind, seed) in enumerate(rows):
            clip = sequence(
                seed,
                self.frames,
                size=self.size,
                kind=kind,
                speed=self.speed,
                options=Options(moving=1.0),
            )
            for column, picture in enumerate([*clip.images, _depth(clip), _moving(clip)]):
                y, x = row * (height + GAP), column * (width + GAP)
                sheet[:, y : y + height, x : x + width] = picture
        pixels = (sheet * 255).round().byte().permute(1, 2, 0).numpy()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).quantize(256).save(self.out, optimize=True)
        print(f"-> {self.out}")


def _depth(clip: WorldSequence) -> Tensor:
    """Depth of the last frame: near is bright, nothing is white."""
    depth, valid = clip.depth[-1], clip.valid[-1]
    low, high = torch.quantile(depth[valid].log(), torch.tensor([0.01, 0.95]))
    share = 1 - ((depth.clamp(min=1e-6).log() - low) / (high - low)).clamp(0, 1)
    colour = torch.from_numpy(inferno(share.numpy())).permute(2, 0, 1).float() / 255
    return torch.where(valid, colour, 1.0)


def _moving(clip: WorldSequence) -> Tensor:
    """The last frame darkened, what moves in white."""
    return torch.where(clip.moving[-1], 1.0, 0.35 * clip.images[-1])


if __name__ == "__main__":
    tyro.cli(WorldSheet).run()
