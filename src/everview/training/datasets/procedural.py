"""The procedural world as a training set: each scene is the clip of one training seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from everview.errors import ConfigError
from everview.training.datasets.declaration import SamplingRules
from everview.training.datasets.view import Dataset, Links, View
from everview.world.clip import Options, WorldSequence, WorldView, training_seed

RULES = SamplingRules(max_gap=2, video=1.0, fixed_gap=0.5)


@dataclass(frozen=True, kw_only=True)
class ProceduralSettings:
    """Which clips the world gives."""

    num_scenes: int = 100_000
    """Scenes; their seeds are those of training, which no evaluation uses."""
    frames: int = 24
    """Frames of each."""
    size: tuple[int, int] = (112, 140)
    """(height, width) in pixels."""
    speed: float = 1.0
    """Motion between frames, see `everview.world.sequence` for this and what follows."""
    fov: tuple[float, float] = (45.0, 90.0)
    """Degrees that the longer side of the image spans."""
    noise: float = 0.01
    """Standard deviation of image noise."""
    kind: str = "any"
    """Of place."""
    options: Options = field(default_factory=Options)
    """Motion of the camera, moving things, camera faults."""
    first: int = 0
    """Number of the first scene."""

    def __post_init__(self) -> None:
        """Refuse empty sets."""
        if self.num_scenes < 1 or self.frames < 1:
            raise ConfigError(
                "ProceduralSettings.num_scenes and frames must be 1 or more; got "
                f"{self.num_scenes} and {self.frames}"
            )


@dataclass(frozen=True)
class WorldScene:
    """The clip of one training seed, rendered when it is asked for."""

    number: int
    """Argument of `training_seed`."""
    settings: ProceduralSettings
    """Shared by all scenes."""
    links: Links | None = None
    max_gap: int | None = None

    @property
    def name(self) -> str:
        """Number of the training seed."""
        return str(self.number)

    @property
    def num_ordered(self) -> int:
        """All frames."""
        return self.settings.frames

    def __len__(self) -> int:
        return self.settings.frames

    def views(self, positions: Sequence[int]) -> list[View]:
        """Render from the first to the last of these frames at once."""
        wanted = self.settings
        world = WorldView(
            training_seed(self.number),
            size=wanted.size,
            fov=wanted.fov,
            speed=wanted.speed,
            noise=wanted.noise,
            kind=wanted.kind,
            options=wanted.options,
        )
        start = min(positions)
        clip = world.frames(start, max(positions) + 1)
        return [self._view(clip, position - start, position) for position in positions]

    def _view(self, clip: WorldSequence, row: int, position: int) -> View:
        valid = torch.isfinite(clip.depth[row]) & (clip.depth[row] > 0)
        return View(
            image=clip.images[row],
            depth=torch.where(valid, clip.depth[row], 0.0),
            valid=valid,
            sky=~valid,
            world_from_camera=clip.world_from_camera[row],
            intrinsics=clip.intrinsics[row],
            is_metric=True,
            time=float(position),
            index=position,
            label=f"world/{self.number}/{position}",
        )


def open_world(settings: ProceduralSettings) -> Dataset:
    """Clips without end, from their numbers."""
    numbers = range(settings.first, settings.first + settings.num_scenes)
    return Dataset(
        name="world",
        rules=RULES,
        scenes=tuple(WorldScene(number, settings) for number in numbers),
    )
