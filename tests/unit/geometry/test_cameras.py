import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.geometry.cameras import (
    camera_from_pose_encoding,
    intrinsics_from_fov,
    points_from_depth,
    pose_encoding_from_camera,
    project_points,
    unproject_depth,
)
from everview.geometry.rotations import (
    invert_rigid,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rigid,
)

quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda q: sum(v * v for v in q) > 1e-2
)


@settings(deadline=None)
@given(q=quaternions)
def test_a_quaternion_survives_the_way_through_its_matrix_up_to_sign_and_length(q):
    quaternion = torch.tensor(q, dtype=torch.float64)
    unit = quaternion / quaternion.norm()
    rotation = matrix_from_quaternion(quaternion)
    back = quaternion_from_matrix(rotation)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close((back * unit).sum().abs(), torch.tensor(1.0).double())
    assert back[3] >= 0


def test_a_quarter_turn_about_z_turns_x_into_y():
    half = 0.5**0.5
    rotation = matrix_from_quaternion(torch.tensor([0.0, 0.0, half, half]))
    torch.testing.assert_close(rotation @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


def test_a_rigid_transform_times_its_inverse_is_the_identity():
    rotation = matrix_from_quaternion(torch.randn(2, 3, 4, dtype=torch.float64))
    transform = rigid(rotation, torch.randn(2, 3, 3, dtype=torch.float64))
    product = transform @ invert_rigid(transform)
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(2, 3, 4, 4))


def test_a_pose_encoding_survives_the_way_through_the_camera():
    encoding = torch.cat(
        [torch.randn(5, 3), torch.nn.functional.normalize(torch.randn(5, 4), dim=-1),
         torch.rand(5, 2) + 0.5], dim=-1
    ).double()  # fmt: skip
    encoding[:, 3:7] *= encoding[:, 6:7].sign()
    camera, intrinsics = camera_from_pose_encoding(encoding, (98, 140))
    torch.testing.assert_close(
        pose_encoding_from_camera(camera, intrinsics, (98, 140)), encoding, rtol=1e-6, atol=1e-6
    )


def test_a_degenerate_pose_encoding_gives_finite_cameras():
    camera, intrinsics = camera_from_pose_encoding(torch.zeros(1, 9), (28, 42))
    assert camera.isfinite().all()
    assert intrinsics.isfinite().all()


def test_the_principal_point_is_half_the_size_and_the_focal_length_that_of_the_angle():
    K = intrinsics_from_fov(torch.tensor([torch.pi / 2, torch.pi / 2]), (60, 80))
    torch.testing.assert_close(K, torch.tensor([[40.0, 0, 40], [0, 30, 30], [0, 0, 1]]))


def test_an_empty_image_has_no_intrinsics():
    with pytest.raises(ValueError, match="both > 0"):
        intrinsics_from_fov(torch.ones(2), (0, 8))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_projecting_an_unprojected_depth_gives_back_the_pixel_grid(batch):
    depth = torch.rand(*batch, 6, 8, dtype=torch.float64) + 0.1
    K = intrinsics_from_fov(torch.rand(*batch, 2, dtype=torch.float64) + 0.5, (6, 8))
    points = unproject_depth(depth, K).flatten(-3, -2)
    u, v = project_points(points, K).unflatten(-2, (6, 8)).unbind(-1)
    torch.testing.assert_close(u, torch.arange(8.0, dtype=u.dtype).expand_as(u))
    torch.testing.assert_close(v, torch.arange(6.0, dtype=v.dtype)[:, None].expand_as(v))


def test_points_from_depth_lie_where_the_camera_stands():
    """A camera one unit along z in the world sees its optical axis' point at depth + 1."""
    camera_from_world = torch.eye(4)
    camera_from_world[2, 3] = -1
    K = intrinsics_from_fov(torch.tensor([1.0, 1.0]), (4, 4))
    points = points_from_depth(torch.full((4, 4), 2.0), camera_from_world, K)
    torch.testing.assert_close(points[2, 2], torch.tensor([0.0, 0.0, 3.0]))
