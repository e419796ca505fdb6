import json
import subprocess
import sys

import numpy as np
import pytest

from everview.errors import ConfigError
from everview.outputs.fusion import (
    LEAST_POINTS,
    POINT_BYTES,
    FusionConfig,
    VoxelCloud,
    cloud_bytes,
    points_within,
)

K = np.array([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])
ALL = {"confidence_quantile": 0.0}


def _wall(distance=2.0, shape=(30, 40)):
    return np.full(shape, distance, np.float32), np.full((*shape, 3), 100, np.uint8)


def _pose(x=0.0):
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def _fused(config, *shifts, depth=None):
    cloud = VoxelCloud(config)
    for x in shifts:
        wall, colour = _wall()
        cloud.add(
            wall if depth is None else depth, None, colour,
            world_from_camera=_pose(x), intrinsics=K,
        )  # fmt: skip
    return cloud, *cloud.points_and_colours()


def test_a_wall_becomes_points_on_the_wall_in_its_colour():
    cloud, points, colours = _fused(FusionConfig(**ALL), 0.0)
    assert cloud.voxel_size == pytest.approx(0.02)
    np.testing.assert_allclose(points[:, 2], 2.0, rtol=1e-6)
    np.testing.assert_allclose(points[:, 0].min(), -1.0, rtol=1e-5)  # (0 - 20) / 40 * 2
    assert (colours == 100).all()


def test_the_same_view_again_adds_no_point():
    _, once, _ = _fused(FusionConfig(**ALL), 0.0)
    _, twice, _ = _fused(FusionConfig(**ALL), 0.0, 0.0)
    np.testing.assert_allclose(twice, once, atol=1e-12)


def test_points_of_one_voxel_are_averaged():
    cloud = VoxelCloud(FusionConfig(voxel_fraction=100.0, **ALL))
    depth, colour = _wall()
    colour[:, :20] = 0
    colour[:, 20:] = 200
    pose = np.eye(4)
    pose[:3, 3] = 50  # away from the corner of eight voxels
    cloud.add(depth, None, colour, world_from_camera=pose, intrinsics=K)
    points, colours = cloud.points_and_colours()
    assert points.shape == (1, 3)
    assert colours.tolist() == [[100, 100, 100]]


def test_memory_is_bounded_by_doubling_the_voxel():
    config = FusionConfig(voxel_fraction=0.002, max_points=500, **ALL)
    cloud = VoxelCloud(config)
    for i in range(300):
        depth, colour = _wall()
        cloud.add(depth, None, colour, world_from_camera=_pose(3.0 * i), intrinsics=K)
    cloud._merge()
    points, _ = cloud.points_and_colours()
    assert 100 < len(points) <= 500
    assert cloud.voxel_size / 0.004 == 2 ** round(np.log2(cloud.voxel_size / 0.004)) > 1
    np.testing.assert_allclose(points[:, 2], 2.0, rtol=1e-6)


def test_the_least_confident_pixels_stay_out():
    depth, colour = _wall()
    depth[:, :10] = 5.0  # a quarter of the image, and nobody trusts it
    confidence = np.where(depth > 3, 1.0, 2.0).astype(np.float32)
    cloud = VoxelCloud(FusionConfig(confidence_quantile=0.3))
    cloud.add(depth, confidence, colour, world_from_camera=_pose(), intrinsics=K)
    points, _ = cloud.points_and_colours()
    assert points[:, 2].max() < 2.1


def test_a_step_in_depth_leaves_no_flying_pixels_but_a_slanted_plane_stays_whole():
    columns = np.arange(40)[None].repeat(30, axis=0)
    step = np.where(columns < 20, 1.0, 3.0).astype(np.float32)
    step[:, 20] = 2.0  # between the two surfaces
    _, points, _ = _fused(FusionConfig(**ALL), 0.0, depth=step)
    assert not ((points[:, 2] > 1.5) & (points[:, 2] < 2.5)).any()
    slanted = (1 / (0.2 + 0.02 * columns)).astype(np.float32)  # inverse depth of a plane
    cloud = VoxelCloud(FusionConfig(**ALL))
    assert cloud._select(slanted, None).all()


def test_missing_and_infinite_depth_is_left_out():
    depth, _ = _wall()
    depth[0] = np.nan
    depth[1] = np.inf
    depth[2] = -1
    _, points, _ = _fused(FusionConfig(**ALL), 0.0, depth=depth)
    np.testing.assert_allclose(points[:, 2], 2.0, rtol=1e-6)
    _, nothing, _ = _fused(FusionConfig(**ALL), 0.0, depth=np.full_like(depth, np.nan))
    assert nothing.shape == (0, 3)


def test_a_camera_far_away_does_not_break_the_cloud():
    _, points, _ = _fused(FusionConfig(**ALL), 0.0, 1e9)
    assert np.abs(points).max() < 1e6


@pytest.mark.parametrize(
    "field", ["voxel_fraction", "edge_tolerance", "max_points", "max_pixels_per_frame"]
)
def test_settings_that_leave_nothing_are_refused(field):
    with pytest.raises(ConfigError, match=rf"FusionConfig\.{field} must be > 0"):
        FusionConfig(**{field: 0})
    with pytest.raises(ConfigError, match="confidence_quantile"):
        FusionConfig(confidence_quantile=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "step", "max_points"), [(400, 5.0, 1_000_000), (200, 2.0, 500_000)]
)
def test_the_bytes_of_a_full_cloud_are_predicted(frames, step, max_points):
    """Peak of a process that fuses waves, each beside the last, until the cloud is full."""
    code = """
import json, sys
import numpy as np, torch
from everview.outputs.fusion import FusionConfig, VoxelCloud
from everview.pipeline.peak import PeakMemory
frames, step, max_points = json.loads(sys.argv[1])
peak, dice = PeakMemory(torch.device("cpu")), np.random.default_rng(0)
cloud = VoxelCloud(FusionConfig(max_points=max_points))
intrinsics = np.array([[200.0, 0, 112], [0, 200, 84], [0, 0, 1]])
rows, columns = np.mgrid[:168, :224]
peak.reset()
before = peak.now
for number in range(frames):
    depth = (4 + np.sin(columns / 75 + number) + np.cos(rows / 84)).astype(np.float32)
    pose = np.eye(4)
    pose[0, 3] = number * step
    confidence = dice.random(depth.shape)
    cloud.add(depth, confidence, dice.integers(0, 255, (168, 224, 3), np.uint8),
              world_from_camera=pose, intrinsics=intrinsics)
cloud.points_and_colours()
print(peak.peak - before)
"""
    config, arguments = FusionConfig(max_points=max_points), json.dumps([frames, step, max_points])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], capture_output=True, text=True, check=True
    )
    predicted = cloud_bytes((168, 224), frames, config)
    assert 0.8 < predicted / int(done.stdout) < 1.2, (predicted, done.stdout)


def test_a_plan_knows_how_many_points_a_cloud_may_have():
    assert cloud_bytes((100, 100), 2) == POINT_BYTES * 7000
    full = cloud_bytes((100, 100), None)
    assert full == cloud_bytes((100, 100), 10**9)
    assert points_within(full) == FusionConfig().max_points == points_within(2 * full)
    fewer = FusionConfig(max_points=points_within(full // 2))
    assert LEAST_POINTS < fewer.max_points < FusionConfig().max_points
    assert cloud_bytes((100, 100), None, fewer) <= full // 2
    assert points_within(0) == LEAST_POINTS
