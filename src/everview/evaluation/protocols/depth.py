"""Depth against the truth: each frame by itself, or a sequence under one scale."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.depth import DepthErrors, depth_errors, mean_depth_errors
from everview.evaluation.protocols.grids import check_size, depth_on_image
from everview.evaluation.protocols.reliability import confidence_curve
from everview.evaluation.protocols.scores import ClipScores, Meaning, Settings
from everview.evaluation.runs.store import StoredClip

MEANINGS = {
    "abs_rel": Meaning(meaning="mean of |p - g| / g"),
    "sq_rel": Meaning(meaning="mean of (p - g)^2 / g", unit="unit of the truth"),
    "rmse": Meaning(meaning="root of the mean of (p - g)^2", unit="unit of the truth"),
    "log_rmse": Meaning(meaning="root of the mean of (ln p - ln g)^2"),
    "delta1": Meaning(meaning="share of pixels within a factor 1.25", better="higher"),
    "delta2": Meaning(meaning="share of pixels within a factor 1.25^2", better="higher"),
    "delta3": Meaning(meaning="share of pixels within a factor 1.25^3", better="higher"),
}
SMALLEST = 1e-5

Maps = tuple[Float[Tensor, "H W"], Float[Tensor, "H W"], Bool[Tensor, "H W"]]
"""Prediction, truth and pixels that count, on the image's grid."""


def defaults(task: str, preset: str) -> dict[str, object]:
    """Settings of published tables, or their exact counterparts."""
    is_paper = preset == "paper"
    video = "weiszfeld" if is_paper else "scale"
    return {
        "alignment": "median" if task == "depth_single" else video,
        "resample": "bicubic" if is_paper else "bilinear",
        "smallest": None if is_paper else SMALLEST,
        "farthest": None,
        "average": "valid pixels",
    }


def score_single(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """Each frame has an alignment of its own; frames are weighted by valid pixels.

    Raises:
        ConfigError: if a prediction is not finite, or no frame has a valid pixel.
    """
    found, empty = [], 0
    for index in range(len(clip.frames)):
        p, g, mask = _maps(clip, stored, settings, index)
        if not mask.any():
            empty += 1
            continue
        found.append(_errors(p, g, mask, settings))
    curves = confidence_curve(clip, stored, settings, each_frame=True)
    return _result(mean_depth_errors(found), {"frames_without_truth": empty}, curves)


def score_video(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """One alignment for all frames.

    Raises:
        ConfigError: if a prediction is not finite, no pixel is valid, or frames differ in size.
    """
    parts = [_maps(clip, stored, settings, index) for index in range(len(clip.frames))]
    if len({part[0].shape for part in parts}) > 1:
        raise ConfigError("frames differ in size, so that they are no video")
    p, g, mask = (torch.stack(maps) for maps in zip(*parts, strict=True))
    curves = confidence_curve(clip, stored, settings, each_frame=False)
    return _result(_errors(p, g, mask, settings), {}, curves)


def _maps(clip: EvalClip, stored: StoredClip, settings: Settings, index: int) -> Maps:
    truth = clip.truth(index).depth
    if truth is None:
        raise ConfigError(f"frame {clip.frames[index]} has no true depth")
    pixel_map = stored.maps[index]
    check_size(truth, pixel_map, clip.frames[index])
    bicubic = settings["resample"] == "bicubic"
    depth, seen = depth_on_image(stored.map(index, "depth"), pixel_map, bicubic=bicubic)
    mask = seen & (truth > 0)
    if settings["farthest"] is not None:
        mask &= truth < settings["farthest"]
    return depth.float(), truth, mask


def _errors(p: Tensor, g: Tensor, mask: Tensor, settings: Settings) -> DepthErrors:
    smallest, farthest = settings["smallest"], settings["farthest"]
    clip = None
    if smallest is not None or farthest is not None:
        low = -float("inf") if smallest is None else smallest
        clip = (low, float("inf") if farthest is None else farthest)
    return depth_errors(p, g, mask=mask, alignment=settings["alignment"], clip=clip)


def _result(
    errors: DepthErrors, details: dict[str, object], curves: dict[str, list[float]]
) -> ClipScores:
    return ClipScores(
        scores={name: getattr(errors, name) for name in MEANINGS},
        weight=float(errors.num_pixels),
        details={"scale": errors.scale, "valid_pixels": errors.num_pixels, **details},
        curves=curves,
    )
