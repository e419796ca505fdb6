"""Endless clips, a few frames at a time."""

from collections.abc import Iterator

from everview.errors import ConfigError
from everview.world.clip import Options, WorldSequence, WorldView


def stream(
    seed: int,
    *,
    chunk: int = 16,
    size: tuple[int, int] = (112, 140),
    fov: tuple[float, float] = (45.0, 90.0),
    speed: float = 1.0,
    noise: float = 0.01,
    kind: str = "any",
    options: Options | None = None,
) -> Iterator[WorldSequence]:
    """Yield the frames of an endless clip, `chunk` at a time, for as long as they are asked for.

    Frames are those of `sequence` with the same arguments, whatever the size of the chunks; poses
    and points are in the frame of the very first camera. Memory does not grow, but for 40 bytes
    per crossing that is passed: streets and corridors are made as they come near and forgotten
    when they are far. With `Options(motion="loop")` these return to the start, again and again.

    Args:
        seed: number of the place and path.
        chunk: frames per item.
        size: (height, width) in pixels.
        fov: range of the angle, in degrees, that the longer side of the image spans.
        speed: multiplies all motion between frames.
        noise: see `sequence`.
        kind: of place, see `sequence`.
        options: motion, moving things, camera faults, device.

    Raises:
        ConfigError: if an argument is out of range or unknown.
    """
    if chunk < 1:
        raise ConfigError(f"stream() needs chunk >= 1; got {chunk}")
    view = WorldView(
        seed, size=size, fov=fov, speed=speed, noise=noise, kind=kind, options=options or Options()
    )
    start = 0
    while True:
        yield view.frames(start, start + chunk)
        start += chunk
