"""ScanNet: rooms walked through (Dai et al., CVPR 2017); trajectories of the test scenes."""

from collections.abc import Iterator
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
    files_in,
    finite_pose,
    folders_in,
    home_of,
    matrix,
    read_rows,
)


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All scenes that are prepared: every third frame, 90 of them (or N, as color_N, pose_N.txt).

    Frames whose pose was lost (-inf) are shown, and not scored.

    Raises:
        InputError: if there is no scene, or images and poses differ in number.
    """
    home = home_of(root, "scannetv2", "scannet")
    found = [folder for scene in folders_in(home) for folder in sorted(scene.glob("color_*"))]
    if not found:
        raise InputError(f"{home} has no SCENE/color_90: is this ScanNet, prepared?")
    for pictures in found:
        yield _clip(pictures, choice)


def _clip(pictures: Path, choice: Choice) -> EvalClip:
    count = pictures.name.removeprefix("color_")
    path = pictures.parent / f"pose_{count}.txt"
    images, rows = files_in(pictures, "*.jpg", "*.png"), read_rows(path)
    if len(images) != len(rows):
        raise InputError(f"{path} has {len(rows)} poses for {len(images)} images")
    poses = choice.of(
        [finite_pose(matrix([row], f"{path}, row {i}")) for i, row in enumerate(rows)]
    )

    def truth(index: int) -> FrameTruth:
        return FrameTruth(world_from_camera=poses[index])

    name = pictures.parent.name if count == "90" else f"{pictures.parent.name}/{count}"
    return file_clip(name, choice.of(images), truth, files=(path,))


BENCHMARK = Benchmark(
    name="scannet-pose",
    title="ScanNet, trajectories",
    task="trajectory",
    clips=clips,
    layout="SCENE/color_90/*.jpg, SCENE/pose_90.txt (also color_N, pose_N.txt)",
    source="http://www.scan-net.org (test scenes, every third frame)",
)
