"""Learning rates as functions of progress: linear warm-up, then a cosine down to a floor."""

import math
from dataclasses import dataclass
from types import MappingProxyType

from everview.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """A learning rate for every moment of a run, in any unit of progress (epochs, steps, share).

    Pure: the rate depends on nothing but where the run stands, so a resumed run needs no state.
    """

    peak: float
    """Rate at the end of the warm-up."""
    floor: float = 0.0
    """Rate at the end and beyond."""
    start: float = 0.0
    """Rate at the very beginning."""
    warm_up: float
    """Length of the warm-up, in the unit of `length`; 0 begins at the peak."""
    length: float
    """Length of the run, warm-up included."""

    def __post_init__(self) -> None:
        """Refuse settings that give no schedule."""
        if not 0 <= self.warm_up < self.length:
            raise ConfigError(
                "CosineSchedule needs 0 <= warm_up < length, got "
                f"warm_up={self.warm_up}, length={self.length}: shorten the warm-up"
            )
        if min(self.floor, self.start) < 0 or max(self.floor, self.start) > self.peak:
            raise ConfigError(
                "CosineSchedule needs start and floor within [0, peak], got "
                f"start={self.start}, floor={self.floor}, peak={self.peak}"
            )

    def rate(self, progress: float) -> float:
        """Learning rate at `progress` in [0, length]; the floor beyond.

        Source: StreamVGGT released training, set before every step with the fractional epoch:
        e / w below the warm-up w, then floor + (peak - floor)(1 + cos(pi (e - w) / (E - w))) / 2.
        """
        if progress < self.warm_up:
            return self.start + (self.peak - self.start) * progress / self.warm_up
        share = min(1.0, (progress - self.warm_up) / (self.length - self.warm_up))
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: MappingProxyType[str, CosineSchedule] = MappingProxyType(
    {
        "streamvggt-paper": CosineSchedule(peak=1e-6, floor=1e-8, warm_up=0.5, length=10),
        "streamvggt-released": CosineSchedule(peak=1e-5, floor=1e-7, warm_up=0.5, length=10),
        "vggt-paper": CosineSchedule(peak=2e-4, warm_up=8_000, length=160_000),
        "vggt-released": CosineSchedule(peak=5e-5, floor=1e-8, start=1e-8, warm_up=0.05, length=1),
    }
)
"""As published. Progress in epochs (StreamVGGT), iterations (VGGT's paper) or share of the run
(VGGT's released example). StreamVGGT's paper and configuration differ by a factor of ten."""
