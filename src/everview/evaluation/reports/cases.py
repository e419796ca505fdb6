"""Pictures of the best and the worst clip, from predictions that are still on disk."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from everview.errors import ConfigError, EverviewError, InputError
from everview.evaluation.benchmarks.clip import Choice, EvalClip
from everview.evaluation.benchmarks.registry import benchmark_named
from everview.evaluation.metrics.poses import align_paths, checked_poses, moved_path
from everview.evaluation.protocols.grids import truth_on_network
from everview.evaluation.protocols.poses import true_poses
from everview.evaluation.reports.blocks import Figure
from everview.evaluation.reports.plots import paths
from everview.evaluation.reports.results import ResultFile
from everview.evaluation.runs.store import RunStore, StoredClip
from everview.frames.rgb import rgb_from_picture
from everview.geometry.pixel_map import PixelMap
from everview.outputs.colormap import MISSING, colour_depth, inferno

SHOWN = 3
"""Frames of a clip that are shown."""
LEAST_WIDTH, MOST_WIDTH = 210, 280
"""Pixels of one picture in the sheet; small ones are enlarged by a whole number."""
GAP, BAND = 6, 20
"""Pixels between pictures, and of the band with their names."""
WORST_ERROR = 0.5
"""Relative error of depth with the brightest colour."""
QUALITY = 88
"""Of JPEG."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One clip to show."""

    name: str
    words: str
    """Such as `worst: ate 0.31`."""


def case_pictures(result: ResultFile, cases: Sequence[Case], prefix: str) -> list[Figure]:
    """What can be drawn of some clips: depth beside the truth, and the path of the camera.

    Args:
        result: whose predictions lie beside it, in NAME.predictions.
        cases: clips to show.
        prefix: of the names of the figures.

    Returns:
        No figure of a clip whose predictions are gone; no truth where the data are gone.
    """
    store = RunStore(result.path.with_name(f"{result.path.stem}.predictions"))
    if not (store.folder / "run.json").is_file():
        return []
    clips = _clips(result, store)
    figures = []
    for number, case in enumerate(cases):
        stored = _stored(store, case.name)
        if stored is not None:
            clip = clips.get(case.name)
            drawn = _figures(stored, clip, f"{case.words} ({case.name})", f"{prefix}-{number}")
            figures.extend(drawn)
    return figures


def _clips(result: ResultFile, store: RunStore) -> dict[str, EvalClip]:
    """Name -> clip with its truth; empty if the data are gone."""
    benchmark, data = benchmark_named(result.benchmark), store.data()
    if data is None:
        return {}
    try:
        choice = Choice(**store.facts()["choice"])
        return {clip.name: clip for clip in benchmark.clips(data, choice)}
    except (EverviewError, KeyError, TypeError):
        return {}


def _stored(store: RunStore, name: str) -> StoredClip | None:
    try:
        return store.clip(name).read()
    except InputError:
        return None


def _figures(stored: StoredClip, clip: EvalClip | None, words: str, name: str) -> list[Figure]:
    if clip is not None and clip.frames != stored.frames:
        clip = None
    figures = []
    for draw in (_depth_sheet, _path_plot):
        try:
            figure = draw(stored, clip, words, name)
        except EverviewError:  # the data are damaged, or there is nothing to draw
            continue
        if figure is not None:
            figures.append(figure)
    return figures


def _depth_sheet(stored: StoredClip, clip: EvalClip | None, words: str, name: str) -> Figure | None:
    """Rows of frames: input, true depth, predicted depth, error; as far as they are there."""
    dense = [i for i in range(len(stored.frames)) if stored.has(i, "depth")]
    if not dense:
        return None
    shown = sorted({dense[round(at)] for at in np.linspace(0, len(dense) - 1, SHOWN)})
    rows = [_depth_row(stored, clip, index) for index in shown]
    heads = list(rows[0])
    sheet = _sheet([list(row.values()) for row in rows if list(row) == heads], heads)
    written = io.BytesIO()
    sheet.save(written, "JPEG", quality=QUALITY)
    error = f"; error: |p - g| / g, black 0, bright {WORST_ERROR:g} and more"
    return Figure(
        name=f"{name}-depth", data=written.getvalue(), kind="jpg",
        caption=f"{words}: frames {', '.join(stored.frames[i] for i in shown)}; near is bright, "
        f"far is dark, one scale per frame by medians{error if 'error' in heads else ''}.",
    )  # fmt: skip


def _depth_row(stored: StoredClip, clip: EvalClip | None, index: int) -> dict[str, np.ndarray]:
    """Name -> picture on the network's grid, as bytes H W 3."""
    predicted = stored.map(index, "depth").double()
    if clip is None:
        return {"predicted depth": _coloured(predicted, predicted)}
    pixel_map = stored.maps[index]
    row = {"input": _on_grid(rgb_from_picture(clip.image(index)), pixel_map)}
    depth = clip.truth(index).depth
    if depth is None or not bool((depth > 0).any()):
        return row | {"predicted depth": _coloured(predicted, predicted)}
    true, _ = truth_on_network(depth, torch.eye(3), pixel_map)
    known = (true > 0) & (predicted > 0) & predicted.isfinite()
    if not bool(known.any()):
        raise ConfigError("no pixel has both depths")
    scaled = predicted * (true[known].median() / predicted[known].median())
    error = ((scaled - true).abs() / true).where(known, torch.nan).numpy()
    colours = inferno(np.nan_to_num(error) / WORST_ERROR)
    return row | {
        "true depth": _coloured(true.where(true > 0, torch.nan), true[known]),
        "predicted depth": _coloured(scaled, true[known]),
        "error": np.where(np.isfinite(error)[..., None], colours, MISSING),
    }


def _coloured(depth: Tensor, reference: Tensor) -> np.ndarray:
    """Depth in colours that are spread over the reference."""
    values = reference[torch.isfinite(reference)].numpy()
    near, far = (float(v) for v in np.quantile(values, (0.02, 0.98))) if len(values) else (1, 2)
    near = max(near, 1e-6)
    return colour_depth(depth.numpy(), near=near, far=max(far, 1.01 * near))


def _on_grid(image: Image.Image, pixel_map: PixelMap) -> np.ndarray:
    """A picture as the network saw it."""
    height, width = pixel_map.original_size
    size = round(width * pixel_map.scale[0]), round(height * pixel_map.scale[1])
    canvas = Image.new("RGB", (pixel_map.network_size[1], pixel_map.network_size[0]))
    x, y = (round(value) for value in pixel_map.offset)
    canvas.paste(image.resize(size, Image.Resampling.LANCZOS), (x, y))
    return np.asarray(canvas)


def _sheet(rows: Sequence[Sequence[np.ndarray]], heads: Sequence[str]) -> Image.Image:
    """Pictures in a grid under their names."""
    height, width = rows[0][0].shape[:2]
    factor = min(max(1, -(-LEAST_WIDTH // width)), MOST_WIDTH / width)
    size = round(width * factor), round(height * factor)
    whole = (
        len(heads) * (size[0] + GAP) - GAP,
        BAND + len(rows) * (size[1] + GAP) - GAP,
    )
    sheet = Image.new("RGB", whole, "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(heads):
        x = column * (size[0] + GAP)
        pen.text((x + 1, 2), text, fill=(60, 70, 82), font=ImageFont.load_default(13))
        for row, pictures in enumerate(rows):
            is_smooth = text == "input" or factor < 1
            way = Image.Resampling.LANCZOS if is_smooth else Image.Resampling.NEAREST
            picture = Image.fromarray(pictures[column].astype(np.uint8)).resize(size, way)
            sheet.paste(picture, (x, BAND + row * (size[1] + GAP)))
    return sheet


def _path_plot(stored: StoredClip, clip: EvalClip | None, words: str, name: str) -> Figure | None:
    """The true path and ours after Sim(3), in the plane in which the true one moves most."""
    if clip is None or (clip.poses is None and clip.truth(0).world_from_camera is None):
        return None
    truth, known = true_poses(clip)
    estimated, true = checked_poses(stored.world_from_camera[known], truth)
    similarity = align_paths(estimated, true, alignment="sim3")
    ours = moved_path(estimated, similarity)[:, :3, 3].numpy()
    centres = true[:, :3, 3].numpy()
    middle = centres.mean(axis=0)
    _, _, axes = np.linalg.svd(centres - middle, full_matrices=False)
    plane = axes[:2].T
    if plane.shape[1] < 2:
        return None
    lines = [
        (label, points[:, 0].tolist(), points[:, 1].tolist())
        for label, points in (
            ("true", (centres - middle) @ plane),
            ("ours", (ours - middle) @ plane),
        )
    ]
    return paths(f"{name}-path", lines, f"{words}: path of the camera after Sim(3); dot: begin.")
