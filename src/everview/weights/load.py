"""Load a model: find its files, build the network empty, fill it once."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from everview.errors import ConfigError, WeightsError
from everview.model.config import Config
from everview.model.network import Network
from everview.quantization.file import num_weights, place_empty_layers, read_record
from everview.quantization.heads import halve_heads
from everview.quantization.network import (
    Quantization,
    execute,
    quantize,
    quantized_layers,
    set_output_dtype,
)
from everview.weights.architecture import (
    Attention,
    Shapes,
    config_of,
    heads_of,
    hint_of_quantization,
    read_content,
)
from everview.weights.catalog import Commercial
from everview.weights.devices import pick_device, pick_dtype, scheme_of
from everview.weights.files import StoredWeights, open_weights
from everview.weights.sources import Source, find_source

SHOWN = 5
"""How many names a message lists of each kind of misfit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Where the weights of a network come from: its `info`, and part of every result file."""

    name: str
    """Bundled name, Hugging Face id, or name of the file or folder."""
    attention: Attention
    """`global` (VGGT) or `causal` (StreamVGGT)."""
    heads: tuple[str, ...]
    """What it predicts."""
    num_parameters: int
    """Parameters of the network."""
    precision: str
    """dtype of the aggregator's weights, after the scheme if they are quantized; the heads are
    float32."""
    files: tuple[str, ...]
    """Names of the files that were read, without folders."""
    num_bytes: int
    """Size of these files together."""
    license: str = "unknown: ask whoever gave you the file"
    """Licence of the weights."""
    commercial: Commercial = "unknown"
    """Whether that licence allows commercial use, to the best of our knowledge."""
    revision: str | None = None
    """Revision that was asked for, of a Hugging Face id."""


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    revision: str | None = None,
    attention: Attention | None = None,
    config: Config | Mapping[str, Any] | None = None,
) -> Network:
    """Load a model, ready for inference.

    Args:
        source: name of a bundled model, path of a file (.pt, .pth, .safetensors) or folder, or
            Hugging Face id; looked up in this order.
        device: `auto` (CUDA, else Apple's GPU, else CPU) or a device such as `cpu`, `cuda:1`.
        precision: `auto` (float32 on a CPU, bfloat16 on CUDA), `float32`, `bfloat16` or `float16`:
            how the aggregator's weights are kept and computed; all heads stay in float32. `int8`,
            `int4`: a quantized folder as it is, any other model is quantized while loading, without
            calibration (see `everview.quantization`); refused where that would not be faster.
        revision: branch, tag or commit of a Hugging Face id.
        attention: `global` (VGGT) or `causal` (StreamVGGT), where the source does not say it: no
            parameter shows it.
        config: the network, where neither `config.json` nor a known size describes it.

    Returns:
        The network in evaluation mode; its `info` says where the weights come from.

    Raises:
        ConfigError: if device, precision or config are impossible.
        WeightsError: if the weights are absent, damaged, or of another network; the message names
            what was expected, and the first keys or the byte where it fails.
    """
    target = pick_device(device)
    dtype = pick_dtype(precision, target)
    found = find_source(source, revision=revision)
    stored = open_weights(found.path)
    if isinstance(config, Mapping):
        config = Config.from_dict(config)
    if config is None:
        config = config_of(found, stored.shapes, attention=attention)
    elif attention is not None:
        config = dataclasses.replace(config, attention=attention)
    record = read_record(read_content(found.config_path))
    scheme = _scheme(precision, target, record, name=found.name)
    network = empty_network(config)
    if record is not None:
        place_empty_layers(network, record, stored.shapes)
        if torch.bfloat16 in stored.dtypes:
            halve_heads(network)
    network.set_precision(torch.float32 if scheme is not None else dtype)
    check_fit(network, stored.shapes, name=found.name)
    fill(network, stored, target)
    if record is not None:
        network.quantization = record
        _execute(network, dtype, name=found.name)
    elif scheme is not None:
        quantize(network, scheme, in_place=True, require_real=True)
        set_output_dtype(network, dtype)
    network.info = _info(network, found, stored, dtype)
    return network.eval()


def _scheme(
    precision: str, device: torch.device, record: Quantization | None, *, name: str
) -> str | None:
    """The scheme into which a network of floats is to be turned; None: it stays what it is.

    Raises:
        ConfigError: if the network is quantized otherwise than it is asked for.
    """
    wanted = scheme_of(precision, device)
    if record is None or wanted is None:
        return wanted if record is None else None
    if record.scheme[:2] != wanted[:2]:
        raise ConfigError(
            f"{name} is quantized as {record.scheme}, which precision={precision!r} is not: leave "
            "precision out"
        )
    return None


def _execute(network: Network, dtype: torch.dtype, *, name: str) -> None:
    """Pick the kernels of a quantized network; a simulated one is told."""
    set_output_dtype(network, dtype)
    execute(network)
    simulated = sum(not layer.arithmetic.is_real for layer in quantized_layers(network).values())
    if simulated:
        warnings.warn(
            f"{name}: {simulated} quantized layers are only simulated on {network.device}, slower "
            "than floating point; `everview doctor` says why",
            stacklevel=3,
        )


def empty_network(config: Config) -> Network:
    """The network with parameters that have a shape but take no memory and no time."""
    with torch.device("meta"):
        return Network(config)


def check_fit(network: nn.Module, shapes: Shapes, *, name: str) -> None:
    """Compare names and shapes, both ways, before a single value is read.

    Raises:
        WeightsError: if anything is missing, unexpected or of another shape; a parameter that
            stayed random would not crash, it would only be wrong.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in expected if key not in shapes]
    unexpected = [key for key in shapes if key not in expected]
    misfits = [
        f"{key} is {shapes[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    parts = [
        f"{len(group)} {what}: {', '.join(group[:SHOWN])}{' ...' if len(group) > SHOWN else ''}"
        for what, group in (
            ("missing", missing), ("unexpected", unexpected), ("of another shape", misfits),
        )
        if group
    ]  # fmt: skip
    if parts:
        raise WeightsError(
            f"{name} does not fit the network ({len(expected)} parameters expected, {len(shapes)} "
            f"found); {'; '.join(parts)}. Is this the right file, and the right config.json?"
            f"{hint_of_quantization(dict.fromkeys(unexpected, ()))}"
        )


def fill(network: nn.Module, stored: StoredWeights, device: torch.device) -> None:
    """Give every parameter its value, one after the other, in its own dtype.

    At no moment is more held than the filled part of the network, one value more, and what the
    file's format forces (see `StoredWeights.read`).

    Raises:
        WeightsError: if a value is not a finite floating-point number, or not of the integers that
            a quantized layer holds.
    """
    for name, value in stored.read():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        empty = getattr(module, leaf)
        _check_values(name, value, empty.dtype)
        kept = value.to(device=device, dtype=empty.dtype)
        if isinstance(empty, nn.Parameter):
            kept = nn.Parameter(kept, requires_grad=empty.requires_grad)
        setattr(module, leaf, kept)
    network.to(device)  # constants that are in no file
    left = [n for n, value in _all_tensors(network).items() if value.is_meta]
    assert not left, f"check_fit compares all names, yet these have no value: {left}"


def _check_values(name: str, value: Tensor, wanted: torch.dtype) -> None:
    if wanted.itemsize == 1 or not wanted.is_floating_point:  # levels
        if value.dtype != wanted:
            raise WeightsError(f"{name} is stored as {value.dtype}; {wanted} was expected")
        return
    if not value.is_floating_point() or value.dtype.itemsize == 1:
        raise WeightsError(
            f"{name} is stored as {value.dtype}; a network of floating-point weights was expected"
        )
    # The sum is fast and needs no memory; only if it overflowed is each value looked at.
    if value.sum(dtype=torch.float32).isfinite():
        return
    num_bad = value.numel() - int(value.isfinite().sum())
    if num_bad:
        raise WeightsError(
            f"{name} holds {num_bad:,} values (of {value.numel():,}) that are not finite; the "
            "training diverged or the file is damaged"
        )


def _all_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _info(network: Network, source: Source, stored: StoredWeights, dtype: torch.dtype) -> ModelInfo:
    kept = str(dtype).removeprefix("torch.")
    if network.quantization is not None:
        kept = f"{network.quantization.scheme} and {kept}"
    known: dict[str, Any] = {}
    if source.checkpoint is not None:
        known = {
            "license": source.checkpoint.license, "commercial": source.checkpoint.commercial,
        }  # fmt: skip
    return ModelInfo(
        name=source.name,
        attention=network.config.attention,
        heads=heads_of(network.config),
        num_parameters=num_weights(network),
        precision=kept,
        files=tuple(path.name for path in stored.paths),
        num_bytes=stored.num_bytes,
        revision=source.revision,
        **known,
    )
