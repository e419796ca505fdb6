"""Write a model folder that `everview.load` reads."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from everview.errors import ConfigError
from everview.model.network import Network
from everview.quantization.file import KEY, tensors_to_store
from everview.weights.sources import CONFIG_NAME

WEIGHTS_NAME = "weights.safetensors"
"""Name of the file with the values."""


def save(
    network: Network,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write `config.json` and `weights.safetensors`; a reader sees the old files or the new ones.

    Args:
        folder: made if it does not exist.
        dtype: floating-point type of the file; each parameter's own type if None. float16 halves
            the file and rounds values to about three digits. Integers of a quantized network, their
            steps and its vectors stay as they are.
        info: anything worth knowing about the weights (licence, recipe, data), kept under `info`.

    Returns:
        The folder.

    Raises:
        ConfigError: if `dtype` is no floating-point type, or rounds a value to infinity.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ConfigError(f"weights are floating point; got dtype={dtype}")
    values = tensors_to_store(network, dtype)
    for name, value in values.items():
        is_level = value.dtype.itemsize == 1  # finite; PyTorch cannot ask floats of 8 bits
        if not is_level and not value.isfinite().all():
            raise ConfigError(f"{name} does not fit into {value.dtype}; use dtype=torch.bfloat16")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new_weights = folder / f".{WEIGHTS_NAME}.tmp"
    save_file(values, new_weights, metadata={"format": "pt"})
    content = {**network.config.to_dict(), "info": dict(info or {})}
    if network.quantization is not None:
        content[KEY] = network.quantization.to_dict()
    new_config = folder / f".{CONFIG_NAME}.tmp"
    new_config.write_text(json.dumps(content, indent=1) + "\n")
    new_weights.chmod(new_config.stat().st_mode)  # save_file leaves it to its owner alone
    new_config.replace(folder / CONFIG_NAME)
    new_weights.replace(folder / WEIGHTS_NAME)
    return folder
