"""ETH3D: photographs with scanned depth (Schöps et al., CVPR 2017), in COLMAP text files."""

import random
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
    pinhole,
)
from everview.evaluation.benchmarks.files import existing, folders_in, home_of, read_depth_raw
from everview.evaluation.benchmarks.files import read_text as text_of
from everview.geometry.rotations import invert_rigid, matrix_from_quaternion, rigid

CALIBRATION = "dslr_calibration_undistorted"
DRAWN = 10

Camera = tuple[tuple[int, int], Float[Tensor, "3 3"]]
"""(height, width) and K."""


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All scenes; of each ten frames are drawn, or every stride-th if a stride is given.

    Raises:
        InputError: if there is no scene, or a file is absent or damaged.
    """
    home = home_of(root, "eth3d")
    scenes = [scene for scene in folders_in(home) if (scene / CALIBRATION).is_dir()]
    if not scenes:
        raise InputError(
            f"{home} has no SCENE/{CALIBRATION}: the undistorted images and depth are needed, for "
            "the others have a fisheye camera"
        )
    for number, scene in enumerate(scenes):
        yield _clip(scene, choice, number)


def _clip(scene: Path, choice: Choice, number: int) -> EvalClip:
    cameras = read_cameras(scene / CALIBRATION / "cameras.txt")
    views = read_images(scene / CALIBRATION / "images.txt")
    names = sorted(views)
    if choice.stride is None:
        count = min(choice.frames or DRAWN, len(names))
        drawn = random.Random(choice.seed + number).sample(range(len(names)), count)
        chosen = [names[i] for i in sorted(drawn)]
    else:
        chosen = choice.of(names)
    images = [_image(scene, name) for name in chosen]
    folder = scene / "ground_truth_depth" / "dslr_images"
    depths = [existing(folder / Path(name).name) for name in chosen]

    def truth(index: int) -> FrameTruth:
        pose, camera = views[chosen[index]]
        size, intrinsics = cameras[camera]
        depth = read_depth_raw(depths[index], size)
        return FrameTruth(depth=depth, intrinsics=intrinsics, world_from_camera=pose)

    lists = [scene / CALIBRATION / name for name in ("cameras.txt", "images.txt")]
    return file_clip(scene.name, images, truth, files=(*depths, *lists))


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras by number: size and K of pinholes.

    Raises:
        InputError: if another model than PINHOLE comes, or a line is cut off.
    """
    found = {}
    for line in _lines(path):
        words = line.split()
        if len(words) != 8 or words[1] != "PINHOLE":
            raise InputError(f"{path}: expected `ID PINHOLE width height fx fy cx cy`, got {line}")
        width, height = int(words[2]), int(words[3])
        found[int(words[0])] = ((height, width), pinhole(*map(float, words[4:])))
    return found


def read_images(path: Path) -> dict[str, tuple[Float[Tensor, "4 4"], int]]:
    """Images by name: world_from_camera in float64, and the number of the camera.

    Raises:
        InputError: if a line is cut off.
    """
    found = {}
    lines = [line for line in text_of(path).splitlines() if not line.startswith("#")]
    for line in lines[::2]:  # every second line holds points
        words = line.split()
        if not words:
            continue
        if len(words) < 10:
            raise InputError(f"{path}: expected `ID qw qx qy qz tx ty tz CAMERA NAME`, got {line}")
        w, x, y, z, *translation = (float(word) for word in words[1:8])
        rotation = matrix_from_quaternion(torch.tensor([x, y, z, w], dtype=torch.float64))
        camera = rigid(rotation, torch.tensor(translation, dtype=torch.float64))
        found[" ".join(words[9:])] = (invert_rigid(camera), int(words[8]))
    return found


def _image(scene: Path, name: str) -> Path:
    """As COLMAP names it, or without its folder."""
    as_named = scene / "images" / name
    return as_named if as_named.is_file() else existing(scene / "images" / Path(name).name)


def _lines(path: Path) -> list[str]:
    return [line for line in text_of(path).splitlines() if line and not line.startswith("#")]


BENCHMARK = Benchmark(
    name="eth3d",
    title="ETH3D",
    task="points",
    clips=clips,
    layout=f"SCENE/images/NAME.JPG, SCENE/{CALIBRATION}/{{cameras,images}}.txt, "
    "SCENE/ground_truth_depth/dslr_images/NAME (undistorted)",
    source="https://www.eth3d.net/datasets (high-res multi-view, training)",
    protocol={"alignment": "sim3", "icp_threshold": None, "crop": None},
)
