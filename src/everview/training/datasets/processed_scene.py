"""One scene of a processed set: a file per part of each frame, read when it is asked for."""

from collections.abc import Sequence
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
        files: Sequence[str],
        *,
        name: str,
        links: Links | None = None,
        unit: float = 1.0,
    ) -> None:
        """Describe a scene; no file is read yet.

        Args:
            declaration: of its set.
            folder: of the scene.
            files: names of the images, ordered ones first; a set has millions, so nothing else is
                kept of each.
            name: path of the scene within the set.
            links: which frames belong together.
            unit: what depth and translation are divided by.
        """
        self.declaration = declaration
        self.folder = folder
        self.files = tuple(files)
        self.name = name
        self.links = links
        self.unit = unit

    @property
    def num_ordered(self) -> int:
        """Frames that are a video; the others follow."""
        if not self.declaration.is_video:
            return 0
        return self._num_ordered

    @property
    def max_gap(self) -> int | None:
        """Of the camera, where it differs from the set's."""
        track = self.declaration.parts(self.files[0]).get("track", "") if self.files else ""
        return self.declaration.track_gaps.get(track)

    def __len__(self) -> int:
        return len(self.files)

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames.

        Raises:
            InputError: if a file is absent or damaged, by name.
        """
        return [self._view(position) for position in positions]

    def frame_id(self, position: int) -> str:
        """Name of a frame without what all names have in common."""
        return self.declaration.parts(self.files[position])["id"]

    def image_path(self, position: int) -> Path:
        """Where the image of a frame lies."""
        return self.folder / self.declaration.images / self.files[position]

    def depth_path(self, position: int) -> Path:
        """Where its depth lies."""
        return self._path(self.declaration.depth, position)

    def camera_path(self, position: int) -> Path:
        """Where its camera lies: a file of its own, or one of the scene."""
        declaration = self.declaration
        if declaration.camera is None:
            return self.folder / str(declaration.scene_camera)
        return self._path(declaration.camera, position)

    def camera(self, position: int) -> Camera:
        """Camera of a frame.

        Raises:
            InputError: if it is absent or has another form.
        """
        path = self.camera_path(position)
        if self.declaration.camera is None:
            return self._scene_camera(self.frame_id(position), path)
        arrays = read_arrays(path)
        key = self.declaration.code.full_scale
        return Camera(
            camera_files.intrinsics_of(arrays, path),
            camera_files.poses_of(arrays, path),
            1.0 if key is None else camera_files.number_of(arrays, key, path),
        )

    def _path(self, template: str, position: int) -> Path:
        return self.folder / template.format(**self.declaration.parts(self.files[position]))

    def _scene_camera(self, frame_id: str, path: Path) -> Camera:
        intrinsics, poses, rows = self._scene_cameras
        if frame_id not in rows:
            raise InputError(f"{path} has no camera of {frame_id}, which is among the images")
        row = rows[frame_id]
        return Camera(intrinsics[row], poses[row])

    @cached_property
    def _num_ordered(self) -> int:
        return sum(not self.declaration.is_unordered(file) for file in self.files)

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
        return View(
            image=image,
            depth=depth,
            valid=depth > 0,
            world_from_camera=torch.from_numpy(pose),
            intrinsics=torch.from_numpy(camera.intrinsics),
            sky=mask_to_grid(found.sky, size),
            foreground=self._foreground(position, size),
            is_metric=self.declaration.is_metric,
            time=time_in_name(self.frame_id(position), position),
            index=position,
            label=f"{self.declaration.name}/{self.name}/{self.files[position]}",
        )

    def _foreground(self, position: int, size: tuple[int, int]) -> torch.Tensor | None:
        if self.declaration.mask is None:
            return None
        path = self._path(self.declaration.mask, position)
        return mask_to_grid(read_mask(path), size) if path.exists() else None
