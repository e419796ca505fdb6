"""Recorder: writes a recording frame by frame, so that a kill loses no finished frame."""

import errno
import os
import time
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from everview.errors import ConfigError, InputError
from everview.frames.frame import Frame
from everview.geometry.prediction import Prediction
from everview.outputs.codes import CONFIDENCE_CODE, DEPTH_CODE
from everview.outputs.dense import DenseReader, DenseWriter, Maps
from everview.outputs.entries import FrameEntry, camera_problems, exact_floats, read_entries
from everview.outputs.files import remove_partial_files, write_json
from everview.outputs.fusion import FusionConfig, VoxelCloud
from everview.outputs.manifest import now, read_manifest
from everview.outputs.ply import write_ply
from everview.outputs.trajectory import poses_relative_to_first, tum_line
from everview.pipeline.results import FrameResult

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST_SECONDS, CLOUD_SECONDS = 1.0, 30.0
"""How often recording.json and points.ply are renewed while frames come in."""

MANIFEST, LINES, TRAJECTORY = "recording.json", "frames.jsonl", "trajectory.tum"


class Recorder:
    """The sink that writes to disk, in the order: dense maps, trajectory, line of frames.jsonl.

    A frame is finished with its line. `create` begins a recording, `resume` continues one.
    Holds one frame and the fused cloud, however long the recording gets.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], fusion: FusionConfig) -> None:
        """Set up what a new and a continued recording have in common."""
        self.folder = folder
        self.manifest = manifest
        """Content of recording.json; renewed on disk every second."""
        self._cloud = VoxelCloud(fusion)
        self._first_encoding: Float[np.ndarray, " 9"] | None = None
        codes = {name: code for name, code in manifest["dense"].items() if isinstance(code, dict)}
        self._dense = DenseWriter(folder / "dense.zarr", folder / "tail", attributes=codes)
        self._started = self._manifest_time = self._cloud_time = time.monotonic()
        self._seconds_before = float(manifest["timings"]["seconds"])
        self._closed = False
        # unbuffered: a line is handed to the operating system whole, before the next step begins
        self._lines = _lock((folder / LINES).open("ab", buffering=0), folder)
        self._trajectory = (folder / TRAJECTORY).open("ab", buffering=0)

    @classmethod
    def create(
        cls, folder: Path, manifest: dict[str, Any], fusion: FusionConfig | None = None
    ) -> "Recorder":
        """Begin a recording in a new or empty folder; see `manifest.new_manifest`.

        Raises:
            ConfigError: if the folder cannot be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MANIFEST, manifest)  # first: what has it can be continued
        except OSError as error:
            raise ConfigError(f"cannot write to {folder}: {error}; name another with -o") from error
        return cls(folder, manifest, fusion or FusionConfig())

    @classmethod
    def resume(cls, folder: Path) -> "Recorder":
        """Continue a recording: everything that was not finished is dropped.

        Raises:
            InputError: if the folder is no recording or is damaged.
            ConfigError: if another process is writing it.
        """
        manifest = read_manifest(folder)
        fusion = {k: v for k, v in (manifest["points"] or {}).items() if k != "voxel_size"}
        manifest |= {"status": "running", "reason": None}
        manifest["timings"]["resumed"] += 1
        recorder = cls(folder, manifest, FusionConfig(**fusion))
        remove_partial_files(folder)
        recorder._drop_unfinished()
        recorder._write_manifest()
        return recorder

    @property
    def num_rows(self) -> int:
        """Finished frames, skipped ones not counted."""
        return int(self.manifest["counts"]["finished"])

    @property
    def num_entries(self) -> int:
        """Finished and skipped frames: lines of frames.jsonl."""
        return self.num_rows + int(self.manifest["counts"]["skipped"])

    def write(self, result: FrameResult) -> None:
        """Record a frame, or that it was skipped. After the return it survives a kill.

        Raises:
            InputError: if the picture was of another size than those before.
        """
        if result.prediction is None:
            self._finish(_skipped_entry(result))
            return
        entry = _entry(result, result.prediction, self.num_rows)
        maps = _maps(result, result.prediction)
        if entry.row == 0:
            self._describe_frames(result)
        self._check_size(result.frame)
        self._dense.append(self.num_rows, maps)
        _append(self._trajectory, self._tum_line(entry))
        self._finish(entry)
        self._fuse(entry, maps)
        self._renew()

    def flush(self) -> None:
        """Everything is on disk when `write` returns."""

    def close(self, status: str = "finished", reason: str | None = None) -> None:
        """Finish all files; the recording may be continued later.

        Args:
            status: `finished` (the source has ended), `stopped` (by the user) or `failed`.
            reason: why it did not finish.
        """
        if self._closed:
            return
        self._closed = True
        self._lines.close()
        self._trajectory.close()
        self._dense.finish(self.num_rows)
        self._write_cloud()
        self.manifest |= {"status": status, "reason": reason}
        self._write_manifest()

    def _finish(self, entry: FrameEntry) -> None:
        _append(self._lines, entry.to_line())
        self._count(entry)

    def _count(self, entry: FrameEntry) -> None:
        counts = self.manifest["counts"]
        if entry.row is not None:
            counts["finished"] += 1
            self.manifest["timings"]["network_seconds"] += entry.latency
            return
        counts["skipped"] += 1
        for flag in entry.flags:
            reason = flag.split(":")[0]
            by_reason = counts["skipped_by_reason"]
            by_reason[reason] = by_reason.get(reason, 0) + 1

    def _describe_frames(self, result: FrameResult) -> None:
        prediction, frame = result.prediction, result.frame
        assert prediction is not None, "only finished frames are described"
        self.manifest["network_size"] = list(prediction.network_size)
        self.manifest["original_size"] = list(frame.original_size)
        pixel_map = frame.pixel_map
        self.manifest["pixel_map"] = None if pixel_map is None else pixel_map.as_dict()
        self._write_manifest()

    def _check_size(self, frame: Frame) -> None:
        """One pixel map holds for all frames: refuse pictures of another size."""
        first, size = self.manifest["original_size"], list(frame.original_size)
        if size != first:
            raise InputError(
                f"{frame.name} is {size[0]}x{size[1]} pixels (height x width); the recording "
                f"began with {first[0]}x{first[1]}; record anew"
            )

    def _tum_line(self, entry: FrameEntry) -> bytes:
        return tum_line(entry.timestamp, self._pose(entry)).encode()

    def _pose(self, entry: FrameEntry) -> Float[np.ndarray, "4 4"]:
        encoding = np.array(entry.pose_encoding)
        if self._first_encoding is None:
            self._first_encoding = encoding
        return poses_relative_to_first(encoding[None], self._first_encoding)[0]

    def _fuse(self, entry: FrameEntry, maps: Maps) -> None:
        """Add what a reader would read, coded values and all, so that a resume gives the same."""
        pose, intrinsics = self._pose(entry), np.array(entry.intrinsics)
        if "depth" not in maps or not entry.has_camera or not np.isfinite(pose).all():
            return
        confidence = maps.get("depth_confidence")
        self._cloud.add(
            DEPTH_CODE.decode(maps["depth"]),
            None if confidence is None else CONFIDENCE_CODE.decode(confidence),
            maps["colour"],
            world_from_camera=pose,
            intrinsics=intrinsics,
        )

    def _renew(self) -> None:
        time_now = time.monotonic()
        if time_now - self._cloud_time > CLOUD_SECONDS:
            self._write_cloud()
            self._cloud_time = time.monotonic()
        if time_now - self._manifest_time > MANIFEST_SECONDS:
            self._write_manifest()

    def _write_cloud(self) -> None:
        points, colours = self._cloud.points_and_colours()
        comments = ("everview; scene units; frame of the first camera, x right, y down, z forward",)
        write_ply(self.folder / "points.ply", points, colours, comments=comments)

    def _write_manifest(self) -> None:
        self._manifest_time = time.monotonic()
        self.manifest["updated"] = now()
        seconds = self._seconds_before + self._manifest_time - self._started
        self.manifest["timings"]["seconds"] = round(seconds, 3)
        self.manifest["points"] = self._cloud.as_dict()
        write_json(self.folder / MANIFEST, self.manifest)

    def _drop_unfinished(self) -> None:
        """Count what is finished, cut off what is not, and fuse the cloud anew."""
        self.manifest["counts"] = {"finished": 0, "skipped": 0, "skipped_by_reason": {}}
        self.manifest["timings"]["network_seconds"] = 0.0
        end = 0
        for entry, end in read_entries(self.folder / LINES):  # noqa: B007  -- the last one is used
            self._count(entry)
        os.truncate(self.folder / LINES, end)
        path = self.folder / TRAJECTORY
        os.truncate(path, _end_of_lines(path, self.num_rows))
        self._dense.reopen(self.num_rows)
        reader = DenseReader(self.folder / "dense.zarr", self.folder / "tail")
        names = reader.names()
        for entry, _ in read_entries(self.folder / LINES):
            if entry.row is not None:
                self._fuse(entry, {name: reader.read(name, entry.row) for name in names})


def _entry(result: FrameResult, prediction: Prediction, row: int) -> FrameEntry:
    encoding = np.asarray(prediction.pose_encoding)[0, 0]
    intrinsics = np.asarray(prediction.intrinsics)[0, 0]
    return FrameEntry(
        index=result.frame.index,
        row=row,
        timestamp=float(result.frame.timestamp),
        name=result.frame.name,
        flags=(*result.notes, *camera_problems(encoding)),
        pose_encoding=exact_floats(encoding),
        intrinsics=tuple(exact_floats(line) for line in intrinsics),  # type: ignore[arg-type]
        latency=round(result.latency, 6),
        memory=result.memory,
    )


def _skipped_entry(result: FrameResult) -> FrameEntry:
    frame = result.frame
    return FrameEntry(
        index=frame.index,
        row=None,
        timestamp=float(frame.timestamp),
        name=frame.name,
        flags=frame.flags,
    )


def _maps(result: FrameResult, prediction: Prediction) -> Maps:
    """The dense maps of one frame as they are stored."""
    image = np.asarray(result.frame.image).transpose(1, 2, 0)  # H W 3
    maps = {"colour": np.rint(image * 255).clip(0, 255).astype(np.uint8)}
    if prediction.depth is not None:
        maps["depth"] = DEPTH_CODE.encode(np.asarray(prediction.depth)[0, 0])
    for name in ("depth_confidence", "points_confidence"):
        values = getattr(prediction, name)
        if values is not None:
            maps[name] = CONFIDENCE_CODE.encode(np.asarray(values)[0, 0])
    return maps


def _append(file: RawIOBase, line: bytes) -> None:
    """Write a line whole; a disk that takes only part of it is full."""
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lock(file: RawIOBase, folder: Path) -> RawIOBase:
    """Keep other processes from writing the same recording; the end of this one lets go."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"{folder} is being written by another process: wait for it, or name another with -o"
        ) from None
    return file


def _end_of_lines(path: Path, count: int) -> int:
    """Byte after the first `count` lines.

    Raises:
        InputError: if there are fewer, which no kill can cause.
    """
    end = 0
    with path.open("rb") as file:
        for number in range(count):
            line = file.readline()
            end += len(line)
            if not line.endswith(b"\n"):
                raise InputError(f"{path} has {number} lines; frames.jsonl has {count} frames")
    return end
