"""Sequence folders: sequence.json, images, poses.txt and perhaps depth of a real camera."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import InputError
from everview.frames.folders import open_folder
from everview.frames.preprocess import tensor_from_rgb
from everview.frames.rgb import rgb_from_picture
from everview.training.datasets.declaration import DepthCode, SamplingRules
from everview.training.datasets.depth_values import decode_depth, to_grid
from everview.training.datasets.names import time_in_name
from everview.training.datasets.stored_arrays import read_json, read_stored_depth
from everview.training.datasets.view import Dataset, Links, View

DESCRIPTION = "sequence.json"
RULES = SamplingRules(max_gap=4, video=1.0, fixed_gap=0.5)


class SequenceScene:
    """One sequence folder; depth that is not registered to the images is not used."""

    links: Links | None = None
    max_gap: int | None = None

    def __init__(self, folder: Path) -> None:
        """Read the description and list the images.

        Raises:
            InputError: if one of them is absent or damaged.
        """
        self.folder = folder
        self.name = folder.name
        self.info: dict[str, Any] = read_json(folder / DESCRIPTION)
        self._paths = open_folder(folder).paths
        depth = self.info.get("depth") or {}
        self.has_depth = bool(depth) and bool(depth.get("registered_to_images", True))
        self._code = DepthCode(unit=float(depth.get("scale_m_per_unit", 0.001)))

    @property
    def num_ordered(self) -> int:
        """All frames."""
        return len(self)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of this sequence."""
        found = []
        if self.info.get("depth") and not self.has_depth:
            found.append("its depth is not registered to the images and is not used")
        camera = self.info.get("camera") or {}
        if any(float(camera.get(name, 0)) for name in ("k1", "k2", "p1", "p2")):
            found.append("its lens distorts (k1, k2, p1, p2), which is not corrected")
        return tuple(found)

    def __len__(self) -> int:
        return len(self._paths)

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames.

        Raises:
            InputError: if a file is absent or damaged, by name.
        """
        return [self._view(position) for position in positions]

    @cached_property
    def poses(self) -> dict[str, Float[np.ndarray, "4 4"]]:
        """world_from_camera by the frame's name; empty if there are no poses.

        Raises:
            InputError: if a line is no name and 16 numbers.
        """
        path = self.folder / "poses.txt"
        if not path.exists():
            return {}
        poses = {}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            name, *values = line.split()
            try:
                poses[name] = np.array(values, np.float64).reshape(4, 4)
            except ValueError as error:
                raise InputError(
                    f"{path} line {number} is not a frame's name and 16 numbers: {error}"
                ) from error
        return poses

    def _view(self, position: int) -> View:
        path = self._paths[position]
        image = tensor_from_rgb(rgb_from_picture(path))
        depth = self._depth(path.stem, (image.shape[1], image.shape[2]))
        pose = self.poses.get(path.stem)
        if self.poses and pose is None:
            raise InputError(f"{self.folder / 'poses.txt'} has no pose of the frame {path.stem}")
        time = time_in_name(path.stem, position)
        return View(
            image=image,
            depth=depth,
            valid=depth > 0,
            world_from_camera=torch.from_numpy(np.full((4, 4), np.nan) if pose is None else pose),
            intrinsics=self._intrinsics(),
            is_metric=bool(self.info.get("metric", False)),
            has_depth=self.has_depth,
            has_pose=pose is not None,
            has_intrinsics="camera" in self.info,
            time=time / float(self.info.get("fps") or 1.0),
            index=position,
            label=f"sequences/{self.name}/{path.name}",
        )

    def _depth(self, name: str, size: tuple[int, int]) -> Float[Tensor, "H W"]:
        if not self.has_depth:
            return torch.zeros(size)
        stored = read_stored_depth(self.folder / "depth" / f"{name}.png")
        depth = decode_depth(stored, self._code).depth
        return to_grid(torch.from_numpy(depth)[None], size)[0]

    def _intrinsics(self) -> Float[Tensor, "3 3"]:
        camera = self.info.get("camera")
        if camera is None:
            return torch.full((3, 3), torch.nan)
        fx, fy, cx, cy = (float(camera[name]) for name in ("fx", "fy", "cx", "cy"))
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def is_sequence(folder: Path) -> bool:
    """Whether this is a sequence folder."""
    return (folder / DESCRIPTION).is_file()


def open_sequences(folder: Path) -> Dataset:
    """A sequence folder, or a folder of such.

    Raises:
        InputError: if there is none.
    """
    folders = (
        [folder]
        if is_sequence(folder)
        else sorted(p.parent for p in folder.glob(f"*/{DESCRIPTION}"))
    )
    if not folders:
        raise InputError(f"{folder} holds no sequence ({DESCRIPTION})")
    scenes = tuple(SequenceScene(path) for path in folders)
    return Dataset(name="sequences", rules=RULES, scenes=scenes)
