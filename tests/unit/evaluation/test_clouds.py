"""Clouds whose distances are known, and files of clouds."""

import struct

import numpy as np
import pytest

from everview.errors import ConfigError, InputError
from everview.evaluation.benchmarks.pcd import read_pcd, unpack_lzf
from everview.evaluation.metrics import (
    cloud_errors,
    icp,
    thinned,
    voxel_means,
    without_outliers,
)


@pytest.fixture
def plane():
    """A grid of points, one unit apart, on z = 0."""
    x, y = np.meshgrid(np.arange(12.0), np.arange(9.0))
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)


def test_a_plane_above_a_plane_has_that_distance(plane):
    errors = cloud_errors(plane + np.array([0, 0, 0.25]), plane, thresholds=(0.2, 0.3))
    for name in ("accuracy", "completeness", "chamfer", "accuracy_median"):
        assert getattr(errors, name) == pytest.approx(0.25)
    assert errors.chamfer_sum == pytest.approx(0.5)
    assert errors.normal_consistency == pytest.approx(1)
    assert errors.f_score == {0.2: 0, 0.3: 1}


def test_half_a_cloud_is_accurate_and_not_complete(plane):
    errors = cloud_errors(plane[plane[:, 0] < 6], plane, normals=False, thresholds=(0.5,))
    assert errors.accuracy == 0
    assert errors.recall == {0.5: 0.5}
    assert errors.precision == {0.5: 1}
    assert errors.f_score[0.5] == pytest.approx(2 / 3)
    assert errors.completeness == pytest.approx(sum(range(1, 7)) / 12)


def test_registration_finds_a_small_motion(plane):
    rng = np.random.default_rng(0)
    cloud = rng.random((2000, 3)) * [4, 3, 2]
    turn = np.array([[np.cos(0.01), -np.sin(0.01), 0], [np.sin(0.01), np.cos(0.01), 0], [0, 0, 1]])
    moved = cloud @ turn.T + [0.01, -0.02, 0.01]
    for planes in (False, True):
        found = icp(moved, cloud, threshold=0.1, rounds=100, planes=planes)
        assert found.fitness == 1
        if not planes:  # a filled box has no surface
            np.testing.assert_allclose(found.points, cloud, atol=1e-3)


def test_far_clouds_stay_where_they_are(plane):
    found = icp(plane + 100, plane, threshold=0.1)
    assert found.fitness == 0
    np.testing.assert_array_equal(found.points, plane + 100)


def test_voxels_keep_the_mean_of_each_cube():
    cloud = np.array([[0.0, 0, 0], [0.4, 0, 0], [1.2, 0, 0]])
    np.testing.assert_allclose(voxel_means(cloud, 1.0), [[0.2, 0, 0], [1.2, 0, 0]])


def test_a_lonely_point_is_an_outlier(plane):
    found = without_outliers(np.concatenate([plane, [[50.0, 50, 50]]]), neighbours=5)
    assert found.max() < 12


def test_thinning_is_by_seed_and_in_order(plane):
    np.testing.assert_array_equal(thinned(plane, 10, 3), thinned(plane, 10, 3))
    assert thinned(plane, None, 0) is plane


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_clouds_without_distances_are_refused(bad, plane):
    with pytest.raises(ConfigError, match="predicted cloud"):
        cloud_errors(bad, plane)
    with pytest.raises(ConfigError, match="true cloud"):
        cloud_errors(plane, bad)


HEADER = (
    "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ rgb\nSIZE 4 4 4 1 4\nTYPE F F F U F\n"
    "COUNT 1 1 1 4 1\nWIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3\nDATA {}\n"
)
POINTS = np.array([[1, 2, 3], [4, 5, 6], [np.nan, 0, 0]], np.float32)


def _stored_lzf(raw):
    """LZF without any copies: runs of up to 32 bytes."""
    runs = [raw[i : i + 32] for i in range(0, len(raw), 32)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def test_all_three_kinds_of_pcd_files_are_read(tmp_path):
    kind = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", 4), ("rgb", "<f4")])
    records = np.zeros(3, kind)
    for axis, name in enumerate("xyz"):
        records[name] = POINTS[:, axis]
    text = "\n".join(" ".join(map(str, [*row, 0, 0, 0, 0, 1])) for row in POINTS.tolist())
    columns = b"".join(np.ascontiguousarray(records[name]).tobytes() for name in kind.names)
    packed = _stored_lzf(columns)
    bodies = {
        "ascii": text.encode(),
        "binary": records.tobytes(),
        "binary_compressed": struct.pack("<II", len(packed), len(columns)) + packed,
    }
    for way, body in bodies.items():
        path = tmp_path / f"{way}.pcd"
        path.write_bytes(HEADER.format(way).encode() + body)
        np.testing.assert_array_equal(read_pcd(path), POINTS[:2])
        path.write_bytes(HEADER.format(way).encode() + body[: len(body) // 2])
        with pytest.raises(InputError, match=f"{way}.pcd"):
            read_pcd(path)


def test_copies_in_lzf_may_overlap_themselves():
    assert unpack_lzf(b"\x00a\xe0\x02\x00", 12) == b"a" * 12
