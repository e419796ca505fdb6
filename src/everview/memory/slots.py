"""SlotMemory: a layer's memory of fixed size, whose slots are overwritten in place."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.candidates import Decision, Moves, Slots
from everview.memory.codes import Heads
from everview.memory.layer_memory import LayerMemory, Scratch

if TYPE_CHECKING:
    from everview.memory.policies.bounded import Bounded


class SlotMemory(LayerMemory):
    """Keys and values of at most `budget` tokens, and of the frame that is being taken in.

    Laid out as protected frame, slots, newest frame. Attention does not care about the order of
    keys (norm and rotation are already applied), so a forgotten token's slot takes a new one and
    nothing else moves: O(p) writes per frame, shapes that do not change once all slots are taken,
    no host synchronisation. From then on (`is_routine`) all that changes from frame to frame is in
    tensors that are written in place, so a step can be recorded and run again. Forgetting happens
    after the whole step has succeeded: `decide` takes all memory that it needs and changes nothing,
    so that a failed step is undone by `truncate`; `finish` only writes, and can be run again.
    """

    def __init__(self, policy: "Bounded", layer: int) -> None:
        super().__init__(policy.bits)
        self.policy, self.layer = policy, layer
        self.budget: int | None = None
        """Tokens that stay after a frame; known from the first frame on."""
        self.num_anchors = 0
        self.num_arrived = 0
        """Tokens that ever came, those of a failed step not counted: for reports and rare turns."""
        self.arrived: Int[Tensor, ""] | None = None
        """The same on the device, where a recorded step counts on; None before the first frame."""
        self.score: Float[Tensor, ""] | None = None
        """How alike all keys are, for policies that share the budget among layers."""
        self.unit_sum: Float[Tensor, "b h 1 d"] | None = None
        """Sum of the unit keys of all candidates, for policies that compare with their mean."""
        self._settled = self._per_frame = 0
        self._extra: dict[str, Tensor] = {}  # order and notes: b h capacity
        self.queries: Tensor | None = None
        """Of the newest frame, until the step is over; for policies that watch them."""
        self._decided: Decision | None = None

    def append(self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]) -> None:
        """See LayerMemory.append; the first frame fixes the budget.

        Raises:
            ConfigError: if the budget is too small, or whole frames are to be kept and this one is
                not as the first; nothing is stored then.
        """
        n = keys.shape[2]
        if self.budget is None:
            self.policy.tokens_for(n)
        elif self.policy.whole_frames and n % self._per_frame:
            raise ConfigError(
                f"memory policy {self.policy.text!r} keeps whole frames of one size, "
                f"{self._per_frame} tokens, and this one has {n}: give frames of one size, start a "
                f"new stream, or write key_diversity:tokens={self.budget}"
            )
        start = self.num_tokens
        super().append(keys, values)
        if self.arrived is None:
            self.arrived = torch.zeros((), dtype=torch.int64, device=keys.device)
        later = start - self._settled
        # In int64: int32 would save 4 bytes per head and token, and be full after 2^31 tokens.
        numbers = torch.arange(later, later + n, device=keys.device)
        self._note("order", torch.int64, start, self.arrived + numbers)
        for name in self.policy.notes:
            self._note(name, torch.float32, start, 0.0)

    def attend(self, queries: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """See LayerMemory.attend."""
        if self.policy.watches_queries:
            self.queries = queries
        return super().attend(queries)

    def truncate(self, num_tokens: int) -> None:
        """See LayerMemory.truncate."""
        if self.num_tokens > self._settled:
            self._decided = None  # but a cut between steps that was interrupted will be finished
        super().truncate(min(num_tokens, self._settled))
        self.queries = None
        if self._settled == 0:
            self.budget, self._per_frame, self.num_anchors = None, 0, 0

    def decide(self, scratch: Scratch) -> None:
        """See LayerMemory.decide: what to forget, the newest frame being one of many."""
        new = self.num_tokens - self._settled
        if new == 0:
            return
        if self.budget is None:
            self._per_frame, self.budget = new, self.policy.tokens_for(new)
            self.num_anchors = new if self.policy.protects_first_frame else 0
        slots, losers = Slots(self, new), None
        if self.num_tokens > self.num_anchors:
            self.policy.arrive(slots)
            excess = self.num_tokens - self.budget
            if excess > 0:
                losers = self.policy.losers(slots, excess)
        self._decided = self._decision(slots, losers, scratch)

    def finish(self) -> None:
        """See LayerMemory.finish. Tokens that move are still at their old place afterwards."""
        decided = self._decided
        if decided is None:
            return
        part = slice(self.num_anchors, decided.held)
        for name, new in decided.notes.items():
            self._extra[name][:, :, part].copy_(new)
        for name, new in decided.values.items():
            assert decided.where is not None, "comes with the values"
            self._held[name][:, :, part].scatter_(2, _of_channels(decided.where, new), new)
        if decided.moves is not None:
            self._move(decided.moves, part)
        self.arrived = _rewritten(self.arrived, decided.arrived)
        self.score = _rewritten(self.score, decided.score)
        self.unit_sum = _rewritten(self.unit_sum, decided.unit_sum)
        self.num_arrived = decided.num_arrived
        self.num_tokens = self._settled = decided.num_tokens
        self.queries = self._decided = None
        super().finish()

    def shrink(self, policy: "Bounded") -> None:
        """Hold no more than a smaller policy allows, and give storage back; the oldest go.

        Between steps. A layer with another share of the budget keeps that share. Where it fails it
        can be done again: the policy is the new one when all is done.
        """
        assert self.budget is not None, "a frame was seen"
        before = self.policy.tokens_for(self._per_frame)
        smaller = self.budget * policy.tokens_for(self._per_frame) // before
        smaller = max(smaller, policy.least_tokens(self._per_frame))
        excess = self.num_tokens - smaller
        if excess > 0:
            slots = Slots(self, 0)
            losers = (-slots.order).topk(excess, dim=-1).indices
            slots.unit_sum = None
            self._decided = self._decision(slots, losers, {})
            self.finish()
        room = smaller + self._per_frame
        for store in (self._held, self._extra):
            for name, tensor in store.items():
                if tensor.shape[2] > room:
                    store[name] = tensor[:, :, :room].clone()
        self.budget, self.policy = smaller, policy

    @property
    def is_routine(self) -> bool:
        """Whether the next frame is taken in as the last one was: all slots taken, some forgotten.

        But for what `Bounded.is_routine` says of some frames.
        """
        return self.num_tokens == self.budget and self.num_arrived > self.num_tokens

    def count_again(self) -> None:
        """A step that was recorded has run once more: count its tokens on the host too."""
        self.num_arrived += self._per_frame

    def layout(self) -> tuple[int, ...]:
        """Budget, and where in memory all lies that a step goes on from: a recording is for that.

        Plain numbers; no device is asked.
        """
        scales = () if self.codes is None else (self.codes.scale, self.codes.offset)
        beside = (self.arrived, self.unit_sum, self.score, *scales)
        kept = (*self._held.values(), *self._extra.values(), *beside)
        return self.budget or 0, *(0 if t is None else t.data_ptr() for t in kept)

    @property
    def per_frame(self) -> int:
        """Tokens of a frame; 0 before the first."""
        return self._per_frame

    @property
    def num_evicted(self) -> int:
        """Tokens forgotten so far."""
        return self.num_arrived - self._settled

    @property
    def reserved_bytes(self) -> int:
        """See LayerMemory.reserved_bytes."""
        return super().reserved_bytes + sum(tensor.nbytes for tensor in self._extra.values())

    def tensors(self) -> dict[str, Tensor]:
        """See LayerMemory.tensors."""
        if self.budget is None:
            return {}
        held = super().tensors() | {
            name: tensor[:, :, : self.num_tokens] for name, tensor in self._extra.items()
        }
        numbers = (self.budget, self._per_frame, self.num_anchors, self.num_arrived)
        held["numbers"] = torch.tensor(numbers)
        beside = {"score": self.score, "unit_sum": self.unit_sum}
        return held | {name: value for name, value in beside.items() if value is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See LayerMemory.restore."""
        self.__init__(self.policy, self.layer)  # type: ignore[misc]
        if not tensors:
            return
        numbers = [int(number) for number in tensors["numbers"]]
        self.budget, self._per_frame, self.num_anchors, self.num_arrived = numbers
        super().restore(tensors)
        self.arrived = torch.tensor(self.num_arrived, device=self._held["keys"].device)
        self._settled = self.num_tokens
        for name in ("order", *self.policy.notes):
            self._extra[name] = tensors[name]
        score, total = tensors.get("score"), tensors.get("unit_sum")
        self.score = None if score is None else score.clone()
        self.unit_sum = None if total is None else total.clone()

    def _bias(self, heads: Heads) -> Float[Tensor, "b h 1 n"] | None:
        """Logarithm of how many tokens each stands for; None where each stands for itself."""
        if not self.policy.counts or self.num_arrived <= (self.budget or self.num_arrived):
            return None
        return self._extra["log_count"][heads][:, :, None, : self.num_tokens]

    def _capacity(self, num_tokens: int, capacity: int) -> int:
        """Room for the budget and a frame at once; budgets that were raised later by doubling."""
        del capacity
        new = self._per_frame or num_tokens - self._settled
        budget = self.budget if self.budget is not None else self.policy.tokens_for(new)
        return max(num_tokens, budget + new)

    def _note(self, name: str, dtype: torch.dtype, start: int, value: Tensor | float) -> None:
        """Numbers beside the tokens from `start` on."""
        shape = self._held["keys"].shape[:3]
        old = self._extra.get(name)
        if old is None or old.shape != shape:
            grown = torch.zeros(shape, dtype=dtype, device=self._held["keys"].device)
            if old is not None:
                grown[:, :, :start] = old[:, :, :start]
            self._extra[name] = grown
        self._extra[name][:, :, start : self.num_tokens] = value

    def candidate_notes(self) -> dict[str, Tensor]:
        """What is kept beside each candidate: views."""
        part = slice(self.num_anchors, self.num_tokens)
        return {name: tensor[:, :, part] for name, tensor in self._extra.items()}

    def _decision(
        self, slots: Slots, losers: Int[Tensor, "b heads n"] | None, scratch: Scratch
    ) -> Decision:
        moves = None if losers is None else self._forget(losers, scratch)
        values: dict[str, Tensor] = {}
        if slots.new_values is not None:
            new = slots.new_values
            values = {"values": new} if self.codes is None else self.codes.encode_values(new)
            values = {name: value.to(self._held[name].dtype) for name, value in values.items()}
        return Decision(
            held=self.num_tokens,
            num_tokens=self.num_tokens - (0 if losers is None else losers.shape[2]),
            num_arrived=slots.num_arrived,
            arrived=slots.arrived,
            notes=slots.changed_notes,
            values=values,
            where=slots.values_at,
            score=slots.score,
            unit_sum=slots.unit_sum,
            moves=moves,
        )

    def _forget(self, losers: Int[Tensor, "b heads n"], scratch: Scratch) -> Moves:
        """What survives at the end of the storage moves into the slots of what is forgotten.

        As many slots become free as tokens behind the budget survive, in every head. Tokens that
        are forgotten behind the budget are copied onto themselves.
        """
        b, h = self._held["keys"].shape[:2]
        excess = losers.shape[2]
        slots = self.num_tokens - self.num_anchors - excess
        target = losers.sort(dim=-1).values  # free slots first, then what is lost at the end
        behind = torch.where(target >= slots, target - slots, excess)  # the last entry is for none
        lost = torch.zeros(*target.shape[:2], excess + 1, dtype=torch.bool, device=target.device)
        lost.scatter_(2, behind, value=True)
        source = slots + lost[..., :excess].byte().argsort(dim=-1, stable=True)
        target, source = (index.expand(b, h, excess) for index in (target, source))
        room = {
            name: _scratch(scratch, name, tensor, excess)
            for store in (self._held, self._extra)
            for name, tensor in store.items()
        }
        return Moves(target=target, source=source, room=room)

    def _move(self, moves: Moves, part: slice) -> None:
        for store in (self._held, self._extra):
            for name, tensor in store.items():
                candidates, room = tensor[:, :, part], moves.room[name]
                source = _of_channels(moves.source, tensor)
                torch.gather(candidates, 2, source, out=room)
                candidates.scatter_(2, _of_channels(moves.target, tensor), room)


def _of_channels(index: Int[Tensor, "b h n"], like: Tensor) -> Int[Tensor, "*s"]:
    """For all channels, where there are some."""
    return index if like.ndim == 3 else index[..., None].expand(-1, -1, -1, like.shape[3])


def _scratch(scratch: Scratch, name: str, tensor: Tensor, num_tokens: int) -> Tensor:
    """Room for so many tokens, shared by layers that are alike."""
    shape = (*tensor.shape[:2], num_tokens, *tensor.shape[3:])
    key = (name, shape, tensor.dtype)
    if key not in scratch:
        scratch[key] = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    return scratch[key]


def _rewritten(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    """The new numbers, in the place of the old ones."""
    return new if old is None or new is None or old is new else old.copy_(new)
