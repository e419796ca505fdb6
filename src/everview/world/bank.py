"""A bank of periodic grey patterns with their smaller copies, computed once by hashing."""

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.world.dice import Dice

SIDE = 128
"""Texels of a pattern's side in its finest copy."""
LEVELS = 8
"""Copies of half the size each, the last of one texel."""
_BORDER = 1
"""Texels repeated from the other side, so that interpolation wraps around."""
SLOT_ROWS = sum((SIDE >> level) + 2 * _BORDER for level in range(LEVELS))
"""Rows of the bank that a pattern takes, copies below one another."""
WIDTH = SIDE + 2 * _BORDER


@cache
def texture_bank(device: torch.device | str = "cpu") -> Float[Tensor, "1 1 rows WIDTH"]:
    """All patterns below one another, as an image for `grid_sample`; values 0 to 1."""
    if torch.device(device).type != "cpu":
        return texture_bank().to(device)
    patterns = torch.stack([make(Dice(1000 + i)) for i, make in enumerate(_makers())])
    blocks, level = [], patterns.clamp(0, 1)[:, None]  # slots 1 side side
    for _ in range(LEVELS):
        padded = F.pad(level, (_BORDER,) * 4, mode="circular")
        blocks.append(F.pad(padded, (0, WIDTH - padded.shape[-1])))
        level = F.avg_pool2d(level, 2) if level.shape[-1] > 1 else level
    return torch.cat(blocks, dim=2).reshape(1, 1, -1, WIDTH).contiguous()


@cache
def slots(family: str) -> tuple[int, int]:
    """First slot and number of slots of a family of patterns, see `FAMILIES`."""
    names = list(FAMILIES)
    first = sum(FAMILIES[name][1] for name in names[: names.index(family)])
    return first, FAMILIES[family][1]


def _makers() -> list[Callable[[Dice], Tensor]]:
    return [make for make, count in FAMILIES.values() for _ in range(count)]


def _coordinates() -> tuple[Tensor, Tensor]:
    """Columns x and rows y of texel centres in [0, 1)."""
    line = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _lattice_noise(dice: Dice, label: str, cells: int, aspect: int = 1) -> Tensor:
    """Smooth periodic noise in [-1, 1] with so many cells along x."""
    grid = dice.uniform(label, (1, 1, max(1, cells // aspect), cells), -1, 1)
    padded = (
        F.pad(grid, (2, 2, 2, 2), mode="circular")
        if grid.shape[2] > 1
        else F.pad(grid.expand(-1, -1, 5, -1), (2, 2, 0, 0), mode="circular")
    )
    step_x, step_y = SIDE // cells, SIDE // max(1, cells // aspect)
    finer = F.interpolate(
        padded, scale_factor=(float(step_y), float(step_x)), mode="bicubic", align_corners=False
    )
    top, left = 2 * step_y, 2 * step_x
    return finer[0, 0, top : top + SIDE, left : left + SIDE]


def _noise(dice: Dice) -> Tensor:
    """Octaves of noise; the spectrum falls by a random power, some are stretched like wood."""
    slope, aspect = dice.number("slope", 0.1, 1.4), (1, 1, 1, 4)[dice.integer("stretch", 4)]
    total = torch.zeros(SIDE, SIDE)
    for octave in range(2, 8):
        amplitude = 2.0 ** (-slope * (octave - 2))
        total += amplitude * _lattice_noise(dice, f"octave {octave}", 1 << octave, aspect)
    if dice.chance("ridges", 0.25):
        total = 1 - 2 * total.abs() / total.std()
    total = (total - total.mean()) / total.std()
    return 0.5 + 0.2 * (total.T if dice.chance("upright", 0.5) else total)


def _edges(distance: Tensor, width: float) -> Tensor:
    """0 on a joint, 1 beside it; `distance` and `width` in sides of the pattern."""
    return ((distance - width) * SIDE + 0.5).clamp(0, 1)


def _cells(dice: Dice, columns: int, rows: int, shift: float) -> Tensor:
    """Rows of cells, each with a tone of its own and joints around it."""
    x, y = _coordinates()
    row = (y * rows).floor()
    along = x * columns + shift * row
    column = along.floor()
    tones = dice.uniform("tones", (rows, columns), 0.25, 1.0)
    tone = tones[row.long(), column.long() % columns]
    to_end = (0.5 - (along - column - 0.5).abs()) / columns
    to_side = (0.5 - (y * rows - row - 0.5).abs()) / rows
    joint = _edges(torch.minimum(to_end, to_side), dice.number("joint", 0.003, 0.012))
    grain = 0.16 * (_noise(dice.child(1)) - 0.5)
    return joint * (tone + grain) if dice.chance("dark joints", 0.7) else 1 - joint * tone


def _tiles(dice: Dice) -> Tensor:
    n = 2 + dice.integer("n", 5)
    return _cells(dice, n, n, 0.0)


def _bricks(dice: Dice) -> Tensor:
    n = 2 + dice.integer("n", 3)
    return _cells(dice, n, 2 * n, 0.5)


def _planks(dice: Dice) -> Tensor:
    rows = 4 + 2 * dice.integer("n", 3)
    base = _cells(dice, 1 + dice.integer("columns", 2), rows, 0.5)
    fibre = _lattice_noise(dice, "fibre", 8).repeat(1, 1)
    fine = _lattice_noise(dice, "fine", 64).mean(dim=1, keepdim=True).expand(-1, SIDE)
    return base + 0.1 * fibre + 0.8 * fine


def _voronoi(dice: Dice) -> Tensor:
    """Cells around random points: tones, distances, or the joints between them."""
    n = (8, 16, 32, 64)[dice.integer("n", 4)]
    centre = dice.uniform("centres", (n, 2))
    x, y = _coordinates()
    gap = torch.stack([x, y], dim=-1)[:, :, None] - centre
    distance, which = (gap - gap.round()).norm(dim=-1).topk(2, dim=-1, largest=False)
    tones = dice.uniform("tones", (n,), 0.1, 1.0)[which[..., 0]]
    joint = _edges((distance[..., 1] - distance[..., 0]) / 2, dice.number("joint", 0.003, 0.015))
    look = dice.integer("look", 3)
    if look == 0:
        return distance[..., 0] * math.sqrt(n) * 1.2
    return tones * joint if look == 1 else tones


def _stripes(dice: Dice) -> Tensor:
    """Bands of random width."""
    n = 3 + dice.integer("n", 10)
    ends = dice.uniform("ends", (n,)).sort().values
    tones = dice.uniform("tones", (n + 1,))
    tones[-1] = tones[0]
    x, y = _coordinates()
    wave = 0.02 * torch.sin(2 * math.pi * y * (1 + dice.integer("wave", 3)))
    along = (x + wave * dice.integer("bent", 2)) % 1
    return tones[torch.searchsorted(ends, along.contiguous())]


def _checks(dice: Dice) -> Tensor:
    n = 2 * (1 + dice.integer("n", 4))
    x, y = _coordinates()
    dark = ((x * n).floor() + (y * n).floor()) % 2
    return 0.1 + 0.8 * dark + 0.3 * (_noise(dice.child(1)) - 0.5)


def _dots(dice: Dice) -> Tensor:
    n = 2 + dice.integer("n", 6)
    x, y = _coordinates()
    row = (y * n).floor()
    gap_x = (x * n + 0.5 * (row % 2 if n % 2 == 0 else 0 * row)) % 1 - 0.5
    gap_y = y * n - row - 0.5
    radius = dice.number("radius", 0.15, 0.4)
    return _edges((gap_x.square() + gap_y.square()).sqrt() / n, radius / n)


def _text(dice: Dice) -> Tensor:
    """Lines of random letters: strokes in a 4 x 6 matrix, words, ragged ends, a headline."""
    rows, columns = (8, 16)[dice.integer("rows", 2)], (16, 21, 32)[dice.integer("columns", 3)]
    glyphs = dice.uniform("strokes", (rows, columns, 5, 3)) < 0.55
    glyphs[..., :, 0] |= dice.uniform("stems", (rows, columns, 1)) < 0.6
    is_space = dice.uniform("spaces", (rows, columns)) < 0.17
    ends = dice.uniform("ends", (rows, 1), 0.5, 1.0) * columns
    is_space |= torch.arange(columns) >= ends
    glyphs &= ~is_space[..., None, None]
    ink = F.pad(glyphs.float(), (0, 1, 1, 1))  # rows columns 7 4
    page = ink.transpose(1, 2).reshape(1, 1, rows * 7, columns * 4)
    page = F.interpolate(page, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]
    return 1 - 0.9 * page


def _poster(dice: Dice) -> Tensor:
    """Shapes over one another inside a frame, often with a block of text."""
    x, y = _coordinates()
    page = dice.number("ground") + 0.25 * _lattice_noise(dice, "cloud", 4)
    for i in range(4 + dice.integer("count", 6)):
        cx, cy = dice.number(f"x {i}"), dice.number(f"y {i}")
        angle, size = dice.number(f"angle {i}", 0, math.pi), dice.number(f"size {i}", 0.06, 0.35)
        u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        flat = dice.number(f"flat {i}", 0.2, 1.0)
        round_ = (u.square() + (v / flat).square()).sqrt()
        square = torch.maximum(u.abs(), v.abs() / flat)
        inside = 1 - _edges(round_ if dice.chance(f"round {i}", 0.5) else square, size)
        page = torch.lerp(page, torch.tensor(dice.number(f"tone {i}")), inside)
    if dice.chance("caption", 0.6):
        letters = _text(dice.child(2))
        page = torch.where((y > 0.75) & (x > 0.1) & (x < 0.9), letters, page)
    frame = torch.minimum(torch.minimum(x, 1 - x), torch.minimum(y, 1 - y))
    return torch.lerp(torch.tensor(dice.number("frame")), page, _edges(frame, 0.04))


def _windows(dice: Dice) -> Tensor:
    """Panes in a wall, some lit, with a sill."""
    columns, rows = 2 + dice.integer("columns", 3), 2 + dice.integer("rows", 2)
    x, y = _coordinates()
    u, v = x * columns, y * rows
    tone = dice.uniform("light", (rows, columns))[v.long(), u.long()]
    gap = torch.maximum(
        (u % 1 - 0.5).abs() - dice.number("width", 0.2, 0.36),
        (v % 1 - 0.5).abs() - dice.number("height", 0.25, 0.38),
    )
    pane = ((0.02 - gap) * SIDE / columns).clamp(0, 1)
    rim = ((0.05 - gap) * SIDE / columns).clamp(0, 1)
    bar = _edges((u % 1 - 0.5).abs() / columns, 0.004)
    wall = 0.8 + 0.4 * (_noise(dice.child(1)) - 0.5)
    glass = (0.05 + 0.3 * tone.square()) * bar + 0.5 * (1 - bar)
    return torch.lerp(torch.lerp(wall, torch.tensor(1.0), rim), glass, pane)


FAMILIES: dict[str, tuple[Callable[[Dice], Tensor], int]] = {
    "noise": (_noise, 20),
    "tiles": (_tiles, 10),
    "bricks": (_bricks, 8),
    "planks": (_planks, 8),
    "voronoi": (_voronoi, 14),
    "stripes": (_stripes, 8),
    "checks": (_checks, 4),
    "dots": (_dots, 6),
    "text": (_text, 10),
    "poster": (_poster, 24),
    "windows": (_windows, 10),
}
"""Family -> how one pattern is drawn, and how many there are."""
NUM_PATTERNS = sum(count for _, count in FAMILIES.values())
