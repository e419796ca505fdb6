"""Point clouds as binary PLY: written from a structured array in one go, and read back."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from everview.errors import InputError
from everview.outputs.files import replace_file

VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)


def write_ply(
    path: Path,
    points: Float[np.ndarray, "n 3"],
    colours: UInt8[np.ndarray, "n 3"],
    *,
    comments: tuple[str, ...] = (),
) -> None:
    """Write a coloured cloud, little-endian; the file is replaced in one step.

    Args:
        points: x y z, stored as float32.
        colours: red green blue, 0 .. 255.
        comments: lines for the header, such as unit and frame; no line breaks inside.
    """
    vertices = np.empty(len(points), VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = colours[:, channel]
    header = _header(len(points), comments)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(header)
            vertices.tofile(file)

    replace_file(path, write)


def read_ply(path: Path) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Read back what `write_ply` wrote: points as float32 and colours.

    Raises:
        InputError: if it is another kind of PLY, or shorter than its header says.
    """
    with path.open("rb") as file:
        header: list[str] = []
        while not header or header[-1] != "end_header":
            line = file.readline(1000)
            header.append(line.decode("ascii", "replace").strip())
            if not line or header[0] != "ply":
                raise InputError(f"{path} is not a PLY file")
        counts = [int(line.split()[2]) for line in header if line.startswith("element vertex ")]
        if not counts or _header(counts[0], ()) != _without_comments(header):
            raise InputError(
                f"{path} is another kind of PLY than everview writes "
                "(binary little-endian, float x y z, uchar red green blue)"
            )
        vertices = np.fromfile(file, VERTEX, counts[0])
    if len(vertices) != counts[0]:
        raise InputError(f"{path} holds {len(vertices)} of the {counts[0]} points of its header")
    points = np.stack([vertices[name] for name in "xyz"], axis=-1)
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=-1)
    return points, colours


def _header(num_points: int, comments: tuple[str, ...]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    lines.append(f"element vertex {num_points}")
    lines += [f"property float {name}" for name in "xyz"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")


def _without_comments(header: list[str]) -> bytes:
    lines = [line for line in header if not line.startswith("comment")]
    return ("\n".join(lines) + "\n").encode("ascii", "replace")
