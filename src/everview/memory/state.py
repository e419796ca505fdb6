"""StreamState: all that one stream remembers."""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.memory.layer_memory import LayerMemory, Scratch
from everview.memory.policies import MemoryPolicy
from everview.memory.policies.bounded import Bounded
from everview.memory.shortage import is_shortage
from everview.memory.slots import SlotMemory

CameraCache = Literal["per_round", "shared"]


@dataclass(kw_only=True, slots=True)
class TrackedGroup:
    """Points that were asked for in the same frame, and the feature map of that frame."""

    frame: int
    """Index of the query frame."""
    points: list[int]
    """Numbers of these points, in the order in which all points were asked for."""
    queries: Float[Tensor, "b t 2"]
    """Pixel (x, y) in the query frame."""
    query_map: Float[Tensor, "b c h w"]
    """Feature map of the query frame."""
    latest: Float[Tensor, "b t 2"] | None = None
    """Pixel (x, y) where they were last found; None until a later frame was seen."""


@dataclass(kw_only=True, slots=True)
class StreamState:
    """The past of one stream. Owned by the stream; the network holds weights only.

    So one network serves many streams, and a stream can be stopped, saved and resumed.
    """

    policy: MemoryPolicy
    """What is forgotten."""
    layers: list[LayerMemory]
    """One memory per pair of aggregator blocks."""
    camera: list[list[LayerMemory]]
    """Refinement rounds x trunk blocks; with a shared cache every round is the same list."""
    camera_cache: CameraCache
    """Whether refinement rounds remember apart, as in training, or share (published inference)."""
    batch: int
    """Streams side by side."""
    num_shortages: int = 0
    """How often memory ran out and the budget was cut."""
    num_frames: int = 0
    """Frames seen so far; the next frame gets this index."""
    num_settled: int = 0
    """The same, without a frame that may still fail."""
    has_to_balance: bool = False
    """Whether the budget is still to be shared among layers for the next frame."""
    image_size: tuple[int, int] | None = None
    """(height, width) of the latest frame."""
    tokens: dict[int, Float[Tensor, "b 1 p c"]] = field(default_factory=dict)
    """Kept layers of the latest frame, from which its track features can still be made."""
    recent_maps: list[Float[Tensor, "b c h w"]] = field(default_factory=list)
    """Track features of the latest frames, oldest first; a bounded number."""
    groups: list[TrackedGroup] = field(default_factory=list)
    """Tracked points by query frame."""
    track_order: Int[Tensor, " t"] | None = None
    """Where each point is among those of all groups in turn; None if they are in order already."""

    @classmethod
    def empty(
        cls, *, policy: MemoryPolicy, depth: int, rounds: int, trunk_depth: int,
        camera_cache: CameraCache, batch: int,
    ) -> "StreamState":  # fmt: skip
        """The state before the first frame of a network with these numbers of layers."""
        first = [policy.camera_memory() for _ in range(trunk_depth)]
        shared = camera_cache == "shared"
        others = [
            first if shared else [policy.camera_memory() for _ in range(trunk_depth)]
            for _ in range(rounds - 1)
        ]
        return cls(
            policy=policy,
            layers=[policy.layer_memory(i) for i in range(depth)],
            camera=[first, *others],
            camera_cache=camera_cache,
            batch=batch,
        )

    def memories(self) -> dict[str, LayerMemory]:
        """Every memory once, by a name that is stable on disk."""
        named = {f"layers.{i}": memory for i, memory in enumerate(self.layers)}
        rounds = self.camera[:1] if self.camera_cache == "shared" else self.camera
        for r, blocks in enumerate(rounds):
            named |= {f"camera.{r}.{i}": memory for i, memory in enumerate(blocks)}
        return named

    def sort_tracks(self) -> None:
        """Work out `track_order` after the groups have changed; not on the frame's way."""
        points = [point for group in self.groups for point in group.points]
        in_turn = sorted(range(len(points)), key=points.__getitem__)
        device = self.groups[0].query_map.device if self.groups else None
        is_sorted = points == sorted(points)
        self.track_order = None if is_sorted else torch.tensor(in_turn, device=device)

    def mark(self) -> "Mark":
        """How things stand, to come back to if a step fails."""
        return Mark(
            policy=self.policy,
            num_shortages=self.num_shortages,
            tokens_held=[memory.num_tokens for memory in self.memories().values()],
            num_frames=self.num_frames,
            image_size=self.image_size,
            tokens=self.tokens,
            recent_maps=self.recent_maps,
            groups=[dataclasses.replace(group) for group in self.groups],
        )

    def roll_back(self, mark: "Mark") -> None:
        """Forget everything since `mark`."""
        for memory, held in zip(self.memories().values(), mark.tokens_held, strict=True):
            memory.truncate(held)
        self.policy, self.num_shortages = mark.policy, mark.num_shortages
        self.num_frames = self.num_settled = mark.num_frames
        self.image_size = mark.image_size
        self.tokens, self.recent_maps = mark.tokens, mark.recent_maps
        self.groups = mark.groups

    def settle(self) -> None:
        """A step has succeeded: forget what is too much, and share the budget for the next one.

        First comes all that may fail, and changes nothing. Then the frame is in (`num_settled`):
        what is left can be done again from the beginning if it was interrupted.
        """
        scratch: Scratch = {}
        for memory in self.memories().values():
            memory.decide(scratch)
        self.num_settled, self.has_to_balance = self.num_frames, True
        try:
            self.finish()
        except BaseException as error:
            self.finish()
            if not is_shortage(error):
                raise

    def finish(self) -> None:
        """Do the rest of what was interrupted."""
        for memory in self.memories().values():
            memory.finish()
        if self.has_to_balance:
            self.policy.balance(self.layers, self.num_frames)
            self.has_to_balance = False

    def shadow(self) -> "StreamState":
        """The same tensors with counts of their own: a step there leaves the counts here alone.

        For a step that is recorded, not taken, in memories that only write in place.
        """
        twins = {id(memory): copy.copy(memory) for memory in self.memories().values()}
        layers = [twins[id(memory)] for memory in self.layers]
        first = [twins[id(memory)] for memory in self.camera[0]]
        others = [
            first if blocks is self.camera[0] else [twins[id(memory)] for memory in blocks]
            for blocks in self.camera[1:]
        ]
        return dataclasses.replace(self, layers=layers, camera=[first, *others])

    def count_again(self) -> None:
        """A recorded step has run once more: count its frame on the host too."""
        for memory in self.memories().values():
            memory.count_again()
        self.num_frames += 1
        self.num_settled = self.num_frames

    @property
    def is_prepared(self) -> bool:
        """Whether nothing is left to do before the next step."""
        return not self.has_to_balance and not self._uncut()

    def prepare(self) -> None:
        """Do before a step what was left: what was interrupted, and cuts to a smaller budget."""
        self.finish()
        for memory in self._uncut():
            assert isinstance(self.policy, Bounded), "only budgets shrink"
            memory.shrink(self.policy)

    def _uncut(self) -> list[SlotMemory]:
        slots = (memory for memory in self.layers if isinstance(memory, SlotMemory))
        return [memory for memory in slots if memory.policy is not self.policy]

    def shrink(self) -> bool:
        """Give a bounded policy a smaller budget, for `prepare` to cut to; False if it cannot."""
        layers = [memory for memory in self.layers if isinstance(memory, SlotMemory)]
        if not layers or not self.num_frames:
            return False
        smaller = self.policy.shrunk(layers[0].per_frame)
        if not isinstance(smaller, Bounded):
            return False
        self.policy, self.num_shortages = smaller, self.num_shortages + 1
        return True

    def copied(self) -> dict[str, dict[str, Tensor]]:
        """A copy of all memories, to come back to where `roll_back` cannot: after forgetting."""
        return {
            name: {kind: tensor.clone() for kind, tensor in memory.tensors().items()}
            for name, memory in self.memories().items()
        }

    def restore(self, mark: "Mark", copied: dict[str, dict[str, Tensor]]) -> None:
        """Be as at `mark`, when `copied` was made after `prepare`."""
        for memory in self.layers:
            if isinstance(memory, SlotMemory) and isinstance(mark.policy, Bounded):
                memory.policy = mark.policy
        for name, memory in self.memories().items():
            memory.restore(copied[name])
        self.roll_back(mark)
        self.has_to_balance = self.num_frames > 0

    def num_tokens(self) -> int:
        """Tokens held per aggregator layer, on average."""
        return round(sum(memory.num_tokens for memory in self.layers) / len(self.layers))

    def num_evicted(self) -> int:
        """Tokens forgotten so far per aggregator layer, on average."""
        return round(sum(memory.num_evicted for memory in self.layers) / len(self.layers))

    def is_bounded(self) -> bool:
        """Whether what is held has stopped growing, or will by itself."""
        return self.policy.name != "full"

    def cache_bytes(self) -> int:
        """Bytes of the aggregator's keys and values: 2 * layers * tokens * width * bytes each."""
        return sum(memory.used_bytes for memory in self.layers)

    def fixed_bytes(self) -> int:
        """Bytes that do not grow with the number of frames: latest tokens, feature maps."""
        maps = [*self.recent_maps, *(g.query_map for g in self.groups), *self.tokens.values()]
        return sum(tensor.nbytes for tensor in maps)

    def reserved_bytes(self) -> int:
        """Bytes of everything held, unused room included."""
        memories = sum(memory.reserved_bytes for memory in self.memories().values())
        return memories + self.fixed_bytes()


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A moment of a stream; cheap, because tensors in it are never changed in place."""

    policy: MemoryPolicy
    num_shortages: int
    tokens_held: list[int]
    num_frames: int
    image_size: tuple[int, int] | None
    tokens: dict[int, Tensor]
    recent_maps: list[Tensor]
    groups: list[TrackedGroup]
