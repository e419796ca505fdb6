"""Recorded footage with its truth: a sequence folder, or a recording of ours, for one network."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from everview.errors import InputError
from everview.evaluation.clip_truth import ClipTruth
from everview.evaluation.registration import (
    colour_camera,
    depth_on_grid,
    intrinsics_on_grid,
    nearest_rotation,
    seen_from,
)
from everview.frames.folders import open_folder
from everview.frames.preprocess import Fit, Preprocessed, preprocess
from everview.frames.rgb import UNREADABLE, rgb_from_picture
from everview.geometry.rotations import invert_rigid, rigid
from everview.outputs.recorder import MANIFEST
from everview.outputs.recording import Recording

DESCRIPTION = "sequence.json"
DISTORTION = ("k1", "k2", "p1", "p2")


@dataclass(frozen=True, kw_only=True)
class Footage:
    """All frames of one sequence, preprocessed for a network, in order. Axis n: frames."""

    name: str
    names: tuple[str, ...]
    """Of the frames."""
    images: Float[Tensor, "n 3 H W"]
    """RGB in [0, 1]."""
    world_from_camera: Float[Tensor, "n 4 4"]
    """Of the camera that took the images; float64, rotations exact, any world frame."""
    intrinsics: Float[Tensor, "n 3 3"]
    """K in pixels of `images`; lens distortion is left out."""
    depth: Float[Tensor, "n H W"] | None
    """z-depth in the unit of the poses, 0 where unknown; None if there is none."""
    picture: Callable[[int], Image.Image]
    """The n-th original image."""
    camera: Float[np.ndarray, "3 3"]
    """K in pixels of the original images."""
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 of OpenCV, for `camera`."""
    remarks: tuple[str, ...] = ()
    """What a reader of the scores should know."""

    def __len__(self) -> int:
        return len(self.names)

    def clip(self, frames: Sequence[int]) -> ClipTruth:
        """Frames by their positions, in the frame of the first of them."""
        chosen = list(frames)
        poses = self.world_from_camera[chosen]
        depth = None if self.depth is None else self.depth[chosen]
        return ClipTruth(
            images=self.images[chosen],
            world_from_camera=(invert_rigid(poses[0]) @ poses).float(),
            intrinsics=self.intrinsics[chosen].float(),
            depth=depth,
            valid=None if depth is None else depth > 0,
        )


def open_footage(folder: Path, *, size: int, fit: Fit = "crop") -> Footage:
    """Read a folder with `sequence.json`, or a recording that `everview world` or `run` wrote.

    Args:
        folder: of one sequence.
        size: width of the network's input, see `everview.preprocess`.
        fit: what happens to images that are not landscape.

    Raises:
        InputError: if it is neither, a file is absent or damaged, or there are no poses.
    """
    if (folder / MANIFEST).is_file():
        return _from_recording(folder, size, fit)
    if (folder / DESCRIPTION).is_file():
        return _from_sequence(folder, size, fit)
    raise InputError(
        f"{folder} holds neither {MANIFEST} (a recording) nor {DESCRIPTION} (a sequence folder)"
    )


def _from_recording(folder: Path, size: int, fit: Fit) -> Footage:
    """Images, depth and cameras as they are stored on the recording's own pixel grid."""
    recording = Recording.open(folder)
    rows = [row for row in range(len(recording)) if recording.entry(row).has_camera]
    if not rows:
        raise InputError(f"{folder} has no finished frame with a camera")

    def picture(i: int) -> Image.Image:
        return Image.fromarray(recording.colour(rows[i]))

    shown = [preprocess(picture(i), size, fit) for i in range(len(rows))]
    cameras = torch.from_numpy(recording.intrinsics()[rows])
    depth = None
    if "depth" in recording.maps:
        maps = (np.nan_to_num(recording.depth(row), nan=0.0) for row in rows)
        depth = _on_grids((torch.from_numpy(m).float() for m in maps), shown)
    whose = recording.info.get("model", {}).get("name")
    return Footage(
        name=folder.resolve().name,
        names=tuple(recording.entry(row).name for row in rows),
        images=torch.stack([s.image for s in shown]),
        world_from_camera=_exact(recording.world_from_camera[rows]),
        intrinsics=intrinsics_on_grid(cameras, shown[0].pixel_map),
        depth=depth,
        picture=picture,
        camera=cameras[0].numpy(),
        remarks=() if whose == "truth" else (f"compared with what the model {whose} said",),
    )


def _from_sequence(folder: Path, size: int, fit: Fit) -> Footage:
    info, paths = _json(folder / DESCRIPTION), open_folder(folder).paths
    poses = _poses(folder / "poses.txt", [path.stem for path in paths])
    stored = info.get("depth") or {}
    beside = None if stored.get("registered_to_images", True) else colour_camera(info)
    camera = _camera(folder, info) if beside is None else beside.intrinsics
    if beside is not None:
        poses = poses @ beside.depth_from_colour
    shown = [preprocess(path, size, fit) for path in paths]
    lens = {name: float(info["camera"].get(name, 0.0)) for name in DISTORTION}
    remarks = ["distortion of the lens is not corrected"] if any(lens.values()) else []
    depth = None
    if stored and (beside is not None or stored.get("registered_to_images", True)):
        original = (int(info["height"]), int(info["width"]))
        unit = float(stored.get("scale_m_per_unit", 0.001))
        maps = (_stored_depth(folder / "depth" / f"{p.stem}.png", unit) for p in paths)
        if beside is not None:
            own = _camera(folder, info)
            maps = (seen_from(found, own, beside, original) for found in maps)
            remarks.append("depth and poses are moved into the colour camera")
        depth = _on_grids(maps, shown)
    elif stored:
        remarks.append("depth belongs to another camera, which is unknown, and is not used")
    k1, k2, p1, p2 = (lens[name] for name in DISTORTION)
    return Footage(
        name=str(info.get("name", folder.name)),
        names=tuple(path.stem for path in paths),
        images=torch.stack([s.image for s in shown]),
        world_from_camera=poses,
        intrinsics=intrinsics_on_grid(camera, shown[0].pixel_map).expand(len(paths), 3, 3),
        depth=depth,
        picture=lambda i: rgb_from_picture(paths[i]),
        camera=camera.numpy(),
        distortion=(k1, k2, p1, p2),
        remarks=tuple(remarks),
    )


def _on_grids(maps: Any, shown: Sequence[Preprocessed]) -> Float[Tensor, "n H W"]:  # noqa: ANN401
    """Original depth maps, one after the other, on the network's grid."""
    pairs = zip(maps, shown, strict=True)
    return torch.stack([depth_on_grid(depth, s.pixel_map) for depth, s in pairs])


def _exact(poses: Float[np.ndarray, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Rotations made orthonormal: rounded ones report angles that are not there."""
    found = torch.from_numpy(np.asarray(poses, np.float64))
    return rigid(nearest_rotation(found[:, :3, :3]), found[:, :3, 3])


def _poses(path: Path, names: Sequence[str]) -> Float[Tensor, "n 4 4"]:
    """world_from_camera of the named frames."""
    found: dict[str, np.ndarray] = {}
    try:
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                name, *values = line.split()
                found[name] = np.array(values, np.float64).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must hold a name and 16 numbers per line: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{path} has no pose of {len(missing)} frames, such as {missing[0]}")
    return _exact(np.stack([found[name] for name in names]))


def _camera(folder: Path, info: dict[str, Any]) -> Float[Tensor, "3 3"]:
    try:
        fx, fy, cx, cy = (float(info["camera"][name]) for name in ("fx", "fy", "cx", "cy"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / DESCRIPTION} must hold a camera with fx, fy, cx, cy: {error!r}"
        ) from error
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _stored_depth(path: Path, unit: float) -> Float[Tensor, "H W"]:
    try:
        with Image.open(path) as image:
            stored = np.array(image).astype(np.float32)
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    stored[stored == np.iinfo(np.uint16).max] = 0.0  # raw 7-Scenes marks no measurement so
    return torch.from_numpy(stored * np.float32(unit))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("camera"), dict):
        raise InputError(f"{path} must hold an object with a camera (fx, fy, cx, cy)")
    return content
