"""One scene of a processed set: a file per part of each frame, read when it is asked for."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from everview.errors import InputError
from everview.frames.preprocess import tensor_from_rgb
from everview.frames.rgb import rgb_from_picture
from everview.training.datasets import camera_files
from everview.training.datasets.declaration import SetDeclaration
from everview.training.datasets.depth_values import decode_depth, mask_to_grid, to_grid
from everview.training.datasets.names import time_in_name
from everview.training.datasets.stored_arrays import read_arrays, read_mask, read_stored_depth
from everview.training.datasets.view import Links, View

Groups = Mapping[str, str]
"""What the name of an image says: `id`, and `track` where there are several cameras."""


class Camera(NamedTuple):
    """Camera of one frame as stored."""

    intrinsics: Float[np.ndarray, "3 3"]
    """K in pixels of the image."""
    world_from_camera: Float[np.ndarray, "4 4"]
    """Pose in the scene's world."""
    full_scale: float = 1.0
    """What the largest stored depth stands for, in sets that say so."""


class ProcessedScene:
    """One scene, or one camera of it: frames in order of time, then those without order."""

    def __init__(
        self,
        declaration: SetDeclaration,
        folder: Path,
        frames: Sequence[Groups],
        *,
        name: str,
        links: Links | None = None,
        unit: float = 1.0,
    ) -> None:
        """Describe a scene; no file is read yet.

        Args:
            declaration: of its set.
            folder: of the scene.
            frames: what the names of the images say, ordered ones first.
            name: path of the scene within the set.
            links: which frames belong together.
            unit: what depth and translation are divided by.
        """
        self.declaration = declaration
        self.folder = folder
        self.frames = frames
        self.name = name
        self.links = links
        self.unit = unit

    @property
    def num_ordered(self) -> int:
        """Frames that are a video; the others follow."""
        if not self.declaration.is_video:
            return 0
        return sum(not is_unordered(self.declaration, frame) for frame in self.frames)

    @property
    def max_gap(self) -> int | None:
        """Of the camera, where it differs from the set's."""
        track = self.frames[0].get("track", "") if self.frames else ""
        return self.declaration.track_gaps.get(track)

    def __len__(self) -> int:
        return len(self.frames)

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames.

        Raises:
            InputError: if a file is absent or damaged, by name.
        """
        return [self._view(position) for position in positions]

    def image_path(self, position: int) -> Path:
        """Where the image of a frame lies."""
        return self.folder / self.declaration.images / self.frames[position]["file"]

    def depth_path(self, position: int) -> Path:
        """Where its depth lies."""
        return self.folder / self.declaration.depth_path(self.frames[position])

    def camera_path(self, position: int) -> Path:
        """Where its camera lies: a file of its own, or one of the scene."""
        declaration = self.declaration
        if declaration.camera is None:
            return self.folder / str(declaration.scene_camera)
        return self.folder / declaration.camera.format(**self.frames[position])

    def camera(self, position: int) -> Camera:
        """Camera of a frame.

        Raises:
            InputError: if it is absent or has another form.
        """
        path = self.camera_path(position)
        if self.declaration.camera is None:
            return self._scene_camera(self.frames[position]["id"], path)
        arrays = read_arrays(path)
        key = self.declaration.code.full_scale
        return Camera(
            camera_files.intrinsics_of(arrays, path),
            camera_files.poses_of(arrays, path),
            1.0 if key is None else camera_files.number_of(arrays, key, path),
        )

    def _scene_camera(self, frame_id: str, path: Path) -> Camera:
        intrinsics, poses, rows = self._scene_cameras
        if frame_id not in rows:
            raise InputError(f"{path} has no camera of {frame_id}, which is among the images")
        row = rows[frame_id]
        return Camera(intrinsics[row], poses[row])

    @cached_property
    def _scene_cameras(self) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        path = self.folder / str(self.declaration.scene_camera)
        arrays = read_arrays(path)
        names = camera_files.names_of(arrays, path)
        intrinsics = camera_files.intrinsics_of(arrays, path)
        poses = camera_files.poses_of(arrays, path)
        if not len(names) == len(poses) == len(intrinsics):
            raise InputError(
                f"{path} has {len(names)} images, {len(intrinsics)} intrinsics and {len(poses)} "
                "poses; their numbers must agree"
            )
        return intrinsics, poses, {name: row for row, name in enumerate(names)}

    def _view(self, position: int) -> View:
        camera = self.camera(position)
        image = tensor_from_rgb(rgb_from_picture(self.image_path(position)))
        size = (image.shape[1], image.shape[2])
        stored = read_stored_depth(self.depth_path(position))
        found = decode_depth(stored, self.declaration.code, full_scale=camera.full_scale)
        depth = to_grid(torch.from_numpy(found.depth)[None], size)[0] / self.unit
        pose = camera.world_from_camera.copy()
        pose[:3, 3] /= self.unit
        frame = self.frames[position]
        return View(
            image=image,
            depth=depth,
            valid=depth > 0,
            world_from_camera=torch.from_numpy(pose),
            intrinsics=torch.from_numpy(camera.intrinsics),
            sky=mask_to_grid(found.sky, size),
            foreground=self._foreground(position, size),
            is_metric=self.declaration.is_metric,
            time=time_in_name(frame["id"], position),
            index=position,
            label=f"{self.declaration.name}/{self.name}/{frame['file']}",
        )

    def _foreground(self, position: int, size: tuple[int, int]) -> torch.Tensor | None:
        if self.declaration.mask is None:
            return None
        path = self.folder / self.declaration.mask.format(**self.frames[position])
        return mask_to_grid(read_mask(path), size) if path.exists() else None


def is_unordered(declaration: SetDeclaration, frame: Groups) -> bool:
    """Whether a frame of a video scene has no place in time, such as a single photograph."""
    return declaration.match_unordered(frame["id"]) is not None
