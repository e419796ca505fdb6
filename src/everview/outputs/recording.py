"""Recording: what `everview run` wrote, read back; also while it is being written."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from everview.errors import InputError
from everview.geometry.cameras import points_from_depth
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.outputs.codes import CONFIDENCE_CODE, DEPTH_CODE, LogCode
from everview.outputs.dense import DenseReader
from everview.outputs.entries import FrameEntry, read_entries
from everview.outputs.manifest import read_manifest
from everview.outputs.trajectory import poses_relative_to_first


class Recording:
    """The finished frames of a recording, by row: 0 .. len(recording) - 1.

    World frame: the camera of the first finished frame. Unit: scene units. Dense maps lie on the
    network's pixel grid and are read one frame at a time; poses and cameras are held in memory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = read_manifest(folder)
        """Content of recording.json."""
        self.entries: list[FrameEntry] = []
        """Every frame of the source that was looked at, skipped ones included."""
        self._rows: list[FrameEntry] = []
        self._position = 0
        self._dense = DenseReader(folder / "dense.zarr", folder / "tail")
        self.refresh()

    @classmethod
    def open(cls, folder: Path | str) -> "Recording":
        """Open a recording, finished, stopped, killed, or still running.

        Raises:
            InputError: if the folder is none, or was written in an unknown format.
        """
        return cls(Path(folder))

    def refresh(self) -> int:
        """Look for frames that were finished since; returns how many rows there are now."""
        path = self.folder / "frames.jsonl"
        for entry, position in read_entries(path, start=self._position):
            self._position = position
            self.entries.append(entry)
            if entry.row is not None:
                self._rows.append(entry)
        self.info = read_manifest(self.folder)
        return len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def entry(self, row: int) -> FrameEntry:
        """What frames.jsonl says of a finished frame."""
        return self._rows[row]

    @property
    def timestamps(self) -> Float[np.ndarray, " n"]:
        """Seconds in the source's clock."""
        return np.array([entry.timestamp for entry in self._rows])

    @property
    def pose_encoding(self) -> Float[np.ndarray, "n 9"]:
        """As the network gave it; see `everview.geometry.prediction`."""
        rows = [entry.pose_encoding for entry in self._rows]
        return np.array(rows, np.float32).reshape(-1, 9)

    @property
    def world_from_camera(self) -> Float[np.ndarray, "n 4 4"]:
        """Camera poses; the first is the identity."""
        encodings = self.pose_encoding
        if not len(self):
            return np.zeros((0, 4, 4))
        return poses_relative_to_first(encodings, encodings[0])

    def intrinsics(
        self, grid: Literal["network", "original"] = "network"
    ) -> Float[np.ndarray, "n 3 3"]:
        """Pinhole K in pixels of the dense maps, or of the original images."""
        values = np.array([entry.intrinsics for entry in self._rows], np.float64).reshape(-1, 3, 3)
        pixel_map = self.pixel_map
        if grid == "network" or pixel_map is None:
            return values
        return pixel_map.intrinsics_to_original(torch.from_numpy(values)).numpy()

    @property
    def pixel_map(self) -> PixelMap | None:
        """How original pixels became network pixels; None if no frame was finished."""
        content = self.info["pixel_map"]
        if content is None:
            return None
        return PixelMap(**{name: tuple(value) for name, value in content.items()})

    @property
    def maps(self) -> tuple[str, ...]:
        """Which dense maps there are: `depth`, `depth_confidence`, `colour`, ..."""
        return self._dense.names()

    def depth(self, row: int) -> Float[np.ndarray, "H W"]:
        """z-depth in scene units; NaN where there is none."""
        return self._decoded("depth", row, DEPTH_CODE)

    def depth_confidence(self, row: int) -> Float[np.ndarray, "H W"]:
        """>= 1, grows with trust; NaN where there is none."""
        return self._decoded("depth_confidence", row, CONFIDENCE_CODE)

    def points_confidence(self, row: int) -> Float[np.ndarray, "H W"]:
        """Like `depth_confidence`, of the network's point map (which is not stored)."""
        return self._decoded("points_confidence", row, CONFIDENCE_CODE)

    def colour(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """What the network saw, RGB."""
        return self._read("colour", row)

    def prediction(self, row: int) -> Prediction:
        """What is stored of the network's prediction, as `step` gave it (b = s = 1).

        The pose encoding is exact; dense maps carry the rounding of their codes (1.5e-4 relative
        for depth); refinement rounds, points and tracks are not stored.
        """
        entry = self._rows[row]
        pose = np.array(entry.pose_encoding, np.float32)[None, None]  # 1 1 9
        colour = self.colour(row)
        maps = {
            name: getattr(self, name)(row)[None, None]
            for name in ("depth", "depth_confidence")
            if name in self.maps
        }
        return Prediction(
            pose_encoding=pose,
            pose_encoding_iterations=pose[None],
            network_size=(colour.shape[0], colour.shape[1]),
            pixel_map=self.pixel_map,
            **maps,
        )

    def points(self, row: int) -> Float[np.ndarray, "H W 3"]:
        """Depth lifted into the world frame with the frame's own camera."""
        encodings = np.array([self._rows[0].pose_encoding, self._rows[row].pose_encoding])
        pose = torch.from_numpy(poses_relative_to_first(encodings, encodings[0])[1])
        depth = torch.from_numpy(self.depth(row).astype(np.float64))
        intrinsics = torch.tensor(self._rows[row].intrinsics, dtype=torch.float64)
        return points_from_depth(depth, invert_rigid(pose), intrinsics).numpy()

    def _decoded(self, name: str, row: int, code: LogCode) -> np.ndarray:
        return code.decode(self._read(name, row))

    def _read(self, name: str, row: int) -> np.ndarray:
        if name not in self.maps:
            raise InputError(f"{self.folder} has no {name}; it has {', '.join(self.maps)}")
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self.folder} has {len(self)} finished frames; asked for {row}")
        return self._dense.read(name, row % len(self))
