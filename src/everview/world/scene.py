"""A lit place at one time of its life: solids, what they are made of, lights, sky and air."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from everview.world.cast import Cameras, Grid, cast
from everview.world.solids import CONE, CYLINDER, SPHERE, TRIANGLE, Solids, choose_solids
from everview.world.textures import COLUMNS

NUM_FACES = 6
SHADOW_SIDE = 126
"""Pixels of a shadow map's side."""


@dataclass(frozen=True, kw_only=True)
class Sky:
    """What is seen where nothing stands."""

    zenith: Float[Tensor, " 3"]
    """Colour above."""
    horizon: Float[Tensor, " 3"]
    """Colour at the horizon, and of the fog."""
    clouds: float
    """How much of them, 0 to 1."""
    slot: float
    """Pattern of the clouds."""


@dataclass(frozen=True, kw_only=True)
class Lights:
    """One main light, that casts shadows, and others."""

    place: Float[Tensor, "l 4"]
    """x y z 1 of a lamp, or the direction towards a far one and 0."""
    colour: Float[Tensor, "l 3"]
    falloff: Float[Tensor, " l"]
    """Metres at which half of a lamp's light is left."""
    ambient: Float[Tensor, " 3"]
    """Light from everywhere."""


@dataclass(frozen=True, kw_only=True)
class ShadowView:
    """The camera at the main light that finds what is in shadow."""

    place_from_light: Float[Tensor, "4 4"]
    half_width: float
    """Tangent of half the angle seen."""
    softness: float
    """Metres over which a shadow sets in."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a picture needs but cameras."""

    solids: Solids
    materials: Float[Tensor, "m 22"]
    """Columns as in `textures.COLUMNS`."""
    lights: Lights
    shadow: ShadowView | None = None
    sky: Sky | None = None
    fog: float = 0.0
    """Share of light lost per metre."""
    moving: Bool[Tensor, " b"]
    """Which bodies ever move."""

    @cached_property
    def faces(self) -> Float[Tensor, "30 faces"]:
        """Of each face of each solid: what shading looks up.

        Texture coordinates from own ones (2 x 3), their shift in metres (2), material (22).
        """
        solids, k = self.solids, len(self.solids)
        half = solids.axes.norm(dim=1)  # k 3
        maps = half.new_zeros(k, NUM_FACES, 2, 3)
        for face, (along_u, along_v) in enumerate(((2, 1), (2, 1), (0, 2), (0, 2), (0, 1), (0, 1))):
            maps[:, face, 0, along_u] = half[:, along_u]
            maps[:, face, 1, along_v] = half[:, along_v]
        is_flat = (solids.shape == TRIANGLE)[:, None, None, None]
        maps = torch.where(is_flat, solids.axes[:, None, ::2], maps)  # from above
        offset = solids.offset[:, None].expand(k, NUM_FACES, 2)
        offset = offset + solids.centre[:, None, ::2] * is_flat[..., 0]
        look = self.materials[solids.material]
        return torch.cat([maps.flatten(2), offset, look], dim=2).flatten(0, 1).T.contiguous()

    @cached_property
    def curves(self) -> Float[Tensor, "5 k"]:
        """Of each solid, as 0 or 1: curved, round with flat ends, triangle; then two numbers.

        These give the vertical part of a curved surface's direction from the own y.
        """
        shape = self.solids.shape
        sphere, cone = (shape == SPHERE).float(), (shape == CONE).float()
        ends = cone + (shape == CYLINDER).float()
        rows = [sphere + ends, ends, (shape == TRIANGLE).float(), sphere - cone / 4, -cone / 4]
        return torch.stack(rows)

    @cached_property
    def slopes(self) -> Float[Tensor, "9 k"]:
        """Of triangles, in own axes: how the direction of the surface goes.

        At the first corner, then its change along x and along y.
        """
        corners = self.solids.normals @ self.solids.axes  # k corner 3
        first = corners[:, 0]
        parts = [first, corners[:, 1] - first, corners[:, 2] - first]
        return torch.cat(parts, dim=1).T.contiguous()

    @cached_property
    def shadow_map(self) -> Float[Tensor, "1 1 side side"]:
        """z-depth from the main light of what stands still; far at the border, which so is lit."""
        view = self.shadow
        assert view is not None, "asked for only where the main light casts shadows"
        focal, middle = SHADOW_SIDE / 2 / view.half_width, SHADOW_SIDE / 2
        intrinsics = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
        device = self.materials.device
        cameras = Cameras(
            place_from_camera=view.place_from_light[None],
            intrinsics=intrinsics[None].to(device),
            place_from_body=torch.eye(4, device=device)[None, None],
        )
        grid = Grid(size=(SHADOW_SIDE, SHADOW_SIDE))
        still = choose_solids(self.solids, self.solids.body == 0)
        depth = grid.image(cast(still, cameras, grid).distance).clamp(max=1e4)
        return F.pad(depth[:, 1:-1, 1:-1], (1,) * 4, value=1e4)[None]

    def to(self, device: torch.device) -> "Scene":
        """The same on another device."""
        if self.materials.device == device:
            return self
        return replace(
            self, solids=self.solids.to(device), materials=self.materials.to(device),
            lights=_moved(self.lights, device), moving=self.moving.to(device),
            sky=None if self.sky is None else _moved(self.sky, device),
            shadow=None if self.shadow is None else _moved(self.shadow, device),
        )  # fmt: skip

    def uses(self, column: str) -> bool:
        """Whether any material has a number above 0 in a column of `textures.COLUMNS`."""
        return self._used[COLUMNS.index(column)]

    @cached_property
    def _used(self) -> list[bool]:
        return (self.materials > 0).any(dim=0).tolist()

    @property
    def has_triangles(self) -> bool:
        """Whether any surface is made of triangles."""
        start, stop = self.solids.spans()[TRIANGLE]
        return stop > start


_Record = TypeVar("_Record", Lights, Sky, ShadowView)


def _moved(record: _Record, device: torch.device) -> _Record:
    """Tensors of a record on another device."""
    values: dict[str, Any] = {f.name: getattr(record, f.name) for f in fields(record)}
    for name, value in values.items():
        values[name] = value.to(device) if isinstance(value, Tensor) else value
    return type(record)(**values)
