"""Mixtures of sets: which samples an epoch has, in which batches and shapes, for which rank."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice

from everview.errors import ConfigError
from everview.training.datasets.colour import ColourJitter

Resolution = tuple[int, int]

RESOLUTIONS: dict[Resolution, float] = {
    (518, 392): 2.0,
    (518, 336): 2.0,
    (518, 294): 2.0,
    (518, 266): 2.0,
    (518, 210): 2.0,
    (518, 154): 1.0,
    (392, 518): 1.0,
    (336, 518): 1.0,
    (294, 518): 1.0,
    (266, 518): 1.0,
}
"""(width, height) in pixels -> weight, of the released recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """So many samples of one set in each epoch."""

    dataset: str
    """Name of the set."""
    samples: int
    """May exceed what the set holds: then frames start a sample more than once."""


@dataclass(frozen=True, kw_only=True)
class MixtureSettings:
    """What an epoch consists of and how its samples are made."""

    shares: tuple[Share, ...]
    """See `parse_mixture`."""
    batch_size: int = 1
    """Samples per batch; the last samples of an epoch that fill no batch are left out."""
    num_views: tuple[int, int] = (10, 10)
    """Fewest and most frames of a sample; one number for all of a batch."""
    resolutions: Mapping[Resolution, float] | None = None
    """(width, height) -> weight; None: the ten of the released recipe."""
    extra_pixels: int = 16
    """Largest random extra, in pixels, of the side of the image that a crop is cut from."""
    colour: ColourJitter | None = field(default_factory=ColourJitter)
    """Random colours, the same for all frames of a sample; None: as stored."""
    seed: int = 0
    """Of everything that is random."""

    def __post_init__(self) -> None:
        """Refuse what gives no batch."""
        low, high = self.num_views
        if not self.shares or self.batch_size < 1 or not 1 <= low <= high or self.extra_pixels < 0:
            raise ConfigError(
                "MixtureSettings needs a share, batch_size >= 1, num_views (low, high) with 1 <= "
                f"low <= high, and extra_pixels >= 0; got {len(self.shares)}, {self.batch_size}, "
                f"{self.num_views} and {self.extra_pixels}"
            )
        if any(min(r) < 1 or w <= 0 for r, w in self.shapes.items()) or not self.shapes:
            raise ConfigError(f"resolutions need sides and weights > 0; got {self.resolutions}")

    @property
    def shapes(self) -> Mapping[Resolution, float]:
        """The resolutions that hold."""
        return RESOLUTIONS if self.resolutions is None else self.resolutions


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSample:
    """A sample before anything is read."""

    dataset: str
    """Name of its set."""
    start: int
    """Number of the frame in the set that it starts from."""
    number: int
    """Place in the epoch; with seed and epoch it decides everything random about the sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedBatch:
    """Samples of one shape."""

    epoch: int
    """From 0."""
    step: int
    """Place in the epoch among the batches of all ranks."""
    samples: tuple[PlannedSample, ...]
    """As many as `batch_size`."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    num_views: int
    """Frames of each sample."""


def parse_mixture(text: str) -> tuple[Share, ...]:
    """Read `4500 @ co3d + 2250 @ waymo`: samples per epoch of each set.

    Raises:
        ConfigError: if the text has another form or names a set twice.
    """
    shares = []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(\d[\d_]*)\s*@\s*([\w.-]+)\s*", part)
        if match is None or not int(match[1]):
            raise ConfigError(
                f"a mixture is `SAMPLES @ SET + SAMPLES @ SET ...`, such as `4500 @ co3d + 2250 @ "
                f"waymo`; got {part.strip()!r}"
            )
        shares.append(Share(dataset=match[2], samples=int(match[1])))
    names = [share.dataset for share in shares]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"the mixture names {twice} twice: add its numbers up")
    return tuple(shares)


def plan_epoch(
    settings: MixtureSettings,
    lengths: Mapping[str, int],
    *,
    epoch: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> list[PlannedBatch]:
    """All batches of an epoch for one rank; to resume, begin at the step that comes next.

    Each set gives a permutation of its frames, repeated when more samples are wanted than it has;
    the samples of all sets are shuffled together and cut into batches. Ranks take batches in turn,
    and all get the same number: up to `num_ranks` - 1 batches at the end are left out.

    Args:
        settings: what an epoch consists of.
        lengths: frames of each set.
        epoch: number of the epoch, from 0.
        rank: whose batches.
        num_ranks: how many ranks there are.

    Raises:
        ConfigError: if a set is unknown or empty, or the rank is out of range.
    """
    if not 0 <= rank < num_ranks:
        raise ConfigError(f"rank must be 0 .. {num_ranks - 1} for {num_ranks} ranks; got {rank}")
    starts = [
        (share.dataset, start)
        for share in settings.shares
        for start in _starts(settings, share, lengths, epoch)
    ]
    _dice(settings, epoch, "order").shuffle(starts)
    samples = [
        PlannedSample(dataset=name, start=start, number=number)
        for number, (name, start) in enumerate(starts)
    ]
    num_batches = len(samples) // settings.batch_size // num_ranks * num_ranks
    return [_batch(settings, epoch, step, samples) for step in range(rank, num_batches, num_ranks)]


def _starts(
    settings: MixtureSettings, share: Share, lengths: Mapping[str, int], epoch: int
) -> list[int]:
    length = lengths.get(share.dataset)
    if not length:
        state = "is empty" if length == 0 else f"is unknown: known are {', '.join(lengths)}"
        raise ConfigError(f"the set {share.dataset!r} of the mixture {state}")
    dice = _dice(settings, epoch, share.dataset)
    permutation = dice.sample(range(length), min(length, share.samples))
    return list(islice(cycle(permutation), share.samples))


def _batch(
    settings: MixtureSettings, epoch: int, step: int, samples: list[PlannedSample]
) -> PlannedBatch:
    dice = _dice(settings, epoch, f"shape {step}")
    shapes = settings.shapes
    width, height = dice.choices(list(shapes), list(shapes.values()))[0]
    first = step * settings.batch_size
    return PlannedBatch(
        epoch=epoch,
        step=step,
        samples=tuple(samples[first : first + settings.batch_size]),
        size=(height, width),
        num_views=dice.randint(*settings.num_views),
    )


def _dice(settings: MixtureSettings, epoch: int, purpose: str) -> random.Random:
    """A generator of its own for each purpose: text seeds are the same on every machine."""
    return random.Random(f"{settings.seed} {epoch} {purpose}")
