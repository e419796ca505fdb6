"""DTU: objects on a table, scanned (Jensen et al., CVPR 2014), in MVSNet's layout; millimetres."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy.ndimage import minimum_filter
from torch import Tensor

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
    matrix,
    read_depth_npy,
    read_text,
)
from everview.frames.rgb import open_image
from everview.geometry.rotations import invert_rigid

DRAWN = 10
ERODED = 10
"""Side in pixels of the square by which masks shrink."""


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All scans; of each ten frames are drawn, or every stride-th if a stride is given.

    Raises:
        InputError: if there is no scan, or a file is absent or damaged.
    """
    home = home_of(root, "dtu")
    scans = [scan for scan in folders_in(home) if (scan / "cams").is_dir()]
    if not scans:
        raise InputError(f"{home} has no SCAN/cams: is this DTU in the layout of MVSNet?")
    for number, scan in enumerate(scans):
        yield _clip(scan, choice, number)


def _clip(scan: Path, choice: Choice, number: int) -> EvalClip:
    pictures = files_in(scan / "images", "*.jpg", "*.png")
    if choice.stride is None:
        count = min(choice.frames or DRAWN, len(pictures))
        drawn = random.Random(choice.seed + number).sample(range(len(pictures)), count)
        images = [pictures[i] for i in sorted(drawn)]
    else:
        images = choice.of(pictures)
    depths = [existing(scan / "depths" / f"{path.stem}.npy") for path in images]
    masks = [existing(scan / "binary_masks" / f"{path.stem}.png") for path in images]
    cameras = [existing(scan / "cams" / f"{path.stem}_cam.txt") for path in images]

    def truth(index: int) -> FrameTruth:
        depth = read_depth_npy(depths[index])
        size = (depth.shape[0], depth.shape[1])
        camera, intrinsics = read_camera(cameras[index])
        return FrameTruth(
            depth=depth * read_object(masks[index], size),
            intrinsics=intrinsics,
            world_from_camera=invert_rigid(camera),
        )

    return file_clip(scan.name, images, truth, files=(*depths, *masks, *cameras))


def read_camera(path: Path) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """MVSNet's text: `extrinsic`, camera_from_world 4 x 4, `intrinsic`, K 3 x 3.

    Raises:
        InputError: if numbers are missing.
    """
    words = read_text(path).split()
    try:
        start, middle = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        extrinsic = [float(word) for word in words[start : start + 16]]
        intrinsic = [float(word) for word in words[middle : middle + 9]]
        return matrix([extrinsic], str(path)), torch.tensor(intrinsic).reshape(3, 3)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path} is no camera of MVSNet: {error}") from error


def read_object(path: Path, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """Where the object is, on the depth's grid, without a rim of 5 pixels."""
    image = open_image(path).convert("L").resize(size[::-1], Image.Resampling.NEAREST)
    white = np.asarray(image) > 127
    kept = minimum_filter(white.astype(np.uint8), size=ERODED, mode="constant", cval=1)
    return torch.from_numpy(kept > 0)


BENCHMARK = Benchmark(
    name="dtu",
    title="DTU (point maps)",
    task="points",
    clips=clips,
    layout="SCAN/images/*.jpg, SCAN/depths/*.npy, SCAN/binary_masks/*.png, SCAN/cams/*_cam.txt",
    source="https://roboimagedata.compute.dtu.dk and MVSNet's preparation of it",
    protocol={"icp_threshold": 100.0, "unit": "mm"},
)
