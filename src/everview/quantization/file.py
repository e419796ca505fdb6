"""Quantized networks in model folders: a record in `config.json`, integers in safetensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from everview.errors import WeightsError
from everview.model.network import Network
from everview.quantization.linear import QuantizedLinear
from everview.quantization.network import FORMAT, Quantization, quantized_layers
from everview.quantization.sites import linear_of, replace_linear
from everview.quantization.spec import LinearSpec

KEY = "quantization"
"""Of a model folder's `config.json`."""
FLOAT_BUFFERS = ("step", "bias", "before", "after", "activation_clip")


def read_record(content: Mapping[str, Any]) -> Quantization | None:
    """The record of a `config.json`; None if the network is not quantized.

    Raises:
        WeightsError: if its version is unknown, or something is missing.
    """
    record = content.get(KEY)
    if record is None:
        return None
    found = record.get("format") if isinstance(record, Mapping) else None
    if found != FORMAT:
        raise WeightsError(
            f"config.json: {KEY} has format {found!r}, this version reads {FORMAT}; update "
            "everview (pip install -U everview)"
        )
    try:
        return Quantization(**record)
    except TypeError as error:
        raise WeightsError(f"config.json: {KEY}: {error}") from error


def place_empty_layers(
    network: Network, record: Quantization, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Put layers without content in the places that the record names, ready to be filled.

    Args:
        network: without content.
        shapes: name -> shape of all tensors of the file.

    Raises:
        WeightsError: if the record names a layer that the network lacks.
    """
    for name, facts in record.layers.items():
        try:
            linear = linear_of(network, name)
            spec = LinearSpec(
                **{key: facts[key] for key in ("weight_bits", "activation_bits", "group")},
                is_float8=facts.get("is_float8", False),
            )
        except (AttributeError, KeyError, ValueError) as error:
            raise WeightsError(f"config.json: {KEY}: layer {name!r}: {error}") from error
        layer = QuantizedLinear(linear.in_features, linear.out_features, spec)
        layer.block = facts.get("block")
        width = linear.in_features // 2 if spec.is_packed else linear.in_features
        kind = torch.uint8 if spec.is_packed else spec.level_dtype
        layer.levels = torch.empty(linear.out_features, width, dtype=kind, device="meta")
        for buffer in FLOAT_BUFFERS:
            shape = shapes.get(f"{name}.{buffer}")
            if shape is not None:
                setattr(layer, buffer, torch.empty(shape, dtype=torch.float32, device="meta"))
        replace_linear(network, name, layer)


def tensors_to_store(network: Network, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Name -> tensor of a network's file, on the CPU.

    Args:
        dtype: of floating-point weights. Everything of quantized layers, and the vectors of norms
            into which factors were folded, stay in float32: rounding them would cost more accuracy
            than bytes.
    """
    exact = {
        f"{name}.{leaf}"
        for name in quantized_layers(network)
        for leaf in ("levels", *FLOAT_BUFFERS)
    }
    is_quantized = bool(exact)
    values = {}
    for name, value in network.state_dict().items():
        keeps = not value.is_floating_point() or name in exact or (is_quantized and value.ndim < 2)
        kept = value.dtype if keeps else dtype or value.dtype
        values[name] = value.detach().to(device="cpu", dtype=kept).contiguous()
    return values


def num_weights(network: Network) -> int:
    """Numbers that the network consists of, integers included."""
    floats = sum(parameter.numel() for parameter in network.parameters())
    integers = sum(
        layer.in_features * layer.out_features + (0 if layer.bias is None else layer.bias.numel())
        for layer in quantized_layers(network).values()
    )
    return floats + integers
