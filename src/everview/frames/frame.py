"""Frame: one image on its way to the network."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from everview.geometry.pixel_map import PixelMap


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One image with its time and name, and how to get back to the original pixels."""

    image: Float[Tensor, "3 H W"]
    """RGB in [0, 1]."""
    timestamp: float
    """Seconds in the source's own clock; the index for images without time."""
    index: int
    """Number of the frame in the source, from 0, counted before `every`, `start` and `end`."""
    original_size: tuple[int, int]
    """(height, width) in pixels of the upright original."""
    pixel_map: PixelMap | None = None
    """Set when `image` was preprocessed for a network."""
    name: str = ""
    """File name of an image, or source and index; for messages."""
    flags: tuple[str, ...] = ()
    """What is wrong with this frame, empty if nothing: such as `black`, `corrupt: ...`."""

    @property
    def usable(self) -> bool:
        """Whether the network should see it."""
        return not self.flags
