"""Endless places on a square lattice: blocks made when they come near, forgotten when far."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
from torch import Tensor

from everview.geometry.rotations import rigid
from everview.world.builder import Builder
from everview.world.dice import Dice
from everview.world.motion import camera_turn, pick_motion, spline, stop_and_go
from everview.world.movers import Body, Rest
from everview.world.places import GROUP
from everview.world.route import Route
from everview.world.scene import Lights, Scene, ShadowView, Sky
from everview.world.solids import Solids, join_solids

_KEPT_BLOCKS, _KEPT_SCENES = 64, 3


class LatticePlace(ABC):
    """Streets or corridors, see `everview.world.places.Place`.

    Args:
        dice: seed of the place.
        speed: multiplies all motion.
        motion: of the camera, one of `motion.MOTIONS`.
        movers: whether anything moves by itself.
    """

    pitch: float
    """Metres between crossings."""
    reach: float
    """Blocks whose middle is nearer than this are there, in pitches."""
    radius: float
    """Of the route's corners, metres."""
    motions: tuple[str, ...]
    """From which the way of moving is drawn."""
    steps: tuple[float, float]
    """Smallest and largest logarithm of metres per frame."""
    eye: tuple[float, float]
    """Lowest and highest eye, metres above the ground."""

    def __init__(self, dice: Dice, *, speed: float, motion: str, movers: bool) -> None:
        self.dice, self.speed = dice, speed
        self._prepare()
        self.motion = pick_motion(dice, motion, self.motions)
        sides = (1 + dice.integer("loop x", 2), 1 + dice.integer("loop z", 2))
        is_loop = self.motion == "loop" or (motion == "any" and dice.chance("loops", 0.3))
        self.route = Route(
            dice=dice.child(1), pitch=self.pitch, radius=self.radius,
            sides=sides if is_loop else None,
        )  # fmt: skip
        self.step = speed * math.exp(dice.number("step", *self.steps))
        self.start = (0.1 + 0.5 * dice.number("start")) * self.pitch + 8.0
        self.materials = self._materials()
        bodies: list[Body] = [Rest()]
        builder = Builder()
        if movers:
            self._add_movers(builder, bodies)
        self.bodies = tuple(bodies)
        self._movers = builder.build()
        self._blocks: OrderedDict[tuple[int, int], Solids] = OrderedDict()
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    @abstractmethod
    def _prepare(self) -> None:
        """Draw the sizes that the rest depends on."""

    @abstractmethod
    def _materials(self) -> Tensor:
        """Rows of the material table."""

    @abstractmethod
    def _block(self, dice: Dice, builder: Builder, column: int, row: int) -> None:
        """Add what stands between crossings (0, 0) and (pitch, pitch) of a block."""

    @abstractmethod
    def _add_movers(self, builder: Builder, bodies: list[Body]) -> None:
        """Add what moves by itself."""

    @abstractmethod
    def _air(self) -> tuple[Lights, Sky | None, float, ShadowView | None]:
        """Lights, sky, fog and shadows, around the camera at the origin."""

    def scene(self, group: int) -> Scene:
        """See `Place.scene`."""
        if group not in self._scenes:
            self._scenes[group] = self._make_scene(group)
            if len(self._scenes) > _KEPT_SCENES:
                self._scenes.popitem(last=False)
        return self._scenes[group]

    def origin(self, group: int) -> Tensor:
        """See `Place.origin`: a crossing near the camera."""
        place = self.cameras(torch.tensor([float(group * GROUP)]))[0, :3, 3]
        origin = (place / self.pitch).round() * self.pitch
        origin[1] = 0
        return origin

    def cameras(self, times: Tensor) -> Tensor:
        """See `Place.cameras`."""
        dice, moved = self.dice, self._moved(times)
        aside = self._aside() + self._wander() * spline(dice, "aside", times / 12, 1)[:, 0]
        distance = self.start + moved
        x, z, heading = self.route.at(distance, aside)
        pace = 2 * math.pi * self.step / 0.7  # two steps in 1.4 metres
        is_on_foot = self.motion != "drive"
        bob = 0.02 * torch.sin(pace * times) * is_on_foot
        y = bob - dice.number("eye", *self.eye) + 0.05 * spline(dice, "rise", times / 20, 1)[:, 0]
        place = torch.stack([x, y.double(), z], dim=1)
        return rigid(self._view(times, heading), place)

    def _moved(self, times: Tensor) -> Tensor:
        """Metres along the route since the start."""
        if self.motion in ("rotate",):
            return torch.zeros_like(times)
        if self.motion in ("hand-held", "orbit"):
            return 1.5 * spline(self.dice, "hover", times * self.step / 1.5, 1)[:, 0]
        if self.motion == "stop-and-go":
            times = stop_and_go(times, self.dice)
        return self.step * times

    def _aside(self) -> float:
        """Metres to the right of the middle that the camera keeps."""
        return 0.0

    def _wander(self) -> float:
        """Metres that it wanders to both sides."""
        return 0.2

    def _view(self, times: Tensor, heading: Tensor) -> Tensor:
        """Along the way or to a side, with a look around."""
        dice = self.dice
        is_drive = self.motion == "drive"
        period = dice.number("pan period", 8, 30) / self.speed
        sway = spline(dice, "sway", times / period, 3) * torch.tensor([0.6, 0.2, 0.06])
        sway = sway * (0.15 if is_drive else dice.number("looks around", 0.2, 1.0))
        side = dice.number("side")
        mount = 0.0 if side < 0.65 else (side - 0.825) * 5.0
        drift = 0.0
        if self.motion == "rotate":
            drift = self.speed * math.copysign(0.03 + 0.05 * side, dice.number("way", -1, 1))
        yaw = heading + (mount + sway[:, 0] + drift * times).double()
        pitch = dice.number("pitch", -0.2, 0.06) + sway[:, 1]
        roll = dice.number("roll", -0.04, 0.04) + sway[:, 2]
        shake = 0.003 if is_drive else 0.01
        return camera_turn(dice, times, yaw, pitch.double(), roll.double(), shake=shake)

    def _make_scene(self, group: int) -> Scene:
        origin = self.origin(group)
        parts = [
            self._block_at(column, row).shifted(
                torch.tensor([column * self.pitch, 0, row * self.pitch])
                .double()
                .sub(origin)
                .float()
            )
            for column, row in self._near(group)
        ]
        lights, sky, fog, shadow = self._air()
        if shadow is not None:
            at = self.cameras(torch.tensor([float(group * GROUP)]))[0, :3, 3] - origin
            view = shadow.place_from_light.clone()
            view[:3, 3] += at.float() * torch.tensor([1.0, 0, 1])
            shadow = ShadowView(
                place_from_light=view, half_width=shadow.half_width, softness=shadow.softness
            )
        return Scene(
            solids=join_solids([*parts, self._movers]), materials=self.materials, lights=lights,
            sky=sky, fog=fog, shadow=shadow, moving=torch.arange(len(self.bodies)) > 0,
        )  # fmt: skip

    def _near(self, group: int) -> list[tuple[int, int]]:
        """Blocks that may be seen in the frames of a group, in a fixed order."""
        times = torch.arange(group * GROUP, (group + 1) * GROUP).float()[:: GROUP // 4]
        places = self.cameras(times)[:, [0, 2], 3] / self.pitch - 0.5
        low = (places.amin(0) - self.reach).ceil().long().tolist()
        high = (places.amax(0) + self.reach).floor().long().tolist()
        blocks = [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]
        middles = torch.tensor(blocks, dtype=torch.float64)
        near = (middles[:, None] - places).norm(dim=-1).amin(dim=1) < self.reach
        return [block for block, is_near in zip(blocks, near.tolist(), strict=True) if is_near]

    def _block_at(self, column: int, row: int) -> Solids:
        key = (column, row)
        if key in self._blocks:
            self._blocks.move_to_end(key)
        else:
            builder = Builder(salt=(column * 31 + row * 17) % 97)
            self._block(self.dice.child(2, column, row), builder, column, row)
            self._blocks[key] = builder.build()
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return self._blocks[key]
