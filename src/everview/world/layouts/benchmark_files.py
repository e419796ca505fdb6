"""Single files of benchmarks: Sintel's, ETH3D's, MVSNet's, PCL's, and lists of poses."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from everview.geometry.rotations import quaternion_from_matrix

TAG = np.float32(202021.25)


def write_text(path: Path, text: str) -> None:
    """A text file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def matrix_text(values: Float[Tensor, "rows columns"]) -> str:
    """Row by row, exact for float32."""
    return "".join(numbers(row) + "\n" for row in values.tolist())


def numbers(values: Iterable[float]) -> str:
    """Numbers with spaces between, exact for float32."""
    return " ".join(f"{value:.9g}" for value in values)


def write_dpt(path: Path, depth: Float[Tensor, "H W"]) -> None:
    """Sintel's depth."""
    height, width = depth.shape
    head = TAG.tobytes() + np.array([width, height], "<i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + depth.cpu().numpy().astype("<f4").tobytes())


def write_cam(
    path: Path, intrinsics: Float[Tensor, "3 3"], camera_from_world: Float[Tensor, "4 4"]
) -> None:
    """Sintel's camera."""
    parts = [v.cpu().double().numpy().tobytes() for v in (intrinsics, camera_from_world[:3])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TAG.tobytes() + b"".join(parts))


def write_raw_depth(path: Path, depth: Float[Tensor, "H W"]) -> None:
    """ETH3D's depth: bare float32, infinity where there is none."""
    values = depth.cpu().numpy().astype("<f4")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.where(values > 0, values, np.float32(np.inf)).astype("<f4").tofile(path)


def write_pcd(path: Path, points: Float[np.ndarray, "n 3"]) -> None:
    """A cloud for PCL: binary, x y z and an intensity."""
    count = len(points)
    values = np.zeros((count, 4), "<f4")
    values[:, :3] = points
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity\n"
        "SIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        f"WIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA binary\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + values.tobytes())


def write_gzipped_json(path: Path, content: object) -> None:
    """JSON, gzipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        json.dump(content, file)


def tum_line(time: float, pose: Float[Tensor, "4 4"]) -> str:
    """`t x y z qx qy qz qw`."""
    quaternion = quaternion_from_matrix(pose[:3, :3].double())
    return f"{time:.4f} {numbers([*pose[:3, 3].tolist(), *quaternion.tolist()])}\n"
