"""Loss curves as a picture, drawn with nothing but Pillow so that every run has one."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from everview.training.run.record import Line, flat, read_lines

CURVES = "losses.png"
PANEL = (360, 210)
"""Width and height of one curve in pixels."""
COLUMNS = 3
MARGIN = (52, 26, 12, 22)
"""Left, top, right, bottom."""
MAX_POINTS = 400
"""Points of a curve; longer logs are thinned."""
INK, GRID, CURVE = (40, 44, 52), (225, 228, 234), (32, 96, 190)
SHOWN = ("total", "gradient", "rate", "terms/")
"""Beginnings of the names that are drawn."""

Point = tuple[float, float]


def draw_curves(log: Path, picture: Path) -> None:
    """Draw every loss of a log over its steps; a log without lines gives no picture."""
    curves = _curves(list(read_lines(log)))
    if not curves:
        return
    rows = math.ceil(len(curves) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PANEL[0], rows * PANEL[1]), "white")
    for number, (name, points) in enumerate(curves.items()):
        place = (number % COLUMNS * PANEL[0], number // COLUMNS * PANEL[1])
        sheet.paste(_panel(name, points), place)
    partial = picture.with_suffix(".tmp")
    sheet.save(partial, format="PNG")
    partial.replace(picture)


def _curves(lines: Sequence[Line]) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for line in lines:
        for name, value in flat(line).items():
            if name.startswith(SHOWN):
                curves.setdefault(name.removeprefix("terms/"), []).append((line["step"], value))
    return {name: points[:: -(-len(points) // MAX_POINTS)] for name, points in curves.items()}


def _panel(name: str, points: list[Point]) -> Image.Image:
    """One curve; on a logarithmic axis where all values allow it."""
    panel = Image.new("RGB", PANEL, "white")
    canvas = ImageDraw.Draw(panel)
    font = ImageFont.load_default(11)
    is_log = min(y for _, y in points) > 0
    heights = [math.log10(y) if is_log else y for _, y in points]
    low, high = min(heights), max(heights)
    high = high if high - low > 1e-9 else low + 1
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    left, top, right, bottom = MARGIN[0], MARGIN[1], PANEL[0] - MARGIN[2], PANEL[1] - MARGIN[3]
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        value = low + share * (high - low)
        canvas.line([(left, y), (right, y)], fill=GRID)
        text = f"{10**value if is_log else value:.3g}"
        canvas.text((left - 5, y), text, fill=INK, font=font, anchor="rm")
    for step, anchor, x in ((first, "la", left), (last, "ra", right)):
        canvas.text((x, bottom + 5), f"{step:.0f}", fill=INK, font=font, anchor=anchor)
    canvas.text((left, 6), f"{name}{' (log)' if is_log else ''}", fill=INK, font=font)
    path = [
        (left + (step - first) / (last - first) * (right - left),
         bottom - (y - low) / (high - low) * (bottom - top))
        for (step, _), y in zip(points, heights, strict=True)
    ]  # fmt: skip
    if len(path) > 1:
        canvas.line(path, fill=CURVE, width=2, joint="curve")
    else:
        canvas.point(path, fill=CURVE)
    return panel
