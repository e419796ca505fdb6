"""What each pixel sees: solids are sorted into tiles of the image, then rays meet only these.

`cast` is for images, `cast_pixels` asks every solid, for single pixels; both agree.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from everview.geometry.rotations import invert_rigid
from everview.world.entry import ENTRIES, FAR, Axes
from everview.world.solids import TRIANGLE, Solids

TILE = (7, 14)
"""(height, width) in pixels."""
_PAIRS_AT_ONCE = 768
"""Tiles of a solid at a time: what fits the second-level cache."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """From where a place is looked at, frame by frame."""

    place_from_camera: Float[Tensor, "s 4 4"]
    intrinsics: Float[Tensor, "s 3 3"]
    place_from_body: Float[Tensor, "s b 4 4"]
    """Where the bodies are at that moment; the first is the place itself."""

    def part(self, start: int, stop: int) -> "Cameras":
        """Some of the frames."""
        return Cameras(
            place_from_camera=self.place_from_camera[start:stop],
            intrinsics=self.intrinsics[start:stop],
            place_from_body=self.place_from_body[start:stop],
        )


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The nearest surface along the ray of each pixel, tile by tile."""

    distance: Float[Tensor, "s n"]
    """z-depth, at least FAR where there is nothing."""
    row: Int[Tensor, "s n"]
    """Row of the tables below."""
    solid: Int[Tensor, " v"]
    """Row of `Solids`, for each solid in view of a frame."""
    origin: Float[Tensor, "v 3"]
    """Camera in the solid's own axes."""
    local: Float[Tensor, "v 3 3"]
    """From the camera's axes to the solid's."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An image cut into tiles; those at the right and lower border may reach beyond it."""

    size: tuple[int, int]
    """(height, width) in pixels."""

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.size[0] // TILE[0]), -(-self.size[1] // TILE[1])

    def pixels(self, device: torch.device) -> Float[Tensor, "n 2"]:
        """(x, y) of all pixels in the order of the tiles."""
        rows, columns = self.tiles
        y = torch.arange(rows * TILE[0], device=device).reshape(rows, 1, TILE[0], 1)
        x = torch.arange(columns * TILE[1], device=device).reshape(1, columns, 1, TILE[1])
        shape = (rows, columns, *TILE)
        return torch.stack([x.expand(shape), y.expand(shape)], dim=-1).reshape(-1, 2).float()

    def image(self, values: Shaped[Tensor, "*c n"]) -> Shaped[Tensor, "*c H W"]:
        """From the order of the tiles to that of an image."""
        rows, columns = self.tiles
        tiles = values.unflatten(-1, (rows, columns, *TILE)).transpose(-3, -2)
        image = tiles.flatten(-4, -3).flatten(-2, -1)
        return image[..., : self.size[0], : self.size[1]]


@dataclass(frozen=True, kw_only=True)
class _Views:
    """Pairs of a frame and a solid, sorted by shape."""

    frame: Int[Tensor, " v"]
    solid: Int[Tensor, " v"]
    local: Float[Tensor, "v 3 3"]
    """From the camera's axes to the solid's."""
    origin: Float[Tensor, "v 3"]
    """Camera in the solid's axes."""
    axes: Float[Tensor, "v 3 3"]
    """Columns: the solid's axes in the camera's."""
    centre: Float[Tensor, "v 3"]
    """Of the solid, in the camera's axes."""
    triangles: tuple[int, int]
    """Rows [start, stop) that are triangles, whose boxes would be far too large."""


def cast(solids: Solids, cameras: Cameras, grid: Grid) -> Hits:
    """Find the nearest surface in all pixels of one image per frame."""
    views = _views(solids, cameras, _in_view(solids, cameras, grid))
    view, tile = _tiles_met(cameras, views, grid)
    distance = _distances(solids, cameras, views, grid, view, tile)
    s, num_tiles = len(cameras.intrinsics), grid.tiles[0] * grid.tiles[1]
    slot = views.frame[view] * num_tiles + tile
    best = distance.new_full((s * num_tiles, distance.shape[1]), FAR)
    slots = slot[:, None].expand_as(distance)
    best.scatter_reduce_(0, slots, distance, "amin")
    # where two are equally near, the later one is seen
    number = (distance == best.index_select(0, slot)) * view[:, None].float()
    row = torch.zeros_like(best).scatter_reduce_(0, slots, number, "amax").long()
    return Hits(
        distance=best.reshape(s, -1), row=row.reshape(s, -1), solid=views.solid,
        origin=views.origin, local=views.local,
    )  # fmt: skip


def cast_pixels(solids: Solids, cameras: Cameras, pixels: Float[Tensor, "s n 2"]) -> Hits:
    """Find the nearest surface in single pixels (x, y) of each frame."""
    s, k, n = len(pixels), len(solids), pixels.shape[1]
    every = torch.ones(k, s, dtype=torch.bool, device=pixels.device).nonzero()
    views = _views(solids, cameras, every)  # k s
    rays = pixel_rays(pixels, cameras.intrinsics)  # s n 3
    direction = torch.einsum("ksij,snj->iksn", views.local.unflatten(0, (k, s)), rays)
    origin = views.origin.unflatten(0, (k, s)).movedim(-1, 0)[..., None]  # 3 k s 1
    parts = [
        ENTRIES[shape](_axes(origin[:, a:b]), _axes(direction[:, a:b])).expand(-1, s, n)
        for shape, (a, b) in enumerate(solids.spans())
        if b > a
    ]
    distance, which = torch.cat(parts).flip(0).min(dim=0)
    row = (k - 1 - which) * s + torch.arange(s, device=pixels.device)[:, None]
    return Hits(
        distance=distance.clamp(max=FAR), row=row, solid=views.solid, origin=views.origin,
        local=views.local,
    )  # fmt: skip


def pixel_rays(
    pixels: Float[Tensor, "*s n 2"], intrinsics: Float[Tensor, "*s 3 3"]
) -> Float[Tensor, "*s n 3"]:
    """Directions with z = 1 in the camera's frame through pixels (x, y)."""
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    slope = (pixels - intrinsics[..., None, :2, 2]) / focal.unsqueeze(-2)
    return torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1)


def body_from_camera(cameras: Cameras) -> Float[Tensor, "s b 4 4"]:
    """Cameras as bodies see them."""
    return invert_rigid(cameras.place_from_body) @ cameras.place_from_camera[:, None]


def _axes(stacked: Tensor) -> Axes:
    return stacked[0], stacked[1], stacked[2]


def _centres(solids: Solids, seen_from: Tensor) -> Tensor:
    """Centres in the camera's axes, s k 3."""
    turn, place = seen_from[..., :3, :3], seen_from[..., :3, 3]
    centre = (solids.centre - place[:, :1]) @ turn[:, 0]
    if seen_from.shape[1] > 1:
        moved = solids.body.nonzero()[:, 0]
        body = solids.body[moved]
        towards = (solids.centre[moved] - place[:, body])[:, :, None]  # s m 1 3
        centre[:, moved] = (towards @ turn[:, body])[:, :, 0]
    return centre


def _slopes(cameras: Cameras, grid: Grid, axis: int) -> Tensor:
    """Slopes x / z, or y / z, of the borders between tiles: s and one more than there are tiles."""
    step, count = TILE[1 - axis], grid.tiles[1 - axis]
    edges = torch.arange(count + 1, device=cameras.intrinsics.device) * step - 0.5
    centre, focal = cameras.intrinsics[:, axis, 2, None], cameras.intrinsics[:, axis, axis, None]
    return (edges - centre) / focal


def _in_view(solids: Solids, cameras: Cameras, grid: Grid) -> Tensor:
    """Pairs (solid, frame) whose bounding sphere meets the view, sorted by solid."""
    centre = _centres(solids, body_from_camera(cameras))
    x, y, z = centre.unbind(-1)  # s k
    reach = solids.reach
    visible = z > -reach
    for along, axis in ((x, 0), (y, 1)):
        slopes = _slopes(cameras, grid, axis)
        low, high = slopes[:, :1], slopes[:, -1:]
        visible &= along - low * z > -reach * (1 + low * low).sqrt()
        visible &= high * z - along > -reach * (1 + high * high).sqrt()
    found = visible.T.nonzero()
    return found if len(found) else found.new_zeros(1, 2)


def _views(solids: Solids, cameras: Cameras, pairs: Tensor) -> _Views:
    """Geometry of pairs (solid, frame)."""
    solid, frame = pairs.unbind(1)
    seen_from = body_from_camera(cameras)[frame, solids.body[solid]]
    turn = seen_from[:, :3, :3]
    axes = turn.mT @ solids.axes[solid]
    centre = (turn.mT @ (solids.centre[solid] - seen_from[:, :3, 3])[..., None])[..., 0]
    local = solids.inverse_axes[solid] @ turn
    origin = -(local @ centre[..., None])[..., 0]
    ends = torch.searchsorted(solid, torch.tensor(solids.spans()[TRIANGLE], device=solid.device))
    start, stop = ends.tolist()
    return _Views(
        frame=frame, solid=solid, local=local, origin=origin, axes=axes, centre=centre,
        triangles=(start, stop),
    )  # fmt: skip


def _met(views: _Views, slopes: Tensor, axis: int) -> Tensor:
    """Which columns (axis 0) or rows (axis 1) of tiles the boxes around solids reach."""
    slope = slopes[views.frame]  # v edges
    middle = views.centre[:, axis, None] - slope * views.centre[:, 2, None]
    sides = views.axes[:, axis, :, None] - slope[:, None] * views.axes[:, 2, :, None]  # v 3 edges
    reach = sides.abs().sum(dim=1)
    right, left = middle + reach, middle - reach
    start, stop = views.triangles
    if stop > start:
        corners = sides[start:stop, :2]
        right[start:stop] = middle[start:stop] + corners.amax(dim=1).clamp(min=0)
        left[start:stop] = middle[start:stop] + corners.amin(dim=1).clamp(max=0)
    return (right[:, :-1] >= 0) & (left[:, 1:] <= 0)


def _tiles_met(cameras: Cameras, views: _Views, grid: Grid) -> tuple[Tensor, Tensor]:
    """Pairs of a view and a tile in which its solid may be seen, sorted by view."""
    columns = _met(views, _slopes(cameras, grid, 0), 0)
    rows = _met(views, _slopes(cameras, grid, 1), 1)
    view, tile = (rows[:, :, None] & columns[:, None]).flatten(1).nonzero().unbind(1)
    return view, tile


def _directions(cameras: Cameras, views: _Views, grid: Grid, view: Tensor, tile: Tensor) -> Tensor:
    """Linear maps from (x, y, 1), x and y counted in the tile, to own axes: 3 p 3."""
    k = cameras.intrinsics
    pixel = (
        views.local
        / torch.stack([k[:, 0, 0], k[:, 1, 1], torch.ones_like(k[:, 0, 0])], dim=-1)[
            views.frame, None
        ]
    )  # from ((x - cx), (y - cy), 1)
    corner = torch.stack([tile % grid.tiles[1] * TILE[1], tile // grid.tiles[1] * TILE[0]], dim=-1)
    shift = corner - k[:, :2, 2][views.frame[view]]  # p 2
    result = pixel[view].movedim(1, 0)  # 3 p 3
    return torch.cat(
        [result[..., :2], (result[..., :2] * shift).sum(-1, keepdim=True) + result[..., 2:]], -1
    )


def _distances(
    solids: Solids, cameras: Cameras, views: _Views, grid: Grid, view: Tensor, tile: Tensor
) -> Tensor:
    """Distance of each solid in each pixel of each tile that it may be seen in."""
    maps = _directions(cameras, views, grid, view, tile)
    offsets = Grid(size=TILE).pixels(view.device)
    offsets = torch.cat([offsets, torch.ones_like(offsets[:, :1])], dim=1).T.contiguous()
    origin = views.origin[view].T[..., None]  # 3 p 1
    result = maps.new_empty(len(view), offsets.shape[1])
    ends = torch.bincount(solids.shape[views.solid[view]], minlength=len(ENTRIES)).cumsum(0)
    start = 0
    for shape, end in enumerate(ends.tolist()):
        for a in range(start, end, _PAIRS_AT_ONCE):
            b = min(a + _PAIRS_AT_ONCE, end)
            direction = (maps[:, a:b].reshape(-1, 3) @ offsets).unflatten(0, (3, b - a))
            result[a:b] = ENTRIES[shape](_axes(origin[:, a:b]), _axes(direction))
        start = end
    return result
