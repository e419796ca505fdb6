"""Clips of procedural places: images with exact geometry, from one integer."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.cameras import intrinsics_from_fov, points_from_depth
from everview.geometry.rotations import invert_rigid
from everview.world.develop import Effects, develop, shutter
from everview.world.dice import Dice, hash_label
from everview.world.kinds import KINDS, make_place
from everview.world.places import Place, TiltedPlace
from everview.world.render import render
from everview.world.solids import turn_about_x
from everview.world.tracks import follow

PLAIN_SEEDS = 1 << 48
"""Plain seeds lie below; those of training above, so that no clip is in both."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is seldom asked for."""

    motion: str = "any"
    """Way of the camera, see `everview.world.motion.MOTIONS`."""
    moving: float = 0.25
    """Share of clips in which something moves by itself."""
    tilt: float = 0.0
    """Degrees by which the camera is mounted looking up (> 0) or down."""
    effects: Effects = field(default_factory=Effects)
    """Faults of the camera."""
    device: str = "cpu"
    """Where to render; the tensors of the result lie there."""

    def __post_init__(self) -> None:
        """Refuse a share that is none, and a camera that looks backwards."""
        if not 0 <= self.moving <= 1:
            raise ConfigError(f"Options.moving must be between 0 and 1; got {self.moving}")
        if not -90 <= self.tilt <= 90:
            raise ConfigError(f"Options.tilt must be between -90 and 90 degrees; got {self.tilt}")


@dataclass(frozen=True, kw_only=True)
class WorldSequence:
    """A rendered clip, or a part of an endless one, and what is true about it.

    World frame: the first camera (OpenCV axes), metres. Pixels are indices.
    """

    images: Float[Tensor, "s 3 H W"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "s H W"]
    """z-depth in metres, exact; 0 where nothing is (sky)."""
    valid: Bool[Tensor, "s H W"]
    """Where there is depth."""
    world_from_camera: Float[Tensor, "s 4 4"]
    """Poses; the first of a clip is the identity."""
    intrinsics: Float[Tensor, "s 3 3"]
    """K in pixels, principal point at (W / 2, H / 2)."""
    points: Float[Tensor, "s H W 3"]
    """What each pixel shows, in the world frame; zero where nothing is."""
    moving: Bool[Tensor, "s H W"]
    """Where something is seen that may move by itself."""
    kind: str
    """What kind of place it is, see `everview.world.kinds.KINDS`."""
    start: int = 0
    """Number of the first frame."""
    place: Place = field(repr=False)
    """The world itself, for more rays."""

    def tracks(
        self, query_points: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "s n 2"], Bool[Tensor, "s n"]]:
        """Follow pixels (x, y) of the first frame here through all frames, exactly.

        A point on something that moves goes with it.

        Returns:
            Pixels in every frame (also outside the image), and whether the point is seen there:
            in front of the camera, inside the image and not hidden. Behind the camera, and for
            queries that show nothing (sky), the pixel has no meaning and is not visible.
        """
        frames, height, width = self.depth.shape
        return follow(
            self.place, query_points, self.start, self.start + frames,
            intrinsics=self.intrinsics[0], size=(height, width),
        )  # fmt: skip


def training_seed(index: int) -> int:
    """Seed of the n-th training clip: no plain integer below 2^48 gives the same clip."""
    return PLAIN_SEEDS + (hash_label(f"training {index}") & (PLAIN_SEEDS - 1))


def sequence(
    seed: int,
    frames: int,
    *,
    size: tuple[int, int] = (112, 140),
    fov: tuple[float, float] = (45.0, 90.0),
    speed: float = 1.0,
    noise: float = 0.01,
    kind: str = "any",
    options: Options | None = None,
) -> WorldSequence:
    """Render a clip of a place that nobody has seen before; the same seed gives the same clip.

    Args:
        seed: number of the place and path. The path does not depend on `frames`: a longer clip
            begins like a shorter one.
        frames: number of images.
        size: (height, width) in pixels.
        fov: range of the angle, in degrees, that the longer side of the image spans.
        speed: multiplies all motion between frames; 1 is like video sampled at 3 to 10 Hz.
        noise: typical standard deviation of image noise, as a share of full scale; a clip has 0.3
            to 1.7 times that.
        kind: of place, one of `everview.world.kinds.KINDS`; `any` draws one, rooms most often.
        options: motion, moving things, camera faults, device.

    Raises:
        ConfigError: if a count or size is not positive, or a kind or motion unknown.
    """
    if frames < 1:
        raise ConfigError(f"sequence() needs frames >= 1 and sides >= 2; got {frames}, {size}")
    view = WorldView(
        seed, size=size, fov=fov, speed=speed, noise=noise, kind=kind, options=options or Options()
    )
    return view.frames(0, frames)


class WorldView:
    """A place and a camera in it: renders any frames of an endless clip, in any order.

    Args:
        seed: number of the place and path.
        size: (height, width) in pixels.
        fov: range of the angle, in degrees, that the longer side of the image spans.
        speed: multiplies all motion between frames.
        noise: typical standard deviation of image noise, as a share of full scale; a clip has 0.3
            to 1.7 times that.
        kind: of place.
        options: motion, moving things, camera faults, device.

    Raises:
        ConfigError: if a size is not positive, or a kind or motion unknown.
    """

    def __init__(
        self,
        seed: int,
        *,
        size: tuple[int, int],
        fov: tuple[float, float],
        speed: float,
        noise: float,
        kind: str,
        options: Options,
    ) -> None:
        if min(size) < 2:
            raise ConfigError(f"sequence() needs frames >= 1 and sides >= 2; got sides {size}")
        is_finite = 0 < speed < math.inf and 0 <= noise < math.inf
        if not 0 < fov[0] <= fov[1] < 180 or not is_finite:
            raise ConfigError(
                "a world needs 0 < fov[0] <= fov[1] < 180, speed > 0 and noise >= 0; "
                f"got {fov}, {speed}, {noise}"
            )
        self._dice = Dice(seed)
        self.size, self._noise, self._options = size, noise, options
        self.kind, self.place = make_place(
            self._dice, kind, speed=speed, motion=options.motion,
            movers=self._dice.chance("moving", options.moving),
        )  # fmt: skip
        if options.tilt:
            up = torch.deg2rad(torch.tensor([options.tilt]))
            self.place = TiltedPlace(self.place, turn_about_x(up)[0])
        self._intrinsics = _intrinsics(self._dice, size, fov).to(options.device)
        self._camera_from_place = invert_rigid(self.place.cameras(torch.zeros(1)))[0]

    def queries(self, count: int) -> Float[Tensor, "n 2"]:
        """Pixels (x, y) of an image that are worth to be tracked: anywhere, drawn from the seed."""
        limit = torch.tensor([self.size[1] - 1.0, self.size[0] - 1.0])
        return self._dice.uniform("queries", (count, 2)) * limit

    def follow(
        self, queries: Float[Tensor, "n 2"], frames: int
    ) -> tuple[Float[Tensor, "s n 2"], Bool[Tensor, "s n"]]:
        """Tracks of pixels of frame 0 in so many frames, see `WorldSequence.tracks`."""
        return follow(self.place, queries, 0, frames, intrinsics=self._intrinsics, size=self.size)

    def cameras(self, start: int, stop: int) -> Float[Tensor, "s 4 4"]:
        """world_from_camera of frames start to stop - 1, without rendering them."""
        times = torch.arange(start, stop, dtype=torch.float32)
        world_from_camera = (self._camera_from_place @ self.place.cameras(times)).float()
        if start == 0:
            world_from_camera[0] = torch.eye(4)
        return world_from_camera

    def frames(self, start: int, stop: int) -> WorldSequence:
        """Frames start to stop - 1; the world frame is that of camera 0."""
        options = self._options
        pictures = render(
            self.place, start, stop, intrinsics=self._intrinsics, size=self.size,
            shutter=shutter(self._dice, options.effects),
        )  # fmt: skip
        world_from_camera = (self._camera_from_place @ pictures.poses).float()
        if start == 0:
            world_from_camera[0] = torch.eye(4)
        world_from_camera = world_from_camera.to(options.device)
        intrinsics = self._intrinsics.expand(stop - start, 3, 3)
        valid = pictures.depth > 0
        points = points_from_depth(pictures.depth, invert_rigid(world_from_camera), intrinsics)
        return WorldSequence(
            images=develop(
                self._dice, pictures.images, pictures.flow,
                start=start, effects=options.effects, noise=self._noise,
            ),
            depth=pictures.depth,
            valid=valid,
            world_from_camera=world_from_camera,
            intrinsics=intrinsics,
            points=points * valid[..., None],
            moving=pictures.moving,
            kind=self.kind,
            start=start,
            place=self.place,
        )  # fmt: skip


def _intrinsics(dice: Dice, size: tuple[int, int], fov: tuple[float, float]) -> Tensor:
    """Square pixels; the longer side spans a random angle."""
    angle = torch.deg2rad(dice.uniform("fov", (1,), *fov))
    half_long = max(size) / 2
    focal = half_long / torch.tan(angle / 2)
    angles = 2 * torch.atan(torch.tensor(size) / 2 / focal)
    return intrinsics_from_fov(angles, size)


__all__ = ["KINDS", "Options", "WorldSequence", "WorldView", "sequence", "training_seed"]
