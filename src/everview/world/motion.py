"""Paths of a hand-held camera inside a scene's walk zone."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.rotations import rigid
from everview.world.dice import Dice
from everview.world.scene import Scene

_BASIS = (
    torch.tensor([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=torch.float32)
    / 6
)


def spline(
    dice: Dice, label: str, times: Float[Tensor, " s"], axes: int
) -> Float[Tensor, "s axes"]:
    """A smooth random curve with values in [-1, 1], for any times >= 0 (in knots).

    A uniform cubic B-spline stays in the hull of its knots, so limits on these are kept.
    """
    num_knots = int(times.max()) + 5
    knots = dice.uniform(label, (num_knots, axes), -1, 1)
    cell = times.floor().long()
    power = (times - cell)[:, None] ** torch.arange(4)  # s 4
    around = knots[cell[:, None] + torch.arange(4)]  # s 4 axes
    return ((power @ _BASIS)[..., None] * around).sum(dim=1)


def camera_path(
    dice: Dice, scene: Scene, frames: int, *, speed: float = 1.0
) -> Float[Tensor, "s 4 4"]:
    """Draw world_from_camera in the room frame, like a video sampled at 3 to 10 Hz.

    Args:
        dice: seed of the path.
        scene: gives the walk zone, which is never left.
        frames: any number; a longer path begins like a shorter one.
        speed: multiplies the distance and angle from frame to frame.
    """
    times = torch.arange(frames, dtype=torch.float32)
    step = speed * torch.exp(torch.tensor(dice.number("step", -3.9, -1.9)))  # 2 to 15 cm
    if dice.chance("arc", 0.35):
        place = _arc(dice, scene, times, step)
    else:
        stride = 0.55 * scene.zone_half.norm() / step  # frames per knot
        place = spline(dice, "walk", times / stride.clamp(min=2), 3)
    shake = 0.004 * spline(dice, "shake", times * 0.7, 3)
    place = (
        scene.zone_centre
        + (place * scene.zone_half).clamp(-scene.zone_half, scene.zone_half)
        + shake
    )
    return rigid(_view(dice, scene, place, times, speed), place)


def _arc(dice: Dice, scene: Scene, times: Tensor, step: Tensor) -> Tensor:
    """Round an ellipse in the walk zone, in its units."""
    radius = dice.uniform("arc radius", (2,), 0.6, 0.95)
    way = -1.0 if dice.chance("arc way", 0.5) else 1.0
    turn = way * step / (radius * scene.zone_half[[0, 2]]).mean()
    angle = dice.number("arc start", 0, 2 * torch.pi) + turn * times
    bob = 0.5 * spline(dice, "bob", times / 9, 1)
    return torch.stack([radius[0] * angle.cos(), bob[:, 0], radius[1] * angle.sin()], dim=1)


def _view(dice: Dice, scene: Scene, place: Tensor, times: Tensor, speed: float) -> Tensor:
    """Rotations: towards a fixed point of the room, or panning."""
    period = dice.number("pan period", 6, 25) / speed
    sway = spline(dice, "sway", times / period, 3)
    shake = 0.012 * spline(dice, "hand", times * 0.6, 3)
    turn = dice.uniform("turn", (3,), 0, 1) * torch.tensor([0.9, 0.3, 0.12])
    if dice.chance("look at", 0.45):
        side = dice.number("target", 0, 2 * torch.pi)
        reach = scene.zone_half[[0, 2]].max() + dice.number("target distance", 0.8, 2.5)
        target = scene.zone_centre[[0, 2]] + reach * torch.tensor(
            [torch.sin(torch.tensor(side)), torch.cos(torch.tensor(side))]
        )
        towards = target - place[:, [0, 2]]
        yaw = torch.atan2(towards[:, 0], towards[:, 1])
        turn = turn * 0.3
    else:
        drift = dice.number("drift", -1, 1)
        yaw = dice.number("yaw", 0, 2 * torch.pi) + 0.09 * speed * drift * abs(drift) * times
    angles = sway * turn + shake
    pitch = dice.number("pitch", -0.3, 0.12) + angles[:, 1]
    roll = dice.number("roll", -0.08, 0.08) + angles[:, 2]
    return _rotation(yaw + angles[:, 0], pitch, roll)


def _rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Room from camera: roll about z, then pitch about x (up > 0), then yaw about y; radians."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    about_y = matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_x = matrix(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    about_z = matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return about_y @ about_x @ about_z
