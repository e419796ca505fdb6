"""Kinds of places, and how often each is drawn."""

from everview.errors import ConfigError
from everview.world.dice import Dice
from everview.world.places import Place
from everview.world.rooms import RoomPlace

SHARES = {"room": 1.0}
"""Kind -> share of clips of kind `any`."""
KINDS = ("any", *SHARES)


def make_place(
    dice: Dice, kind: str, *, speed: float, motion: str, movers: bool
) -> tuple[str, Place]:
    """Make a place of a kind, or of a drawn one for `any`.

    Args:
        dice: seed of the place.
        kind: one of `KINDS`.
        speed: multiplies all motion.
        motion: way of the camera, one of `motion.MOTIONS`.
        movers: whether something moves by itself.

    Raises:
        ConfigError: if the kind or motion is unknown.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} of world is unknown; known: {', '.join(KINDS)}")
    return "room", RoomPlace(dice, speed=speed, motion=motion, movers=movers)
