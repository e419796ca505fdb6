"""Prediction: the record that the network fills and everybody reads."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.cameras import camera_from_pose_encoding, points_from_depth
from everview.geometry.pixel_map import PixelMap
from everview.geometry.rotations import invert_rigid

Array = Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of `s` frames of `b` streams or clips.

    World frame: the camera of the first frame, OpenCV axes (x right, y down, z forward). The
    network only learns this convention; its pose of frame 0 is close to the identity, not equal.
    Unit: the scene's own, unknown scale, shared by poses, depth and points. Pixels: indices on
    the network's grid, or on the original one after `at("original")`. Axes: b streams, s frames,
    H W pixels, t tracked points. Values are tensors; NumPy arrays after `numpy()`.
    """

    pose_encoding: Float[Array, "b s 9"]
    """Translation 3, quaternion x y z w 4 (camera_from_world), field of view (h, w) in radians."""
    pose_encoding_iterations: Float[Array, "rounds b s 9"]
    """The same after each refinement round; the last one is `pose_encoding`."""
    network_size: tuple[int, int]
    """(height, width) of the network's input, which the field of view spans."""
    depth: Float[Array, "b s H W"] | None = None
    """z-depth along the optical axis, > 0; NaN where `at("original")` has no prediction."""
    depth_confidence: Float[Array, "b s H W"] | None = None
    """>= 1, grows with trust, not a probability; 0 where `at("original")` has no prediction."""
    points: Float[Array, "b s H W 3"] | None = None
    """Point map in the world frame, straight from the point head, not from `depth`."""
    points_confidence: Float[Array, "b s H W"] | None = None
    """Like `depth_confidence`, for `points`."""
    tracks: Float[Array, "b s t 2"] | None = None
    """Pixel (x, y) of the queried points; only with queries."""
    visibility: Float[Array, "b s t"] | None = None
    """Probability that the point is seen, not hidden."""
    track_confidence: Float[Array, "b s t"] | None = None
    """Probability that the track is accurate."""
    pixel_map: PixelMap | None = None
    """How the input was made from the original image, when it came as a frame."""
    grid: Literal["network", "original"] = "network"
    """On which pixel grid dense maps, intrinsics and tracks are given."""

    @property
    def camera_from_world(self) -> Float[Array, "b s 4 4"]:
        """Extrinsics: x_camera = R @ x_world + t, last row 0 0 0 1."""
        return self._like_input(self._cameras()[0])

    @property
    def world_from_camera(self) -> Float[Array, "b s 4 4"]:
        """Poses of the cameras in the world: the inverse of `camera_from_world`."""
        return self._like_input(invert_rigid(self._cameras()[0]))

    @property
    def intrinsics(self) -> Float[Array, "b s 3 3"]:
        """Pinhole K in pixels of `grid`."""
        return self._like_input(self._cameras()[1])

    def points_from_depth(self) -> Float[Array, "b s H W 3"]:
        """Unproject `depth` with the predicted camera into the world frame.

        Raises:
            ConfigError: if the network has no depth head.
        """
        if self.depth is None:
            raise ConfigError("this network has no depth head; use `points` instead")
        camera_from_world, intrinsics = self._cameras()
        depth = torch.as_tensor(self.depth)
        return self._like_input(points_from_depth(depth, camera_from_world, intrinsics))

    def at(self, grid: str) -> "Prediction":
        """Give the same record on another pixel grid.

        On the original grid depth and points are sampled bilinearly; pixels that the network never
        saw (rows cut by `fit="crop"`) have NaN depth and points and confidence 0.

        Raises:
            ConfigError: if `grid` is unknown, or the original grid is not known because the input
                was a bare tensor.
        """
        if grid == self.grid:
            return self
        if grid != "original":
            raise ConfigError(
                f'at() takes "original" (or "network" before it was mapped); got {grid!r}'
            )
        if self.pixel_map is None:
            raise ConfigError(
                'at("original") needs the original size: give the network a Frame '
                "(everview.read, everview.preprocess), not a bare tensor"
            )
        return self._mapped_to_original(self.pixel_map)

    def numpy(self) -> "Prediction":
        """The same record with NumPy arrays instead of tensors (bfloat16 becomes float32)."""
        return self._map_tensors(_to_numpy)

    def to(self, device: torch.device | str) -> "Prediction":
        """The same record on another device."""
        return self._map_tensors(lambda value: torch.as_tensor(value).to(device))

    def frame(self, index: int) -> "Prediction":
        """The record of one frame, s = 1."""
        stop = None if index == -1 else index + 1
        changes: dict[str, Any] = {
            name: value[:, :, index:stop] if name == "pose_encoding_iterations"
            else value[:, index:stop]
            for name, value in self._arrays().items()
        }  # fmt: skip
        return dataclasses.replace(self, **changes)

    def _cameras(self) -> tuple[Tensor, Tensor]:
        camera, intrinsics = camera_from_pose_encoding(
            torch.as_tensor(self.pose_encoding), self.network_size
        )
        if self.grid == "original" and self.pixel_map is not None:
            intrinsics = self.pixel_map.intrinsics_to_original(intrinsics)
        return camera, intrinsics

    def _like_input(self, value: Tensor) -> Array:
        return value.numpy() if isinstance(self.pose_encoding, np.ndarray) else value

    def _arrays(self) -> dict[str, Array]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: v for name, v in values.items() if isinstance(v, Tensor | np.ndarray)}

    def _map_tensors(self, function: Callable[[Array], Array]) -> "Prediction":
        changes: dict[str, Any] = {name: function(v) for name, v in self._arrays().items()}
        return dataclasses.replace(self, **changes)

    def _mapped_to_original(self, pixel_map: PixelMap) -> "Prediction":
        changes: dict[str, Any] = {"grid": "original"}
        for name, value in self._arrays().items():
            tensor = torch.as_tensor(value)
            if name in ("depth", "points"):
                changes[name] = _resample(tensor, pixel_map, outside=float("nan"))
            elif name in ("depth_confidence", "points_confidence"):
                changes[name] = _resample(tensor, pixel_map, outside=0.0)
            elif name == "tracks":
                changes[name] = pixel_map.to_original(tensor)
        mapped = dataclasses.replace(self, **changes)
        return mapped.numpy() if isinstance(self.pose_encoding, np.ndarray) else mapped


def _resample(values: Tensor, pixel_map: PixelMap, *, outside: float) -> Tensor:
    """Bring b s H W or b s H W 3 to the original grid."""
    b, s = values.shape[:2]
    has_channels = values.ndim == 5
    flat = values.flatten(0, 1)  # (b s) H W [3]
    maps = flat.permute(0, 3, 1, 2) if has_channels else flat[:, None]
    result = pixel_map.resample_to_original(maps, outside=outside)  # (b s) c height width
    result = result.permute(0, 2, 3, 1) if has_channels else result[:, 0]
    return result.unflatten(0, (b, s))


def _to_numpy(value: Array) -> np.ndarray:
    tensor = torch.as_tensor(value).detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
