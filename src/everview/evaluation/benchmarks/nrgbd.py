"""Neural RGB-D: synthetic rooms (Azinovic et al., CVPR 2022)."""

from collections.abc import Iterator
from dataclasses import replace
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
    of_width,
    pinhole,
)
from everview.evaluation.benchmarks.files import (
    existing,
    files_in,
    folders_in,
    home_of,
    matrix,
    read_depth_png,
    read_rows,
)

FOCAL = 554.2562584220408
INTRINSICS = pinhole(FOCAL, FOCAL, 320.0, 240.0)
FARTHEST = 10.0
SPARSEST = 500


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All scenes, by name.

    Raises:
        InputError: if there is no scene, or a file is absent or damaged.
    """
    home = home_of(root, "neural_rgbd")
    scenes = [scene for scene in folders_in(home) if (scene / "poses.txt").is_file()]
    if not scenes:
        raise InputError(f"{home} has no SCENE/poses.txt: is this the folder of Neural RGB-D?")
    for scene in scenes:
        yield _clip(scene, choice)


def _clip(scene: Path, choice: Choice) -> EvalClip:
    pictures = sorted(files_in(scene / "images", "img*.png"), key=_number)
    poses = _poses(scene / "poses.txt", len(pictures))
    wanted = choice
    if choice.stride is None:
        wanted = replace(choice, stride=max(1, min(SPARSEST, len(pictures) // 2)))
    chosen = wanted.of(range(len(pictures)))
    if choice.preset == "strict":  # the published reader keeps them, with the identity
        chosen = [i for i in chosen if poses[i].isfinite().all()]
    images = [pictures[i] for i in chosen]
    depths = [existing(scene / "depth" / f"depth{_number(path)}.png") for path in images]

    def truth(index: int) -> FrameTruth:
        pose = poses[chosen[index]]
        depth = read_depth_png(depths[index], step=1e-3, nothing=(0, 65535), largest=FARTHEST)
        return FrameTruth(
            depth=depth,
            intrinsics=of_width(INTRINSICS, depth.shape[1], 640),
            world_from_camera=pose if pose.isfinite().all() else torch.eye(4).double(),
        )

    return file_clip(scene.name, images, truth, files=(*depths, scene / "poses.txt"))


def _poses(path: Path, frames: int) -> Float[Tensor, "s 4 4"]:
    """Four lines per frame, OpenGL axes (y up, z backwards) turned to OpenCV's."""
    rows = read_rows(path)
    if len(rows) != 4 * frames:
        raise InputError(f"{path} has {len(rows)} lines for {frames} images; 4 each are expected")
    poses = torch.stack([matrix(rows[4 * i : 4 * i + 4], str(path)) for i in range(frames)])
    poses[:, :, 1:3] *= -1
    return poses


def _number(path: Path) -> int:
    return int("".join(filter(str.isdigit, path.stem)) or 0)


BENCHMARK = Benchmark(
    name="nrgbd",
    title="Neural RGB-D",
    task="points",
    clips=clips,
    layout="SCENE/images/imgN.png, SCENE/depth/depthN.png, SCENE/poses.txt",
    source="https://github.com/dazinovic/neural-rgbd-surface-reconstruction",
)
