"""Clips of procedural rooms: images with exact geometry, from one integer."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.cameras import intrinsics_from_fov, points_from_depth, project_points
from everview.geometry.rotations import invert_rigid
from everview.world.dice import Dice, hash_label
from everview.world.motion import camera_path
from everview.world.render import cast, pixel_rays, shade
from everview.world.scene import Scene, make_scene

_RAYS_AT_ONCE = 1 << 15
_PLAIN_SEEDS = 1 << 48
"""Plain seeds lie below; those of training above, so that no clip is in both."""


@dataclass(frozen=True, kw_only=True)
class WorldSequence:
    """A rendered clip and what is true about it.

    World frame: the first camera (OpenCV axes), metres. Pixels are indices.
    """

    images: Float[Tensor, "s 3 H W"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "s H W"]
    """z-depth in metres, exact, > 0 everywhere."""
    world_from_camera: Float[Tensor, "s 4 4"]
    """Poses; the first is the identity."""
    intrinsics: Float[Tensor, "s 3 3"]
    """K in pixels, principal point at (W / 2, H / 2)."""
    points: Float[Tensor, "s H W 3"]
    """What each pixel shows, in the world frame."""
    scene: Scene
    """The room, for more rays."""
    room_from_camera: Float[Tensor, "s 4 4"]
    """The same poses in the room's frame (x right, y down, z forward, floor at y = 0)."""

    def tracks(
        self, query_points: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "s n 2"], Bool[Tensor, "s n"]]:
        """Follow pixels (x, y) of the first frame through all frames, exactly.

        Returns:
            Pixels in every frame (also outside the image), and whether the point is seen there:
            in front of the camera, inside the image and not hidden. Behind the camera the pixel
            has no meaning.
        """
        height, width = self.depth.shape[1:]
        first = self.room_from_camera[:1]
        rays = pixel_rays(query_points, self.intrinsics[0])[None] @ first[:, :3, :3].mT
        hits = cast(self.scene, first[:, :3, 3], rays)
        points = first[0, :3, 3] + hits.distance[0, :, None] * rays[0]  # n 3, room frame
        origin = self.room_from_camera[:, :3, 3]
        towards = points - origin[:, None]  # s n 3
        in_camera = towards @ self.room_from_camera[:, :3, :3]
        pixels = project_points(in_camera, self.intrinsics)
        size = pixels.new_tensor([width, height])
        inside = ((pixels >= -0.5) & (pixels < size - 0.5)).all(dim=-1)
        unhidden = cast(self.scene, origin, towards).distance > 1 - 2e-3
        return pixels, (in_camera[..., 2] > 1e-3) & inside & unhidden


def training_seed(index: int) -> int:
    """Seed of the n-th training clip: no plain integer below 2^48 gives the same clip."""
    return _PLAIN_SEEDS + (hash_label(f"training {index}") & (_PLAIN_SEEDS - 1))


def sequence(
    seed: int,
    frames: int,
    *,
    size: tuple[int, int] = (112, 140),
    fov: tuple[float, float] = (45.0, 90.0),
    speed: float = 1.0,
    noise: float = 0.01,
) -> WorldSequence:
    """Render a clip of a room that nobody has seen before; the same seed gives the same clip.

    Args:
        seed: number of the room and path. The path does not depend on `frames`: a longer clip
            begins like a shorter one.
        frames: number of images.
        size: (height, width) in pixels.
        fov: range of the angle, in degrees, that the longer side of the image spans.
        speed: multiplies motion between frames; 1 is like video sampled at 3 to 10 Hz.
        noise: standard deviation of image noise, as a share of full scale.

    Raises:
        ConfigError: if a count or size is not positive.
    """
    if frames < 1 or min(size) < 2:
        raise ConfigError(f"sequence() needs frames >= 1 and sides >= 2; got {frames}, {size}")
    dice = Dice(seed)
    scene = make_scene(dice)
    room_from_camera = camera_path(dice, scene, frames, speed=speed)
    intrinsics = _intrinsics(dice, size, fov).expand(frames, 3, 3)
    at_once = max(1, _RAYS_AT_ONCE // (size[0] * size[1]))
    chunks = [
        _render(scene, room_from_camera[i : i + at_once], intrinsics[i : i + at_once], size)
        for i in range(0, frames, at_once)
    ]
    images = torch.cat([chunk[0] for chunk in chunks])
    depth = torch.cat([chunk[1] for chunk in chunks])
    world_from_camera = invert_rigid(room_from_camera[0]) @ room_from_camera
    world_from_camera[0] = torch.eye(4)
    return WorldSequence(
        images=_develop(dice, images, noise),
        depth=depth,
        world_from_camera=world_from_camera,
        intrinsics=intrinsics,
        points=points_from_depth(depth, invert_rigid(world_from_camera), intrinsics),
        scene=scene,
        room_from_camera=room_from_camera,
    )


def _intrinsics(dice: Dice, size: tuple[int, int], fov: tuple[float, float]) -> Tensor:
    """Square pixels; the longer side spans a random angle."""
    angle = torch.deg2rad(dice.uniform("fov", (1,), *fov))
    half_long = max(size) / 2
    focal = half_long / torch.tan(angle / 2)
    angles = 2 * torch.atan(torch.tensor(size) / 2 / focal)
    return intrinsics_from_fov(angles, size)


def _render(
    scene: Scene, room_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2).float()
    in_camera = pixel_rays(pixels.expand(len(intrinsics), -1, -1), intrinsics)
    rays = in_camera @ room_from_camera[:, :3, :3].mT
    origin = room_from_camera[:, :3, 3]
    hits = cast(scene, origin, rays)
    colour = shade(scene, hits, origin, rays, intrinsics[:, 0, 0])
    return colour.mT.unflatten(-1, size), hits.distance.unflatten(-1, size)


def _develop(dice: Dice, images: Tensor, noise: float) -> Tensor:
    """Exposure that wanders a little, white balance, sensor noise."""
    frames = len(images)
    gain = 1 + dice.uniform("exposure", (frames, 1, 1, 1), -0.04, 0.04)
    balance = dice.uniform("white balance", (3, 1, 1), 0.88, 1.12)
    brightness = dice.number("brightness", 0.75, 1.25)
    grain = dice.uniform("sensor", tuple(images.shape), -1.7, 1.7) * noise if noise else 0.0
    return (images * (gain * balance * brightness) + grain).clamp_(0, 1)
