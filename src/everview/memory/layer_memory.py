"""LayerMemory: what one attention layer remembers."""

import torch
from jaxtyping import Float
from torch import Tensor


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

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first tokens: undoes appends that belong to a failed step."""
        self.num_tokens = min(self.num_tokens, num_tokens)

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values held."""
        if self._keys is None:
            return 0
        return self.reserved_bytes // self._keys.shape[2] * self.num_tokens

    @property
    def reserved_bytes(self) -> int:
        """Bytes of the storage, unused room included."""
        return 0 if self._keys is None else 2 * self._keys.nbytes

    def _reserve(self, like: Tensor, num_tokens: int) -> None:
        capacity = 0 if self._keys is None else self._keys.shape[2]
        if num_tokens <= capacity:
            return
        shape = (*like.shape[:2], max(num_tokens, 2 * capacity), like.shape[3])
        for name in ("_keys", "_values"):  # one after the other: less memory at the peak
            grown = torch.empty(shape, dtype=like.dtype, device=like.device)
            old = getattr(self, name)
            if old is not None:
                grown[:, :, : self.num_tokens] = old[:, :, : self.num_tokens]
            setattr(self, name, grown)
