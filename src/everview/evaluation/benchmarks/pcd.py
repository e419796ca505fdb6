"""Point clouds in PCL's .pcd: x y z out of text, binary or compressed (LZF) files."""

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float

from everview.errors import InputError

Header = dict[str, list[str]]


def read_pcd(path: Path) -> Float[np.ndarray, "n 3"]:
    """Points, float64; those that are not finite are left out.

    Raises:
        InputError: if the file is absent, cut off, or has no x y z.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        header, body = _split(raw)
        points = _points(header, body)
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise InputError(f"{path} is no whole .pcd file with x y z: {error}") from error
    return points[np.isfinite(points).all(axis=1)]


def _split(raw: bytes) -> tuple[Header, bytes]:
    """Header by keyword, and what follows the line DATA."""
    header: Header = {}
    position = 0
    while "DATA" not in header:
        end = raw.index(b"\n", position)
        words = raw[position:end].decode("ascii").split()
        position = end + 1
        if words and words[0] != "#":
            header[words[0]] = words[1:]
    return header, raw[position:]


def _points(header: Header, body: bytes) -> np.ndarray:
    count, way = int(header["POINTS"][0]), header["DATA"][0]
    if way == "ascii":
        columns = [header["FIELDS"].index(axis) for axis in "xyz"]
        rows = np.array([line.split() for line in body.splitlines() if line.strip()], np.float64)
        if len(rows) != count:
            raise ValueError(f"{len(rows)} of {count} points")
        return rows.reshape(count, -1)[:, columns]
    kind = _record(header)
    if way == "binary":
        records = np.frombuffer(body, kind, count)
        return np.stack([records[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if way == "binary_compressed":
        return _columns(kind, count, body)
    raise ValueError(f"DATA {way} is unknown")


def _record(header: Header) -> np.dtype:
    letters = {"F": "f", "I": "i", "U": "u"}
    counts = header.get("COUNT", ["1"] * len(header["FIELDS"]))
    fields = []
    for number, (name, size, kind, repeat) in enumerate(
        zip(header["FIELDS"], header["SIZE"], header["TYPE"], counts, strict=True)
    ):
        label = name if name in "xyz" else f"{name}_{number}"  # padding is named _ again and again
        fields.append((label, f"<{letters[kind]}{size}", (int(repeat),) if repeat != "1" else ()))
    return np.dtype(fields)


def _columns(kind: np.dtype, count: int, body: bytes) -> np.ndarray:
    """Compressed files keep one field after the other."""
    packed, size = struct.unpack_from("<II", body)
    values = unpack_lzf(body[8 : 8 + packed], size)
    found, position = {}, 0
    for name in kind.names or ():
        step = kind[name].itemsize
        if name in "xyz":
            found[name] = np.frombuffer(values, kind[name].base, count, position)
        position += step * count
    return np.stack([found[axis].astype(np.float64) for axis in "xyz"], axis=1)


def unpack_lzf(packed: bytes, size: int) -> bytes:
    """Undo LZF: runs of plain bytes, and copies of up to 264 bytes from up to 8192 before.

    Raises:
        ValueError: if the result is not `size` bytes long.
    """
    result = bytearray()
    position = 0
    while position < len(packed):
        control = packed[position]
        position += 1
        if control < 32:
            result += packed[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[position]
            position += 1
        start = len(result) - ((control & 31) << 8) - packed[position] - 1
        position += 1
        if start < 0:
            raise ValueError("LZF data point before their beginning")
        for offset in range(length + 2):  # may overlap what it writes
            result.append(result[start + offset])
    if len(result) != size:
        raise ValueError(f"{len(result)} of {size} bytes after LZF")
    return bytes(result)
