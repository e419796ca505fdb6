"""The path from above: where the camera went, over the fused cloud, with a scale bar."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (17, 19, 24)
FAINT, TEXT, PATH_COLOUR, CAMERA_COLOUR = (
    (62, 68, 80),
    (205, 210, 220),
    (255, 170, 60),
    (255, 255, 255),
)
MARGIN = 0.08
"""Share of the panel left free on each side."""


class TopView:
    """Draws onto a square panel: world x to the right, world z (ahead of the first camera) up."""

    def __init__(
        self,
        path: Float[np.ndarray, "n 4 4"],
        points: Float[np.ndarray, "m 3"],
        colours: UInt8[np.ndarray, "m 3"],
        *,
        size: int,
        voxel_size: float = 0.0,
    ) -> None:
        """Fit the whole path and the bulk of the cloud into `size` by `size` pixels.

        Args:
            path: world_from_camera of every frame.
            points: fused cloud in the same world.
            voxel_size: distance of neighbouring points, so that surfaces are drawn without gaps.
        """
        self.size = size
        self._path = path[np.isfinite(path).all(axis=(1, 2))]
        low, high = _extent(self._path[:, [0, 2], 3], points[:, [0, 2]])
        self.units_per_pixel = float((high - low).max()) / (size * (1 - 2 * MARGIN))
        self._centre = (low + high) / 2
        self._point_width = int(np.clip(np.ceil(voxel_size / self.units_per_pixel), 1, 5))
        self._base = self._draw_base(points, colours)

    def draw(self, num_frames: int) -> Image.Image:
        """The panel when `num_frames` frames have passed."""
        panel = self._base.copy()
        canvas = ImageDraw.Draw(panel)
        past = self._path[: max(1, num_frames)]
        _draw_line(canvas, self._pixels(past[:, [0, 2], 3]), PATH_COLOUR, width=self._width(200))
        canvas.polygon(self._camera(past[-1]), outline=CAMERA_COLOUR, width=2)
        return panel

    def _draw_base(
        self, points: Float[np.ndarray, "m 3"], colours: UInt8[np.ndarray, "m 3"]
    ) -> Image.Image:
        panel = Image.fromarray(self._splat(points, colours))
        canvas = ImageDraw.Draw(panel)
        _draw_line(canvas, self._pixels(self._path[:, [0, 2], 3]), FAINT, width=1)
        self._draw_scale_bar(canvas)
        return panel

    def _splat(
        self, points: Float[np.ndarray, "m 3"], colours: UInt8[np.ndarray, "m 3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Mean colour of the points above each pixel, dimmed where they are few."""
        corners = np.floor(self._pixels(points[:, [0, 2]]) - (self._point_width - 1) / 2)
        sums = np.zeros((self.size**2, 4))  # red, green, blue, count
        for offset in np.ndindex(self._point_width, self._point_width):
            u, v = (corners + offset).T
            inside = (u >= 0) & (u < self.size) & (v >= 0) & (v < self.size)
            cell = (v * self.size + u)[inside].astype(np.int64)
            for channel in range(3):
                weights = colours[inside, channel]
                sums[:, channel] += np.bincount(cell, weights, minlength=self.size**2)
            sums[:, 3] += np.bincount(cell, minlength=self.size**2)
        count = sums[:, 3:]
        mean = sums[:, :3] / np.maximum(count, 1)
        strength = 0.8 * count / (count + 0.7)
        blend = np.array(BACKGROUND) * (1 - strength) + mean * strength
        return np.rint(blend).astype(np.uint8).reshape(self.size, self.size, 3)

    def _draw_scale_bar(self, canvas: ImageDraw.ImageDraw) -> None:
        length = _round_length(self.units_per_pixel * self.size / 4)
        left, bottom = self.size * 0.05, self.size * 0.95
        right = left + length / self.units_per_pixel
        canvas.line([(left, bottom), (right, bottom)], fill=TEXT, width=self._width(180))
        canvas.text(
            (left, bottom - self.size * 0.015), f"{length:g} units", TEXT,
            font=text_font(self.size // 24), anchor="ls",
        )  # fmt: skip

    def _camera(self, pose: Float[np.ndarray, "4 4"]) -> list[tuple[float, float]]:
        """The frustum seen from above, as a triangle of fixed size on the panel."""
        reach = self.units_per_pixel * self.size * 0.07
        corners = np.array([[0, 0, 0], [-0.45, 0, 1], [0.45, 0, 1]]) * reach
        in_world = corners @ pose[:3, :3].T + pose[:3, 3]
        return [(float(u), float(v)) for u, v in self._pixels(in_world[:, [0, 2]])]

    def _pixels(self, xz: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        offset = (xz - self._centre) / self.units_per_pixel * [1, -1]
        return np.asarray(offset + self.size / 2)

    def _width(self, share: int) -> int:
        return max(2, self.size // share)


@lru_cache
def text_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, about `size` pixels high."""
    return ImageFont.load_default(max(9, size))


def _extent(
    path: Float[np.ndarray, "n 2"], points: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Corners of a rectangle around the whole path and the middle nine tenths of the points."""
    corners = [path.min(axis=0), path.max(axis=0)] if len(path) else [np.zeros(2)]
    if len(points):
        corners += list(np.quantile(points.astype(np.float64), [0.03, 0.97], axis=0))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    smallest = max(1e-6, float((high - low).max()) * 0.05)
    return low - smallest, high + smallest


def _draw_line(
    canvas: ImageDraw.ImageDraw,
    pixels: Float[np.ndarray, "n 2"],
    colour: tuple[int, int, int],
    *,
    width: int,
) -> None:
    if len(pixels) > 1:
        canvas.line([(float(u), float(v)) for u, v in pixels], colour, width=width, joint="curve")


def _round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= length * 1.0001)
