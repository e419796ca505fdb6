"""Pictures and exact geometry of some frames of a place."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.rotations import invert_rigid
from everview.world.cast import Cameras, Grid, body_from_camera, cast, pixel_rays
from everview.world.entry import FAR
from everview.world.movers import body_poses
from everview.world.places import GROUP, Place
from everview.world.scene import Scene
from everview.world.shade import body_rows, shade

_RAYS_AT_ONCE = {"cpu": 1 << 16}
"""Pixels that are worked on together, by kind of device: what fits the caches; else 2^24."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Frames as the world shows them, before the camera's own faults."""

    images: Float[Tensor, "s 3 H W"]
    """Linear in light, 0 to about 1."""
    depth: Float[Tensor, "s H W"]
    """z-depth in metres; 0 where nothing is."""
    moving: Bool[Tensor, "s H W"]
    """What may move by itself."""
    flow: Float[Tensor, "s H W 2"] | None
    """Pixels that the surface moves while the shutter is open; only if asked for."""
    poses: Float[Tensor, "s 4 4"]
    """place_from_camera, float64."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Where the camera and all bodies are at some times, in the place's frame."""

    poses: Float[Tensor, "s 4 4"]
    """place_from_camera, float64."""
    bodies: Float[Tensor, "s b 4 4"]
    """place_from_body, float64."""

    def part(self, start: int, stop: int) -> "Moments":
        """Some of the times."""
        return Moments(poses=self.poses[start:stop], bodies=self.bodies[start:stop])

    def cameras(self, origin: Float[Tensor, " 3"], intrinsics: Float[Tensor, "3 3"]) -> Cameras:
        """The same around the origin of a scene, float32, on the device of `intrinsics`."""
        shift = torch.zeros(4, 4, dtype=torch.float64)
        shift[:3, 3] = origin
        bodies = self.bodies - shift
        bodies[:, 0] = torch.eye(4, dtype=torch.float64)
        return Cameras(
            place_from_camera=(self.poses - shift).float().to(intrinsics.device),
            intrinsics=intrinsics.expand(len(bodies), 3, 3),
            place_from_body=bodies.float().to(intrinsics.device),
        )


def moments(place: Place, times: Float[Tensor, " s"]) -> Moments:
    """Ask a place where things are at times in frames."""
    return Moments(poses=place.cameras(times), bodies=body_poses(place.bodies, times))


def cameras_at(
    place: Place, times: Float[Tensor, " s"], intrinsics: Float[Tensor, "3 3"], group: int
) -> Cameras:
    """Cameras and bodies at times in frames, around the origin of a group's scene."""
    return moments(place, times).cameras(place.origin(group), intrinsics)


def groups(start: int, stop: int) -> list[tuple[int, int, int]]:
    """Group, first and last-but-one frame of each part of [start, stop) that shares a scene."""
    parts = []
    while start < stop:
        group = start // GROUP
        end = min(stop, (group + 1) * GROUP)
        parts.append((group, start, end))
        start = end
    return parts


def render(
    place: Place,
    start: int,
    stop: int,
    *,
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
    shutter: float = 0.0,
) -> Pictures:
    """Render frames [start, stop) on the device of `intrinsics`.

    Args:
        place: what to look at.
        start: first frame.
        stop: frame after the last one.
        intrinsics: K in pixels, of all frames.
        size: (height, width).
        shutter: share of the time between frames that the shutter is open; above 0 `flow` is made.
    """
    kind = intrinsics.device.type
    at_once = max(1, _RAYS_AT_ONCE.get(kind, 1 << 24) // (size[0] * size[1]))
    times = torch.arange(start, stop, dtype=torch.float32)
    now = moments(place, times)
    ends = None
    if shutter:
        ends = moments(place, times - shutter / 2), moments(place, times + shutter / 2)
    parts = []
    for group, begin, end in groups(start, stop):
        scene, origin = place.scene(group).to(intrinsics.device), place.origin(group)
        for first in range(begin, end, at_once):
            span = first - start, min(first + at_once, end) - start
            cameras = now.part(*span).cameras(origin, intrinsics)
            opened = [m.part(*span).cameras(origin, intrinsics) for m in ends or ()]
            parts.append(_render_part(scene, cameras, opened, size))
    flows = [flow for *_, flow in parts if flow is not None]
    images, depth, moving = (
        torch.cat(pieces) for pieces in zip(*(part[:3] for part in parts), strict=True)
    )
    return Pictures(
        images=images, depth=depth, moving=moving, flow=torch.cat(flows) if flows else None,
        poses=now.poses,
    )  # fmt: skip


def _render_part(
    scene: Scene, cameras: Cameras, opened: list[Cameras], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Images, depth, what moves, and flow from the first to the second of `opened`, if given."""
    grid = Grid(size=size)
    rays = pixel_rays(grid.pixels(scene.materials.device), cameras.intrinsics[0])
    hits = cast(scene.solids, cameras, grid)
    colour = shade(scene, hits, cameras, rays)
    depth = hits.distance * (hits.distance < FAR)
    body = body_rows(scene.solids, hits)
    flow = None
    if opened:
        points = rays * hits.distance.clamp(max=1e4)[..., None]
        ends = [_moved(points, body, cameras, then) for then in opened]
        flow = grid.image((ends[1] - ends[0]).movedim(-1, 0)).permute(1, 2, 3, 0)
    return (
        grid.image(colour).transpose(0, 1),
        grid.image(depth),
        grid.image(scene.moving[body] & (depth > 0)),
        flow,
    )


def _moved(points: Tensor, body: Tensor, now: Cameras, then: Cameras) -> Tensor:
    """Pixels s n 2 of points (in the camera's axes now), when bodies and cameras have moved on."""
    maps = invert_rigid(then.place_from_camera)[:, None] @ then.place_from_body
    maps = maps @ body_from_camera(now)  # s b 4 4
    moved = points @ maps[:, 0, :3, :3].mT + maps[:, 0, None, :3, 3]
    frame, pixel = body.nonzero().unbind(1)
    if len(frame):
        chosen = maps[frame, body[frame, pixel]]
        turned = (chosen[:, :3, :3] @ points[frame, pixel][..., None])[..., 0]
        moved[frame, pixel] = turned + chosen[:, :3, 3]
    focal = now.intrinsics[:, None, 0, 0, None]
    return moved[..., :2] / moved[..., 2:].clamp(min=0.05) * focal
