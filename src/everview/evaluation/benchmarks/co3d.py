"""CO3Dv2: objects that are walked around (Reizenstein et al., ICCV 2021); relative poses."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from everview.evaluation.benchmarks.files import existing, home_of
from everview.geometry.rotations import invert_rigid, rigid

DRAWN = 10
FEWEST = 50
FARTHEST = 1e5
ENDING = "_test.jgz"


def clips(root: Path, choice: Choice) -> Iterator[EvalClip]:
    """All sequences of at least 50 images; of each ten are drawn.

    With the preset `paper` they are shown as drawn, the first drawn is the reference, and each
    category begins a new series of draws; `strict` shows them in order.

    Raises:
        InputError: if there is no annotation, or a file is absent or damaged.
    """
    home = home_of(root, "co3d")
    files = sorted([*home.glob(f"annotations/*{ENDING}"), *home.glob(f"*{ENDING}")])
    if not files:
        raise InputError(f"{home} has no annotations/CATEGORY{ENDING}")
    for path in files:
        yield from _category(home, path, choice)


def _category(home: Path, path: Path, choice: Choice) -> Iterator[EvalClip]:
    category = path.name.removesuffix(ENDING)
    draws = np.random.RandomState(choice.seed)  # as published
    for name, frames in sorted(read_annotations(path).items()):
        if len(frames) < FEWEST or any(_is_broken(frame) for frame in frames):
            continue
        count = min(choice.frames or DRAWN, len(frames))
        drawn = draws.choice(len(frames), count, replace=False).tolist()
        chosen = drawn if choice.preset == "paper" else sorted(drawn)
        yield _clip(home, path, f"{category}/{name}", [frames[i] for i in chosen])


def _clip(home: Path, path: Path, name: str, frames: Sequence[dict[str, Any]]) -> EvalClip:
    images = [existing(home / frame["filepath"]) for frame in frames]

    def truth(index: int) -> FrameTruth:
        return FrameTruth(world_from_camera=invert_rigid(camera_from_world(frames[index])))

    return file_clip(name, images, truth, files=(path,), group=name.split("/")[0])


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Sequence -> frames with `filepath`, `R`, `T`.

    Raises:
        InputError: if the file is no gzipped JSON, or a frame lacks something.
    """
    try:
        with gzip.open(path, "rt") as file:
            content: dict[str, list[dict[str, Any]]] = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read as gzipped JSON: {error}") from error
    for name, frames in content.items():
        if any(not {"filepath", "R", "T"} <= frame.keys() for frame in frames):
            raise InputError(f"{path}: a frame of {name} lacks filepath, R or T")
    return content


def camera_from_world(frame: dict[str, Any]) -> Float[Tensor, "4 4"]:
    """PyTorch3D's camera (x left, y up, points as rows) to OpenCV's, float64."""
    flip = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    rotation = torch.tensor(frame["R"], dtype=torch.float64).T
    return rigid(flip[:, None] * rotation, flip * torch.tensor(frame["T"], dtype=torch.float64))


def _is_broken(frame: dict[str, Any]) -> bool:
    return abs(sum(frame["T"])) > FARTHEST


BENCHMARK = Benchmark(
    name="co3d-pose",
    title="CO3Dv2, relative poses",
    task="poses",
    clips=clips,
    layout=f"annotations/CATEGORY{ENDING} (sequence -> filepath, R, T), images as named there",
    source="https://github.com/facebookresearch/co3d (v2, set_lists_fewview_dev)",
)
