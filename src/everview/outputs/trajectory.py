"""Camera paths relative to their first camera, and the text format of TUM."""

import numpy as np
import torch
from jaxtyping import Float

from everview.geometry.cameras import camera_from_pose_encoding
from everview.geometry.rotations import invert_rigid, quaternion_from_matrix


def poses_relative_to_first(
    encodings: Float[np.ndarray, "n 9"], first: Float[np.ndarray, " 9"]
) -> Float[np.ndarray, "n 4 4"]:
    """world_from_camera with the camera of `first` as the world, in float64.

    Args:
        encodings: pose encodings of one recording (camera_from_world of the network's world).
        first: the encoding of the camera that shall have the identity.
    """
    of_first, _ = camera_from_pose_encoding(torch.from_numpy(first.astype(np.float64)), (1, 1))
    cameras, _ = camera_from_pose_encoding(torch.from_numpy(encodings.astype(np.float64)), (1, 1))
    return (of_first @ invert_rigid(cameras)).numpy()


def tum_line(timestamp: float, world_from_camera: Float[np.ndarray, "4 4"]) -> str:
    """One line `timestamp tx ty tz qx qy qz qw`, time in seconds, with its line break."""
    quaternion = quaternion_from_matrix(torch.from_numpy(world_from_camera[:3, :3]))
    numbers = [*world_from_camera[:3, 3].tolist(), *quaternion.tolist()]
    return " ".join([f"{timestamp:.6f}", *(f"{number:.9g}" for number in numbers)]) + "\n"
