"""Dense heads and tracker in bfloat16: not quantized, they would be a sixth of the bytes."""

from typing import Any

import torch
from torch import Tensor, nn

from everview.model.heads.update_transformer import PackedAttention
from everview.model.network import Network

PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""Layers that are computed in bfloat16; norms, positions and coordinates stay in float32."""


def halve_heads(network: Network) -> None:
    """Keep and compute the products of dense heads and tracker in bfloat16, layer by layer.

    What goes in and comes out of each layer is float32, as under autocast, so that pixels of tracks
    and the exponents of depth do not lose their digits. Names and shapes stay.
    """
    for head in (network.depth_head, network.point_head, network.track_head):
        for layer in [] if head is None else head.modules():
            if isinstance(layer, (*PRODUCTS, PackedAttention)):
                layer.to(torch.bfloat16)
                layer.register_forward_pre_hook(_in_bfloat16)
            if isinstance(layer, PRODUCTS):  # attention ends with one of them
                layer.register_forward_hook(_in_float32)


def _in_bfloat16(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.to(torch.bfloat16) if isinstance(a, Tensor) else a for a in arguments)


def _in_float32(_: nn.Module, __: tuple[Any, ...], result: Tensor) -> Tensor:
    return result.float()
