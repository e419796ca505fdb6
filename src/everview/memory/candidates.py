"""Slots: what a policy chooses from, and Decision: what a memory will hold after a step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from everview.memory.slots import SlotMemory


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Where tokens at the end of the storage go when others are forgotten."""

    target: Int[Tensor, "b h n"]
    """Candidates that are overwritten."""
    source: Int[Tensor, "b h n"]
    """Candidates that they are overwritten with, all behind the budget."""
    room: dict[str, Tensor]
    """For the moving tokens, by what is held of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a memory will hold after a step, with all the memory that it takes to get there."""

    held: int
    """Tokens before some are forgotten."""
    num_tokens: int
    """Tokens after that."""
    num_arrived: int
    arrived: Int[Tensor, ""]
    notes: dict[str, Float[Tensor, "b h c"]]
    """Those that change."""
    values: dict[str, Tensor]
    """Those that change, as they are held."""
    where: Int[Tensor, "b h n"] | None
    """Candidates whose values change."""
    score: Float[Tensor, ""] | None
    unit_sum: Float[Tensor, "b h 1 d"] | None
    moves: Moves | None


class Slots:
    """What a policy chooses from: all candidates, the newest frame last.

    Axes: b streams, h heads, c candidates, d channels, p tokens of a frame. Keys and values are
    views, or decoded on first use where memory is in codes. What a policy assigns here is what the
    memory will hold if the step succeeds; in place it may only write to notes of the newest frame.
    """

    def __init__(self, memory: "SlotMemory", num_new: int) -> None:
        assert memory.arrived is not None, "made by the first append"
        self._memory = memory
        self.num_new = min(num_new, memory.num_tokens - memory.num_anchors)
        """Candidates of the newest frame."""
        self.arrived: Int[Tensor, ""] = memory.arrived + num_new
        """Tokens that ever came, the newest frame included; on the device."""
        self.num_arrived = memory.num_arrived + num_new
        """The same on the host."""
        self.notes: dict[str, Float[Tensor, "b h c"]] = memory.candidate_notes()
        """What the policy keeps beside each token."""
        self.order: Int[Tensor, "b h c"] = self.notes.pop("order")
        """Number of arrival in the stream."""
        self._old_notes = dict(self.notes)
        self.score, self.unit_sum = memory.score, memory.unit_sum
        """As in `SlotMemory`."""
        self.values_at: Int[Tensor, "b h n"] | None = None
        """Candidates whose values change."""
        self.new_values: Float[Tensor, "b h n d"] | None = None
        """To what; where a candidate is named twice, both times to the same."""
        # Not by cached_property: torch.compile stops at its lock.
        self._all_keys: Float[Tensor, "b h n d"] | None = None
        self._all_values: Float[Tensor, "b h n d"] | None = None

    @property
    def changed_notes(self) -> dict[str, Float[Tensor, "b h c"]]:
        """Notes that were assigned."""
        return {n: new for n, new in self.notes.items() if new is not self._old_notes[n]}

    @property
    def num_frames(self) -> int:
        """Frames that ever came, the newest included."""
        return self.num_arrived // self._memory.per_frame

    @property
    def per_frame(self) -> int:
        """Tokens of the first frame."""
        return self._memory.per_frame

    @property
    def keys(self) -> Float[Tensor, "b h c d"]:
        """Of the candidates."""
        return self._read_keys()[:, :, self._memory.num_anchors :]

    @property
    def anchors(self) -> Float[Tensor, "b h a d"]:
        """Keys of the protected frame."""
        return self._read_keys()[:, :, : self._memory.num_anchors]

    @property
    def values(self) -> Float[Tensor, "b h c d"]:
        """Of the candidates; not to be changed in place."""
        if self._all_values is None:
            self._all_values = self._memory.read_values()
        return self._all_values[:, :, self._memory.num_anchors :]

    def _read_keys(self) -> Float[Tensor, "b h n d"]:
        if self._all_keys is None:
            self._all_keys = self._memory.read_keys()
        return self._all_keys

    @property
    def queries(self) -> Float[Tensor, "b h p d"] | None:
        """Of the newest frame, for policies that watch them."""
        return self._memory.queries

    @property
    def layer(self) -> int:
        """Index of the layer."""
        return self._memory.layer
