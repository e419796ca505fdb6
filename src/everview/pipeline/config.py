"""Settings of one run of a network over a source."""

from dataclasses import asdict, dataclass
from typing import Any

from everview.errors import ConfigError
from everview.frames.preprocess import check_size
from everview.frames.selection import Selection
from everview.memory.policies import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What is read, how it goes through the network, and when it stops."""

    memory: str = "auto"
    """Memory policy of the stream, see `everview.memory.policies`."""
    memory_limit: int | None = None
    """Bytes that the stream's past may take; None: as much as there is."""
    planned: str | None = None
    """The policy that a plan found to fit, see `everview.pipeline.plan`."""
    max_points: int | None = None
    """Of the fused cloud, as the plan leaves room for them; None: `FusionConfig`'s own."""
    every: int = 1
    """Take each n-th frame."""
    fps: float | None = None
    """At most so many frames per second of the source."""
    start: float | None = None
    """Seconds after the first frame, or an image's index."""
    end: float | None = None
    """Like `start`; the frame at `end` is left out."""
    size: int | None = None
    """Width of the network's input in pixels; None: what the network was made for."""
    stream: int = 0
    """Which video stream of the source."""
    batch: bool = False
    """All frames at once instead of one by one."""
    checkpoint_every: int | None = None
    """Save the stream's state after each so many frames."""

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or cannot work together, before a model is loaded.

        Raises:
            ConfigError: naming the setting, and what is allowed.
        """
        parse(self.memory)
        Selection(every=self.every, start=self.start, end=self.end, fps=self.fps)
        if self.size is not None:
            check_size(self.size)
        if self.stream < 0:
            raise ConfigError(f"stream must be 0 or more; got {self.stream}")
        for name in ("memory_limit", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name.replace('_', '-')} must be > 0, got {value}")
            if value is not None and self.batch:
                raise ConfigError(
                    f"{name.replace('_', '-')} concerns a stream; with batch there is none: "
                    "leave one of them out"
                )

    def numbers(self) -> dict[str, Any]:
        """What changes the results; two runs that agree in it may continue each other."""
        values = asdict(self)
        for name in ("memory_limit", "planned", "max_points", "checkpoint_every"):
            del values[name]
        return values
