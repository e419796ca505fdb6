"""preview.mp4 and preview.png: input beside depth, and the path from above, for people to look at.

Both are made from the recording, a frame at a time, so they can be made again at any time.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from everview.outputs.colormap import colour_depth, inferno
from everview.outputs.files import replace_file
from everview.outputs.ply import read_ply
from everview.outputs.recording import Recording
from everview.outputs.topview import BACKGROUND, TEXT, TopView, text_font

MAX_FRAMES = 600
"""Longer recordings are shown as a time lapse of about so many frames."""
MAX_PANEL_HEIGHT = 360
GAP, TITLE = 12, 26
"""Pixels between panels, and above them for the title."""


class PreviewPainter:
    """Composes one picture per frame: input, depth, path from above."""

    def __init__(self, recording: Recording) -> None:
        """Fix the depth scale and the view from above for the whole recording."""
        self._recording = recording
        height, width = recording.colour(0).shape[:2]
        self._panel_height = MAX_PANEL_HEIGHT
        self._panel_width = round(width * MAX_PANEL_HEIGHT / height)
        self.near, self.far = depth_range(recording)
        points, colours = _cloud(recording.folder)
        poses = recording.world_from_camera
        self._view = TopView(
            poses,
            points,
            colours,
            size=self._panel_height,
            voxel_size=recording.info["points"]["voxel_size"],
        )
        self._timestamps = recording.timestamps

    def paint(self, row: int) -> Image.Image:
        """The picture of frame `row`; both sides are even, as video codecs want them."""
        depth = colour_depth(self._recording.depth(row), near=self.near, far=self.far)
        panels = [
            ("input", self._scaled(self._recording.colour(row))),
            (f"depth {self.near:.3g} - {self.far:.3g} units", self._with_bar(depth)),
            ("path from above", self._view.draw(row + 1)),
        ]
        width = sum(panel.width for _, panel in panels) + GAP * (len(panels) + 1)
        picture = Image.new("RGB", _even(width, self._panel_height + TITLE + GAP), BACKGROUND)
        canvas, left = ImageDraw.Draw(picture), GAP
        for title, panel in panels:
            picture.paste(panel, (left, TITLE))
            canvas.text((left, TITLE / 2), title, TEXT, font=text_font(15), anchor="lm")
            left += panel.width + GAP
        canvas.text((left - GAP, TITLE / 2), self._when(row), TEXT, font=text_font(15), anchor="rm")
        return picture

    def _when(self, row: int) -> str:
        return f"frame {row + 1} of {len(self._timestamps)}"

    def _scaled(self, pixels: np.ndarray) -> Image.Image:
        size = (self._panel_width, self._panel_height)
        return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)

    def _with_bar(self, depth: np.ndarray) -> Image.Image:
        """The depth panel with its colour scale on the right edge: near above, far below."""
        panel = self._scaled(depth)
        steps = inferno(np.linspace(1, 0.05, self._panel_height))
        bar = Image.fromarray(np.repeat(steps[:, None], 8, axis=1))
        panel.paste(bar, (panel.width - 8, 0))
        return panel


def write_preview(recording: Recording) -> list[Path]:
    """Write preview.mp4 and preview.png of a recording that has depth; returns what was written."""
    if not len(recording) or "depth" not in recording.maps:
        return []
    painter = PreviewPainter(recording)
    step = -(-len(recording) // MAX_FRAMES)
    rows = range(0, len(recording), step)
    video, sheet = recording.folder / "preview.mp4", recording.folder / "preview.png"
    rate = _frame_rate(recording.timestamps[::step])
    replace_file(video, lambda path: _encode(path, (painter.paint(row) for row in rows), rate))
    replace_file(sheet, lambda path: _contact_sheet(painter, len(recording)).save(path))
    return [video, sheet]


def depth_range(recording: Recording, *, num_samples: int = 24) -> tuple[float, float]:
    """(near, far) that hold most of the depths of a recording: 1st and 97th percentile."""
    rows = np.unique(np.linspace(0, len(recording) - 1, num_samples).astype(int))
    samples = [recording.depth(row)[::4, ::4].ravel() for row in rows.tolist()]
    depths = np.concatenate(samples)
    depths = depths[np.isfinite(depths)]
    if not len(depths):
        return 1.0, 2.0
    near, far = np.quantile(depths, [0.01, 0.97]).tolist()
    return near, max(far, near * 1.05)


def _contact_sheet(painter: PreviewPainter, num_frames: int) -> Image.Image:
    """Up to five frames below each other, evenly spread, the last one included."""
    rows = np.unique(np.linspace(0, num_frames - 1, 5).astype(int)).tolist()
    pictures = [painter.paint(row) for row in rows]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)), BACKGROUND)
    for position, picture in enumerate(pictures):
        sheet.paste(picture, (0, position * height))
    return sheet


def _encode(path: Path, pictures: Iterator[Image.Image], rate: float) -> None:
    """H.264 in MP4 where the FFmpeg at hand has it, else MPEG-4 part 2."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.width, stream.height = picture.size
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "21", "preset": "superfast"} if codec == "libx264" else {}
                stream.thread_count = 1
            frame = av.VideoFrame.from_image(picture)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frame_rate(timestamps: np.ndarray) -> float:
    """Real time between 5 and 30 pictures per second; 10 where the times are no seconds."""
    if len(timestamps) < 2:
        return 10.0
    gap = float(np.median(np.diff(timestamps)))
    return float(np.clip(1 / gap, 5, 30)) if 0 < gap < 1 else 10.0


def _cloud(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / "points.ply"
    if not path.exists():
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    return read_ply(path)


def _even(width: int, height: int) -> tuple[int, int]:
    return width + width % 2, height + height % 2
