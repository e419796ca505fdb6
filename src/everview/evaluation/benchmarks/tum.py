"""TUM RGB-D, dynamic sequences (Sturm et al., IROS 2012): trajectories among moving people."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import InputError
from everview.evaluation.benchmarks.clip import (
    Benchmark,
    Choice,
    EvalClip,
    FrameTruth,
    file_clip,
)
from everview.evaluation.benchmarks.files import files_in, folders_in, home_of, read_rows
from everview.geometry.rotations import matrix_from_quaternion, rigid


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All sequences that are prepared: colour and pose matched, every third, 90 (or N) of them.

    Raises:
        InputError: if there is no sequence, or images and poses differ in number.
    """
    home = home_of(root, "tum")
    found = [folder for seq in folders_in(home) for folder in sorted(seq.glob("rgb_*"))]
    if not found:
        raise InputError(f"{home} has no SEQ/rgb_90: is this TUM-dynamics, prepared?")
    for pictures in found:
        yield _clip(pictures, choice)


def _clip(pictures: Path, choice: Choice) -> EvalClip:
    count = pictures.name.removeprefix("rgb_")
    path = pictures.parent / f"groundtruth_{count}.txt"
    images, poses = files_in(pictures, "*.png"), read_tum(path)
    if len(images) != len(poses):
        raise InputError(f"{path} has {len(poses)} poses for {len(images)} images")
    chosen = choice.of(list(poses))

    def truth(index: int) -> FrameTruth:
        return FrameTruth(world_from_camera=chosen[index])

    name = pictures.parent.name if count == "90" else f"{pictures.parent.name}/{count}"
    return file_clip(name, choice.of(images), truth, files=(path,))


def read_tum(path: Path) -> Float[Tensor, "s 4 4"]:
    """World_from_camera of lines `t x y z qx qy qz qw`, float64.

    Raises:
        InputError: if a line has not eight numbers.
    """
    rows = read_rows(path)
    for row in rows:
        if len(row) != 8:
            raise InputError(f"{path}: a line has {len(row)} numbers; t x y z qx qy qz qw are 8")
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 8)
    return rigid(matrix_from_quaternion(values[:, 4:]), values[:, 1:4])


BENCHMARK = Benchmark(
    name="tum-pose",
    title="TUM-dynamics, trajectories",
    task="trajectory",
    clips=clips,
    layout="SEQ/rgb_90/*.png, SEQ/groundtruth_90.txt (also rgb_N, groundtruth_N.txt)",
    source="https://cvg.cit.tum.de/data/datasets/rgbd-dataset (freiburg3 sitting and walking)",
)
