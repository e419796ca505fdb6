"""Predictions on disk: one folder per clip, in parts, so that a kill loses one part at most."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.geometry.cameras import camera_from_pose_encoding
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.outputs.files import replace_file, write_json

FORMAT_VERSION = 1
PART_BYTES = 64 << 20
"""Of maps, after which a part is written."""
PART_FRAMES = 100
STATE = "state.safetensors"
Fields = tuple[str, ...]


class ClipStore:
    """Predictions of one clip: written frame by frame, then read.

    Args:
        folder: of this clip.
        fields: dense maps that are kept, such as depth and points.
        dense_every: of which frames they are kept.
    """

    def __init__(self, folder: Path, *, fields: Fields = (), dense_every: int = 1) -> None:
        self.folder = folder
        self._fields, self._every = fields, dense_every
        self._waiting: dict[int, dict[str, Tensor]] = {}
        self._bytes = 0

    @property
    def state(self) -> Path:
        """Where the stream's state after the last part is kept."""
        return self.folder / STATE

    @property
    def is_finished(self) -> bool:
        """Whether all frames are there."""
        return (self.folder / "clip.json").is_file()

    def stored_frames(self) -> int:
        """How many frames of an unfinished clip are on disk."""
        return sum(int(part.stem.split("_")[2]) for part in self._parts())

    def cut(self, frames: int) -> None:
        """Forget parts that begin at this frame or later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self._parts():
            if int(part.stem.split("_")[1]) >= frames:
                part.unlink()
        if frames == 0:
            self.state.unlink(missing_ok=True)

    def add(self, index: int, prediction: Prediction) -> bool:
        """Keep the prediction of a frame (s = 1); True if a part was written."""
        values = _values(prediction)
        if index % self._every == 0:
            for name in self._fields:
                found = getattr(prediction, name)
                if found is not None:
                    values[name] = torch.as_tensor(found)[0, 0].detach().cpu().contiguous()
                    self._bytes += values[name].nbytes
        self._waiting[index] = values
        if len(self._waiting) < PART_FRAMES and self._bytes < PART_BYTES:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Write what waits as one part."""
        if not self._waiting:
            return
        flat = {f"{i}.{n}": v for i, values in self._waiting.items() for n, v in values.items()}
        name = f"part_{min(self._waiting):06d}_{len(self._waiting)}.safetensors"
        replace_file(self.folder / name, lambda partial: save_file(flat, partial))
        self._waiting, self._bytes = {}, 0

    def finish(self, frames: Sequence[str]) -> None:
        """Say that all is there."""
        self.flush()
        write_json(self.folder / "clip.json", {"frames": list(frames)})
        self.state.unlink(missing_ok=True)

    def frames(self) -> tuple[str, ...]:
        """Names of the frames of a finished clip.

        Raises:
            InputError: if that is absent or damaged.
        """
        try:
            return tuple(json.loads((self.folder / "clip.json").read_text())["frames"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.folder} holds no finished predictions: {error}") from error

    def read(self) -> "StoredClip":
        """All predictions of a finished clip.

        Raises:
            InputError: if a file is absent or damaged.
        """
        return StoredClip(self.frames(), self._parts())

    def _parts(self) -> list[Path]:
        found = self.folder.glob("part_*_*.safetensors")
        return sorted(path for path in found if ".partial" not in path.name)


class StoredClip:
    """Predictions of a clip; maps are read when asked for, the latest part is kept.

    Args:
        frames: names.
        parts: files in order.

    Raises:
        InputError: if a part is damaged, or frames are missing.
    """

    def __init__(self, frames: tuple[str, ...], parts: Iterable[Path]) -> None:
        self.frames = frames
        self._part_of: dict[int, Path] = {}
        self._loaded: tuple[Path, dict[str, Tensor]] | None = None
        encodings: dict[int, Tensor] = {}
        self.maps: list[PixelMap] = []
        for part in parts:
            values = self._load(part)
            for index in sorted({int(name.split(".")[0]) for name in values}):
                self._part_of[index] = part
                encodings[index] = values[f"{index}.pose_encoding"]
                self.maps.append(_map_from(values[f"{index}.map"]))
        if sorted(encodings) != list(range(len(frames))):
            raise InputError(
                f"stored predictions cover {len(encodings)} of {len(frames)} frames: delete "
                "the folder of this clip and predict again"
            )
        self.pose_encoding: Float[Tensor, "s 9"] = torch.stack(
            [encodings[i] for i in range(len(frames))]
        )

    @property
    def world_from_camera(self) -> Float[Tensor, "s 4 4"]:
        """Predicted poses, float64."""
        camera, _ = camera_from_pose_encoding(self.pose_encoding.double(), (1, 1))
        return invert_rigid(camera)

    def has(self, index: int, name: str) -> bool:
        """Whether a map of a frame was kept."""
        return f"{index}.{name}" in self._values(index)

    def map(self, index: int, name: str) -> Tensor:
        """A dense map of a frame on the network's grid.

        Raises:
            ConfigError: if the network has no such head, or the map was not kept.
        """
        values = self._values(index)
        if f"{index}.{name}" not in values:
            raise ConfigError(f"the predictions hold no {name} of frame {self.frames[index]}")
        return values[f"{index}.{name}"]

    def points(self, index: int) -> Float[Tensor, "H W 3"]:
        """Of the point head, or depth lifted by the predicted camera if there is none."""
        if self.has(index, "points"):
            return self.map(index, "points")
        depth = self.map(index, "depth")[None, None]
        encoding = self.pose_encoding[index][None, None].to(depth.dtype)
        single = Prediction(
            pose_encoding=encoding, pose_encoding_iterations=encoding[None],
            network_size=(depth.shape[2], depth.shape[3]), depth=depth,
        )  # fmt: skip
        return torch.as_tensor(single.points_from_depth())[0, 0]

    def _values(self, index: int) -> dict[str, Tensor]:
        return self._load(self._part_of[index])

    def _load(self, part: Path) -> dict[str, Tensor]:
        if self._loaded is None or self._loaded[0] != part:
            try:
                self._loaded = (part, load_file(part))
            except (OSError, SafetensorError) as error:
                raise InputError(f"{part} cannot be read: {error}") from error
        return self._loaded[1]


class RunStore:
    """The folder of a whole run.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, key: dict[str, Any], data: Mapping[str, str], source: Path) -> None:
        """Begin, or go on with the same settings and the same data.

        Args:
            key: the settings.
            data: clip -> fingerprint of what is predicted now; more clips may follow later.
            source: where the data lie.

        Raises:
            ConfigError: if the folder holds predictions of other settings or data; names them.
        """
        if (self.folder / "run.json").is_file():
            stored, key = self.facts(), json.loads(json.dumps(key))  # tuples are lists there
            other = sorted(n for n in key | stored if stored.get(n) != key.get(n))
            if other:
                raise ConfigError(
                    f"{self.folder} holds predictions with another {', '.join(other)}: name "
                    "another -o, or delete that folder"
                )
            self.check_data(data, source)
            data = {**self._data(), **data}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "data.json", dict(data))
        write_json(self.folder / "run.json", key)
        write_json(self.folder / "source.json", {"data": str(source.resolve())})

    def check_data(self, data: Mapping[str, str], source: Path) -> None:
        """Refuse predictions of other pixels, though clips and frames may have the same names.

        Args:
            data: clip -> fingerprint of what lies there now.
            source: where the data lie.

        Raises:
            ConfigError: if a clip differs from the one that was predicted; names both.
        """
        stored = self._data()
        other = sorted(name for name in data if stored.get(name, data[name]) != data[name])
        if other:
            name = other[0]
            raise ConfigError(
                f"{self.folder} holds predictions of other data: clip {name} of {self.data()} had "
                f"the fingerprint {stored[name][:12]}, that of {source.resolve()} has "
                f"{data[name][:12]}: name another -o, or delete that folder"
            )

    def _data(self) -> dict[str, str]:
        path = self.folder / "data.json"
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.folder} does not say of which data its predictions are ({path.name} cannot "
                "be read): name another -o, or delete that folder"
            ) from error

    def facts(self) -> dict[str, Any]:
        """What the predictions were made with.

        Raises:
            ConfigError: if there are none.
        """
        path = self.folder / "run.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read, so there is nothing to score again: run without --rescore"
            ) from error
        return dict(content)

    def note_time(self, started: str, seconds: float) -> None:
        """Keep when the predictions began first, and how long all attempts that ended took."""
        before = self.times()
        total = float(before["predict_seconds"] or 0) + seconds
        write_json(
            self.folder / "times.json",
            {"started": before["started"] or started, "predict_seconds": round(total, 2)},
        )

    def times(self) -> dict[str, Any]:
        """What `note_time` kept."""
        path = self.folder / "times.json"
        if not path.is_file():
            return {"started": None, "predict_seconds": None}
        return dict(json.loads(path.read_text()))

    def data(self) -> Path | None:
        """Where the data lay at the last `open`, which no result says; None if that is lost."""
        path = self.folder / "source.json"
        return Path(json.loads(path.read_text())["data"]) if path.is_file() else None

    def clip(self, name: str, **settings: Any) -> ClipStore:  # noqa: ANN401  -- of ClipStore
        """The store of one clip."""
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        return ClipStore(self.folder / "clips" / safe, **settings)

    def forget(self, name: str) -> None:
        """Delete the predictions of a clip."""
        shutil.rmtree(self.clip(name).folder, ignore_errors=True)


def _values(prediction: Prediction) -> dict[str, Tensor]:
    """What is kept of every frame: pose encoding and pixel map."""
    size = prediction.network_size
    same = PixelMap(original_size=size, network_size=size, scale=(1.0, 1.0))
    pixel_map = prediction.pixel_map or same
    numbers = (*pixel_map.original_size, *pixel_map.network_size, *pixel_map.scale)
    return {
        "pose_encoding": torch.as_tensor(prediction.pose_encoding)[0, 0].detach().cpu().clone(),
        "map": torch.tensor((*numbers, *pixel_map.offset), dtype=torch.float64),
    }


def _map_from(numbers: Tensor) -> PixelMap:
    h, w, rows, columns, sx, sy, x, y = numbers.tolist()
    return PixelMap(
        original_size=(int(h), int(w)), network_size=(int(rows), int(columns)),
        scale=(sx, sy), offset=(x, y),
    )  # fmt: skip
