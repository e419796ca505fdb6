"""What every benchmark gives: clips of frames with their truth, read when asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.frames.rgb import Picture

Item = TypeVar("Item")

TASKS = ("depth_single", "depth_video", "points", "poses", "trajectory", "long")
"""What is compared; each has a protocol of its own."""
PRESETS = ("strict", "paper")
"""`paper`: as published, quirks included; `strict`: exact optima, pairing by name, sorted draws."""


@dataclass(frozen=True, kw_only=True)
class FrameTruth:
    """What is known of one frame; None what is not."""

    depth: Float[Tensor, "H W"] | None = None
    """z-depth in the unit of the set, on the image's grid; 0 where there is none."""
    intrinsics: Float[Tensor, "3 3"] | None = None
    """K in pixels of the image."""
    world_from_camera: Float[Tensor, "4 4"] | None = None
    """Pose, OpenCV axes; None also where the set's own tracking was lost."""
    static: Tensor | None = None
    """H W, true where nothing moves by itself; None: everywhere."""


@dataclass(frozen=True, kw_only=True)
class EvalClip:
    """Frames that are shown together, in order."""

    name: str
    frames: tuple[str, ...]
    """Names, for result files and messages."""
    image: Callable[[int], Picture]
    """The n-th picture: a path, or an array where it is generated."""
    truth: Callable[[int], FrameTruth]
    """What is known of the n-th frame. Raises InputError if a file is damaged."""
    group: str | None = None
    """Such as a category of objects."""
    files: tuple[Path, ...] = ()
    """All that is read, for the fingerprint."""
    identity: str = ""
    """What stands for generated data in the fingerprint: seed, settings and version."""
    cloud: Callable[[], Float[Tensor, "n 3"]] | None = None
    """Points of the whole scene, in the unit of the set."""
    poses: Callable[[], Float[Tensor, "s 4 4"]] | None = None
    """world_from_camera of all frames, where that is quicker than asking frame by frame."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the protocol must know of this clip alone, such as a hand-chosen factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which frames of a set are taken."""

    stride: int | None = None
    """Every n-th of a list; None: as the benchmark does."""
    frames: int | None = None
    """At most so many per clip; None: as the benchmark does."""
    seed: int = 0
    """Of draws."""
    preset: str = "strict"
    """One of `PRESETS`."""

    def __post_init__(self) -> None:
        """Refuse what chooses nothing."""
        if self.preset not in PRESETS:
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}; got {self.preset!r}")
        for name, value in (("stride", self.stride), ("frames", self.frames)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more; got {value}")

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Every stride-th item, at most `frames` of them."""
        return list(items)[:: self.stride or 1][: self.frames]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark: where its data come from, how they are read, and how they are scored."""

    name: str
    title: str
    task: str
    """One of `TASKS`."""
    clips: Callable[[Path, Choice], Iterable[EvalClip]]
    """All clips below a folder. Raises InputError naming the file that is absent or damaged."""
    layout: str
    """Files below `--data`, in one line."""
    source: str
    """Where the data come from."""
    choice: Choice = Choice()
    """What is taken if nobody asks for something else."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What the task must know of this set, such as depth limits."""
    is_generated: bool = False
    """Whether it needs no data."""


def file_clip(
    name: str,
    images: Sequence[Path],
    truth: Callable[[int], FrameTruth],
    *,
    files: Iterable[Path] = (),
    group: str | None = None,
    cloud: Callable[[], Float[Tensor, "n 3"]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> EvalClip:
    """A clip whose pictures are files.

    Args:
        name: of the clip.
        images: in the order in which they are shown.
        truth: see `EvalClip.truth`.
        files: what is read besides.
        group: see `EvalClip.group`.
        cloud: see `EvalClip.cloud`.
        facts: see `EvalClip.facts`.
    """
    pictures = tuple(images)
    return EvalClip(
        name=name,
        frames=tuple(path.stem for path in pictures),
        image=pictures.__getitem__,
        truth=truth,
        group=group,
        files=(*pictures, *files),
        cloud=cloud,
        facts=facts or {},
    )


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[Tensor, "3 3"]:
    """K of a camera without skew."""
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def of_width(intrinsics: Float[Tensor, "3 3"], width: int, nominal: int) -> Float[Tensor, "3 3"]:
    """K of a set with one camera, for copies of the set whose images were made smaller."""
    factor = width / nominal
    return intrinsics * intrinsics.new_tensor([factor, factor, 1.0])[:, None]
