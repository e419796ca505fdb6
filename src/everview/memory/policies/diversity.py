"""Policies that keep keys which differ from the others: InfiniteVGGT and what was built on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.candidates import Slots
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies.bounded import Bounded, most
from everview.memory.reference import ReferenceMemory, layer_budgets, share_budgets
from everview.memory.slots import SlotMemory

REFRESHED_EVERY = 64
"""Frames after which the sum of unit keys is taken anew, so that rounding cannot add up."""
SHARED_EVERY = 32
"""Frames between two looks at how the budget is shared among layers."""
CHUNK = 2048
"""Tokens that are taken to float32 at a time."""
SMALLEST_NORM = 1e-12
PART = 512
"""Slots that a part has at least, where tokens are merged within parts."""


@dataclass(frozen=True, kw_only=True)
class KeyDiversity(Bounded):
    """Forgets the keys that are most like the mean of all, head by head.

    Cost: a pass over the keys, 2 M C operations for M slots of C channels, against 4 P (M + P) C of
    attention. Their sum is kept from frame to frame and taken anew every 64 frames.

    Source: InfiniteVGGT (arXiv 2601.02281) Sec. 3.2 and 3.3; the score is KeyDiff's
    (arXiv 2504.15364).
    """

    name: ClassVar[str] = "key_diversity"
    notes: ClassVar[tuple[str, ...]] = ("inverse_norm",)
    budget: Literal["uniform", "adaptive"] = "uniform"
    """Tokens of a layer: the same for all, or more where keys differ more."""
    reference: bool = False
    """The published order: forget before attending, budgets anew each frame."""

    def __post_init__(self) -> None:
        """See Bounded; the reference has no codes, and no variants."""
        super().__post_init__()
        if self.reference and type(self) is not KeyDiversity:
            raise ConfigError(
                f"memory policy {self.name!r} was never published in the order of reference=true: "
                "leave it out, or write key_diversity:tokens=8000,reference=true"
            )
        if self.reference and self.bits is not None:
            raise ConfigError(
                f"memory policy {self.name!r}: reference=true keeps the network's own numbers; "
                "leave bits out, or reference"
            )

    def shrunk(self, per_frame: int) -> Bounded | None:
        """See Bounded.shrunk; the reference stays as it was published."""
        return None if self.reference else super().shrunk(per_frame)

    def least_tokens(self, per_frame: int) -> int:
        """See Bounded.least_tokens; the published order forgets from the newest frame too."""
        return per_frame + 1 if self.reference else super().least_tokens(per_frame)

    def most_tokens(self, per_frame: int, layers: int) -> int:
        """See Bounded.most_tokens; where layers share, if its keys differ most and others' least.

        Storage that has grown with a share stays, so in the course of time all may get that large.
        """
        budget, least = self.tokens_for(per_frame), self.least_tokens(per_frame)
        if self.budget == "uniform" or self.reference:
            return budget
        scores = torch.ones(layers)
        scores[0] = 0
        return least + max(layer_budgets(scores, (budget - least) * layers))

    def layer_memory(self, layer: int) -> LayerMemory:
        """See Bounded.layer_memory."""
        return ReferenceMemory(self) if self.reference else SlotMemory(self, layer)

    def arrive(self, slots: Slots) -> None:
        """Note 1 / norm of the new keys, and add them to the sum of unit keys."""
        new = slots.keys[:, :, -slots.num_new :].float()
        inverse = 1 / new.norm(dim=-1).clamp_min(SMALLEST_NORM)
        slots.notes["inverse_norm"][:, :, -slots.num_new :] = inverse
        if slots.unit_sum is None or not slots.num_frames % REFRESHED_EVERY:
            slots.unit_sum = sum_of_units(slots)
        else:
            slots.unit_sum = slots.unit_sum + inverse[:, :, None] @ new

    def is_routine(self, frame: int) -> bool:
        """See Bounded.is_routine: sums are taken anew and budgets shared now and then."""
        shares = self.budget == "adaptive" and not frame % SHARED_EVERY
        return bool(frame % REFRESHED_EVERY) and not shares

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Those with the largest product of unit key and mean unit key."""
        return taken_off(slots, most(similarity_to_mean(slots), count))

    def balance(self, memories: Sequence[LayerMemory], frame: int) -> None:
        """Give layers whose keys differ more of what others have."""
        if self.reference:
            references = [m for m in memories if isinstance(m, ReferenceMemory)]
            share_budgets(references, self.tokens_for(references[0].num_anchors) * len(references))
            return
        slots = [m for m in memories if isinstance(m, SlotMemory)]
        scores = [memory.score for memory in slots if memory.score is not None]
        if self.budget == "uniform" or frame % SHARED_EVERY or len(scores) < len(slots):
            return
        least = 2 * slots[0].num_anchors
        total = self.tokens_for(slots[0].num_anchors) * len(slots)
        shares = layer_budgets(torch.stack(scores), total - least * len(slots))
        for memory, share in zip(slots, shares, strict=True):
            memory.budget = least + share


def similarity_to_mean(slots: Slots) -> Float[Tensor, "b h c"]:
    """Product of each unit key with the mean of all unit keys; notes the layer's score.

    The score is the mean over heads of the squared norm of the mean key, which equals the mean
    product (rolling_memory.md 4.1).
    """
    inverse, total = slots.notes["inverse_norm"], slots.unit_sum
    assert total is not None, "arrive comes first"
    mean = total / inverse.shape[2]  # b h 1 d
    slots.score = mean.square().sum(dim=-1).mean()
    products = [
        (keys @ mean.transpose(2, 3))[..., 0] * some for keys, some in _chunks(slots.keys, inverse)
    ]
    return products[0] if len(products) == 1 else torch.cat(products, dim=2)


def sum_of_units(slots: Slots) -> Float[Tensor, "b h 1 d"]:
    """Over all candidates."""
    total = torch.zeros_like(slots.keys[:, :, :1], dtype=torch.float32)
    for keys, some in _chunks(slots.keys, slots.notes["inverse_norm"]):
        total += some[:, :, None] @ keys
    return total


def taken_off(slots: Slots, losers: Int[Tensor, "b h n"]) -> Int[Tensor, "b h n"]:
    """The same losers, after their unit keys have left the sum."""
    assert slots.unit_sum is not None, "arrive comes first"
    index = losers[..., None].expand(-1, -1, -1, slots.keys.shape[3])
    keys, inverse = slots.keys.gather(2, index).float(), slots.notes["inverse_norm"]
    slots.unit_sum = slots.unit_sum - inverse.gather(2, losers)[:, :, None] @ keys
    return losers


def _chunks(keys: Tensor, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys in float32 without a copy of all of them at once."""
    if keys.dtype == torch.float32:
        return [(keys, numbers)]
    return [
        (part.float(), some)
        for part, some in zip(keys.split(CHUNK, dim=2), numbers.split(CHUNK, dim=2), strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class ValueAware(KeyDiversity):
    """Key diversity, less for tokens whose values are small: they change no output.

    Cost: as key diversity. Source: the idea of VATP (arXiv 2406.12335).
    """

    name: ClassVar[str] = "value_aware"
    notes: ClassVar[tuple[str, ...]] = ("inverse_norm", "value")
    weight: float = 0.5
    """Of the size of values against that of similarities, both in standard deviations."""

    def __post_init__(self) -> None:
        """See Bounded."""
        super().__post_init__()
        if not math.isfinite(self.weight):
            raise ConfigError(
                f"memory policy {self.name!r}: weight is a finite number, got {self.weight}"
            )

    def arrive(self, slots: Slots) -> None:
        """Note the 1-norm of new values too."""
        super().arrive(slots)
        new = slots.values[:, :, -slots.num_new :].float()
        slots.notes["value"][:, :, -slots.num_new :] = new.abs().sum(dim=-1)

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """Most similar keys with the smallest values."""
        size = _standard(slots.notes["value"])
        redundancy = _standard(similarity_to_mean(slots)) - self.weight * size
        return taken_off(slots, most(redundancy, count))


def _standard(numbers: Float[Tensor, "b h c"]) -> Float[Tensor, "b h c"]:
    deviation, mean = torch.std_mean(numbers, dim=-1, keepdim=True)
    return (numbers - mean) / deviation.clamp_min(SMALLEST_NORM)


@dataclass(frozen=True, kw_only=True)
class Merge(KeyDiversity):
    """New tokens are merged into old ones with nearly the same key; key diversity for the rest.

    A key that stands for n tokens has the mean of their values and ln(n) added to its logits, which
    is exact for equal keys. Cost: as key diversity, and 2 P M C / parts for finding the nearest.

    Source: StreamCacheVGGT (arXiv 2604.15237); the bias as in ToMe (arXiv 2210.09461).
    """

    name: ClassVar[str] = "merge"
    notes: ClassVar[tuple[str, ...]] = ("inverse_norm", "log_count")
    counts: ClassVar[bool] = True
    nearness: float = 0.8
    """Least cosine between two keys that are merged."""
    parts: int = 1
    """Tokens and slots are dealt into at most so many parts, and merged within their own."""

    def __post_init__(self) -> None:
        """See Bounded."""
        super().__post_init__()
        if self.parts < 1:
            raise ConfigError(f"memory policy {self.name!r}: parts must be >= 1, got {self.parts}")
        if not 0 <= self.nearness <= 1:
            raise ConfigError(
                f"memory policy {self.name!r}: nearness is a cosine in [0, 1], got "
                f"{self.nearness:g}"
            )

    def losers(self, slots: Slots, count: int) -> Int[Tensor, "b heads count"]:
        """What can be merged first; changes values and counts of what it is merged into."""
        kept, leaving = self._kept(slots), self._leaving(slots)
        near, nearest = self._nearest(slots, leaving, kept)  # b h p
        can_merge = near > self.nearness
        redundancy = similarity_to_mean(slots)  # in [-1, 1]
        # What takes others in has to stay. There are always enough others: the leaving themselves.
        wanted = torch.zeros_like(redundancy).scatter_add_(2, nearest, can_merge.float()) > 0
        redundancy.masked_fill_(wanted if kept is None else wanted | kept, -torch.inf)
        redundancy.scatter_add_(2, leaving, torch.where(can_merge, 2 + near, 0))
        chosen = taken_off(slots, most(redundancy, count))
        gone = torch.zeros_like(redundancy, dtype=torch.bool).scatter_(2, chosen, value=True)
        self._add(slots, leaving, nearest, gone.gather(2, leaving) & can_merge)
        return chosen

    def _num_parts(self, slots: Slots) -> int:
        """Parts that have enough slots each to find a near one."""
        return max(1, min(self.parts, slots.order.shape[2] // PART))

    def _kept(self, slots: Slots) -> Bool[Tensor, "b h c"] | None:  # noqa: ARG002
        """What is out of reach; None: nothing."""
        return None

    def _leaving(self, slots: Slots) -> Int[Tensor, "b h p"]:
        """Tokens that may be merged into others, as many as a frame has: the newest."""
        b, h, c = slots.order.shape
        return torch.arange(c - slots.num_new, c, device=slots.order.device).expand(b, h, -1)

    def _add(
        self, slots: Slots, leaving: Int[Tensor, "b h p"], nearest: Int[Tensor, "b h p"],
        merged: Bool[Tensor, "b h p"],
    ) -> None:  # fmt: skip
        """Leaving tokens to the means that their nearest ones stand for.

        A mean of n values that takes in m more moves by the sum of their distances / (n + m).
        """
        parts, num_leaving = self._num_parts(slots), nearest.shape[2]
        inside = _dealt(nearest, parts, -1)
        same = inside[..., None] == inside[..., None, :]
        taken_in = (same & _dealt(merged, parts, 0)[..., None, :]).float()
        # b h parts n n: into each one's target
        before = slots.notes["log_count"].gather(2, nearest).exp()
        count = _collected(taken_in.sum(dim=-1), num_leaving)
        after = before + count
        values, targets = (
            slots.values.gather(2, i[..., None].expand(-1, -1, -1, slots.values.shape[3])).float()
            for i in (leaving, nearest)
        )
        sums = _collected(taken_in @ _dealt(values, parts, 0), num_leaving)
        total = sums - count[..., None] * targets
        slots.values_at, slots.new_values = nearest, targets + total / after[..., None]
        slots.notes["log_count"] = slots.notes["log_count"].scatter(2, nearest, after.log())

    def _nearest(
        self, slots: Slots, leaving: Int[Tensor, "b h p"], kept: Bool[Tensor, "b h c"] | None
    ) -> tuple[Float[Tensor, "b h p"], Int[Tensor, "b h p"]]:
        """Cosine and number of the key that is most like each leaving one, of its part.

        0 for what cannot take it in.
        """
        parts = self._num_parts(slots)
        inverse = slots.notes["inverse_norm"].scatter(2, leaving, 0.0)
        if kept is not None:
            inverse = inverse.masked_fill(kept, 0.0)
        own = slots.notes["inverse_norm"].gather(2, leaving)[..., None]
        index = leaving[..., None].expand(-1, -1, -1, slots.keys.shape[3])
        keys = (slots.keys.gather(2, index).float() * own).to(slots.keys.dtype)
        found = []
        for part, dealt in enumerate(_dealt(keys, parts, 0).unbind(2)):  # b h n d
            mine = slice(part, None, parts)  # a view: keys are never copied
            products = (dealt @ slots.keys[:, :, mine].transpose(2, 3)).float()
            near, place = products.mul_(inverse[:, :, None, mine]).max(dim=-1)
            found.append((near, place * parts + part))
        near, nearest = (torch.stack(numbers, dim=2) for numbers in zip(*found, strict=True))
        return _collected(near, leaving.shape[2]), _collected(nearest, leaving.shape[2])


@dataclass(frozen=True, kw_only=True)
class LateMerge(Merge):
    """Ours: the first frame and the latest frames whole; what grows older is merged.

    Near motion is told by whole recent frames, the long run by old tokens that stand for all they
    have taken in. Where nothing is near enough to take a token in, the one most like the mean of
    all is dropped, whatever it stands for. With a budget of two frames the same as merge. Cost: as
    merge.
    """

    name: ClassVar[str] = "late_merge"
    parts: int = 8
    recent: float = 0.4
    """Share of the budget for the latest frames."""

    def __post_init__(self) -> None:
        """See Bounded."""
        super().__post_init__()
        if not 0 <= self.recent < 1:
            raise ConfigError(
                f"memory policy {self.name!r}: recent is a share in [0, 1), got {self.recent:g}"
            )

    def _kept(self, slots: Slots) -> Bool[Tensor, "b h c"]:
        """The latest frames. None of their tokens was ever lost, so all heads have all of them."""
        frames = int(self.recent * (slots.order.shape[2] // slots.num_new))
        return slots.order >= slots.arrived - frames * slots.num_new

    def _leaving(self, slots: Slots) -> Int[Tensor, "b h p"]:
        """The frame that has just become too old to be kept whole."""
        older = slots.order.masked_fill(self._kept(slots), -1)
        return older.topk(slots.num_new, dim=-1, sorted=False).indices


def _dealt(tokens: Shaped[Tensor, "b h p *d"], parts: int, value: int) -> Tensor:
    """Dealt like cards, b h parts n *d; `value` where some parts would have one less."""
    missing = -tokens.shape[2] % parts
    if missing:
        filler = tokens.new_full((*tokens.shape[:2], missing, *tokens.shape[3:]), value)
        tokens = torch.cat([tokens, filler], dim=2)
    return tokens.unflatten(2, (-1, parts)).transpose(2, 3)


def _collected(dealt: Tensor, count: int) -> Tensor:
    """The first `count` tokens of what `_dealt` gave."""
    return dealt.transpose(2, 3).flatten(2, 3)[:, :, :count]
