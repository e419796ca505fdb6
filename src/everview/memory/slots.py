"""SlotMemory: a layer's memory of fixed size, whose slots are overwritten in place."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.memory.codes import Heads
from everview.memory.layer_memory import LayerMemory

if TYPE_CHECKING:
    from everview.memory.policies.bounded import Bounded


class Slots:
    """What a policy chooses from: all candidates, the newest frame last.

    Axes: b streams, h heads, c candidates, d channels, p tokens of a frame. Keys and values are
    views, or decoded on first use where memory is in codes.
    """

    def __init__(self, memory: "SlotMemory", num_new: int) -> None:
        self.memory = memory
        """For policies that change what they keep."""
        self.num_new = num_new
        """Candidates of the newest frame."""
        notes = memory.candidate_notes()
        self.order: Int[Tensor, "b h c"] = notes.pop("order")
        """Number of arrival in the stream."""
        self.notes: Mapping[str, Float[Tensor, "b h c"]] = notes
        """What the policy keeps beside each token; may be changed in place."""
        # Not by cached_property: torch.compile stops at its lock.
        self._all_keys: Float[Tensor, "b h n d"] | None = None
        self._all_values: Float[Tensor, "b h n d"] | None = None

    @property
    def arrived(self) -> Int[Tensor, ""]:
        """Tokens that ever came, the newest frame included; on the device."""
        assert self.memory.arrived is not None, "made by the first append"
        return self.memory.arrived

    @property
    def keys(self) -> Float[Tensor, "b h c d"]:
        """Of the candidates."""
        return self._read_keys()[:, :, self.memory.num_anchors :]

    @property
    def anchors(self) -> Float[Tensor, "b h a d"]:
        """Keys of the protected frame."""
        return self._read_keys()[:, :, : self.memory.num_anchors]

    @property
    def values(self) -> Float[Tensor, "b h c d"]:
        """Of the candidates; not to be changed, see `SlotMemory.set_values`."""
        if self._all_values is None:
            self._all_values = self.memory.read_values()
        return self._all_values[:, :, self.memory.num_anchors :]

    def _read_keys(self) -> Float[Tensor, "b h n d"]:
        if self._all_keys is None:
            self._all_keys = self.memory.read_keys()
        return self._all_keys

    @property
    def queries(self) -> Float[Tensor, "b h p d"] | None:
        """Of the newest frame, for policies that watch them."""
        return self.memory.queries

    @property
    def layer(self) -> int:
        """Index of the layer."""
        return self.memory.layer


class SlotMemory(LayerMemory):
    """Keys and values of at most `budget` tokens, and of the frame that is being taken in.

    Laid out as protected frame, slots, newest frame. Attention does not care about the order of
    keys (norm and rotation are already applied), so a forgotten token's slot takes a new one and
    nothing else moves: O(p) writes per frame, shapes that do not change once all slots are taken,
    no host synchronisation. From then on (`is_routine`) all that changes from frame to frame is in
    tensors that are written in place, so a step can be recorded and run again. Forgetting happens
    in `settle`, after the whole step has succeeded, so that a failed step is undone by `truncate`.
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

    def append(self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]) -> None:
        """See LayerMemory.append; the first frame fixes the budget."""
        n = keys.shape[2]
        if self.budget is None:
            self.policy.tokens_for(n)  # refuses before anything is stored
        start = self.num_tokens
        super().append(keys, values)
        if self.arrived is None:
            self.arrived = torch.zeros((), dtype=torch.int64, device=keys.device)
        later = start - self._settled
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
        super().truncate(num_tokens)
        self.queries = None

    def settle(self) -> None:
        """Take the newest frame in and forget what is too much."""
        new = self.num_tokens - self._settled
        if new == 0:
            return
        self.num_arrived += new
        assert self.arrived is not None, "made by append"
        self.arrived += new
        if self.budget is None:
            self._per_frame, self.budget = new, self.policy.tokens_for(new)
            self.num_anchors = new if self.policy.protects_first_frame else 0
        if self.num_tokens > self.num_anchors:
            slots = Slots(self, min(new, self.num_tokens - self.num_anchors))
            self.policy.arrive(slots)
            excess = self.num_tokens - self.budget
            if excess > 0:
                self._forget(self.policy.losers(slots, excess))
        self._settled = self.num_tokens
        self.queries = None
        super().settle()

    def shrink(self, policy: "Bounded") -> None:
        """Hold no more than a smaller policy allows, and give storage back; the oldest go.

        Between steps. A layer with another share of the budget keeps that share.
        """
        assert self.budget is not None, "a frame was seen"
        before = self.policy.tokens_for(self._per_frame)
        smaller = self.budget * policy.tokens_for(self._per_frame) // before
        self.policy = policy
        self.budget = max(smaller, policy.least_tokens(self._per_frame))
        excess = self.num_tokens - self.budget
        if excess > 0:
            order = self._extra["order"][:, :, self.num_anchors : self.num_tokens]
            self._forget((-order).topk(excess, dim=-1).indices)
        self._settled, self.unit_sum = self.num_tokens, None
        room = self.budget + self._per_frame
        for store in (self._held, self._extra):
            for name, tensor in store.items():
                store[name] = tensor[:, :, :room].clone()

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
    def num_frames(self) -> int:
        """Frames that ever came."""
        return self.num_arrived // max(1, self._per_frame)

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
            self._note(name, tensors[name].dtype, 0, tensors[name])
        score, total = tensors.get("score"), tensors.get("unit_sum")
        self.score = None if score is None else score.clone()
        self.unit_sum = None if total is None else total.clone()

    def set_values(self, index: Int[Tensor, "b h n"], values: Float[Tensor, "b h n d"]) -> None:
        """Replace values of candidates; where one is named twice, both times by the same."""
        new = {"values": values} if self.codes is None else self.codes.encode_values(values)
        for name, tensor in new.items():
            candidates = self._held[name][:, :, self.num_anchors : self.num_tokens]
            where = index[..., None].expand(-1, -1, -1, tensor.shape[3])
            candidates.scatter_(2, where, tensor.to(candidates.dtype))

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

    def _forget(self, losers: Int[Tensor, "b heads n"]) -> None:
        """Move what survives at the end of the storage into the slots of what is forgotten.

        As many slots become free as tokens behind the budget survive, in every head. Tokens that
        are forgotten behind the budget are copied onto themselves.
        """
        assert self.budget is not None, "set by the first frame"
        b, h = self._held["keys"].shape[:2]
        excess = losers.shape[2]
        slots = self.budget - self.num_anchors
        target = losers.sort(dim=-1).values  # free slots first, then what is lost at the end
        behind = torch.where(target >= slots, target - slots, excess)  # the last entry is for none
        lost = torch.zeros(*target.shape[:2], excess + 1, dtype=torch.bool, device=target.device)
        lost.scatter_(2, behind, value=True)
        source = slots + lost[..., :excess].byte().argsort(dim=-1, stable=True)
        target, source = (index.expand(b, h, excess) for index in (target, source))
        for tensor in (*self._held.values(), *self._extra.values()):
            candidates = tensor[:, :, self.num_anchors : self.num_tokens]
            to, of = target, source
            if tensor.ndim == 4:
                to, of = (i[..., None].expand(-1, -1, -1, tensor.shape[3]) for i in (to, of))
            candidates.scatter_(2, to, candidates.gather(2, of))
        self.num_tokens = self.budget
