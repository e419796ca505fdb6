"""NYU Depth v2: single pictures of rooms with Kinect depth (Silberman et al., ECCV 2012)."""

from collections.abc import Iterator
from pathlib import Path

from everview.evaluation.benchmarks.clip import (
    Benchmark,
    Choice,
    EvalClip,
    FrameTruth,
    file_clip,
)
from everview.evaluation.benchmarks.files import existing, files_in, home_of, read_depth_npy


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """The 654 test pictures, as one clip of frames that have nothing to do with one another.

    Raises:
        InputError: if there is no picture, or one has no depth.
    """
    home = home_of(root, "nyu-v2")
    home = home_of(home, "val")
    images = choice.of(files_in(home / "nyu_images", "*.png"))
    depths = [existing(home / "nyu_depths" / f"{path.stem}.npy") for path in images]

    def truth(index: int) -> FrameTruth:
        return FrameTruth(depth=read_depth_npy(depths[index]))

    yield file_clip("val", images, truth, files=depths)


BENCHMARK = Benchmark(
    name="nyu-depth",
    title="NYU Depth v2, single frames",
    task="depth_single",
    clips=clips,
    layout="val/nyu_images/*.png, val/nyu_depths/*.npy",
    source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (654 labelled test pictures)",
)
