"""Point maps against the truth, in the frame of the first camera: 7-Scenes, NRGBD, ETH3D, DTU.

Source: evaluation protocol of CUT3R (2501.12387) and StreamVGGT (2507.11539), see
`docs/evaluation.md`.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.clouds import CloudErrors, cloud_errors
from everview.evaluation.metrics.point_maps import align_by_medians, central_window
from everview.evaluation.metrics.registration import icp
from everview.evaluation.metrics.voxels import thinned
from everview.evaluation.protocols.grids import check_size, truth_on_network
from everview.evaluation.protocols.scores import ClipScores, Meaning, Settings
from everview.evaluation.runs.store import StoredClip
from everview.geometry.alignment import umeyama
from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid

ALIGNMENTS = ("median shift and scale", "sim3", "none")
"""Names of all ways to align point maps before ICP; `none`: both in their first camera's frame."""
UNIT = "unit of the truth"
MEANINGS = {
    "accuracy": Meaning(meaning="mean distance from predicted to true points", unit=UNIT),
    "accuracy_median": Meaning(meaning="median of the same", unit=UNIT),
    "completeness": Meaning(meaning="mean distance from true to predicted points", unit=UNIT),
    "completeness_median": Meaning(meaning="median of the same", unit=UNIT),
    "chamfer": Meaning(meaning="mean of accuracy and completeness", unit=UNIT),
    "normal_consistency": Meaning(
        meaning="mean |cosine| between normals of nearest points", better="higher"
    ),
    "normal_consistency_median": Meaning(meaning="median of the same", better="higher"),
}


class Views(NamedTuple):
    """All views of a clip on the network's grid, cut to the window; masked pixels count."""

    predicted: list[Float[Tensor, "H W 3"]]
    true: list[Float[Tensor, "H W 3"]]
    masks: list[Bool[Tensor, "H W"]]


def defaults(_: str, preset: str) -> dict[str, object]:
    """Settings of published tables."""
    return {
        "alignment": ALIGNMENTS[0],
        "crop": 224,
        "icp_threshold": 0.1,
        "icp_rounds": 30,
        "largest_cloud": None if preset == "paper" else 1_000_000,
        "unit": "m",
        "average": "clips",
    }


def score_points(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """Align, cut, refine by ICP, then compare the clouds.

    Raises:
        ConfigError: if no pixel has truth and a finite prediction, or the truth lacks cameras.
    """
    views = _views(clip, stored)
    bad = sum(int((~p.isfinite().all(dim=-1) & m).sum()) for p, m in _pairs(views))
    views = views._replace(
        masks=[m & p.isfinite().all(dim=-1) for p, m in _pairs(views)]
    )  # both clouds lose these pixels
    if not any(bool(mask.any()) for mask in views.masks):
        raise ConfigError("no pixel has both a true depth and a finite predicted point")
    alignment = settings["alignment"]
    scale, views = _by_medians(views) if alignment == ALIGNMENTS[0] else (1.0, views)
    predicted, true = _clouds(views, settings["crop"])
    if alignment == "sim3":
        similarity = umeyama(torch.from_numpy(predicted), torch.from_numpy(true))
        predicted, scale = similarity.apply(torch.from_numpy(predicted)).numpy(), similarity.scale
    seed = int(settings["seed"])
    predicted, true = (thinned(c, settings["largest_cloud"], seed) for c in (predicted, true))
    details = {"scale": scale, "points": len(true), "pixels_without_prediction": bad}
    if settings["icp_threshold"] is not None:
        found = icp(
            predicted, true, threshold=settings["icp_threshold"], rounds=settings["icp_rounds"]
        )
        predicted = found.points
        details |= {"icp_fitness": found.fitness, "icp_rmse": found.rmse}
    return ClipScores(scores=cloud_scores(cloud_errors(predicted, true)), details=details)


def cloud_scores(errors: CloudErrors) -> dict[str, float]:
    """The scores of `MEANINGS`, normals if they were compared."""
    return {n: value for n in MEANINGS if (value := getattr(errors, n)) is not None}


def _pairs(views: Views) -> list[tuple[Tensor, Tensor]]:
    return list(zip(views.predicted, views.masks, strict=True))


def _views(clip: EvalClip, stored: StoredClip) -> Views:
    """Predicted and true points, each in the frame of its own first camera."""
    first: Tensor | None = None
    views = Views([], [], [])
    for index in range(len(clip.frames)):
        truth = clip.truth(index)
        if truth.depth is None or truth.intrinsics is None or truth.world_from_camera is None:
            raise ConfigError(f"frame {clip.frames[index]} lacks depth, intrinsics or pose")
        pixel_map = stored.maps[index]
        check_size(truth.depth, pixel_map, clip.frames[index])
        depth, K = truth_on_network(truth.depth, truth.intrinsics, pixel_map)
        pose = truth.world_from_camera.double()
        first = pose if first is None else first
        views.true.append(points_from_depth(depth, invert_rigid(pose) @ first, K))
        views.predicted.append(stored.points(index).double())
        views.masks.append(depth > 0)
    return views


def _by_medians(views: Views) -> tuple[float, Views]:
    """Both clouds where they are compared, and the scale that this took."""
    found = align_by_medians(
        _masked(views.predicted, views.masks), _masked(views.true, views.masks)
    )
    moved = [found.predicted(points) for points in views.predicted]
    return found.scale, Views(moved, [found.true(points) for points in views.true], views.masks)


def _masked(maps: list[Tensor], masks: list[Tensor]) -> Float[Tensor, "n 3"]:
    return torch.cat([values[mask] for values, mask in zip(maps, masks, strict=True)])


def _clouds(views: Views, crop: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both clouds, of the pixels of the central window.

    Raises:
        ConfigError: if nothing is valid there.
    """
    windows = [_window(mask, crop) for mask in views.masks]
    masks = [mask & window for mask, window in zip(views.masks, windows, strict=True)]
    if not any(bool(mask.any()) for mask in masks):
        raise ConfigError(f"no pixel of the central {crop} x {crop} pixels is valid")
    return _masked(views.predicted, masks).numpy(), _masked(views.true, masks).numpy()


def _window(mask: Tensor, crop: int | None) -> Bool[Tensor, "H W"]:
    if crop is None:
        return torch.ones_like(mask)
    window = torch.zeros_like(mask)
    window[central_window((mask.shape[0], mask.shape[1]), crop)] = True
    return window
