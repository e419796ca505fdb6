"""Safetensors files, read value by value into memory of our own.

The safetensors package maps a file into memory: pages that were read count as ours until the last
value is let go, so a copy to another dtype or device would hold the file twice, and cutting the
file short later would kill the process. Here each value is read straight to where it will stay.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from everview.errors import WeightsError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip
"""Names of the format -> dtype; those of eight bits belong to quantized models."""

MAX_HEADER_BYTES = 100_000_000
"""What the format allows; a larger number means that this is another kind of file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredValue:
    """Where one parameter lies in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    """First byte, counted from the beginning of the file."""
    end: int
    """Byte behind the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetensorsFile:
    """One file whose header was read and found to agree with the file's size."""

    path: Path
    values: Mapping[str, StoredValue]
    metadata: Mapping[str, str]

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, value) in the order of the file; nothing is kept behind.

        Raises:
            WeightsError: if the file became shorter since its header was read.
        """
        in_order = sorted(self.values.items(), key=lambda item: item[1].start)
        with FileIO(self.path) as file:
            for name, stored in in_order:
                yield name, _read_value(file, name, stored)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read the header of a file, and none of its values.

    Raises:
        WeightsError: if this is no safetensors file, or it is cut off; the message names the byte.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header, begin = _read_header(file, path, size)
    metadata = header.pop("__metadata__", {})
    values = {name: _stored_value(entry, name, begin, path) for name, entry in header.items()}
    expected = max((value.end for value in values.values()), default=begin)
    if size < expected:
        cut = min((v.end, name) for name, v in values.items() if v.end > size)[1]
        raise WeightsError(
            f"{path} is cut off: it has {size:,} bytes, its header promises {expected:,}; the "
            f"first value that is not whole is {cut!r}. Fetch or copy the file again"
        )
    if size > expected:
        raise WeightsError(
            f"{path} has {size:,} bytes, {size - expected:,} more than its header accounts for "
            f"({expected:,}); fetch or copy the file again"
        )
    return SafetensorsFile(path=path, values=values, metadata=metadata)


def _read_header(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header as a dictionary, and the byte at which values begin."""
    looks = what_it_looks_like(path)
    if looks:
        raise WeightsError(f"{path} is no safetensors file{looks}")
    if size < 8:
        raise WeightsError(f"{path} has {size} bytes; a safetensors file has at least 8")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(
            f"{path} is no safetensors file: bytes 0 to 7 give a header of {length:,} bytes, at "
            f"most {MAX_HEADER_BYTES:,} are allowed"
        )
    if 8 + length > size:
        raise WeightsError(
            f"{path} is cut off in its header: it has {size:,} bytes, the header ends at byte "
            f"{8 + length:,}. Fetch or copy the file again"
        )
    try:
        header = json.loads(file.read(length))
    except ValueError as error:
        raise WeightsError(
            f"{path}: the header (bytes 8 to {8 + length - 1:,}) is no JSON: {error}"
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: the header is a {type(header).__name__}, not a JSON object")
    return header, 8 + length


def what_it_looks_like(path: Path) -> str:
    """A hint for files that only carry the wrong ending."""
    with path.open("rb") as file:
        begin = file.read(40)
    if begin.startswith(b"PK\x03\x04"):
        return "; it looks like a PyTorch file: rename it to end in .pt"
    if begin.startswith(b"version https://git-lfs"):
        return "; it is a git-lfs pointer: run `git lfs pull`, or download the file itself"
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "; it is a web page: the download was refused or redirected"
    return ""


def _stored_value(entry: Any, name: str, begin: int, path: Path) -> StoredValue:  # noqa: ANN401
    """Check one entry of the header against itself."""
    try:
        kind, shape = entry["dtype"], tuple(int(side) for side in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: header entry {name!r} lacks dtype, shape or offsets"
        ) from error
    if kind not in DTYPES:
        raise WeightsError(
            f"{path}: {name!r} is stored as {kind!r}; known are {', '.join(DTYPES)}. A newer "
            "everview may read it (pip install -U everview)"
        )
    num_bytes = math.prod(shape) * DTYPES[kind].itemsize
    if first < 0 or last - first != num_bytes:
        raise WeightsError(
            f"{path}: {name!r} of shape {shape} in {kind} takes {num_bytes:,} bytes, its header "
            f"entry gives bytes {first:,} to {last:,} of the data"
        )
    return StoredValue(shape=shape, dtype=DTYPES[kind], start=begin + first, end=begin + last)


def _read_value(file: FileIO, name: str, stored: StoredValue) -> Tensor:
    value = torch.empty(stored.shape, dtype=stored.dtype)
    if not value.numel():
        return value
    file.seek(stored.start)
    remaining = value.view(-1).view(torch.uint8).numpy().data
    while len(remaining):
        count = file.readinto(remaining)
        if not count:
            raise WeightsError(
                f"{file.name} ended at byte {file.tell():,} within {name!r}, which reaches to byte "
                f"{stored.end:,}; it was changed while being read"
            )
        remaining = remaining[count:]
    return value
