"""What surfaces are made of: rows of the material table, drawn by family of pattern."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.world.bank import FAMILIES, slots
from everview.world.dice import Dice

_PERIODS = {
    "noise": (0.5, 3.0), "tiles": (0.7, 2.5), "bricks": (0.8, 2.0), "planks": (0.8, 2.5),
    "voronoi": (0.6, 3.0), "stripes": (0.4, 2.0), "checks": (0.5, 2.0), "dots": (0.4, 1.5),
    "text": (0.3, 0.9), "poster": (0.7, 1.5), "windows": (5.0, 9.0),
}  # fmt: skip
"""Metres after which a pattern repeats."""
PLAIN = "plain"
"""Family without a pattern: one colour, and at most a little noise."""


def draw_materials(
    dice: Dice, families: list[str], *, label: str = "materials", shine: float = 0.25
) -> Float[Tensor, "m 22"]:
    """Draw one material for each family named; columns as in `textures.COLUMNS`.

    Args:
        dice: source of colours and sizes.
        families: of `bank.FAMILIES`, or `plain`.
        label: tells sets of materials apart.
        shine: share of glossy surfaces; a quarter of these mirror.
    """
    m = len(families)
    random = dice.uniform(label, (40, m))
    is_plain = torch.tensor([family == PLAIN for family in families])
    facts = [(*slots("noise" if f == PLAIN else f), *_PERIODS.get(f, (1.0, 2.0))) for f in families]
    first, count, low, high = torch.tensor(facts, dtype=torch.float32).T
    noise_first, noise_count = slots("noise")
    rate = 1 / (low * (high / low) ** random[0])
    turned = torch.tensor([f in ("stripes", "planks", "noise") for f in families])
    angle = (random[1] < 0.5) * turned * torch.pi / 2 + (random[2] - 0.5) * 0.3 * (random[3] < 0.2)
    is_glossy = random[4] < shine
    grain = torch.tensor([0.25 if f in ("poster", "text", "windows") else 1.0 for f in families])
    fixed = torch.zeros(m)
    rows = [
        first + (random[5] * count).floor(),
        rate, rate * (1 + 0.4 * (random[6] - 0.5)), angle.cos(), angle.sin(),
        (0.5 + 0.6 * random[7]) * ~is_plain,
        noise_first + (random[8] * noise_count).floor(), 1 / (0.25 + 1.5 * random[9]),
        random[10] * (0.1 + 0.4 * ~is_plain) * grain, random[11] * (0.1 + 0.6 * ~is_plain) * grain,
        *_colours(random[12:30], is_plain).unbind(0),
        random[31] * 0.9 * is_glossy, (0.1 + 0.5 * random[32]) * is_glossy * (random[33] < 0.25),
        fixed,
    ]  # fmt: skip
    return torch.stack(rows, dim=1)


def _colours(random: Float[Tensor, "18 m"], is_plain: Tensor) -> Float[Tensor, "9 m"]:
    """Three colours: tints of one hue, or for one in three an unlike second one."""
    base = 0.1 + 0.85 * random[:3]
    base = base * torch.tensor([[1.06], [1.0], [0.9]])  # things are rather warm than cold
    grey = base.mean(dim=0)
    base = grey + (base - grey) * (0.05 + 0.8 * random[3] ** 3)
    other = base + (random[4:7] - 0.5) * torch.where(random[7] < 0.33, 0.9, 0.15)
    spread = 0.1 + 0.45 * random[8]
    dark = base * (1 - spread)
    light = other + (1 - other) * spread
    middle = torch.lerp(dark, light, 0.35 + 0.3 * random[9])
    middle += (random[10:13] - 0.5) * 0.2
    plain = torch.where(is_plain, 1.0, 0.0)
    dark, light = torch.lerp(dark, base, plain), torch.lerp(light, base, plain)
    middle = torch.lerp(middle, base, plain)
    return torch.cat([dark, middle, light]).clamp(0.03, 0.97)


def glowing(red: float, green: float, blue: float, glow: float = 0.9) -> Float[Tensor, "1 22"]:
    """A material that shines by itself, without a pattern."""
    colour = [red, green, blue]
    return torch.tensor([[0.0, 1, 1, 1, 0, 0, 0, 1, 0, 0, *colour * 3, 0, 0, glow]])


def random_families(dice: Dice, label: str, choices: list[str], count: int) -> list[str]:
    """So many picks from a list in which a family may stand several times."""
    assert all(choice in FAMILIES or choice == PLAIN for choice in choices)
    return [choices[i] for i in dice.pick(label, (count,), len(choices)).tolist()]
