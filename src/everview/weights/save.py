"""Write a model folder that `everview.load` reads."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from everview.errors import ConfigError
from everview.model.network import Network
from everview.quantization.file import KEY, tensors_to_store
from everview.weights.files import INDEX_SUFFIX
from everview.weights.sources import CONFIG_NAME

WEIGHTS_NAME = "weights.safetensors"
"""Name of the file with the values."""
OURS = re.compile(r"weights(-\d{5}-of-\d{5})?\.safetensors|weights\.safetensors\.index\.json")
"""Names that `save` gives to files of values."""


def save(
    network: Network,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    info: Mapping[str, Any] | None = None,
    shard_bytes: int | None = None,
) -> Path:
    """Write `config.json` and `weights.safetensors`; a reader sees the old files or the new ones.

    Args:
        folder: made if it does not exist.
        dtype: floating-point type of the file; each parameter's own type if None. float16 halves
            the file and rounds values to about three digits. Integers of a quantized network, their
            steps and its vectors stay as they are.
        info: anything worth knowing about the weights (licence, recipe, data), kept under `info`.
        shard_bytes: most bytes of values in a file, for places that take small files alone; an
            index beside the files tells which holds what. A larger tensor has a file to itself.
            One file if None.

    Returns:
        The folder.

    Raises:
        ConfigError: if `dtype` is no floating-point type, or rounds a value to infinity, or
            `shard_bytes` is below 1.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ConfigError(f"weights are floating point; got dtype={dtype}")
    if shard_bytes is not None and shard_bytes < 1:
        raise ConfigError(f"shard_bytes must be 1 or more, got {shard_bytes}")
    values = tensors_to_store(network, dtype)
    for name, value in values.items():
        is_level = value.dtype.itemsize == 1  # finite; PyTorch cannot ask floats of 8 bits
        if not is_level and not value.isfinite().all():
            raise ConfigError(f"{name} does not fit into {value.dtype}; use dtype=torch.bfloat16")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {**network.config.to_dict(), "info": dict(info or {})}
    if network.quantization is not None:
        content[KEY] = network.quantization.to_dict()
    shards = [values] if shard_bytes is None else _shards(values, shard_bytes)
    files = {CONFIG_NAME: content, **_named(shards)}
    for name, part in files.items():
        _write(folder / _new(name), part, is_weights=name.endswith(".safetensors"))
    for name in files:
        (folder / _new(name)).replace(folder / name)
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in files:
            path.unlink()  # of a folder that was in other parts before
    return folder


def _shards(values: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """Tensors in their order, in as few parts as that leaves."""
    shards: list[dict[str, Tensor]] = [{}]
    room = most
    for name, value in values.items():
        if shards[-1] and value.nbytes > room:
            shards.append({})
            room = most
        shards[-1][name] = value
        room -= value.nbytes
    return shards


def _named(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """File -> content; with an index if there are several."""
    if len(shards) == 1:
        return {WEIGHTS_NAME: shards[0]}
    stem = WEIGHTS_NAME.removesuffix(".safetensors")
    names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    size = sum(value.nbytes for shard in shards for value in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    return {**dict(zip(names, shards, strict=True)), stem + INDEX_SUFFIX: index}


def _new(name: str) -> str:
    """Where a file lies until all are written."""
    return f".{name}.tmp"


def _write(path: Path, content: Any, *, is_weights: bool) -> None:  # noqa: ANN401
    if not is_weights:
        path.write_text(json.dumps(content, indent=1) + "\n")
        return
    path.touch()
    mode = path.stat().st_mode
    save_file(content, path, metadata={"format": "pt"})
    path.chmod(mode)  # save_file leaves it to its owner alone
