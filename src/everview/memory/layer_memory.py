"""LayerMemory: what one attention layer remembers."""

from collections.abc import Iterator, Mapping
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from everview.memory.code_kernels import is_fused
from everview.memory.codes import EVERYTHING, Codes, Heads

Scratch = dict[tuple[str, tuple[int, ...], torch.dtype], Tensor]
"""Room that layers use one after the other, by name, shape and type."""


class LayerMemory:
    """Keys and values of past tokens, in order of arrival, in storage that grows by doubling.

    Axes: b streams, h heads, n tokens held, d channels per head. Reserved bytes are at most twice
    the used ones, and a token is copied at most twice on average, however long the stream. It only
    stores; what to forget is decided elsewhere.

    With `bits` the past is held in codes (`Codes`), and attention reads it head by head: one head's
    keys and values are the only ones that are expanded at a time; on a GPU a fused kernel expands
    nothing where there is one, see `is_fused`. The newest frame attends to itself as it is, and
    becomes codes when the step is over.
    """

    def __init__(self, bits: int | None = None) -> None:
        """Set up.

        Args:
            bits: 16, 8 or 4 per channel; None keeps numbers as they come.
        """
        self.num_tokens = 0
        self.codes = None if bits is None else Codes(bits)
        self._held: dict[str, Tensor] = {}
        """What is kept of each token, b h capacity and maybe channels."""
        self._fresh: tuple[Tensor, Tensor] | None = None
        """Keys and values of the last tokens as they came, until the step is over."""

    def append(self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]) -> None:
        """Add tokens behind those already held."""
        if self.codes is None:
            self._add({"keys": keys, "values": values})
            return
        self._add(self.codes.encode(keys, values))
        old = self._fresh
        if old is not None:
            keys, values = torch.cat([old[0], keys], dim=2), torch.cat([old[1], values], dim=2)
        self._fresh = keys, values

    def read(self) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """All keys and values held; views that are valid until the next `append`, or decoded."""
        return self.read_keys(), self.read_values()

    def read_keys(self) -> Float[Tensor, "b h n d"]:
        """All keys held, as `read`."""
        keys = self._views()["keys"]
        return keys if self.codes is None else self.codes.decode_keys(keys, EVERYTHING)

    def read_values(self) -> Float[Tensor, "b h n d"]:
        """All values held, as `read`."""
        held = self._views()
        return held["values"] if self.codes is None else self.codes.decode_values(held)

    def attend(self, queries: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Every query sees all that is held, what was appended last included."""
        if self.codes is None:
            held = self._views()
            return _attention(queries, held["keys"], held["values"], self._bias(EVERYTHING))
        if is_fused(queries, self.codes.bits):
            from everview.memory.triton_attention import attend_to_codes

            past = self._past(EVERYTHING)
            return attend_to_codes(queries, self.codes, past, self._fresh, self._bias(EVERYTHING))
        attended = torch.empty_like(queries)
        for heads in self._parts(queries):
            keys, values = self._expanded(heads, queries.dtype)
            attended[heads] = _attention(queries[heads], keys, values, self._bias(heads))
        return attended

    def settle(self) -> None:
        """The step has succeeded: bounded memories forget now."""
        self.decide({})
        self.finish()

    def decide(self, scratch: Scratch) -> None:
        """First half of `settle`: all that can fail; what is held stays as it is.

        Args:
            scratch: what is made here is used by `finish`, also by that of other layers.
        """

    def finish(self) -> None:
        """Second half: only writes to what is there. Interrupted, it can be run again."""
        self._fresh = None

    def count_again(self) -> None:
        """A recorded step has run once more: count its tokens; only where memory is bounded."""
        raise AssertionError("a memory that grows cannot be recorded")

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first tokens: undoes appends that belong to a failed step."""
        self.num_tokens = min(self.num_tokens, num_tokens)
        self._fresh = None
        if self.codes is not None and self.num_tokens == 0:
            self.codes.forget_scale()

    @property
    def num_evicted(self) -> int:
        """Tokens forgotten so far."""
        return 0

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, for a file; views."""
        if not self._held:
            return {}
        held = self._views()
        if self.codes is not None and self.codes.scale is not None:
            assert self.codes.offset is not None, "comes with the scale"
            held |= {"key_scale": self.codes.scale, "key_offset": self.codes.offset}
        return held

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what `tensors` gave, and nothing else; these very tensors, until room is made."""
        self.num_tokens, self._held, self._fresh = 0, {}, None
        if self.codes is not None:
            self.codes.scale, self.codes.offset = (
                tensors.get("key_scale"),
                tensors.get("key_offset"),
            )
        if not tensors:
            return
        self._held = {name: tensors[name] for name in self._kept_names()}
        self.num_tokens = self._held["keys"].shape[2]

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values held, with their scales."""
        held = (self._held[name] for name in self._kept_names() if name in self._held)
        return sum(t.nbytes // t.shape[2] * self.num_tokens for t in held) + self.scale_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes of the storage, unused room included."""
        return sum(tensor.nbytes for tensor in self._held.values()) + self.scale_bytes

    def _kept_names(self) -> tuple[str, ...]:
        """Names of what is kept of each token's key and value."""
        if self.codes is None or self.codes.bits == 16:
            return ("keys", "values")
        return ("keys", "values", "value_scale", "value_offset")

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of key channels, which do not depend on the number of tokens."""
        scale = None if self.codes is None else self.codes.scale
        return 0 if scale is None else 2 * scale.nbytes

    def _views(self) -> dict[str, Tensor]:
        """All that is held, without unused room."""
        assert len(self._held) > 0, "append comes before reading"
        return {name: tensor[:, :, : self.num_tokens] for name, tensor in self._held.items()}

    @staticmethod
    def _parts(queries: Float[Tensor, "b h n d"]) -> Iterator[Heads]:
        """Heads that are expanded at a time: each by itself, or all where a launch costs more."""
        if queries.device.type != "cpu":
            yield EVERYTHING
            return
        for i, j in product(range(queries.shape[0]), range(queries.shape[1])):
            yield slice(i, i + 1), slice(j, j + 1)

    def _expanded(self, heads: Heads, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of some heads, b h n d."""
        assert self.codes is not None, "only codes are expanded"
        past = self._past(heads)
        keys = self.codes.decode_keys(past["keys"], heads, dtype)
        values = self.codes.decode_values(past, dtype)
        if self._fresh is None:
            return keys, values
        return (
            torch.cat([keys, self._fresh[0][heads]], dim=2),
            torch.cat([values, self._fresh[1][heads]], dim=2),
        )

    def _past(self, heads: Heads) -> dict[str, Tensor]:
        """Codes of some heads, without those of fresh tokens: views."""
        fresh = 0 if self._fresh is None else self._fresh[0].shape[2]
        return {n: t[heads][:, :, : self.num_tokens - fresh] for n, t in self._views().items()}

    def _bias(self, heads: Heads) -> Float[Tensor, "b h 1 n"] | None:  # noqa: ARG002
        """What is added to the logits of each key; None: nothing."""
        return None

    def _add(self, tokens: Mapping[str, Tensor]) -> None:
        """Write behind what is held; makes room first."""
        start, end = self.num_tokens, self.num_tokens + tokens["keys"].shape[2]
        # One after the other, each complete in itself: less memory at the peak, and if there is
        # none for the second, all still hold all tokens.
        for name, new in tokens.items():
            self._held[name] = self._grown(self._held.get(name), new, end)
        for name, new in tokens.items():
            self._held[name][:, :, start:end] = new
        self.num_tokens = end

    def _grown(self, old: Tensor | None, like: Tensor, num_tokens: int) -> Tensor:
        capacity = 0 if old is None else old.shape[2]
        if old is not None and num_tokens <= capacity:
            return old
        room = self._capacity(num_tokens, capacity)
        shape = (*like.shape[:2], room, *like.shape[3:])
        grown = torch.empty(shape, dtype=like.dtype, device=like.device)
        if old is not None:
            grown[:, :, : self.num_tokens] = old[:, :, : self.num_tokens]
        return grown

    def _capacity(self, num_tokens: int, capacity: int) -> int:
        """Tokens to make room for."""
        return max(num_tokens, 2 * capacity)


def _attention(
    queries: Float[Tensor, "b h p d"],
    keys: Float[Tensor, "b h n d"],
    values: Float[Tensor, "b h n d"],
    bias: Float[Tensor, "b h 1 n"] | None,
) -> Float[Tensor, "b h p d"]:
    mask = None if bias is None else bias.to(queries.dtype).expand(-1, -1, queries.shape[2], -1)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
