"""Pictures and exact geometry of some frames of a place."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.rotations import invert_rigid
from everview.world.cast import Cameras, Grid, cast, pixel_rays
from everview.world.entry import FAR
from everview.world.movers import body_poses
from everview.world.places import GROUP, Place
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


def cameras_at(
    place: Place, times: Float[Tensor, " s"], intrinsics: Float[Tensor, "3 3"], group: int
) -> Cameras:
    """Cameras and bodies at times in frames, around the origin of a group's scene."""
    shift = torch.zeros(4, 4, dtype=torch.float64)
    shift[:3, 3] = place.origin(group)
    bodies = body_poses(place.bodies, times) - shift
    bodies[:, 0] = torch.eye(4, dtype=torch.float64)
    device = intrinsics.device
    return Cameras(
        place_from_camera=(place.cameras(times) - shift).float().to(device),
        intrinsics=intrinsics.expand(len(times), 3, 3),
        place_from_body=bodies.float().to(device),
    )


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
    parts = [
        _render_part(place, group, (first, min(first + at_once, end)), intrinsics, size, shutter)
        for group, begin, end in groups(start, stop)
        for first in range(begin, end, at_once)
    ]
    flows = [part.flow for part in parts if part.flow is not None]
    return Pictures(
        images=torch.cat([part.images for part in parts]),
        depth=torch.cat([part.depth for part in parts]),
        moving=torch.cat([part.moving for part in parts]),
        flow=torch.cat(flows) if flows else None,
    )


def _render_part(
    place: Place,
    group: int,
    span: tuple[int, int],
    intrinsics: Tensor,
    size: tuple[int, int],
    shutter: float,
) -> Pictures:
    scene = place.scene(group).to(intrinsics.device)
    times = torch.arange(*span, dtype=torch.float32)
    cameras = cameras_at(place, times, intrinsics, group)
    grid = Grid(size=size)
    pixels = grid.pixels(intrinsics.device)
    rays = pixel_rays(pixels.expand(len(times), -1, -1), cameras.intrinsics)
    hits = cast(scene.solids, cameras, grid)
    colour = shade(scene, hits, cameras, rays)
    depth = hits.distance * (hits.distance < FAR)
    body = body_rows(scene.solids, hits)
    flow = None
    if shutter:
        opened = cameras_at(place, times - shutter / 2, intrinsics, group)
        closed = cameras_at(place, times + shutter / 2, intrinsics, group)
        flow = _flow(rays, hits.distance, body, (cameras, opened, closed))
        flow = grid.image(flow.movedim(-1, 0)).permute(1, 2, 3, 0)
    return Pictures(
        images=grid.image(colour).transpose(0, 1),
        depth=grid.image(depth),
        moving=grid.image(scene.moving[body] & (depth > 0)),
        flow=flow,
    )


def _flow(
    rays: Tensor, distance: Tensor, body: Tensor, cameras: tuple[Cameras, Cameras, Cameras]
) -> Tensor:
    """Pixels from shutter open to close, s n 2."""
    now, opened, closed = cameras
    points = rays * distance.clamp(max=1e4)[..., None]
    frame = torch.arange(len(rays), device=rays.device)[:, None]
    ends = []
    for then in (opened, closed):
        body_moved = then.place_from_body @ invert_rigid(now.place_from_body)
        maps = invert_rigid(then.place_from_camera)[:, None] @ body_moved
        maps = maps @ now.place_from_camera[:, None]  # s b 4 4
        moved = (maps[..., :3, :3][frame, body] @ points[..., None])[..., 0]
        moved = moved + maps[..., :3, 3][frame, body]
        focal = now.intrinsics[:, None, 0, 0, None]
        ends.append(moved[..., :2] / moved[..., 2:].clamp(min=0.05) * focal)
    return ends[1] - ends[0]
