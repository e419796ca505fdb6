"""LayerMemory: what one attention layer remembers."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class LayerMemory:
    """Keys and values of past tokens, in order of arrival, in storage that grows by doubling.

    Axes: b streams, h heads, n tokens held, d channels per head. Reserved bytes are at most twice
    the used ones, and a token is copied at most twice on average, however long the stream. It only
    stores; what to forget is decided elsewhere.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        self._keys: Tensor | None = None  # b h capacity d
        self._values: Tensor | None = None

    def append(self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]) -> None:
        """Add tokens behind those already held."""
        end = self.num_tokens + keys.shape[2]
        self._reserve(keys, end)
        assert self._keys is not None, "reserved just above"
        assert self._values is not None, "reserved just above"
        self._keys[:, :, self.num_tokens : end] = keys
        self._values[:, :, self.num_tokens : end] = values
        self.num_tokens = end

    def read(self) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """Views of all keys and values held; valid until the next `append`."""
        assert self._keys is not None, "append comes before read"
        assert self._values is not None, "append comes before read"
        return self._keys[:, :, : self.num_tokens], self._values[:, :, : self.num_tokens]

    def attend(self, queries: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Every query sees all that is held, what was appended last included."""
        return F.scaled_dot_product_attention(queries, *self.read())

    def settle(self) -> None:
        """The step has succeeded: bounded memories forget now."""

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first tokens: undoes appends that belong to a failed step."""
        self.num_tokens = min(self.num_tokens, num_tokens)

    @property
    def num_evicted(self) -> int:
        """Tokens forgotten so far."""
        return 0

    @property
    def largest_bytes(self) -> int | None:
        """Most that will ever be reserved; None if there is no bound, or none is known yet."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, for a file; views."""
        if self._keys is None:
            return {}
        keys, values = (
            t[:, :, : self.num_tokens] for t in (self._keys, self._values) if t is not None
        )
        return {"keys": keys, "values": values}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what `tensors` gave, and nothing else."""
        self.num_tokens, self._keys, self._values = 0, None, None
        if tensors:
            LayerMemory.append(self, tensors["keys"], tensors["values"])

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values held."""
        if self._keys is None:
            return 0
        return 2 * self._keys.nbytes // self._keys.shape[2] * self.num_tokens

    @property
    def reserved_bytes(self) -> int:
        """Bytes of the storage, unused room included."""
        return sum(t.nbytes for t in (self._keys, self._values) if t is not None)

    def _reserve(self, like: Tensor, num_tokens: int) -> None:
        # One after the other, each complete in itself: less memory at the peak, and if there is
        # none for the second, both still hold all tokens.
        self._keys = self._grown(self._keys, like, num_tokens)
        self._values = self._grown(self._values, like, num_tokens)

    def _grown(self, old: Tensor | None, like: Tensor, num_tokens: int) -> Tensor:
        capacity = 0 if old is None else old.shape[2]
        if old is not None and num_tokens <= capacity:
            return old
        shape = (*like.shape[:2], self._capacity(num_tokens, capacity), like.shape[3])
        grown = torch.empty(shape, dtype=like.dtype, device=like.device)
        if old is not None:
            grown[:, :, : self.num_tokens] = old[:, :, : self.num_tokens]
        return grown

    def _capacity(self, num_tokens: int, capacity: int) -> int:
        """Tokens to make room for."""
        return max(num_tokens, 2 * capacity)
