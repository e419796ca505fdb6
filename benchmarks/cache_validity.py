"""Is the cache as good as computing the past anew? A stream against one causal pass over all.

python -P benchmarks/cache_validity.py [--model mini] [--frames 64] [-o FILE]

For each frame the difference of depth, points and poses between a stream and the causal network
that sees all frames at once; with one camera cache per refinement round (ours), with one that all
rounds share (published inference), in float32 and bfloat16. Writes
benchmarks/results/cache_validity.json and docs/images/cache_validity.png.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from everview.evaluation.machine import code_version, describe
from everview.evaluation.procedural import native_size
from everview.geometry.prediction import Prediction
from everview.weights.load import load
from everview.world.clip import sequence

ROOT = Path(__file__).resolve().parents[1]
CASES: tuple[tuple[str, Literal["per_round", "shared"]], ...] = (
    ("float32", "per_round"),
    ("float32", "shared"),
    ("bfloat16", "per_round"),
)


def main() -> int:
    """Return the exit code."""
    options = _options()
    torch.set_num_threads(options.threads)
    reference = load(options.model, precision="float32")
    size = native_size(reference)
    images = sequence(10_000_000, options.frames, size=size).images
    whole = reference(images[None])
    curves = {}
    for precision, cache in CASES:
        network = load(options.model, precision=precision)
        stream = network.stream("full", camera_cache=cache)
        steps = [_differences(stream.step(image), whole, i) for i, image in enumerate(images)]
        curves[f"{precision}, {cache}"] = {
            name: [step[name] for step in steps] for name in steps[0]
        }
        print(
            precision,
            cache,
            {name: f"{max(v):.2e}" for name, v in curves[f"{precision}, {cache}"].items()},
        )
    result = {
        "format": "everview cache validity",
        "format_version": 1,
        "code": code_version(),
        "model": options.model,
        "size": list(size),
        "frames": options.frames,
        "reference": "one causal pass over all frames in float32",
        "differences": curves,
        "machine": describe(reference.device),
    }
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    _draw(result, ROOT / "docs" / "images" / "cache_validity.png")
    print(options.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "cache_validity.json"
    )
    return parser.parse_args()


def _differences(step: Prediction, whole: Prediction, frame: int) -> dict[str, float]:
    """Largest differences of one frame: depth and points relative, the pose encoding absolute."""
    depth, all_depth = _dense(step, "depth"), _dense(whole, "depth")
    points, all_points = _dense(step, "points"), _dense(whole, "points")
    distance = all_points[:, frame].norm(dim=-1)
    pose, all_poses = torch.as_tensor(step.pose_encoding), torch.as_tensor(whole.pose_encoding)
    return {
        "depth": float(((depth[:, 0] - all_depth[:, frame]) / all_depth[:, frame]).abs().max()),
        "points": float(((points[:, 0] - all_points[:, frame]).norm(dim=-1) / distance).max()),
        "pose encoding": float((pose[:, 0] - all_poses[:, frame]).abs().max()),
    }


def _dense(prediction: Prediction, name: str) -> torch.Tensor:
    return torch.as_tensor(getattr(prediction, name)).double()


def _draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True, sharey=True)
    for axis, name in zip(axes, ("depth", "points", "pose encoding"), strict=True):
        for case, values in result["differences"].items():
            axis.plot(values[name], label=case)
        axis.set(title=name, xlabel="frame", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("largest difference from one pass")
    axes[-1].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
