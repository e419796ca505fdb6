"""Bonn RGB-D Dynamic: people and balloons before a hand-held sensor (Palazzolo et al., 2019)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from everview.errors import InputError
from everview.evaluation.benchmarks.clip import (
    Benchmark,
    Choice,
    EvalClip,
    FrameTruth,
    file_clip,
)
from everview.evaluation.benchmarks.files import files_in, folders_in, home_of, read_depth_png

STEP = 1 / 5000
"""Metres per stored step."""


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All sequences that are prepared: entries 30 to 139 of colour and of depth, each by time.

    The preparation cuts both lists by position, not by time, so that pairs may be some frames
    apart; that is so in all published numbers.

    Raises:
        InputError: if there is no sequence, or colour and depth differ in number.
    """
    home = home_of(root, "bonn", "rgbd_bonn_dataset")
    home = home_of(home, "rgbd_bonn_dataset")
    found = [folder for folder in folders_in(home) if (folder / "rgb_110").is_dir()]
    if not found:
        raise InputError(f"{home} has no SEQ/rgb_110: is this Bonn RGB-D, prepared?")
    for folder in found:
        yield _clip(folder, choice)


def _clip(folder: Path, choice: Choice) -> EvalClip:
    images, depths = files_in(folder / "rgb_110", "*.png"), files_in(folder / "depth_110", "*.png")
    if len(images) != len(depths):
        raise InputError(f"{folder}: {len(images)} colour and {len(depths)} depth images")
    depths = choice.of(depths)

    def truth(index: int) -> FrameTruth:
        return FrameTruth(depth=read_depth_png(depths[index], step=STEP))

    return file_clip(folder.name, choice.of(images), truth, files=depths)


VIDEO = Benchmark(
    name="bonn-video",
    title="Bonn RGB-D Dynamic, video depth",
    task="depth_video",
    clips=clips,
    layout="rgbd_bonn_dataset/rgbd_bonn_*/{rgb_110,depth_110}/*.png",
    source="https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/",
    protocol={"farthest": 70.0},
)
DEPTH = replace(
    VIDEO, name="bonn-depth", title="Bonn RGB-D Dynamic, single frames", task="depth_single"
)
