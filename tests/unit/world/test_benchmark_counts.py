"""A layout of a benchmark takes as many clips as are asked for."""

import sys
from pathlib import Path

import pytest

from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.world.clip import sequence
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from benchmark_folders import LAYOUT_OF

COUNT = 25
READ = {"nyu-depth": 1, "sintel-video": 14, "sintel-pose": 14}
"""Where the reader takes others than one clip of each: the published sequences, or all as one."""


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_many_clips_are_written_and_read(name, tmp_path):
    layout = LAYOUT_OF[name]
    frames = 50 if name == "co3d-pose" else 2  # that set leaves out shorter ones
    clip = sequence(3, frames, size=(14, 28), kind="room")
    LAYOUTS[layout](tmp_path, [clip] * COUNT)
    found = list(BENCHMARKS[name].clips(tmp_path, Choice(frames=2)))
    assert len(found) == READ.get(name, COUNT)
    assert len({clip.name for clip in found}) == len(found)
