"""Policies that keep whole frames."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.candidates import Slots
from everview.memory.policies.bounded import Bounded


@dataclass(frozen=True, kw_only=True)
class FrameCover(Bounded):
    """Whole frames, spread as far as possible: forgets one of the two that are most alike.

    Frames are compared by the mean key of each head. Cost: a pass over the keys, M C.

    Source: FrameVGGT (arXiv 2603.07690), farthest-first choice of segments.
    """

    name: ClassVar[str] = "frame_cover"
    whole_frames: ClassVar[bool] = True

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """All tokens of one frame, or of several, in all heads."""
        p = slots.per_frame
        redundant = self.redundant(likeness(slots), slots.order[:, 0, ::p])
        worst = redundant.topk(count // p, dim=-1).indices[:, None, :, None]
        return (worst * p + torch.arange(p, device=worst.device)).flatten(2)

    def redundant(
        self, alike: Float[Tensor, "b f f"], order: Int[Tensor, "b f"]
    ) -> Float[Tensor, "b f"]:
        """How well each frame is told by an older one."""
        older = order[:, None, :] < order[:, :, None]
        return alike.masked_fill(~older, -2).amax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Coverage(FrameCover):
    """Ours, simpler: the first frame, the latest ones, and of the others those that differ most.

    Of two frames that are alike the older stays, so that what is remembered of a place stays fixed
    while the camera is there, and drift does not creep in through renewed memories. Cost: as
    frame_cover.
    """

    name: ClassVar[str] = "coverage"
    recent: float = 0.5
    """Share of the budget for the latest frames."""

    def __post_init__(self) -> None:
        """See Bounded."""
        super().__post_init__()
        if not 0 <= self.recent < 1:
            raise ConfigError(
                f"memory policy 'coverage': recent is a share in [0, 1), got {self.recent:g}"
            )

    def redundant(
        self, alike: Float[Tensor, "b f f"], order: Int[Tensor, "b f"]
    ) -> Float[Tensor, "b f"]:
        """As frame_cover; the latest frames are out of reach."""
        scores = super().redundant(alike, order)
        latest = max(1, round(self.recent * (order.shape[1] - 1)))
        youngest = order.topk(latest, dim=-1).indices
        return scores.scatter(1, youngest, -torch.inf)


def likeness(slots: Slots) -> Float[Tensor, "b f f"]:
    """Mean over heads of the cosine between mean keys, of all pairs of frames."""
    frames = slots.keys.unflatten(2, (-1, slots.per_frame)).mean(dim=3, dtype=torch.float32)
    unit = frames / frames.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # b h f d
    return (unit @ unit.transpose(2, 3)).mean(dim=1)
