"""Kinds of places, and how often each is drawn."""

from collections.abc import Callable

from everview.errors import ConfigError
from everview.world.corridors import CorridorPlace
from everview.world.dice import Dice
from everview.world.places import Place
from everview.world.rooms import RoomPlace
from everview.world.streets import StreetPlace
from everview.world.terrain import TerrainPlace

_MAKERS: dict[str, tuple[float, Callable[..., Place]]] = {
    "room": (0.5, RoomPlace),
    "corridor": (0.22, CorridorPlace),
    "street": (0.14, StreetPlace),
    "terrain": (0.14, TerrainPlace),
}
"""Kind -> share of clips of kind `any`, and what makes it."""
KINDS = ("any", *_MAKERS)


def make_place(
    dice: Dice, kind: str, *, speed: float, motion: str, movers: bool
) -> tuple[str, Place]:
    """Make a place of a kind, or of a drawn one for `any`; returns the kind too.

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
    chosen = _drawn(dice) if kind == "any" else kind
    return chosen, _MAKERS[chosen][1](dice, speed=speed, motion=motion, movers=movers)


def _drawn(dice: Dice) -> str:
    share = dice.number("kind of place")
    for kind, (part, _) in _MAKERS.items():
        share -= part
        if share < 0:
            return kind
    return "room"
