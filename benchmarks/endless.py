"""Ten thousand frames through one stream: time, memory and drift, flat or not.

python -P benchmarks/endless.py [--policies auto ...] [--frames 10000] [--threads 1] [-o FILE]
python -P benchmarks/endless.py --draw      draws docs/images/endless.png from the file

Every tenth frame is also shown to a control: a stream as it was at frame 600, taken anew from its
file every 1,000 frames, so that it never grows old. A machine that becomes slower slows both. Each
policy is a run of its own; those that are in the file are not done again. The walk is LongWorld's
`corridor-loop`, frames of 112 x 140 pixels, rendered by another process: what that one takes is not
counted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from everview.evaluation.benchmarks.clip import Choice, EvalClip
from everview.evaluation.benchmarks.longworld import clips
from everview.evaluation.machine import code_version, describe
from everview.evaluation.metrics.poses import align_paths, moved_path
from everview.model.network import Network
from everview.model.stream import Stream
from everview.pipeline.peak import PeakMemory
from everview.weights.hashes import weights_hash
from everview.weights.load import load

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "endless.json"
WALK = "corridor-loop"
CONTROL_FROM = 600
RENEWED_EVERY = 1000
"""Frames after which the control is taken anew."""
AHEAD = 50
"""Frames that are rendered at a time."""
CONTROL_EVERY = 10
FEWEST = 2000
WINDOWS = ((500, 1500), (-1000, None))
"""Frames that are compared: early, and the last thousand."""


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--policies", nargs="+", default=["auto"])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.frames < FEWEST:
        parser.error(f"--frames must be {FEWEST} or more: early and late frames are compared")
    if options.draw:
        _draw(json.loads(options.out.read_text()))
        return 0
    torch.set_num_threads(options.threads)
    network = load(options.model)
    result = _begun(options, network)
    done = {run["policy"] for run in result["runs"]}
    for policy in options.policies:
        if policy not in done:
            result["runs"].append(_Run(network, policy, options).result())
            options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    return 0


def _begun(options: argparse.Namespace, network: Network) -> dict[str, Any]:
    if options.out.exists():
        begun = json.loads(options.out.read_text())
        settings = {run["frames"]: (begun["model"], begun["seed"]) for run in begun["runs"]}
        if settings and settings != {options.frames: (options.model, options.seed)}:
            sys.exit(f"{options.out} is of another model, seed or length ({settings}): give -o")
        if begun.get("weights_sha256") != weights_hash(network):
            sys.exit(f"{options.out} is of other weights of {options.model}: give -o")
        return begun
    return {
        "format": "everview endless",
        "format_version": 1,
        "code": code_version(),
        "model": options.model,
        "weights_sha256": weights_hash(network),
        "walk": WALK,
        "seed": options.seed,
        "machine": describe(network.device),
        "runs": [],
    }


def _walk(frames: int, seed: int) -> EvalClip:
    return next(c for c in clips(Path(), Choice(frames=frames, seed=seed)) if c.name == WALK)


def _render(frames: int, seed: int, start: int) -> np.ndarray:
    """The next frames of the walk, in the process that renders."""
    torch.set_num_threads(1)
    _WALKS.setdefault((frames, seed), _walk(frames, seed))
    stop = min(frames, start + AHEAD)
    return np.stack([_WALKS[frames, seed].image(i).numpy() for i in range(start, stop)])


_WALKS: dict[tuple[int, int], EvalClip] = {}


def _images(frames: int, seed: int) -> Iterator[torch.Tensor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        starts = range(0, frames, AHEAD)
        waiting = deque(pool.submit(_render, frames, seed, start) for start in starts[:2])
        for start in [*starts[2:], None, None]:
            if not waiting:
                return
            yield from torch.from_numpy(waiting.popleft().result())
            if start is not None:
                waiting.append(pool.submit(_render, frames, seed, start))


class _Run:
    """One policy over the whole walk."""

    def __init__(self, network: Network, policy: str, options: argparse.Namespace) -> None:
        self._network, self._policy, self._options = network, policy, options
        self._peak = PeakMemory(network.device)
        self._folder = tempfile.TemporaryDirectory()
        self._seconds: list[float] = []
        self._control: list[tuple[int, float, float]] = []  # frame, ours, the control's
        self._state: list[int] = []
        self._peaks: list[int] = []
        self._poses = torch.zeros(options.frames, 4, 4, dtype=torch.float64)

    @torch.no_grad()
    def result(self) -> dict[str, Any]:
        """Run; plain values."""
        count = self._options.frames
        bin_size = count // 100
        control: Stream | None = None
        with self._network.stream(self._policy) as stream:
            for i, image in enumerate(_images(count, self._options.seed)):
                if i == CONTROL_FROM:
                    stream.save(self._state_file)
                if i % RENEWED_EVERY == CONTROL_FROM:
                    control = self._network.resume(self._state_file)
                if i % bin_size == 0:
                    self._peak.reset()
                seconds = self._step(stream, image, keep=True)
                self._seconds.append(seconds)
                if control is not None and i % CONTROL_EVERY == 0:
                    self._control.append((i, seconds, self._step(control, image, keep=False)))
                self._state.append(stream.report().state_bytes)
                if i % bin_size == bin_size - 1:
                    self._peaks.append(self._peak.peak)
                    recent = statistics.median(self._seconds[-bin_size:])
                    print(i + 1, f"{1000 * recent:.1f} ms, {self._peaks[-1]:,} bytes", flush=True)
            report = stream.report()
        return {
            "policy": self._policy,
            "chosen": report.policy,
            "frames": count,
            "evictions_per_layer": report.evictions,
            "cache_bytes": report.cache_bytes,
            **self._flatness(),
            **self._drift(),
            "curve": self._curve(bin_size),
        }

    @property
    def _state_file(self) -> Path:
        return Path(self._folder.name) / "state.safetensors"

    def _step(self, stream: Stream, image: torch.Tensor, *, keep: bool) -> float:
        started = time.perf_counter()
        prediction = stream.step(image)
        seconds = time.perf_counter() - started
        if keep:
            self._poses[len(self._seconds)] = prediction.world_from_camera[0, 0]
        return seconds

    def _flatness(self) -> dict[str, Any]:
        """The last thousand frames over early ones, and the slope of time over frames."""
        ours, per_bin = np.array(self._seconds), len(self._seconds) // 100
        early, late = (slice(*window) for window in WINDOWS)
        frames, mine, control = (np.array(v) for v in zip(*self._control, strict=True))
        ratios = mine / control
        is_early = (frames >= WINDOWS[0][0]) & (frames < WINDOWS[0][1])
        is_late = frames >= len(ours) - 1000
        peaks = np.array(self._peaks)
        bins = [
            peaks[slice(*(None if e is None else int(e / per_bin) for e in w))] for w in WINDOWS
        ]
        slope, error = _slope(frames / 1000, ratios)
        return {
            "late_over_early": {
                "median_seconds": float(np.median(ours[late]) / np.median(ours[early])),
                "median_seconds_over_control": float(
                    np.median(ratios[is_late]) / np.median(ratios[is_early])
                ),
                "peak_resident_bytes": float(bins[1].max() / bins[0].max()),
                "state_bytes": max(self._state[late]) / max(self._state[early]),
            },
            "slope_of_seconds_over_control": {
                "per_1000_frames": slope,
                "standard_error": error,
                "interval": [slope - 1.96 * error, slope + 1.96 * error],
            },
            "median_seconds": float(np.median(ours)),
        }

    def _drift(self) -> dict[str, Any]:
        """ATE after one Sim(3) over the first n frames, as a share of their path."""
        clip = _walk(self._options.frames, self._options.seed)
        assert clip.poses is not None, "LongWorld knows them"
        true, estimated = clip.poses().double(), self._poses
        shares = {}
        for n in (100, 300, 1000, 3000, 10_000):
            if n > len(true):
                break
            part, theirs = estimated[:n], true[:n]
            aligned = moved_path(part, align_paths(part, theirs, alignment="sim3"))
            error = (aligned[:, :3, 3] - theirs[:, :3, 3]).norm(dim=-1).square().mean().sqrt()
            spread = (theirs[:, :3, 3] - theirs[:, :3, 3].mean(dim=0)).norm(dim=-1)
            length = (theirs[1:, :3, 3] - theirs[:-1, :3, 3]).norm(dim=-1).sum()
            shares[str(n)] = {
                "ate_over_path": float(error / length),
                "ate_over_spread": float(error / spread.square().mean().sqrt()),
            }
        return {"drift": shares}

    def _curve(self, bin_size: int) -> list[dict[str, float]]:
        """One point per hundredth of the walk."""
        points = []
        for k in range(100):
            part = slice(k * bin_size, (k + 1) * bin_size)
            ratios = [m / c for f, m, c in self._control if part.start <= f < part.stop]
            point: dict[str, float] = {
                "frame": part.stop,
                "median_seconds": statistics.median(self._seconds[part]),
                "state_bytes": max(self._state[part]),
                "peak_resident_bytes": self._peaks[k],
            }
            if ratios:
                point["over_control"] = statistics.median(ratios)
            points.append(point)
        return points


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares, and the standard error of the slope; outliers beyond 3 deviations left out."""
    deviation = 1.4826 * np.median(np.abs(y - np.median(y)))
    kept = np.abs(y - np.median(y)) <= 3 * deviation
    x, y = x[kept] - x[kept].mean(), y[kept]
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float((rest @ rest / (len(x) - 2) / (x @ x)) ** 0.5)


def _draw(result: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    for run in result["runs"]:
        curve = [point for point in run["curve"] if "over_control" in point]
        frames = [point["frame"] for point in curve]
        axes[0].plot(frames, [p["over_control"] for p in curve], label=run["chosen"], marker=".")
        axes[1].plot(frames, [p["state_bytes"] / 1e6 for p in curve])
        axes[2].plot(frames, [p["peak_resident_bytes"] / 1e6 for p in curve])
    axes[0].set(title="seconds per frame over those of the control", ylim=(0.8, 1.2))
    axes[0].legend(fontsize=7)
    axes[1].set(title="MB of the stream's state", ylim=(0, None))
    axes[2].set(title="MB of the process at its peak", ylim=(0, None))
    for axis in axes:
        axis.set(xlabel="frame")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(ROOT / "docs" / "images" / "endless.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
