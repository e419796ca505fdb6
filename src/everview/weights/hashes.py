"""Fingerprints that tell which weights made a result."""

import hashlib
import os
from pathlib import Path

import torch
from torch import nn


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and values of all parameters, as hexadecimal text.

    It does not depend on how the weights were stored (.pt or .safetensors, one file or shards),
    and it differs between precisions, as results do. About a second per 2 GB.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat = value.detach().contiguous().view(-1)
        if flat.numel():
            digest.update(memoryview(flat.view(torch.uint8).cpu().numpy()))
    return digest.hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as hexadecimal text: what the Hugging Face hub shows beside a download."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
