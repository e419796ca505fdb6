"""View: one frame of any training set; Scene and Dataset: where views come from."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import InputError
from everview.training.datasets.declaration import SamplingRules


@dataclass(frozen=True, kw_only=True)
class View:
    """One frame and what is true about it.

    Axes: OpenCV (x right, y down, z forward). Pixels are indices. Unit of depth and poses: metres
    if `is_metric`, else the scene's own.
    """

    image: Float[Tensor, "3 H W"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "H W"]
    """z-depth; 0 where there is none."""
    valid: Bool[Tensor, "H W"]
    """Where `depth` may be used: finite and positive, less what a set cuts off."""
    world_from_camera: Float[Tensor, "4 4"]
    """Pose as stored, in the scene's own world; NaN where `has_pose` is false."""
    intrinsics: Float[Tensor, "3 3"]
    """K in pixels; NaN where `has_intrinsics` is false."""
    sky: Bool[Tensor, "H W"] | None = None
    """Where the sky is seen, for sets that know."""
    foreground: Bool[Tensor, "H W"] | None = None
    """Where the object is seen, for sets of single objects."""
    is_metric: bool = False
    """Whether depth and pose are in metres."""
    has_depth: bool = True
    """Whether `depth` is known at all; false for plain video."""
    has_pose: bool = True
    """Whether `world_from_camera` is known."""
    has_intrinsics: bool = True
    """Whether `intrinsics` are known."""
    time: float
    """Seconds where the set has them, else the number in the file's name or the index."""
    index: int
    """Position in the scene, from 0, in order of time."""
    label: str
    """Set, scene and frame, for messages."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, kw_only=True)
class Links:
    """Which frames of a scene belong together, where order in time does not tell."""

    neighbours: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Overlap graph: position -> positions that see the same."""
    sets: tuple[tuple[int, ...], ...] = ()
    """Stored groups of positions."""


@runtime_checkable
class Scene(Protocol):
    """One video or collection of images of one place."""

    @property
    def name(self) -> str:
        """Path within the set, for messages."""
        ...

    @property
    def num_ordered(self) -> int:
        """Positions 0 .. num_ordered - 1 are a video in order of time; the rest has no order."""
        ...

    @property
    def max_gap(self) -> int | None:
        """Largest step between frames of a sample; None leaves it to the set."""
        ...

    @property
    def links(self) -> Links | None:
        """Which frames belong together, None if only order tells."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames, in the order asked for; InputError names a file that cannot be used."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Scenes that are sampled by the same rules."""

    name: str
    """As in a mixture, such as `co3d`."""
    rules: SamplingRules
    """How samples are drawn."""
    scenes: Sequence[Scene]
    """In sorted order, the same on every machine."""

    def __len__(self) -> int:
        """Number of frames of all scenes: each may start a sample."""
        return self._ends[-1] if self._ends else 0

    def locate(self, start: int) -> tuple[Scene, int]:
        """Scene and position of the n-th frame of the set.

        Raises:
            InputError: if the set holds no frame.
        """
        if not self._ends:
            raise InputError(f"the set {self.name} holds no frames")
        which = bisect_right(self._ends, start)
        before = self._ends[which - 1] if which else 0
        return self.scenes[which], start - before

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(scene) for scene in self.scenes))
