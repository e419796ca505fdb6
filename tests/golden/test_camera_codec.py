"""Camera encodings against numbers of the reference (README_metrics.md beside this file)."""

import numpy as np
import pytest
import torch

from everview.geometry.cameras import (
    camera_from_pose_encoding,
    points_from_depth,
    pose_encoding_from_camera,
    ray_map,
)
from everview.geometry.rotations import (
    invert_rigid,
    matrix_from_quaternion,
    quaternion_from_matrix,
)


@pytest.fixture(scope="module")
def values(golden):
    with np.load(golden / "metrics" / "camera_codec.npz") as file:
        return {key: torch.as_tensor(file[key]) for key in file.files if not key.endswith("opt")}


def size_of(values, key):
    height, width = values[key].tolist()
    return height, width


def close(found, expected, rtol=1e-6):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)


def test_cameras_become_the_published_encoding(values):
    found = pose_encoding_from_camera(
        values["pose_encoding/in/extrinsic_w2c"],
        values["pose_encoding/in/intrinsic"],
        size_of(values, "pose_encoding/in/image_hw"),
    )
    close(found, values["pose_encoding/out/encoding"])


@pytest.mark.parametrize(
    ("encoding", "group", "suffix"),
    [
        ("pose_encoding/out/encoding", "pose_encoding", "_back"),
        ("decode_raw/in/encoding", "decode_raw", ""),
    ],
)
def test_encodings_become_the_published_cameras(values, encoding, group, suffix):
    size = size_of(values, f"{group}/in/image_hw")
    camera_from_world, intrinsics = camera_from_pose_encoding(values[encoding], size)
    close(camera_from_world[..., :3, :], values[f"{group}/out/extrinsic{suffix}"])
    close(intrinsics, values[f"{group}/out/intrinsic{suffix}"])


def test_quaternions_of_any_length_become_the_published_rotations(values):
    close(matrix_from_quaternion(values["quaternion/in/xyzw"]), values["quaternion/out/matrix"])


def test_rotations_become_the_published_quaternions(values):
    found = quaternion_from_matrix(values["quaternion/out/matrix"])
    expected = values["quaternion/out/xyzw_back"]
    half_turn = expected[:, 3:].abs() < 1e-6  # there the sign is free
    sign = torch.where(half_turn, (found * expected).sum(dim=-1, keepdim=True).sign(), 1.0)
    close(found * sign, expected)


def test_depth_becomes_the_published_points(values):
    found = points_from_depth(
        values["unproject/in/depth"][..., 0].double(),
        values["unproject/in/extrinsic_w2c"],
        values["unproject/in/intrinsic"],
    )
    close(found, values["unproject/out/world_points"])


def test_rays_are_the_corrected_ones_not_the_published_ones(values):
    reference_from_camera = (
        invert_rigid(values["ray_map/in/reference_c2w"]) @ values["ray_map/in/camera_c2w"]
    )
    found = ray_map(
        reference_from_camera, values["ray_map/in/intrinsic"], size_of(values, "ray_map/in/hw")
    )
    close(found, values["ray_map/out_corrected/ray_map"])
    assert (found - values["ray_map/out_reference/ray_map"]).abs().max() > 0.1
