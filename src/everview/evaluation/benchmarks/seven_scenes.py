"""7-Scenes: hand-held sequences of rooms (Shotton et al., CVPR 2013), with registered depth."""

from collections.abc import Iterator
from pathlib import Path

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
    read_depth_png,
    read_matrix,
    read_text,
)

INTRINSICS = pinhole(525.0, 525.0, 320.0, 240.0)
"""Of the colour camera, as all published evaluations have it; for 640 x 480 pixels."""
FARTHEST = 10.0


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All test sequences.

    Raises:
        InputError: if there is no TestSplit.txt, or a file that it asks for is absent.
    """
    home = home_of(root, "7scenes")
    splits = [scene / "TestSplit.txt" for scene in folders_in(home)]
    splits = [path for path in splits if path.is_file()]
    if not splits:
        raise InputError(f"{home} has no SCENE/TestSplit.txt: is this the folder of 7-Scenes?")
    for split in splits:
        for line in read_text(split).split():
            number = int("".join(filter(str.isdigit, line)) or 0)
            yield _clip(split.parent / f"seq-{number:02d}", choice)


def _clip(folder: Path, choice: Choice) -> EvalClip:
    images = choice.of(files_in(folder, "frame-*.color.png"))
    stems = [path.name.removesuffix(".color.png") for path in images]
    depths = [existing(folder / f"{stem}.depth.proj.png") for stem in stems]
    poses = [existing(folder / f"{stem}.pose.txt") for stem in stems]

    def truth(index: int) -> FrameTruth:
        depth = read_depth_png(depths[index], step=1e-3, nothing=(0, 65535), largest=FARTHEST)
        return FrameTruth(
            depth=depth,
            intrinsics=of_width(INTRINSICS, depth.shape[1], 640),
            world_from_camera=read_matrix(poses[index]),
        )

    name = f"{folder.parent.name}/{folder.name}"
    return file_clip(name, images, truth, files=(*depths, *poses))


BENCHMARK = Benchmark(
    name="7scenes",
    title="7-Scenes",
    task="points",
    clips=clips,
    layout="SCENE/TestSplit.txt, SCENE/seq-XX/frame-NNNNNN.{color.png,depth.proj.png,pose.txt}",
    source="https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/ and depth "
    "warped into the colour camera (preparation of SimpleRecon)",
    choice=Choice(stride=200),
)
