"""Where errors of depth lie, in rough shapes or in things; and what other frames do for depth.

python -P benchmarks/depth_detail.py [MODEL ...] [--clips 60] [-o FILE]

Held-out procedural clips, streaming. Maps of log depth are split by a Gaussian blur within what is
known; three mixtures are scored as the benchmark scores depth: the model's rough shape with the
truth's details, the truth's rough shape with the model's details, and the truth without details.
Then every frame is shown alone, as if it were the first, and scored beside the same frame in its
stream, each after its own ratio of medians, as a frame alone has a scale of its own.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

import everview
from everview.evaluation.machine import code_version, describe
from everview.evaluation.procedural import ProceduralSettings, native_size
from everview.evaluation.show import show
from everview.geometry.prediction import Prediction
from everview.model.network import Network
from everview.weights.hashes import weights_hash
from everview.world.clip import sequence

OUT = Path(__file__).resolve().parent / "results" / "depth_detail.json"
BLURS = (4, 7, 14, 28)
"""Standard deviations in pixels; a patch has 14."""
FRAMES = 8

Maps = Float[np.ndarray, "s H W"]
Mask = Bool[np.ndarray, "s H W"]


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["mini"])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "format": "everview depth detail", "format_version": 1, "code": code_version(),
        "machine": describe(torch.device("cpu")),
        "settings": {"clips": options.clips, "frames": FRAMES, "blurs": BLURS},
        "runs": [_measure(everview.load(name), options.clips) for name in options.models],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _measure(network: Network, clips: int) -> dict[str, Any]:
    first = ProceduralSettings().first_seed
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(first, first + clips):
        clip = sequence(seed, FRAMES, size=native_size(network))
        alone = [show(network, image)[0] for image in clip.images.split(1)]
        streamed, single = (_depth(found) for found in (show(network, clip.images), alone))
        truth, valid = clip.depth.numpy(), clip.valid.numpy()
        scores = _mixtures(streamed, truth, valid) | {
            "frames in the stream": _by_frame(streamed, truth, valid),
            "frames alone": _by_frame(single, truth, valid),
        }
        for kind in ("all", clip.kind):
            found.setdefault(kind, []).append(scores)
    kinds = {
        kind: {"clips": len(rows), "abs_rel": {k: fmean(r[k] for r in rows) for k in rows[0]}}
        for kind, rows in found.items()
    }
    print({kind: facts["abs_rel"] for kind, facts in kinds.items()})
    return {"model": {"weights_sha256": weights_hash(network)}, "kinds": kinds}


def _depth(predictions: list[Prediction]) -> Maps:
    return np.concatenate([step.depth.flatten(0, -3).numpy() for step in predictions])


def _by_frame(depth: Maps, truth: Maps, valid: Mask) -> float:
    """Mean AbsRel of frames, each after its own ratio of medians."""
    known = [i for i in range(len(truth)) if valid[i].any()]
    right = np.log(np.where(valid, truth, 1.0))
    return fmean(_abs_rel(np.log(depth[i]), right[i], valid[i]) for i in known)


def _mixtures(depth: Maps, truth: Maps, valid: Mask) -> dict[str, float]:
    """AbsRel of the model and of the mixtures, by the blur that splits them."""
    ours, right = np.log(depth), np.log(np.where(valid, truth, 1.0))
    scores = {"model": _abs_rel(ours, right, valid)}
    for blur in BLURS:
        rough, truly_rough = _blurred(ours, valid, blur), _blurred(right, valid, blur)
        mixtures = {
            "rough shape": rough + right - truly_rough,
            "details": truly_rough + ours - rough,
            "no details": truly_rough,
        }
        for name, mixture in mixtures.items():
            scores[f"{name}, {blur}"] = _abs_rel(mixture, right, valid)
    return scores


def _blurred(maps: Maps, valid: Mask, blur: float) -> Maps:
    def filtered(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values.astype(np.float64), sigma=(0, blur, blur))

    return filtered(np.where(valid, maps, 0.0)) / np.maximum(filtered(valid), 1e-6)


def _abs_rel(ours: np.ndarray, right: np.ndarray, valid: np.ndarray) -> float:
    """Of logarithms, after the ratio of the medians."""
    depth, truth = np.exp(ours[valid]), np.exp(right[valid])
    return float((np.abs(depth * np.median(truth) / np.median(depth) - truth) / truth).mean())


if __name__ == "__main__":
    sys.exit(main())
