"""How long clouds of up to ten million points take to compare, and what voxels change.

python -P benchmarks/point_metrics.py -o benchmarks/results/point_metrics.json

The scene is a procedural room seen in 500 views of 100 x 200 pixels: the true cloud has one point
per pixel, the prediction is the same cloud 0.5 % too large, with 2 cm of noise, in another order.
The tables in docs/metrics.md are written from the result; with --check nothing is measured or
written, and the exit code is 1 where they differ.
"""

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from scipy.spatial import cKDTree

from everview.evaluation.machine import code_version, describe
from everview.evaluation.metrics import CloudErrors, cloud_errors, icp, voxel_means
from everview.world.stream import stream

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- clouds: begin -->\n", "<!-- clouds: end -->\n"
SCALE, NOISE = 1.005, 0.02
NAMES = ("accuracy", "accuracy_median", "completeness", "completeness_median", "chamfer")


@dataclass(frozen=True, kw_only=True)
class PointMetrics:
    """Compare clouds of one scene, whole and thinned, and measure the time."""

    views: int = 500
    """Views of the scene."""
    size: tuple[int, int] = (100, 200)
    """(height, width) of each view in pixels."""
    kind: str = "room"
    """Kind of place."""
    plain: int = 1_000_000
    """Points up to which a plain tree of SciPy is asked too, for its time and the same numbers."""
    normals: int = 1_000_000
    """Points up to which normals are compared and ICP is run too."""
    voxels: tuple[float, ...] = (0.01, 0.02, 0.05)
    """Sides in metres of the voxels that thin both clouds, for comparison."""
    seed: int = 0
    """Of the place, the noise and the order of the points."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path(
        "benchmarks/results/point_metrics.json"
    )
    """JSON file to write."""
    check: bool = False
    """Only compare the page with the file."""

    def run(self) -> int:
        """Measure, print and write; returns the exit code."""
        if self.check:
            return int(_page(json.loads(self.out.read_text())) != PAGE.read_text())
        start = time.perf_counter()
        predicted, true = self._clouds()
        print(f"{len(true)} points in {self.views} views: {time.perf_counter() - start:.0f} s")
        result: dict[str, Any] = {
            "settings": {
                "views": self.views, "size": list(self.size), "kind": self.kind,
                "points": len(true), "scale": SCALE, "noise": NOISE, "seed": self.seed,
                "width": np.ptp(true, axis=0).tolist(),
            }
        }  # fmt: skip
        counts = [n for n in (100_000, 1_000_000) if n < len(true)] + [len(true)]
        result["exact"] = [self._exact(predicted[:n], true[:n]) for n in counts]
        whole = result["exact"][-1]
        result["voxels"] = [self._thinned(predicted, true, side, whole) for side in self.voxels]
        result |= {
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "load": os.getloadavg()[0],
            "machine": describe(),
            "code": code_version(),
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        PAGE.write_text(_page(result))
        print(f"-> {self.out}, {PAGE.name}")
        return 0

    def _clouds(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true points, metres, in two random orders."""
        parts, views = [], 0
        for clip in stream(self.seed, chunk=20, size=self.size, kind=self.kind):
            keep = min(len(clip.points), self.views - views)
            parts.append(clip.points[:keep][clip.valid[:keep]].double().numpy())
            views += keep
            if views == self.views:
                break
        rng = np.random.default_rng(self.seed)
        true = np.concatenate(parts)
        predicted = true[rng.permutation(len(true))] * SCALE
        predicted += rng.normal(0, NOISE, true.shape)
        return predicted, true[rng.permutation(len(true))]

    def _exact(self, predicted: np.ndarray, true: np.ndarray) -> dict[str, Any]:
        seconds, errors = _timed(lambda: cloud_errors(predicted, true, normals=False))
        row: dict[str, Any] = {"points": len(true), "seconds": seconds, "scores": _scores(errors)}
        if len(true) <= self.plain:
            row["plain_seconds"], plain = _timed(lambda: _plain(predicted, true))
            row["difference"] = max(abs(plain[n] - row["scores"][n]) for n in NAMES)
        if len(true) <= self.normals:
            row["seconds_with_normals"], _ = _timed(lambda: cloud_errors(predicted, true))
            row["seconds_of_icp"], found = _timed(lambda: icp(predicted, true, threshold=0.1))
            row["icp_rounds"] = found.rounds
        print(json.dumps(row))
        return row

    def _thinned(
        self, predicted: np.ndarray, true: np.ndarray, side: float, whole: dict[str, Any]
    ) -> dict[str, Any]:
        seconds, clouds = _timed(lambda: (voxel_means(predicted, side), voxel_means(true, side)))
        more, errors = _timed(lambda: cloud_errors(*clouds, normals=False))
        scores = _scores(errors)
        row = {
            "side": side,
            "points": [len(cloud) for cloud in clouds],
            "seconds": seconds + more,
            "scores": scores,
            "relative_difference": {n: scores[n] / whole["scores"][n] - 1 for n in NAMES},
        }
        print(json.dumps(row))
        return row


def _timed(work: Any) -> tuple[float, Any]:  # noqa: ANN401  -- whatever the work returns
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _scores(errors: CloudErrors) -> dict[str, float]:
    return {name: getattr(errors, name) for name in NAMES}


def _plain(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """The same numbers from SciPy's tree as it comes."""
    accuracy = cKDTree(true).query(predicted, workers=-1)[0]
    completeness = cKDTree(predicted).query(true, workers=-1)[0]
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy_median": float(np.median(accuracy)),
        "completeness": float(completeness.mean()),
        "completeness_median": float(np.median(completeness)),
        "chamfer": float(accuracy.mean() + completeness.mean()) / 2,
    }


def _page(result: dict[str, Any]) -> str:
    """docs/metrics.md with the tables of a result."""
    lines = [
        "| points per cloud | seconds | plain SciPy tree | with normals | ICP, rounds |",
        "|---|---|---|---|---|",
    ]
    for row in result["exact"]:
        plain, normals = (
            f"{row[name]:.1f} s" if name in row else ""
            for name in ("plain_seconds", "seconds_with_normals")
        )
        moved = f"{row['seconds_of_icp']:.1f} s, {row['icp_rounds']}" if "icp_rounds" in row else ""
        lines.append(
            f"| {row['points']:,} | {row['seconds']:.1f} | {plain} | {normals} | {moved} |"
        )
    scores = result["exact"][-1]["scores"]
    lines += [
        "",
        "| both clouds thinned to | points | seconds | accuracy | completeness | chamfer |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    names = ("accuracy", "completeness", "chamfer")
    cells = " | ".join(f"{1000 * scores[n]:.2f} mm" for n in names)
    lines.append(
        f"| nothing: exact | {result['exact'][-1]['points']:,} | "
        f"{result['exact'][-1]['seconds']:.1f} | {cells} |"
    )
    for row in result["voxels"]:
        cells = " | ".join(
            f"{1000 * row['scores'][n]:.2f} mm ({row['relative_difference'][n]:+.0%})"
            for n in names
        )
        points = " and ".join(f"{n:,}" for n in row["points"])
        lines.append(
            f"| {100 * row['side']:g} cm voxels | {points} | {row['seconds']:.1f} | {cells} |"
        )
    machine = result["machine"]
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores, load of other programs included "
        f"({result['load']:.1f} at the end); {result['settings']['views']} views of a procedural "
        f"{result['settings']['kind']}; peak {result['peak_memory_bytes'] / 2**30:.1f} GiB.",
    ]
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.exit(tyro.cli(PointMetrics).run())
