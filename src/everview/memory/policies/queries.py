"""Policies that ask what the newest frame's queries look for."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from everview.memory.candidates import Slots
from everview.memory.policies.bounded import Bounded, kept_back, most

ASKED = 16
"""Queries that stand for those of a frame."""


@dataclass(frozen=True, kw_only=True)
class QueryPooled(Bounded):
    """Forgets keys that no pooled query of the newest frame points to; all heads forget the same.

    Cost: a mean of the keys over heads, M C, and 2 * 16 M D for D channels of a head.

    Source: XStreamVGGT (arXiv 2602.21780): queries pooled in groups, keys averaged over heads,
    first and newest frame protected.
    """

    name: ClassVar[str] = "query_pooled"
    watches_queries: ClassVar[bool] = True

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Those with the smallest product with the pooled query that likes them best."""
        assert slots.queries is not None, "attention comes first"
        groups = torch.tensor_split(slots.queries.float().mean(dim=1), ASKED, dim=1)
        asked = torch.stack([group.mean(dim=1) for group in groups if group.shape[1]], dim=1)
        products = asked @ slots.keys.mean(dim=1, dtype=torch.float32).transpose(1, 2)  # b g c
        return most(kept_back(-products.amax(dim=1, keepdim=True), slots.num_new), count)


@dataclass(frozen=True, kw_only=True)
class AttentionMass(Bounded):
    """Forgets tokens that got the least attention per frame since they came.

    Attention is measured for 16 evenly spaced queries of each frame. Cost: 2 * 16 M C.

    Source: Evict3R (arXiv 2509.17650), whose scores come from all queries.
    """

    name: ClassVar[str] = "attention_mass"
    watches_queries: ClassVar[bool] = True
    notes: ClassVar[tuple[str, ...]] = ("mass", "seen")

    def arrive(self, slots: Slots) -> None:
        """Add the attention that the newest frame gave."""
        assert slots.queries is not None, "attention comes first"
        every = max(1, slots.queries.shape[2] // ASKED)
        asked = slots.queries[:, :, ::every].to(slots.keys.dtype)  # codes are read as float32
        scale = asked.shape[-1] ** -0.5
        past = (asked @ slots.keys.transpose(2, 3)).float() * scale  # b h g c
        anchors = (asked @ slots.anchors.transpose(2, 3)).float() * scale
        total = torch.cat([past, anchors], dim=3).logsumexp(dim=3, keepdim=True)
        slots.notes["mass"] = slots.notes["mass"] + (past - total).exp().mean(dim=2)
        slots.notes["seen"] = slots.notes["seen"] + 1

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Those with the smallest mean."""
        mean = slots.notes["mass"] / slots.notes["seen"]
        return most(kept_back(-mean, slots.num_new), count)
