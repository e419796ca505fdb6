"""KITTI depth: streets with LiDAR depth (Uhrig et al., 3DV 2017), the validation drives."""

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
from everview.evaluation.benchmarks.files import (
    existing,
    files_in,
    folders_in,
    home_of,
    read_depth_png,
)

STEP = 1 / 256
"""Metres per stored step."""
GATHERED = "depth_selection/val_selection_cropped"


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All drives that are gathered; depth files and images of one name belong together.

    Raises:
        InputError: if there is no drive, or a depth file has no image.
    """
    home = home_of(root, "kitti")
    home = home_of(home, GATHERED)
    truths = home / "groundtruth_depth_gathered"
    if not truths.is_dir() or not folders_in(truths):
        raise InputError(f"{truths} has no drive: is this KITTI depth, gathered by drive?")
    for folder in folders_in(truths):
        yield _clip(home / "image_gathered" / folder.name, folder, choice)


def _clip(pictures: Path, folder: Path, choice: Choice) -> EvalClip:
    depths = choice.of(files_in(folder, "*.png"))
    images = [existing(pictures / path.name) for path in depths]

    def truth(index: int) -> FrameTruth:
        return FrameTruth(depth=read_depth_png(depths[index], step=STEP))

    return file_clip(folder.name, images, truth, files=depths)


VIDEO = Benchmark(
    name="kitti-video",
    title="KITTI, video depth",
    task="depth_video",
    clips=clips,
    layout=f"{GATHERED}/{{image_gathered,groundtruth_depth_gathered}}/DRIVE_02/*.png",
    source="https://www.cvlibs.net/datasets/kitti/eval_depth_all.php",
    choice=Choice(frames=110),
)
DEPTH = replace(VIDEO, name="kitti-depth", title="KITTI, single frames", task="depth_single")
