"""Paths of a camera inside a zone that is free of things."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.rotations import rigid
from everview.world.dice import Dice
from everview.world.solids import turn_about_x, turn_about_y, turn_about_z

MOTIONS = ("any", "hand-held", "orbit", "rotate", "stop-and-go", "walk", "drive", "loop")
"""Ways of moving; the last three follow corridors and streets, elsewhere they are hand-held."""
_BASIS = (
    torch.tensor([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=torch.float32)
    / 6
)


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A box, free of objects, that the camera does not leave."""

    centre: Float[Tensor, " 3"]
    half: Float[Tensor, " 3"]


def spline(
    dice: Dice, label: str, times: Float[Tensor, " s"], axes: int
) -> Float[Tensor, "s axes"]:
    """A smooth random curve with values in [-1, 1], for any times >= -1 (in knots).

    A uniform cubic B-spline stays in the hull of its knots, so limits on these are kept.
    """
    num_knots = int(times.max()) + 6
    knots = dice.uniform(label, (num_knots, axes), -1, 1)
    cell = times.floor().long()
    power = (times - cell)[:, None] ** torch.arange(4)  # s 4
    around = knots[cell[:, None] + torch.arange(4) + 1]  # s 4 axes
    return ((power @ _BASIS)[..., None] * around).sum(dim=1)


def pick_motion(dice: Dice, motion: str, choices: tuple[str, ...]) -> str:
    """The way of moving that was asked for, or a drawn one of `choices`.

    Raises:
        ConfigError: if it is unknown.
    """
    if motion not in MOTIONS:
        raise ConfigError(f"motion {motion!r} is unknown; known: {', '.join(MOTIONS)}")
    if motion == "any":
        return choices[dice.integer("motion", len(choices))]
    return motion


def stop_and_go(times: Float[Tensor, " s"], dice: Dice) -> Float[Tensor, " s"]:
    """Time that stands still for a while now and then; it never runs backwards."""
    period = dice.number("pause period", 8.0, 30.0)
    angle = 2 * math.pi * (times / period + dice.number("pause phase"))
    start = 2 * math.pi * dice.number("pause phase")
    return times + period / (2 * math.pi) * 0.98 * (math.sin(start) - torch.sin(angle))


def zone_path(
    dice: Dice,
    zone: Zone,
    times: Float[Tensor, " s"],
    *,
    speed: float = 1.0,
    pace: float = 1.0,
    motion: str = "any",
) -> Float[Tensor, "s 4 4"]:
    """Draw place_from_camera, at speed 1 like a video sampled at 3 to 10 Hz.

    Args:
        dice: seed of the path.
        zone: never left.
        times: in frames, >= -1; a longer path begins like a shorter one.
        speed: multiplies the distance and angle from frame to frame.
        pace: multiplies the distance only.
        motion: one of `MOTIONS`.
    """
    choices = ("hand-held",) * 9 + ("orbit",) * 6 + ("stop-and-go", "rotate")
    chosen = pick_motion(dice, motion, choices)
    moved = stop_and_go(times, dice) if chosen == "stop-and-go" else times
    step = pace * speed * math.exp(dice.number("step", -3.9, -1.9))  # 2 to 15 cm
    if chosen == "orbit":
        place = _arc(dice, zone, moved, step)
    elif chosen == "rotate":
        place = 0.02 * spline(dice, "walk", moved / 9, 3) + dice.uniform("stand", (3,), -0.9, 0.9)
    else:
        stride = 0.55 * float(zone.half.norm()) / step  # frames per knot
        place = spline(dice, "walk", moved / max(2.0, stride), 3)
    shake = 0.004 * spline(dice, "shake", times * 0.7, 3)
    place = zone.centre + (place * zone.half).clamp(-zone.half, zone.half) + shake
    return rigid(_view(dice, zone, place, moved, speed, turns=chosen == "rotate"), place)


def _arc(dice: Dice, zone: Zone, times: Tensor, step: float) -> Tensor:
    """Round an ellipse in the walk zone, in its units."""
    radius = dice.uniform("arc radius", (2,), 0.6, 0.95)
    way = -1.0 if dice.chance("arc way", 0.5) else 1.0
    turn = way * step / (radius * zone.half[[0, 2]]).mean()
    angle = dice.number("arc start", 0, 2 * torch.pi) + turn * times
    bob = 0.5 * spline(dice, "bob", times / 9, 1)
    return torch.stack([radius[0] * angle.cos(), bob[:, 0], radius[1] * angle.sin()], dim=1)


def _view(
    dice: Dice, zone: Zone, place: Tensor, times: Tensor, speed: float, *, turns: bool
) -> Tensor:
    """Rotations: towards a fixed point, or panning."""
    period = dice.number("pan period", 6, 25) / speed
    turn = dice.uniform("turn", (3,), 0, 1) * torch.tensor([0.9, 0.3, 0.12])
    if dice.chance("look at", 0.45) and not turns:
        side = dice.number("target", 0, 2 * torch.pi)
        reach = zone.half[[0, 2]].max() + dice.number("target distance", 0.8, 2.5)
        way = torch.tensor([math.sin(side), math.cos(side)])
        towards = zone.centre[[0, 2]] + reach * way - place[:, [0, 2]]
        yaw = torch.atan2(towards[:, 0], towards[:, 1])
        turn = turn * 0.3
    else:
        drift = dice.number("drift", -1, 1)
        rate = 0.09 * drift * abs(drift)
        if turns:
            rate = math.copysign(0.02 + 0.06 * abs(drift), drift)
        yaw = dice.number("yaw", 0, 2 * torch.pi) + rate * speed * times
    sway = spline(dice, "sway", times / period, 3) * turn
    pitch, roll = dice.number("pitch", -0.3, 0.12), dice.number("roll", -0.08, 0.08)
    return camera_turn(dice, times, yaw + sway[:, 0], pitch + sway[:, 1], roll + sway[:, 2])


def camera_turn(
    dice: Dice, times: Tensor, yaw: Tensor, pitch: Tensor, roll: Tensor, *, shake: float = 0.012
) -> Float[Tensor, "s 3 3"]:
    """Place from camera: roll about z, then pitch about x (up > 0), then yaw about y; radians.

    Args:
        dice: of the hand that shakes.
        times: in frames.
        yaw: 0 looks along z, a quarter turn along x.
        pitch: upwards.
        roll: clockwise in the image's sense.
        shake: largest angle of the hand's shaking.
    """
    hand = shake * spline(dice, "hand", times * 0.6, 3)
    about_y, about_x = turn_about_y(yaw + hand[:, 0]), turn_about_x(pitch + hand[:, 1])
    return about_y @ about_x @ turn_about_z(roll + hand[:, 2])
