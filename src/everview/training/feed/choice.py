"""Which frames of a rendered clip are used, and how they are shown."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from everview.training.recipe.settings import Stage

GAIN = 0.25
"""Deviation range of ln(gain) of each colour channel at strength 1."""
GAMMA = 0.3
"""Range of ln(gamma) at strength 1."""


def frames_to_render(stage: Stage, length: int) -> int:
    """Frames of a clip from which any choice of `length` frames can be taken."""
    return (length - 1) * stage.gaps[1] + 1 + stage.spare_frames


def choose_frames(stage: Stage, length: int, dice: random.Random) -> tuple[int, ...]:
    """Draw `length` positions in the rendered clip, rising, or falling if the clip is reversed."""
    gaps = [dice.randint(*stage.gaps) for _ in range(length - 1)]
    start = dice.randint(0, frames_to_render(stage, length) - 1 - sum(gaps))
    positions = [start]
    for gap in gaps:
        positions.append(positions[-1] + gap)
    return tuple(positions[::-1] if dice.random() < stage.reversed_share else positions)


@dataclass(frozen=True)
class Colours:
    """One gain per channel and one gamma, for all frames of a clip."""

    gains: tuple[float, float, float]
    gamma: float

    @classmethod
    def draw(cls, strength: float, dice: random.Random) -> "Colours":
        """Log-uniform, about 1."""
        logs = [dice.uniform(-GAIN, GAIN) * strength for _ in range(3)]
        red, green, blue = map(math.exp, logs)
        return cls((red, green, blue), math.exp(dice.uniform(-GAMMA, GAMMA) * strength))

    @staticmethod
    def apply_all(
        colours: "Sequence[Colours]", images: Float[Tensor, "n s 3 H W"]
    ) -> Float[Tensor, "n s 3 H W"]:
        """One choice for each of n clips; still in [0, 1]."""
        gains = images.new_tensor([c.gains for c in colours])[:, None, :, None, None]
        gamma = images.new_tensor([c.gamma for c in colours])[:, None, None, None, None]
        return (images.clamp_min(1e-4) ** gamma * gains).clamp(0, 1)
