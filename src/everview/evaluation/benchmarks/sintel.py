"""MPI Sintel: an animated film with exact depth and cameras (Butler et al., ECCV 2012)."""

from collections.abc import Iterator
from functools import partial
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
    read_cam,
    read_dpt,
)
from everview.geometry.rotations import invert_rigid

USUAL = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5",
    "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""The sequences of published tables of video depth and of trajectories."""
LAYOUT = "training/final/SEQ/frame_NNNN.png, training/depth/SEQ/frame_NNNN.dpt, "
CAMERAS = "training/camdata_left/SEQ/frame_NNNN.cam"
SOURCE = "http://sintel.is.tue.mpg.de (images, depth and camera motion)"
LIMITS = {"farthest": 70.0}


def clips(root: Path, choice: Choice, *, every: bool, needs: str) -> Iterator[EvalClip]:
    """Sequences that are there.

    Args:
        root: the folder, or one that holds `sintel`.
        choice: of frames.
        every: all sequences, not only the usual fourteen.
        needs: `depth` or `cameras`.

    Raises:
        InputError: if no sequence is there, or a file is absent or damaged.
    """
    home = home_of(root, "sintel", "Sintel")
    home = home / "training" if (home / "training").is_dir() else home
    pictures = home / "final"
    if not pictures.is_dir():
        raise InputError(f"{pictures} is absent: is this the folder of MPI Sintel?")
    found = [folder for folder in folders_in(pictures) if every or folder.name in USUAL]
    if not found:
        raise InputError(f"{pictures} has none of the sequences {', '.join(USUAL)}")
    for folder in found:
        yield _clip(home, folder, choice, needs)


def _clip(home: Path, folder: Path, choice: Choice, needs: str) -> EvalClip:
    images = choice.of(files_in(folder, "frame_*.png"))
    part, ending = ("depth", ".dpt") if needs == "depth" else ("camdata_left", ".cam")
    files = [existing(home / part / folder.name / f"{path.stem}{ending}") for path in images]

    def truth(index: int) -> FrameTruth:
        if needs == "depth":
            return FrameTruth(depth=read_dpt(files[index]))
        intrinsics, camera = read_cam(files[index])
        return FrameTruth(intrinsics=intrinsics, world_from_camera=invert_rigid(camera))

    return file_clip(folder.name, images, truth, files=files)


DEPTH = Benchmark(
    name="sintel-depth",
    title="MPI Sintel, single frames",
    task="depth_single",
    clips=partial(clips, every=True, needs="depth"),
    layout=LAYOUT.rstrip(", "),
    source=SOURCE,
    protocol=LIMITS,
)
VIDEO = Benchmark(
    name="sintel-video",
    title="MPI Sintel, video depth",
    task="depth_video",
    clips=partial(clips, every=False, needs="depth"),
    layout=LAYOUT.rstrip(", "),
    source=SOURCE,
    protocol=LIMITS,
)
TRAJECTORY = Benchmark(
    name="sintel-pose",
    title="MPI Sintel, trajectories",
    task="trajectory",
    clips=partial(clips, every=False, needs="cameras"),
    layout=LAYOUT.split(",")[0] + ", " + CAMERAS,
    source=SOURCE,
)
