"""What quantization costs in accuracy: schemes and methods on held-out procedural clips, paired.

python -P benchmarks/quantization_accuracy.py [--part PART] [--clips 200] [--frames 4]
                                              [--only SCHEME:METHOD ...] [-o FILE]

Calibration clips come from the seeds of training, evaluation clips from the held-out ones. Each
clip is shown to the float network and to every quantized one (a later call may show fewer); ratios
of means come with 95 % intervals under resampling of clips. Results are added to the file as they
come; what is in it is done again only if it was shown fewer clips.

`methods`   every method of the field at several bits, on the bundled model
`channels`  the same on a copy whose channels are of very unequal size; its function is exactly that
            of the model (see `everview.quantization.outliers`), its grids are not
`tokens`    on a copy whose special tokens are far larger than patches
`outliers`  on one with both
`sampling`  calibration clips chosen by chance, filter, clusters or both, several draws each
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.camera_scores import camera_scores
from everview.evaluation.clip_truth import world_truth
from everview.evaluation.machine import code_version, describe
from everview.evaluation.metrics.depth import depth_errors
from everview.evaluation.procedural import native_size
from everview.evaluation.summaries import interval, statistics_of
from everview.model.network import Network
from everview.quantization import METHODS, kernels_used, quantize, select_clips
from everview.quantization.calibration import check_clips, survey_clips
from everview.quantization.outliers import Outliers, token_sizes, with_outliers
from everview.weights.hashes import weights_hash
from everview.weights.load import load
from everview.world.clip import WorldSequence, sequence, training_seed

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 10_000_000
"""Of the held-out clips, as in `everview eval procedural`."""
AT_ONCE = 4
"""Clips that go through a network together."""
FIELD = (
    "everview", "nearest", "quarot", "quantvggt-initial", "gptq", "everview-search", "smoothquant",
    "quantvggt-code-initial",
)  # fmt: skip
METHODS_PART = (
    *(f"{scheme}:{method}" for method in FIELD[:4] for scheme in ("w8a8", "w4a8", "w4a4")),
    *(f"{scheme}:{method}" for method in FIELD[4:] for scheme in ("w4a8", "w4a4")),
    "w8a8:uncalibrated", "w4a4:everview-full", "w4a4:quantvggt", "w4a16:everview", "w4a16:nearest",
    "w8a16:nearest", "w4a4:everview-64", "w4a8:everview-full", "w4a4:everview-learned",
    "w4a4:quantvggt:signs:1", "w4a4:everview-learned:signs:1", "fp8:everview", "fp8:nearest",
)  # fmt: skip
"""`signs:1`: once more, with other signs of the rotations."""
OUTLIERS_PART = tuple(
    f"{scheme}:{method}"
    for scheme in ("w4a4", "w8a8", "w4a8")
    for method in ("everview", "nearest", "quarot", "smoothquant", "quantvggt-initial",
                   "quantvggt-code-initial", "everview-search")
)  # fmt: skip
OUTLIERS: dict[str, tuple[Outliers, ...]] = {
    "channels": ("channels",), "tokens": ("tokens",), "outliers": ("channels", "tokens"),
}  # fmt: skip
"""Part -> what its copy has."""
OUTLIER_SEED = 800_000
"""First one of the clips by which special tokens are told from patches."""
CHOICES = ("random", "nfds", "filter", "cluster")
SCORES = ("auc30", "auc5", "delta1", "abs_rel", "rotation_degrees", "direction_degrees")
"""Against the truth."""
DEVIATIONS = ("depth_off", "rotation_off_degrees", "translation_off")
"""Against the float network: mean |difference| / depth; rotation of cameras; distance of their
centres over their mean distance from the first one."""


def main() -> int:
    """Return the exit code."""
    options = _options()
    torch.set_num_threads(options.threads)
    network = load("mini", device="cpu")
    weights = weights_hash(network)
    network = _without_heads(network)
    facts = {}
    if options.part in OUTLIERS:
        network, facts = with_outliers_of(network, options.part)
    clips = _held_out(network, options)
    result = _begun(options, network, weights)
    if facts:
        result["special_over_patches"] = facts
    exact = _shown(network, clips)
    if not _is_done(result, "float", options.clips):
        result["runs"]["float"] = {"scores": _scores(exact, clips)}
        _write(options.out, result)
    pool = _calibration(network, options)
    for name in options.only or _wanted(options.part):
        if _is_done(result, name, options.clips):
            continue
        started = time.perf_counter()
        made = _made(network, name, pool, options)
        seconds = time.perf_counter() - started
        run = {
            "code": code_version(),
            "seconds_to_quantize": round(seconds, 1),
            "kernels": kernels_used(made),
        }
        found = _shown(made, clips)
        run["scores"] = _scores(found, clips)
        off = [_deviation(a, b) for a, b in zip(found, exact, strict=True)]
        run["off"] = {name: statistics_of([row[name] for row in off]) for name in DEVIATIONS}
        run["against_float"] = _against(run["scores"], result["runs"]["float"]["scores"])
        result["runs"][name] = run
        _write(options.out, result)
        shown = {k: v["ratio"] for k, v in run["against_float"].items()}
        print(name, shown, {k: round(v["mean"], 5) for k, v in run["off"].items()}, flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("methods", *OUTLIERS, "sampling"), default="methods")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--calibration-clips", type=int, default=12)
    parser.add_argument("--calibration-frames", type=int, default=8)
    parser.add_argument("--pool", type=int, default=100, help="candidates of `sampling`")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="such as w4a8:everview")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    if options.part == "sampling" and not options.only:
        options.only = [
            f"w4a4:everview-search:{choice}:{draw}"
            for choice in CHOICES
            for draw in range(options.draws)
        ]
    if options.out is None:
        options.out = ROOT / "benchmarks/results" / f"quantization_{options.part}.json"
    return options


def _wanted(part: str) -> tuple[str, ...]:
    return OUTLIERS_PART if part in OUTLIERS else METHODS_PART


def _without_heads(network: Network) -> Network:
    """Points and tracks are not scored here."""
    network.point_head = network.track_head = None
    network.config = replace(network.config, point_head=None, track_head=None)
    return network


def with_outliers_of(network: Network, part: str) -> tuple[Network, dict[str, Any]]:
    """The copy of a part, and how much larger special tokens are in it: of layers behind norms."""
    size = native_size(network)
    clips = [sequence(training_seed(OUTLIER_SEED + i), 4, size=size).images for i in range(6)]
    made = with_outliers(network, clips, OUTLIERS[part])
    facts = {}
    for name, one in (("before", network), ("after", made)):
        sizes = token_sizes(one, clips)
        behind = sorted(v for layer, v in sizes.items() if layer.endswith(("qkv", "fc1")))
        facts[name] = {
            "least": round(behind[0], 2),
            "median": round(behind[len(behind) // 2], 2),
            "most": round(behind[-1], 2),
        }
    return made, facts


def _held_out(network: Network, options: argparse.Namespace) -> list[WorldSequence]:
    size = native_size(network)
    return [sequence(FIRST_SEED + i, options.frames, size=size) for i in range(options.clips)]


def _calibration(network: Network, options: argparse.Namespace) -> list[Tensor]:
    count = options.pool if options.part == "sampling" else options.calibration_clips
    size = native_size(network)
    return [
        sequence(training_seed(900_000 + i), options.calibration_frames, size=size).images
        for i in range(count)
    ]


def _made(network: Network, name: str, pool: list[Tensor], options: argparse.Namespace) -> Network:
    scheme, method, *choice = name.split(":")
    if method == "uncalibrated":
        return quantize(network, scheme)
    if not choice:
        return quantize(network, scheme, pool, method=METHODS[method])
    if choice[0] == "signs":
        drawn = replace(METHODS[method], seed=int(choice[1]))
        return quantize(network, scheme, pool, method=drawn)
    survey = _survey(network, pool)
    picked = select_clips(
        *survey, choice=choice[0], clusters=4, per_cluster=options.calibration_clips // 4,
        keep_fraction=0.5, seed=int(choice[1]),
    )  # fmt: skip
    return quantize(network, scheme, [pool[i] for i in picked], method=METHODS[method])


_SURVEYED: list[tuple[Tensor, Tensor, Tensor]] = []


def _survey(network: Network, pool: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    if not _SURVEYED:
        _SURVEYED.append(survey_clips(network, check_clips(network, pool)))
    return _SURVEYED[0]


Shown = tuple[Tensor, Tensor]
"""Depth (s H W) and poses (s 3 4) of one clip."""


def _shown(network: Network, clips: list[WorldSequence]) -> list[Shown]:
    """What a network says of each clip."""
    results: list[Shown] = []
    for start in range(0, len(clips), AT_ONCE):
        some = clips[start : start + AT_ONCE]
        found = network(torch.stack([clip.images for clip in some]))
        results += zip(torch.as_tensor(found.depth), found.world_from_camera, strict=True)
    return results


def _scores(shown: list[Shown], clips: list[WorldSequence]) -> dict[str, list[float | None]]:
    """Score -> value of each clip."""
    rows: list[dict[str, float]] = []
    for (depth, poses), clip in zip(shown, clips, strict=True):
        errors = depth_errors(depth, clip.depth, mask=clip.valid)
        cameras = camera_scores(poses, world_truth(clip))
        rows.append({**cameras, "delta1": errors.delta1, "abs_rel": errors.abs_rel})
    return {
        score: [None if row[score] != row[score] else round(row[score], 7) for row in rows]
        for score in SCORES
    }


def _deviation(found: Shown, exact: Shown) -> dict[str, float]:
    """How far a clip's predictions are from the float network's."""
    relative = found[1][:, :3, :3].transpose(1, 2) @ exact[1][:, :3, :3]
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    centres, others = exact[1][:, :3, 3], found[1][:, :3, 3]
    return {
        "depth_off": float(((found[0] - exact[0]).abs() / exact[0]).mean()),
        "rotation_off_degrees": float(torch.rad2deg(cosine.clamp(-1, 1).acos()).mean()),
        "translation_off": float((others - centres).norm(dim=-1).mean())
        / float((centres[1:] - centres[0]).norm(dim=-1).mean()),
    }


def _against(
    ours: dict[str, list[float | None]], floats: dict[str, list[float | None]]
) -> dict[str, Any]:
    """Ratio of the means with its interval, and the paired difference.

    Of clips that both have: the first ones, if ours are fewer.
    """
    compared = {}
    for score in SCORES:
        pairs = [
            (a, b) for a, b in zip(ours[score], floats[score], strict=False) if None not in (a, b)
        ]
        a, b = torch.tensor(pairs, dtype=torch.float64).T
        compared[score] = {
            "mean": round(float(a.mean()), 6),
            "float": round(float(b.mean()), 6),
            "ratio": round(float(a.mean() / b.mean()), 5),
            "interval": interval(lambda i, a=a, b=b: a[i].mean(-1) / b[i].mean(-1), len(pairs)),
            "difference": statistics_of((a - b).tolist()),
        }
    return compared


def _begun(options: argparse.Namespace, network: Network, weights: str) -> dict[str, Any]:
    if options.out.is_file():
        begun: dict[str, Any] = json.loads(options.out.read_text())
        if begun.get("weights_sha256") != weights:
            raise SystemExit(f"{options.out} is of other weights of mini: give -o")
        return begun
    kept = {k: v for k, v in vars(options).items() if k not in ("out", "only", "clips")}
    return {
        "benchmark": f"quantization_accuracy, {options.part}",
        "code": code_version(),
        "weights_sha256": weights,
        "machine": describe(network.device),
        "settings": kept,
        "runs": {},
    }


def _is_done(result: dict[str, Any], name: str, clips: int) -> bool:
    run = result["runs"].get(name)
    return run is not None and len(run["scores"]["auc30"]) >= clips


def _write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, allow_nan=False) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
