"""LongWorld: procedural streams of any length with exact truth, by seed, without a download."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

import everview
from everview.evaluation.benchmarks.clip import Benchmark, Choice, EvalClip, FrameTruth
from everview.world.clip import Options, WorldSequence, WorldView

FIRST_SEED = 20_000_000
"""Below 2^48, where no training clip is, and beside those of the procedural benchmark."""
SIZE = (112, 140)
CHUNK = 16
DENSE_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One stream: place and way of the camera."""

    name: str
    kind: str
    motion: str
    moving: float
    speed: float = 1.0


WALKS = (
    Walk(name="corridor-steady", kind="corridor", motion="walk", moving=0.0),
    Walk(name="corridor-loop", kind="corridor", motion="loop", moving=0.0),
    Walk(name="corridor-people", kind="corridor", motion="walk", moving=1.0),
    Walk(name="street-drive", kind="street", motion="drive", moving=0.0),
    Walk(name="street-loop", kind="street", motion="loop", moving=0.0),
    Walk(name="street-traffic", kind="street", motion="drive", moving=1.0),
    Walk(name="room-hand-held", kind="room", motion="hand-held", moving=0.0),
    Walk(name="room-people", kind="room", motion="hand-held", moving=1.0),
)


def clips(_: Path, choice: Choice) -> Iterator[EvalClip]:
    """All walks; nothing is rendered until it is asked for."""
    for number, walk in enumerate(WALKS):
        yield _clip(walk, FIRST_SEED + choice.seed * len(WALKS) + number, choice)


def _clip(walk: Walk, seed: int, choice: Choice) -> EvalClip:
    frames = _Frames(walk, seed, stride=choice.stride or 1)
    count = choice.frames or 1000
    return EvalClip(
        name=walk.name,
        frames=tuple(f"{i * (choice.stride or 1):06d}" for i in range(count)),
        image=frames.image,
        truth=frames.truth,
        poses=lambda: frames.poses(count),
        identity=f"{walk} {seed} {SIZE} {choice.stride or 1} everview {everview.__version__}",
        facts={"returns": walk.motion == "loop"},
    )


class _Frames:
    """Frames of an endless world in any order; the latest few are kept."""

    def __init__(self, walk: Walk, seed: int, *, stride: int) -> None:
        options = Options(motion=walk.motion, moving=walk.moving)
        self._settings: dict[str, Any] = {
            "size": SIZE, "fov": (60.0, 80.0), "speed": walk.speed, "noise": 0.01,
            "kind": walk.kind, "options": options,
        }  # fmt: skip
        self._seed, self._stride = seed, stride
        self._view: WorldView | None = None
        self._chunk: tuple[int, WorldSequence] | None = None

    def image(self, index: int) -> Float[Tensor, "3 H W"]:
        """RGB in [0, 1]."""
        part, i = self._at(index)
        return part.images[i].clamp(0, 1)

    def truth(self, index: int) -> FrameTruth:
        """Depth, camera and what stands still, exactly."""
        part, i = self._at(index)
        return FrameTruth(
            depth=part.depth[i],
            intrinsics=part.intrinsics[i],
            world_from_camera=part.world_from_camera[i],
            static=~part.moving[i],
        )

    def poses(self, count: int) -> Float[Tensor, "s 4 4"]:
        """World_from_camera of all frames."""
        return self._world().cameras(0, count * self._stride)[:: self._stride]

    def _world(self) -> WorldView:
        self._view = self._view or WorldView(self._seed, **self._settings)
        return self._view

    def _at(self, index: int) -> tuple[WorldSequence, int]:
        number = index * self._stride
        start = number - number % CHUNK
        if self._chunk is None or self._chunk[0] != start:
            self._chunk = (start, self._world().frames(start, start + CHUNK))
        return self._chunk[1], number - start


BENCHMARK = Benchmark(
    name="longworld",
    title="LongWorld, 1,000 frames",
    task="long",
    clips=clips,
    layout="none: rendered by seed (--seed)",
    source="everview.world",
    choice=Choice(frames=1000),
    protocol={"dense_every": DENSE_EVERY, "truth": "exact"},
    is_generated=True,
)
LONGER = replace(
    BENCHMARK,
    name="longworld-10k",
    title="LongWorld, 10,000 frames",
    choice=Choice(frames=10_000),
    protocol={"dense_every": 10 * DENSE_EVERY, "truth": "exact"},
)
