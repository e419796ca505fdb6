"""Colours of pixels: texture, lights, shadow, gloss, mirrors, fog and sky."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.geometry.rotations import invert_rigid
from everview.world.cast import Cameras, Hits
from everview.world.entry import FAR
from everview.world.scene import Scene, ShadowView, Sky
from everview.world.solids import Solids
from everview.world.surface import Vectors, surface
from everview.world.textures import COLUMNS, albedo, sample

_GLOSS, _MIRROR, _GLOW = (COLUMNS.index(name) for name in ("gloss", "mirror", "glow"))
_SHADOW_SLACK = 0.02
"""Share of the distance by which a surface may seem to lie behind itself."""
_MIRROR_SLOT = 34.0


def shade(
    scene: Scene,
    hits: Hits,
    cameras: Cameras,
    rays: Float[Tensor, "n 3"],
) -> Float[Tensor, "3 s n"]:
    """Colours of what the rays hit, 0 to about 1.

    Args:
        scene: what is there.
        hits: of the same rays.
        cameras: of the same rays; all with the same intrinsics.
        rays: directions with z = 1 in the cameras' axes, of each frame's pixels.
    """
    x, y = rays.T[:2, None].contiguous()  # 1 n
    length = (x * x).addcmul_(y, y).add_(1).sqrt_()
    found = surface(scene, hits, (x, y))
    depth = hits.distance.clamp(max=1e4)
    facing = _dot(found.normal, (x / length, y / length, 1 / length)).abs_().clamp_(min=0.04)
    focal = cameras.intrinsics[:, 0, 0, None]
    footprint = (depth * length / focal).div_(facing.sqrt_())
    colour = albedo(found.at, footprint, found.material)
    light, shine = _light(scene, cameras, found.normal, (x, y, length, depth))
    if scene.uses("glow"):
        glow = found.material[_GLOW]
        light = light.lerp_(torch.full_like(light, 1.3), glow.expand_as(light))
    colour = colour.mul_(light).addcmul_(shine, found.material[_GLOSS])
    colour = _mirrored(scene, cameras, colour, found.normal, found.material[_MIRROR], (x, y))
    if scene.fog:
        clear = (depth * length).mul_(-scene.fog).exp_()
        colour = torch.lerp(_fog_colour(scene)[:, None, None], colour, clear)
    return colour if scene.sky is None else _with_sky(scene, scene.sky, hits, cameras, colour, rays)


def _dot(a: Vectors, b: Vectors) -> Tensor:
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def _fog_colour(scene: Scene) -> Tensor:
    return scene.lights.ambient if scene.sky is None else scene.sky.horizon


def _lamps(scene: Scene, cameras: Cameras) -> Tensor:
    """Places of lamps (w = 1) and directions of far lights (w = 0) in cameras' axes: l 4 s 1."""
    camera_from_place = invert_rigid(cameras.place_from_camera)
    return (camera_from_place @ scene.lights.place.T).permute(2, 1, 0)[..., None]


def _light(
    scene: Scene,
    cameras: Cameras,
    normal: Vectors,
    view: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Light that arrives, 3 s n, and highlights of the main light, s n."""
    x, y, length, depth = view
    lights = scene.lights
    up = -cameras.place_from_camera[:, 1, :3, None]  # s 3 1: upwards in the cameras' axes
    from_above = _dot(normal, (up[:, 0], up[:, 1], up[:, 2])).mul_(0.3).add_(1)
    total = lights.ambient[:, None, None] * from_above
    shine = torch.zeros_like(depth)
    for number, lamp in enumerate(_lamps(scene, cameras)):
        away = depth * lamp[3]
        towards = (lamp[0] - away * x, lamp[1] - away * y, lamp[2] - away)
        square = _dot(towards, towards)
        inverse = square.add(1e-6).rsqrt()
        cosine = _dot(normal, towards).mul_(inverse)
        arrives = cosine.clamp(min=0) / (1 + square / lights.falloff[number].square())
        if number == 0:
            if scene.shadow is not None:
                arrives = arrives * _unhidden(scene, scene.shadow, cameras, (x, y, depth))
            against = (towards[0] * x).addcmul_(towards[1], y).add_(towards[2]).mul_(inverse)
            along = (normal[0] * x).addcmul_(normal[1], y).add_(normal[2])
            shine = along.mul_(cosine).mul_(-2).add_(against).div_(length).clamp_(min=0)
            shine = shine.square_().square_().square_().square_() * arrives
        total = torch.addcmul(total, lights.colour[number, :, None, None], arrives)
    return total, shine


def _unhidden(
    scene: Scene, view: ShadowView, cameras: Cameras, at: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Share of the main light that is not held back, s n."""
    x, y, depth = at
    maps = invert_rigid(view.place_from_light) @ cameras.place_from_camera
    place = [
        (maps[:, i, 0, None] * x + maps[:, i, 1, None] * y + maps[:, i, 2, None]).mul_(depth)
        + maps[:, i, 3, None]
        for i in range(3)
    ]
    away = place[2].clamp(min=1e-3)
    grid = depth.new_empty(*depth.shape, 2)
    torch.div(place[0], away * view.half_width, out=grid[..., 0])
    torch.div(place[1], away * view.half_width, out=grid[..., 1])
    reaches = F.grid_sample(
        scene.shadow_map, grid.reshape(1, 1, -1, 2), padding_mode="border", align_corners=False
    ).reshape(depth.shape)
    reaches = reaches.sub_(place[2] * (1 - _SHADOW_SLACK)).div_(view.softness).add_(1.0)
    return reaches.clamp_(0, 1)


def _mirrored(
    scene: Scene,
    cameras: Cameras,
    colour: Tensor,
    normal: Vectors,
    mirror: Tensor,
    rays: tuple[Tensor, Tensor],
) -> Tensor:
    """Mix in what mirrors show: an unsharp picture of the surroundings, not a traced one."""
    if not scene.uses("mirror"):
        return colour
    index = mirror.flatten().nonzero()[:, 0]
    if not len(index):
        return colour
    frame, pixel = index // mirror.shape[1], index % mirror.shape[1]
    n = torch.stack([part.flatten()[index] for part in normal], dim=-1)
    ray = torch.stack([rays[0][0, pixel], rays[1][0, pixel]], dim=-1)
    ray = F.normalize(F.pad(ray, (0, 1), value=1.0), dim=-1)
    bounced = ray - 2 * (ray * n).sum(-1, keepdim=True) * n
    turn = cameras.place_from_camera[frame, :3, :3]
    x, y, z = (turn @ bounced[..., None])[..., 0].unbind(-1)
    height = (0.5 - 0.5 * y).clamp(0, 1)
    picture = sample(_MIRROR_SLOT, 0.6 * x + 0.37 * z, 0.6 * y - 0.31 * x, torch.full_like(x, 0.02))
    low, high = scene.lights.ambient * 0.5, scene.lights.ambient + scene.lights.colour[0] * 0.6
    if scene.sky is not None:
        high = scene.sky.zenith
    seen = torch.lerp(low[:, None], high[:, None], height) * (0.6 + 0.8 * picture)
    fresnel = (1 + (ray * n).sum(-1)).clamp(0, 1) ** 3
    share = mirror.flatten()[index]
    share = share + (1 - share) * fresnel * 0.7
    flat = colour.flatten(1)
    flat[:, index] = torch.lerp(flat[:, index], seen, share)
    return flat.reshape(colour.shape)


def _with_sky(
    scene: Scene, sky: Sky, hits: Hits, cameras: Cameras, colour: Tensor, rays: Tensor
) -> Tensor:
    """Paint the pixels that see nothing."""
    index = (hits.distance >= FAR).flatten().nonzero()[:, 0]
    if not len(index):
        return colour
    num_pixels = hits.distance.shape[1]
    frame = index // num_pixels
    ray = F.normalize(rays[index % num_pixels], dim=-1)
    turn = cameras.place_from_camera[frame, :3, :3]
    x, y, z = (turn @ ray[..., None])[..., 0].unbind(-1)
    up = (-y).clamp(min=0)
    high = 1 / (up + 0.12)
    cloud = sample(sky.slot, x * high * 0.15, z * high * 0.15, 0.002 * high)
    cloud = ((cloud - 1 + sky.clouds) * 4).clamp(0, 1) * (up * 6).clamp(0, 1)
    painted = torch.lerp(sky.horizon[:, None], sky.zenith[:, None], up.sqrt())
    painted = torch.lerp(painted, torch.ones_like(painted) * 0.92, cloud * 0.8)
    sun = scene.lights.place[0]
    if float(sun[3]) == 0:
        near = (x * sun[0] + y * sun[1] + z * sun[2]).clamp(min=0)
        painted = painted + 0.5 * near**40
    flat = colour.flatten(1)
    flat[:, index] = painted
    return flat.reshape(colour.shape)


def body_rows(solids: Solids, hits: Hits) -> Tensor:
    """Body that each pixel shows, s n."""
    return solids.body[hits.solid].index_select(0, hits.row.flatten()).reshape(hits.row.shape)
