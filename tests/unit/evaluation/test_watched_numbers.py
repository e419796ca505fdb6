"""Scores of one predictor with known faults, on generated folders: a metric that moves turns red.

`watched_numbers.json` is a snapshot of our own output, no oracle (those are in test_benchmarks and
golden/metrics). After a change that is meant to move a number:
`EVERVIEW_WRITE_NUMBERS=1 pytest tests/unit/evaluation/test_watched_numbers.py`, and a line under
"Numbers" in the changelog.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import LAYOUT_OF, SIZE, WorldPredictor, world_clips

NUMBERS = Path(__file__).with_name("watched_numbers.json")
TOLERANCE = 2e-4
"""Relative: other processors round differently, and nearest neighbours may change places."""
WATCHED = ("7scenes", "eth3d", "sintel-depth", "kitti-video", "co3d-pose", "tum-pose", "long3d")


def _fault(values, index, count):
    """Waves in depth and points, a slow drift of scale and heading; by formula, without dice."""
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    wave = 1 + 0.05 * torch.sin(0.7 * u + 0.4 * v + index).double()
    drift = 1 + 0.01 * index
    values["depth"] = values["depth"] * wave * drift
    values["points"] = values["points"] * (wave * drift)[..., None]
    angle = torch.tensor(0.03 * index).double()
    c, s = angle.cos(), angle.sin()
    zero, one = c * 0, c * 0 + 1
    turn = torch.stack([c, zero, s, zero, one, zero, -s, zero, c]).reshape(3, 3)
    values["pose"][:3, :3] = values["pose"][:3, :3] @ turn
    values["pose"][:3, 3] = values["pose"][:3, 3] * drift + 0.02 * torch.sin(
        torch.tensor([1.3, 2.1, 0.7]).double() * index
    )


def _measure(name, preset, tmp_path):
    sequences = world_clips(LAYOUT_OF[name])
    LAYOUTS[LAYOUT_OF[name]](tmp_path / "data", sequences)
    settings = RunSettings(
        benchmark=BENCHMARKS[name], data=tmp_path / "data", store=tmp_path / "predictions",
        choice=Choice(stride=2 if name == "7scenes" else None, preset=preset),
    )  # fmt: skip
    first = {"sintel": 1, "kitti": 5}.get(name.split("-")[0], 0)
    predictor = WorldPredictor(
        sequences, [clip.name for clip in settings.clips()[0]], first=first, change=_fault,
        by_position=name == "tum-pose",
    )  # fmt: skip
    predict(settings, predictor, predictor.facts())
    return {metric: facts["mean"] for metric, facts in score(settings)["summary"].items()}


@pytest.mark.parametrize("preset", ["strict", "paper"])
@pytest.mark.parametrize("name", WATCHED)
def test_no_score_moves_unnoticed(name, preset, tmp_path):
    found = _measure(name, preset, tmp_path)
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.is_file() else {}
    if os.environ.get("EVERVIEW_WRITE_NUMBERS"):
        numbers[f"{name} {preset}"] = found
        NUMBERS.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    assert found == pytest.approx(numbers[f"{name} {preset}"], rel=TOLERANCE, abs=1e-6)
