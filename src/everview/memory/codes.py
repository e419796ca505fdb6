"""Keys and values in 16, 8 or 4 bits: what one token costs, and how it is read again."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

BITS = (16, 8, 4)
"""Bits per channel that are offered beside the network's own numbers."""
HEAD_ROOM = {8: 3.0, 4: 1.25}
"""Bits -> range of a key channel over that of the first frame; beyond it keys saturate.

Later frames leave the range of the first. In 8 bits steps are fine enough to hold them all; in 4
bits a wider range would lose as much in every key as saturation does in some (decision 0013)."""
GROUP = 32
"""Channels of a value that share a scale, or fewer: see `group_size`."""
SMALLEST_RANGE = 1e-6

Heads = tuple[slice, slice]
"""Some streams and heads."""
EVERYTHING: Heads = (slice(None), slice(None))


class Codes:
    """Encodes the tokens of one layer and one stream.

    Keys have one scale and one offset per head and channel, fixed by the first frame: their
    outliers sit in channels, and a scale that changed would mean writing all slots again. Values
    have them per token and group of 32 channels. A token of d channels takes 2 d bits / 8 bytes
    and 4 bytes per group; the scales of keys take 4 bytes per channel. With 16 bits both are
    float16 without scales. Scales and offsets are float16, and codes are made with them as such.

    Source: KIVI (arXiv 2402.02750), XStreamVGGT (arXiv 2602.21780).
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._levels = 2**bits - 1
        self.scale: Float[Tensor, "b h 1 d"] | None = None
        """Of key channels; None before the first frame, and with 16 bits."""
        self.offset: Float[Tensor, "b h 1 d"] | None = None
        """Key of code 0."""

    def forget_scale(self) -> None:
        """Before the first frame again."""
        self.scale = self.offset = None

    def encode(
        self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]
    ) -> dict[str, Tensor]:
        """What is kept of tokens: `keys`, `values`, and `value_scale`, `value_offset` (b h n g)."""
        if self.bits == 16:
            return {"keys": _half(keys), "values": _half(values)}
        if self.scale is None or self.offset is None:
            self._fit(keys)
        assert self.scale is not None, "fitted just above"
        assert self.offset is not None, "fitted just above"
        return {
            "keys": self._packed((keys.float() - self.offset) / self.scale),
            **self.encode_values(values),
        }

    def encode_values(self, values: Float[Tensor, "b h n d"]) -> dict[str, Tensor]:
        """Values alone."""
        if self.bits == 16:
            return {"values": _half(values)}
        grouped = values.float().unflatten(-1, (-1, group_size(values.shape[-1])))
        low, high = grouped.amin(dim=-1), grouped.amax(dim=-1)  # b h n g
        # Rounded as it will be stored, so that codes make up for it.
        scale = ((high - low) / self._levels).clamp_min(SMALLEST_RANGE).to(torch.float16)
        low = low.to(torch.float16)
        codes = (grouped - low[..., None]) / scale[..., None]
        return {
            "values": self._packed(codes.flatten(-2)),
            "value_scale": scale,
            "value_offset": low,
        }

    def decode_keys(
        self,
        codes: Shaped[Tensor, "b h n bytes"],
        heads: Heads,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "b h n d"]:
        """Keys of these heads from their codes."""
        if self.bits == 16:
            return codes.to(dtype)
        assert self.scale is not None, "encoding comes before decoding"
        assert self.offset is not None, "encoding comes before decoding"
        numbers = self._unpacked(codes).to(dtype)
        return numbers.mul_(self.scale[heads].to(dtype)).add_(self.offset[heads].to(dtype))

    def decode_values(
        self, held: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b h n d"]:
        """Values from what `encode` gave, or from a part of it."""
        if self.bits == 16:
            return held["values"].to(dtype)
        groups = held["value_scale"].shape[-1]
        numbers = self._unpacked(held["values"]).to(dtype).unflatten(-1, (groups, -1))
        scale, offset = (
            held[name].to(dtype)[..., None] for name in ("value_scale", "value_offset")
        )
        return numbers.mul_(scale).add_(offset).flatten(-2)

    def _fit(self, keys: Float[Tensor, "b h n d"]) -> None:
        low, high = keys.float().aminmax(dim=2, keepdim=True)
        middle, half = (high + low) / 2, (high - low) / 2 * HEAD_ROOM[self.bits]
        self.offset = _half(middle - half)
        reach = middle + half - self.offset
        self.scale = _half((reach / self._levels).clamp_min(SMALLEST_RANGE))

    def _packed(self, codes: Float[Tensor, "*s d"]) -> UInt8[Tensor, "*s bytes"]:
        numbers = codes.round_().clamp_(0, self._levels).to(torch.uint8)
        if self.bits == 8:
            return numbers
        low, high = numbers.chunk(2, dim=-1)  # the first half of the channels in the low bits
        return low | (high << 4)

    def _unpacked(self, codes: UInt8[Tensor, "*s bytes"]) -> UInt8[Tensor, "*s d"]:
        if self.bits == 8:
            return codes
        return torch.cat([codes & 15, codes >> 4], dim=-1)


def group_size(channels: int) -> int:
    """Channels of a value that share a scale: the largest divisor of all that is at most 32."""
    return max(n for n in range(1, min(GROUP, channels) + 1) if not channels % n)


def _half(numbers: Tensor) -> Tensor:
    """In float16, of which nothing becomes infinite; bfloat16 stays as it is."""
    if numbers.dtype in (torch.float16, torch.bfloat16):
        return numbers
    largest = torch.finfo(torch.float16).max
    return numbers.clamp(-largest, largest).to(torch.float16)
