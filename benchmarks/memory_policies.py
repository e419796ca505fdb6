"""League table of memory policies on LongWorld: every policy, several budgets, with full beside.

python -P benchmarks/memory_policies.py [--frames 400] [--walks 4] [--budgets 3 6 12]
                                        [--policies ...] [--seed 0] [-o FILE]
python -P benchmarks/memory_policies.py --data FOLDER -o FILE    sequences of FOLDER instead

Each walk is rendered once and shown to one stream per policy and budget; policies may have options
(`key_diversity:bits=8`). Results are added to the file as they come, and what is in it is not done
again; one file is for one number of frames. Frames of LongWorld have 112 x 140 pixels. FOLDER holds
folders with `sequence.json`, as `everview eval recording` reads them.
`--draw` only draws docs/images/memory_policies.png from the file.
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
from everview.evaluation.metrics.depth import depth_errors
from everview.evaluation.metrics.poses import align_paths, moved_path, rotation_degrees
from everview.geometry.rotations import invert_rigid
from everview.memory import POLICIES
from everview.model.network import Network
from everview.weights.load import load

ROOT = Path(__file__).resolve().parents[1]
DENSE_EVERY = 10
GAPS = (1, 8)
"""Frames between the two of a pair whose relative pose is scored."""


def main() -> int:
    """Return the exit code."""
    options = _options()
    if options.draw:
        _draw(json.loads(options.out.read_text()))
        return 0
    torch.set_num_threads(options.threads)
    network = load(options.model)
    result = _begun(options, network)
    done = {(run["walk"], run["seed"], run["frames"], run["policy"]) for run in result["runs"]}
    for film in _films(options, network):
        frames = len(film.poses)
        texts = [t for t in _policies(options) if (film.name, options.seed, frames, t) not in done]
        images = film.images() if texts else None
        for text in texts:
            assert images is not None, "there is something to do"
            scores = _score(network, film, images, text)
            run = {"walk": film.name, "seed": options.seed, "frames": frames}
            result["runs"].append(run | {"policy": text} | scores)
            result["summary"] = _summary(result["runs"])
            options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
            print(film.name, text, {k: round(scores.get(k, -1), 4) for k in SHOWN}, flush=True)
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
    """z-depth of a frame, 0 where unknown."""


SHOWN = ("ate_share", "rotation_1", "rotation_8", "direction_8", "abs_rel", "abs_rel_stream", "ms")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--walks", type=int, default=8)
    parser.add_argument("--budgets", type=int, nargs="+", default=[3, 6, 12], help="frames' worth")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of real sequences")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument(
        "-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "memory_policies.json"
    )
    return parser.parse_args()


def _begun(options: argparse.Namespace, network: Network) -> dict[str, Any]:
    if options.out.exists():
        return json.loads(options.out.read_text())
    return {
        "format": "everview memory policies",
        "format_version": 1,
        "code": code_version(),
        "model": options.model,
        "machine": describe(network.device),
        "runs": [],
    }


def _films(options: argparse.Namespace, network: Network) -> Iterator[Film]:
    if options.data is not None:
        for folder in sorted(path.parent for path in options.data.glob("*/sequence.json")):
            yield _real(folder, network.input_size)
        return
    choice = Choice(frames=options.frames, seed=options.seed)
    for number, clip in enumerate(clips(Path(), choice)):
        if number < options.walks:
            yield _rendered(clip)


def _rendered(clip: EvalClip) -> Film:
    assert clip.poses is not None, "LongWorld knows them"
    return Film(
        name=clip.name,
        images=lambda: torch.stack([_in_bytes(clip.image(i)) for i in range(len(clip.frames))]),
        poses=clip.poses().double(),
        depth=lambda i: clip.truth(i).depth,
    )


def _real(folder: Path, size: int) -> Film:
    footage = open_footage(folder, size=size)
    depth = footage.depth
    return Film(
        name=footage.name,
        images=lambda: _in_bytes(footage.images),
        poses=footage.world_from_camera.double(),
        depth=lambda i: None if depth is None else depth[i],
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
def _score(network: Network, film: Film, images: Tensor, text: str) -> dict[str, float]:
    """Errors of one stream."""
    poses, depths, seconds = [], [], []
    with network.stream(text) as stream:
        for i, image in enumerate(images):
            started = time.perf_counter()
            pred = stream.step(image.float() / 255)
            seconds.append(time.perf_counter() - started)
            poses.append(torch.as_tensor(pred.world_from_camera)[0, 0].double())
            if i % DENSE_EVERY == 0:
                depths.append(torch.as_tensor(pred.depth)[0, 0].double())
        report = stream.report()
    truth = [film.depth(i) for i in range(0, len(images), DENSE_EVERY)]
    return {
        **_pose_scores(torch.stack(poses), film.poses),
        **_depth_scores(depths, [t.double() for t in truth if t is not None]),
        "cache_bytes": report.cache_bytes,
        "state_bytes": report.state_bytes,
        "ms": 1000 * statistics.median(seconds[len(seconds) // 2 :]),
    }


def _pose_scores(estimated: Tensor, true: Tensor) -> dict[str, float]:
    """Path after Sim(3), and relative poses over a few frames."""
    aligned = moved_path(estimated, align_paths(estimated, true, alignment="sim3"))
    error = (aligned[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
    length = (true[1:, :3, 3] - true[:-1, :3, 3]).norm(dim=-1).sum()
    scores = {"ate_share": float(error.square().mean().sqrt() / length)}
    for gap in GAPS:
        ours, theirs = (invert_rigid(p[:-gap]) @ p[gap:] for p in (estimated, true))
        turned = rotation_degrees(invert_rigid(ours)[:, :3, :3] @ theirs[:, :3, :3])
        cosine = torch.cosine_similarity(ours[:, :3, 3], theirs[:, :3, 3], dim=-1)
        scores[f"rotation_{gap}"] = float(turned.mean())
        scores[f"direction_{gap}"] = float(cosine.clamp(-1, 1).acos().rad2deg().mean())
    return scores


def _depth_scores(depths: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """AbsRel with one median scale per frame, and with one for the stream."""
    if not truth:
        return {}
    each = [
        depth_errors(p, g, alignment="median").abs_rel for p, g in zip(depths, truth, strict=True)
    ]
    whole = depth_errors(torch.stack(depths), torch.stack(truth), alignment="median")
    return {"abs_rel": statistics.fmean(each), "abs_rel_stream": whole.abs_rel}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Policy -> score -> mean over walks and its standard error; walks that all have."""
    by_policy: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for run in runs:
        by_policy.setdefault(run["policy"], {})[(run["walk"], run["seed"])] = run
    most = max(len(found) for found in by_policy.values())
    names = [
        k
        for k, v in max(runs, key=len).items()
        if isinstance(v, float | int) and k not in ("seed", "frames")
    ]
    summary = {}
    for policy, found in by_policy.items():
        if len(found) < most:
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


def _draw(result: dict[str, Any]) -> None:
    """Scores over the bytes of the cache."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {"ate_share": "ATE / path", "rotation_8": "rotation over 8 frames, degrees",
             "abs_rel_stream": "depth, AbsRel"}  # fmt: skip
    figure, axes = plt.subplots(1, len(shown), figsize=(13, 4), constrained_layout=True)
    names = list(dict.fromkeys(text.partition(":")[0] for text in result["summary"]))
    for axis, (score, title) in zip(axes, shown.items(), strict=True):
        axis.set_prop_cycle(color=plt.get_cmap("tab20").colors[::2] + plt.get_cmap("Dark2").colors)
        for number, name in enumerate(names):
            found = [s for t, s in result["summary"].items() if t.partition(":")[0] == name]
            found.sort(key=lambda s: s["cache_bytes"]["mean"])
            axis.plot(
                [s["cache_bytes"]["mean"] / 1e6 for s in found],
                [s[score]["mean"] for s in found],
                marker="os^Dv"[number % 5], label=name,
            )  # fmt: skip
        axis.set(title=title, xlabel="MB of keys and values", xscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(ROOT / "docs" / "images" / "memory_policies.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
