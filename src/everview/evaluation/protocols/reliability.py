"""Whether the confidence of the depth head says how large its error is."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.confidence import reliability_curve
from everview.evaluation.protocols.grids import truth_on_network
from everview.evaluation.protocols.scores import Settings
from everview.evaluation.runs.store import StoredClip

FRAMES, PIXELS, BINS = 20, 4096, 12
"""Of a clip, of a frame, of the curve: at most so many, evenly spread."""


class Sample(NamedTuple):
    """Pixels of one frame, on the network's grid."""

    depth: Float[np.ndarray, " n"]
    truth: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]


def confidence_curve(
    clip: EvalClip, stored: StoredClip, settings: Settings, *, each_frame: bool
) -> dict[str, list[float]]:
    """Mean of |p - g| / g by depth confidence, least confident first; empty if none was stored.

    Args:
        clip: with true depth.
        stored: predictions.
        settings: `farthest`, if there is one.
        each_frame: whether each frame has a scale of its own (medians), or all share one.
    """
    dense = [i for i in range(len(clip.frames)) if stored.has(i, "depth_confidence")]
    if not dense:
        return {}
    places = np.linspace(0, len(dense) - 1, min(FRAMES, len(dense))).round().astype(int)
    samples = [_sample(clip, stored, dense[at], settings.get("farthest")) for at in places]
    samples = [sample for sample in samples if len(sample.depth)]
    if not samples:
        return {}
    if not each_frame:
        samples = [Sample(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))]
    errors = np.concatenate([_errors(sample) for sample in samples])
    confidence = np.concatenate([sample.confidence for sample in samples])
    curve = reliability_curve(confidence, errors, bins=BINS)
    return {"confidence": curve.confidence.tolist(), "confidence_error": curve.error.tolist()}


def _sample(clip: EvalClip, stored: StoredClip, index: int, farthest: float | None) -> Sample:
    """Pixels with a truth, a positive prediction and a confidence."""
    depth, confidence = (stored.map(index, name).double() for name in ("depth", "depth_confidence"))
    true = clip.truth(index).depth
    if true is None:
        return Sample(*(np.zeros(0) for _ in range(3)))
    truth, _ = truth_on_network(true, torch.eye(3), stored.maps[index])
    valid = (truth > 0) & (depth > 0) & depth.isfinite() & confidence.isfinite()
    if farthest is not None:
        valid &= truth < farthest
    values = [part[valid].numpy() for part in (depth, truth, confidence)]
    count = len(values[0])
    chosen = np.linspace(0, count - 1, min(PIXELS, count)).round().astype(int)
    return Sample(*(value[chosen] for value in values))


def _errors(sample: Sample) -> Float[np.ndarray, " n"]:
    scale = np.median(sample.truth) / np.median(sample.depth)
    return np.abs(scale * sample.depth - sample.truth) / sample.truth
