"""League table of memory policies: drift, depth, clouds, bytes and time of every policy and budget.

python -P benchmarks/memory_policies.py [--frames 1000] [--walks corridor-steady ...]
                                        [--policies key_diversity:bits=8 ...] [--budgets 2 10]
                                        [--seed 0] [-o FILE]
python -P benchmarks/memory_policies.py --data FOLDER -o FILE    sequences of FOLDER instead
python -P benchmarks/memory_policies.py --time [-o FILE]         on a quiet machine: ms per frame
python -P benchmarks/memory_policies.py --draw [-o FILE]         plots in docs/images

Each walk of LongWorld (112 x 140 pixels) is rendered once and shown to one stream per policy and
budget, which is in frames' worth of tokens. Results are added to the file as they come, and what is
in it is not done again: a grid can be filled in several runs. FOLDER holds folders with
`sequence.json`, as `everview eval recording` reads them. Clouds take every tenth frame and second
pixel, are laid on the truth by a Sim(3) of corresponding points, and keep a point per 5 cm.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everview.evaluation.benchmarks.clip import Choice, EvalClip
from everview.evaluation.benchmarks.longworld import clips
from everview.evaluation.footage import open_footage
from everview.evaluation.machine import code_version, describe
from everview.evaluation.metrics.clouds import cloud_errors
from everview.evaluation.metrics.depth import depth_errors
from everview.evaluation.metrics.drift import drift_over_time
from everview.evaluation.metrics.poses import align_paths, moved_path, rotation_degrees
from everview.evaluation.metrics.voxels import thinned, voxel_means
from everview.geometry.alignment import umeyama
from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid
from everview.memory import POLICIES
from everview.model.network import Network
from everview.weights.hashes import weights_hash
from everview.weights.load import load

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "memory_policies.json"
DENSE_EVERY = 10
GAPS = (1, 8)
"""Frames between the two of a pair whose relative pose is scored."""
WALKS = ("corridor-steady", "corridor-loop", "street-drive")
WINDOWS = 20
"""Stretches of a walk whose errors are kept one by one."""
VOXEL = 0.05
LARGEST_CLOUD = 100_000
TIMED = 24
"""Frames that are timed, once the memory is full."""
DRAWN = 10
"""The budget whose drift is drawn."""


def main() -> int:
    """Return the exit code."""
    options = _options()
    if options.draw:
        _draw(json.loads(options.out.read_text()), options.out.stem)
        return 0
    torch.set_num_threads(options.threads)
    network = load(options.model)
    result = _begun(options, network)
    if options.time:
        result["timings"] = _timings(network, list(result["summary"]))
        _write(result, options.out)
        return 0
    done = {(run["walk"], run["seed"], run["frames"], run["policy"]) for run in result["runs"]}
    for film in _films(options, network):
        frames = len(film.poses)
        result.setdefault("still", {})[f"{film.name} {options.seed} {frames}"] = _still(film.poses)
        texts = [t for t in _policies(options) if (film.name, options.seed, frames, t) not in done]
        images = film.images() if texts else None
        for text in texts:
            assert images is not None, "there is something to do"
            scores = _score(network, film, images, text)
            run = {"walk": film.name, "seed": options.seed, "frames": frames}
            run["commit"] = code_version()["commit"]
            result["runs"].append(run | {"policy": text} | scores)
            result["summary"] = _summary(result["runs"])
            _write(result, options.out)
            print(film.name, text, {k: round(scores.get(k, -1), 4) for k in SHOWN}, flush=True)
    _write(result, options.out)
    return 0


@dataclass(frozen=True, kw_only=True)
class Film:
    """A walk of LongWorld or a real sequence."""

    name: str
    images: Callable[[], Tensor]
    """n 3 H W, uint8."""
    poses: Tensor
    """n 4 4, world_from_camera, float64."""
    depth: Callable[[int], Tensor | None]
    """z-depth of a frame, H W, 0 where unknown."""
    intrinsics: Callable[[int], Tensor]
    """K of a frame, 3 3."""


SHOWN = ("ate_share", "rotation_8", "abs_rel", "abs_rel_stream", "chamfer")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--walks", nargs="+", default=list(WALKS))
    parser.add_argument("--budgets", type=int, nargs="+", default=[2, 10], help="frames' worth")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of real sequences")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    return parser.parse_args()


def _write(result: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def _begun(options: argparse.Namespace, network: Network) -> dict[str, Any]:
    if options.out.exists():
        begun = json.loads(options.out.read_text())
        lengths = {run["frames"] for run in begun["runs"]}
        if options.data is None and lengths - {options.frames}:
            sys.exit(f"{options.out} is of {max(lengths)} frames, not {options.frames}: give -o")
        if begun["model"] != options.model:
            sys.exit(f"{options.out} is of {begun['model']}, not {options.model}: give -o")
        if begun.get("weights_sha256") != weights_hash(network):
            sys.exit(f"{options.out} is of other weights of {options.model}: give -o")
        return begun
    return {
        "format": "everview memory policies",
        "format_version": 2,
        "code": code_version(),
        "model": options.model,
        "weights_sha256": weights_hash(network),
        "machine": describe(network.device),
        "runs": [],
    }


def _films(options: argparse.Namespace, network: Network) -> Iterator[Film]:
    if options.data is not None:
        for folder in sorted(path.parent for path in options.data.glob("*/sequence.json")):
            yield _real(folder, network.input_size)
        return
    choice = Choice(frames=options.frames, seed=options.seed)
    found = {clip.name: clip for clip in clips(Path(), choice)}
    for name in options.walks:
        yield _rendered(found[name])


def _rendered(clip: EvalClip) -> Film:
    assert clip.poses is not None, "LongWorld knows them"
    return Film(
        name=clip.name,
        images=lambda: torch.stack([_in_bytes(clip.image(i)) for i in range(len(clip.frames))]),
        poses=clip.poses().double(),
        depth=lambda i: _of(clip, i, "depth"),
        intrinsics=lambda i: _of(clip, i, "intrinsics"),
    )


def _of(clip: EvalClip, index: int, name: str) -> Tensor:
    found = getattr(clip.truth(index), name)
    assert found is not None, "LongWorld knows it"
    return found


def _real(folder: Path, size: int) -> Film:
    footage = open_footage(folder, size=size)
    depth = footage.depth
    return Film(
        name=footage.name,
        images=lambda: _in_bytes(footage.images),
        poses=footage.world_from_camera.double(),
        depth=lambda i: None if depth is None else depth[i],
        intrinsics=lambda i: footage.intrinsics[i],
    )


def _in_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _policies(options: argparse.Namespace) -> Iterator[str]:
    for policy in options.policies:
        name, _, rest = policy.partition(":")
        if name == "full":
            yield name
            continue
        for budget in options.budgets:
            yield f"{name}:frames={budget}" + (f",{rest}" if rest else "")


@torch.no_grad()
def _score(network: Network, film: Film, images: Tensor, text: str) -> dict[str, Any]:
    """Errors of one stream."""
    poses = []
    dense: dict[int, tuple[Tensor, Tensor]] = {}
    with network.stream(text) as stream:
        for i, image in enumerate(images):
            is_dense = i % DENSE_EVERY == 0
            pred = stream.step(image.float() / 255, dense=is_dense)
            poses.append(torch.as_tensor(pred.world_from_camera)[0, 0].double())
            if is_dense:
                maps = (torch.as_tensor(m)[0, 0].clone() for m in (pred.depth, pred.points))
                dense[i] = next(maps), next(maps)[::2, ::2]
        report = stream.report()
    truth = {i: depth.double() for i in dense if (depth := film.depth(i)) is not None}
    return {
        **_pose_scores(torch.stack(poses), film.poses),
        **_depth_scores([dense[i][0].double() for i in truth], list(truth.values())),
        **_cloud_scores(film, {i: points for i, (_, points) in dense.items()}, truth),
        "cache_bytes": report.cache_bytes,
        "state_bytes": report.state_bytes,
    }


@torch.no_grad()
def _timings(network: Network, texts: list[str]) -> dict[str, float]:
    """Policy -> median ms of a step with a full memory; random pictures."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((TIMED, 3, 112, 140), generator=generator)
    found = {}
    for text in texts:
        if text == "full":
            continue  # never is full
        with network.stream(text) as stream:
            while not stream.report().evictions:
                stream.step(images[stream.num_frames % TIMED])
            seconds = []
            for image in images:
                started = time.perf_counter()
                stream.step(image)
                seconds.append(time.perf_counter() - started)
        found[text] = 1000 * statistics.median(seconds)
    return found


def _pose_scores(estimated: Tensor, true: Tensor) -> dict[str, Any]:
    """Path after Sim(3), relative poses over a few frames, and both over time."""
    aligned = moved_path(estimated, align_paths(estimated, true, alignment="sim3"))
    error = (aligned[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
    length = (true[1:, :3, 3] - true[:-1, :3, 3]).norm(dim=-1).sum()
    scores: dict[str, Any] = {"ate_share": float(error.square().mean().sqrt() / length)}
    for gap in GAPS:
        ours, theirs = (invert_rigid(p[:-gap]) @ p[gap:] for p in (estimated, true))
        turned = rotation_degrees(invert_rigid(ours)[:, :3, :3] @ theirs[:, :3, :3])
        cosine = torch.cosine_similarity(ours[:, :3, 3], theirs[:, :3, 3], dim=-1)
        scores[f"rotation_{gap}"] = float(turned.mean())
        scores[f"direction_{gap}"] = float(cosine.clamp(-1, 1).acos().rad2deg().mean())
    over_time = drift_over_time(estimated, true, window=len(true) / WINDOWS)
    scores["drift"] = {
        "position_share": (over_time.position / float(length)).tolist(),
        f"rotation_{GAPS[-1]}": [float(part.mean()) for part in turned.tensor_split(WINDOWS)],
    }
    return scores


def _still(true: Tensor) -> float:
    """ATE / path of a camera that never moves: all that a Sim(3) has to offer."""
    centres = true[:, :3, 3]
    spread = (centres - centres.mean(dim=0)).norm(dim=-1).square().mean().sqrt()
    return float(spread / (centres[1:] - centres[:-1]).norm(dim=-1).sum())


def _depth_scores(depths: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """AbsRel with one median scale per frame, and with one for the stream."""
    if not truth:
        return {}
    each = [
        depth_errors(p, g, alignment="median").abs_rel for p, g in zip(depths, truth, strict=True)
    ]
    whole = depth_errors(torch.stack(depths), torch.stack(truth), alignment="median")
    return {"abs_rel": statistics.fmean(each), "abs_rel_stream": whole.abs_rel}


def _cloud_scores(
    film: Film, dense: dict[int, Tensor], truth: dict[int, Tensor]
) -> dict[str, float]:
    """Distances between the predicted and the true cloud, in the unit of the truth."""
    ours, theirs = [], []
    for i, depth in truth.items():
        pose, camera = invert_rigid(film.poses[i]), film.intrinsics(i).double()
        true, known = points_from_depth(depth, pose, camera)[::2, ::2], depth[::2, ::2] > 0
        ours.append(dense[i].double()[known])
        theirs.append(true[known])
    if not theirs:
        return {}
    predicted, true = torch.cat(ours), torch.cat(theirs)
    predicted = umeyama(predicted, true).apply(predicted)
    clouds = (
        thinned(voxel_means(cloud.numpy(), VOXEL), LARGEST_CLOUD, 0) for cloud in (predicted, true)
    )
    errors = cloud_errors(*clouds, workers=1)
    return {
        "accuracy": errors.accuracy,
        "completeness": errors.completeness,
        "chamfer": errors.chamfer,
        "normal_consistency": float(errors.normal_consistency or 0.0),
    }


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Policy -> score -> mean over walks and its standard error, for those that saw all walks."""
    by_policy: dict[str, dict[tuple[str, int, int], dict[str, Any]]] = {}
    for run in runs:
        by_policy.setdefault(run["policy"], {})[(run["walk"], run["seed"], run["frames"])] = run
    every_walk = {walk for found in by_policy.values() for walk in found}
    names = [
        k
        for k, v in max(runs, key=len).items()
        if isinstance(v, float | int) and k not in ("seed", "frames")
    ]
    summary = {}
    for policy, found in by_policy.items():
        if set(found) < every_walk:
            continue
        values = {n: [run[n] for run in found.values() if n in run] for n in names}
        summary[policy] = {
            n: {
                "mean": statistics.fmean(v),
                "standard_error": statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else None,
            }
            for n, v in values.items()
        } | {"walks": len(found)}
    return summary


def _draw(result: dict[str, Any], name: str) -> None:
    """Scores over the bytes of the cache, and drift over frames."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {"ate_share": "ATE / path", "rotation_8": "rotation over 8 frames, degrees",
             "abs_rel_stream": "depth, AbsRel"}  # fmt: skip
    figure, axes = plt.subplots(1, len(shown), figsize=(14, 4), layout="constrained")
    families = list(dict.fromkeys(_family(text) for text in result["summary"]))
    colours = plt.get_cmap("tab20").colors[::2] + plt.get_cmap("Dark2").colors[:-1]  # one grey
    for axis, (score, title) in zip(axes, shown.items(), strict=True):
        axis.set_prop_cycle(color=colours)
        for number, family in enumerate(families):
            found = [s for t, s in result["summary"].items() if _family(t) == family]
            found.sort(key=lambda s: s["cache_bytes"]["mean"])
            axis.plot(
                [s["cache_bytes"]["mean"] / 1e6 for s in found],
                [s[score]["mean"] for s in found],
                marker="os^Dv"[number % 5], label=family,
            )  # fmt: skip
        axis.set(title=title, xlabel="MB of keys and values", xscale="log")
        axis.grid(visible=True, alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.savefig(ROOT / "docs" / "images" / f"{name}.png", dpi=110)
    _draw_drift(result, name)


def _draw_drift(result: dict[str, Any], name: str) -> None:
    """Distance from the true path, and rotation error, over the share of the walk that is over."""
    from matplotlib import pyplot as plt

    shown = {"position_share": "distance from the true path / its length",
             "rotation_8": "rotation over 8 frames, degrees"}  # fmt: skip
    walks = list(dict.fromkeys(run["walk"] for run in result["runs"]))
    figure, axes = plt.subplots(
        len(shown), len(walks), figsize=(4.4 * len(walks), 7), layout="constrained", sharex=True
    )
    texts = [t for t in result["summary"] if t == "full" or t.endswith(f"frames={DRAWN}")]
    for row, (score, title) in zip(axes, shown.items(), strict=True):
        for axis, walk in zip(row, walks, strict=True):
            axis.set_prop_cycle(color=plt.get_cmap("tab20").colors)
            for run in result["runs"]:
                if run["walk"] == walk and run["policy"] in texts and run["seed"] == 0:
                    values = run["drift"][score]
                    frames = [(i + 0.5) * run["frames"] / len(values) for i in range(len(values))]
                    axis.plot(frames, values, label=run["policy"], linewidth=1)
            axis.set(title=walk, xlabel="frame")
            axis.grid(visible=True, alpha=0.3)
        row[0].set_ylabel(title)
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=7)
    figure.savefig(ROOT / "docs" / "images" / f"{name}_drift.png", dpi=110)


def _family(text: str) -> str:
    """A policy with its bits, without its budget."""
    name, _, options = text.partition(":")
    kept = [o for o in options.split(",") if o and not o.startswith("frames=")]
    return ":".join([name, ",".join(kept)]) if kept else name


if __name__ == "__main__":
    sys.exit(main())
