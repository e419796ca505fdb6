"""Points of one frame followed through others, with what moves."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.cameras import project_points
from everview.geometry.rotations import invert_rigid
from everview.world.cast import Cameras, Hits, cast_pixels, pixel_rays
from everview.world.entry import FAR
from everview.world.places import Place
from everview.world.render import cameras_at, groups
from everview.world.scene import Scene
from everview.world.shade import body_rows

_ENTRIES_AT_ONCE = 1 << 22
"""Frames x solids x points that are worked on together."""
_SAME = 2e-3
"""Relative difference in depth up to which a point is the one that is seen."""


def follow(
    place: Place,
    queries: Float[Tensor, "n 2"],
    start: int,
    stop: int,
    *,
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
) -> tuple[Float[Tensor, "s n 2"], Bool[Tensor, "s n"]]:
    """Follow pixels (x, y) of frame `start` to frames [start, stop); see `WorldSequence.tracks`."""
    n = len(queries)
    body, points, exists = _in_bodies(place, queries.to(intrinsics), start, intrinsics)
    pixels, visible = [], []
    for group, begin, end in groups(start, stop):
        scene = place.scene(group).to(intrinsics.device)
        at_once = max(1, _ENTRIES_AT_ONCE // (len(scene.solids) * max(1, n)))
        for first in range(begin, end, at_once):
            times = torch.arange(first, min(end, first + at_once), dtype=torch.float32)
            cameras = cameras_at(place, times, intrinsics, group)
            origin = place.origin(group).to(points.device)
            shift = torch.where((body == 0)[:, None], origin, 0.0)
            seen, depth = _project(cameras, body, (points - shift).float())
            pixels.append(seen)
            visible.append(_is_visible(scene, cameras, seen, depth, size) & exists)
    return torch.cat(pixels), torch.cat(visible)


def _in_bodies(
    place: Place, queries: Tensor, frame: int, intrinsics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Body that each query shows, the point in that body's frame (float64), and if there is one."""
    ((group, _, _),) = groups(frame, frame + 1)
    scene = place.scene(group).to(intrinsics.device)
    cameras = cameras_at(place, torch.tensor([float(frame)]), intrinsics, group)
    hits = _cast_in_parts(scene, cameras, queries[None])
    exists = hits.distance[0] < FAR
    body = body_rows(scene.solids, hits)[0]
    in_camera = pixel_rays(queries, intrinsics) * hits.distance[0, :, None].clamp(max=1e4)
    body_from_camera = (
        invert_rigid(cameras.place_from_body[0].double()) @ cameras.place_from_camera[0].double()
    )[body]
    points = (body_from_camera[:, :3, :3] @ in_camera.double()[..., None])[..., 0]
    points = points + body_from_camera[:, :3, 3]
    shift = torch.where((body == 0)[:, None], place.origin(group).to(points.device), 0.0)
    return body, points + shift, exists


def _cast_in_parts(scene: Scene, cameras: Cameras, pixels: Tensor) -> Hits:
    """`cast_pixels` for one frame and any number of pixels."""
    at_once = max(1, _ENTRIES_AT_ONCE // len(scene.solids))
    parts = [cast_pixels(scene.solids, cameras, part) for part in pixels.split(at_once, dim=1)]
    return Hits(
        distance=torch.cat([part.distance for part in parts], dim=1),
        row=torch.cat([part.row for part in parts], dim=1),
        solid=parts[0].solid, origin=parts[0].origin, local=parts[0].local,
    )  # fmt: skip


def _project(cameras: Cameras, body: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels s n 2 and depths s n of points that are given in their bodies' frames."""
    camera_from_body = invert_rigid(cameras.place_from_camera)[:, None] @ cameras.place_from_body
    maps = camera_from_body[:, body]  # s n 4 4
    in_camera = (maps[..., :3, :3] @ points[..., None])[..., 0] + maps[..., :3, 3]
    return project_points(in_camera, cameras.intrinsics), in_camera[..., 2]


def _is_visible(
    scene: Scene, cameras: Cameras, pixels: Tensor, depth: Tensor, size: tuple[int, int]
) -> Tensor:
    """In front of the camera, inside the image, and what is seen there has this depth."""
    limit = pixels.new_tensor([size[1], size[0]])
    inside = ((pixels >= -0.5) & (pixels < limit - 0.5)).all(dim=-1) & (depth > 1e-3)
    asked = torch.where(inside[..., None], pixels, 0.0)
    parts = [
        _cast_in_parts(scene, cameras.part(i, i + 1), asked[i : i + 1]).distance
        for i in range(len(asked))
    ] if len(scene.solids) * pixels.shape[1] > _ENTRIES_AT_ONCE else [
        cast_pixels(scene.solids, cameras, asked).distance
    ]  # fmt: skip
    return inside & ((torch.cat(parts) / depth - 1).abs() < _SAME)
