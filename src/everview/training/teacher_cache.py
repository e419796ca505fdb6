"""What a teacher said of a clip, on disk: a teacher is slow and always says the same."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError, InputError
from everview.geometry.prediction import Prediction

MAGIC = b"everview.teacher.1\n"
"""First bytes of a file: name and version of the format; then a digest, then safetensors."""
MAPS = ("depth", "depth_confidence", "points", "points_confidence")
"""Fields with an axis of rows and one of columns."""


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """A folder of predictions, one file per clip.

    Poses and tracks are kept in float32. What is not in the folder, or damaged there, counts as
    absent. Several processes may share a folder: files appear whole or not at all.
    """

    folder: Path
    """Made when the first file is written; may be deleted at any time."""
    half: bool = True
    """Keep maps in float16: half the disk, three digits, values cut at 65504."""
    shrink: int = 1
    """Keep every map at 1 / shrink of its height and width; edges blur, disk falls by shrink^2."""

    def __post_init__(self) -> None:
        """Refuse a size that is none."""
        if self.shrink < 1:
            raise ConfigError(f"TeacherCache.shrink must be at least 1, got {self.shrink}")

    def key(self, *parts: str | Tensor | None) -> str:
        """Name of the file for a clip that is told apart by `parts`: texts, or tensors by value."""
        digest = hashlib.sha256(MAGIC + f"half={self.half} shrink={self.shrink}\n".encode())
        for part in parts:
            if isinstance(part, Tensor):
                value = part.detach().cpu().contiguous()
                digest.update(f"{tuple(value.shape)} {value.dtype}\n".encode())
                digest.update(value.view(torch.uint8).numpy().tobytes())
            else:
                digest.update(f"{part}\n".encode())
        return digest.hexdigest()

    def read(self, key: str, network_size: tuple[int, int]) -> Prediction | None:
        """One clip (b = 1) as `write` returned it; None if there is no sound file."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        head, digest, body = content[: len(MAGIC)], *_split(content[len(MAGIC) :])
        if head != MAGIC or digest != hashlib.sha256(body).digest():
            return None
        try:
            return self._unpacked(load_bytes(body), network_size)
        except (SafetensorError, KeyError):
            return None

    def write(self, key: str, prediction: Prediction) -> Prediction:
        """Keep one clip (b = 1).

        Returns:
            The prediction as it will be read, so that a run does not depend on what was cached.

        Raises:
            InputError: if the file cannot be written, as on a full disk.
        """
        packed = self._packed(prediction)
        body = to_bytes(packed)
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"the teacher's output cannot be kept in {self.folder} ({error}): free some disk, "
                "name another folder, or distil without a cache"
            ) from error
        return self._unpacked(packed, prediction.network_size)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.teacher"

    def _packed(self, prediction: Prediction) -> dict[str, Tensor]:
        values = {}
        for name, value in _arrays(prediction).items():
            kept = value.detach().float().cpu()
            if name in MAPS:
                kept = _resized(kept, lambda maps: F.avg_pool2d(maps, self.shrink, ceil_mode=True))
                limit = torch.finfo(torch.float16).max
                kept = kept.clamp(-limit, limit).half() if self.half else kept
            values[name] = kept.clone(memory_format=torch.contiguous_format)  # no shared memory
        return values

    def _unpacked(self, values: dict[str, Tensor], size: tuple[int, int]) -> Prediction:
        full: dict[str, Any] = {name: value.float() for name, value in values.items()}
        for name in MAPS:
            if name in full:
                full[name] = _resized(full[name], lambda maps: _enlarged(maps, size, self.shrink))
        return Prediction(network_size=size, **full)


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """Several clips of one shape as one batch."""
    parts = [_arrays(prediction) for prediction in predictions]
    values: dict[str, Any] = {
        name: torch.cat([p[name] for p in parts], dim=int(name.endswith("iterations")))
        for name in parts[0]
    }
    return Prediction(network_size=predictions[0].network_size, **values)


def clip_of(prediction: Prediction, index: int) -> Prediction:
    """One clip of a batch, with b = 1."""
    values: dict[str, Any] = {
        name: value[:, index : index + 1] if name.endswith("iterations")
        else value[index : index + 1]
        for name, value in _arrays(prediction).items()
    }  # fmt: skip
    return Prediction(network_size=prediction.network_size, **values)


def _arrays(prediction: Prediction) -> dict[str, Tensor]:
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _split(content: bytes) -> tuple[bytes, bytes]:
    size = hashlib.sha256().digest_size
    return content[:size], content[size:]


def _resized(value: Tensor, resize: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of maps n c H W to b s H W or b s H W 3."""
    has_channels = value.ndim == 5
    flat = value.flatten(0, 1)
    maps = flat.permute(0, 3, 1, 2) if has_channels else flat[:, None]
    result = resize(maps)
    result = result.permute(0, 2, 3, 1) if has_channels else result[:, 0]
    return result.unflatten(0, value.shape[:2])


def _enlarged(maps: Tensor, size: tuple[int, int], shrink: int) -> Tensor:
    """Bilinear, each small pixel at the middle of those that it stands for."""
    if shrink == 1:
        return maps
    wide = F.interpolate(maps, scale_factor=shrink, mode="bilinear", align_corners=False)
    return wide[..., : size[0], : size[1]]
