"""Long3D: walks of 2,000 to 10,000 frames with one laser scan each (InfiniteVGGT, 2601.02281)."""

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
from everview.evaluation.benchmarks.files import existing, files_in, folders_in, home_of
from everview.evaluation.benchmarks.pcd import read_pcd

SCAN = "dense_cloud_map.pcd"
SMALL_ROOMS = ("classroom", "dormitory")
"""Scenes whose start has the full scale; elsewhere the published script takes three quarters."""


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All scenes whose archive of images is unpacked.

    Raises:
        InputError: if there is no scene, or its images are absent or still packed.
    """
    home = home_of(root, "long3d", "Long3D")
    scenes = [scene for scene in folders_in(home) if (scene / SCAN).is_file()]
    if not scenes:
        raise InputError(f"{home} has no SCENE/{SCAN}: is this the folder of Long3D?")
    for scene in scenes:
        yield _clip(scene, choice)


def _clip(scene: Path, choice: Choice) -> EvalClip:
    folder = next((scene / n for n in ("image", "images") if (scene / n).is_dir()), None)
    if folder is None:
        raise InputError(f"{scene} has no folder image: unpack {scene / 'image.7z'} there")
    images = choice.of(files_in(folder, "*.png", "*.jpg"))
    scan = existing(scene / SCAN)

    def cloud() -> Float[Tensor, "n 3"]:
        return torch.from_numpy(read_pcd(scan))

    is_small = scene.name.lower() in SMALL_ROOMS
    return file_clip(
        scene.name, images, _nothing_known, files=(scan,), cloud=cloud,
        facts={"start_scale": 1.0 if is_small else 0.75},
    )  # fmt: skip


def _nothing_known(_: int) -> FrameTruth:
    """There is the scan alone."""
    return FrameTruth()


BENCHMARK = Benchmark(
    name="long3d",
    title="Long3D",
    task="long",
    clips=clips,
    layout=f"SCENE/image/*.png (unpacked image.7z), SCENE/{SCAN}",
    source="https://github.com/AutoLab-SAI-SJTU/InfiniteVGGT (Long3D)",
    protocol={"dense_every": 10, "truth": "scan"},
)
