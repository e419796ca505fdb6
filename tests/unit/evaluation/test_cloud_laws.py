"""Laws of distances between clouds, and clouds that have none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from everview.errors import ConfigError
from everview.evaluation.metrics import (
    NearestPoints,
    align_by_medians,
    cloud_errors,
    estimate_normals,
    icp,
    thinned,
    voxel_means,
    without_outliers,
)
from everview.evaluation.metrics.arrays import as_cloud

SEEDS = st.integers(0, 10_000)


def _clouds(seed, n=40, m=30):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.3


def _turn(seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return turn * np.sign(np.linalg.det(turn))


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_distances_are_those_of_all_pairs(seed):
    predicted, true = _clouds(seed)
    distance = cdist(predicted, true)
    found = cloud_errors(predicted, true, normals=False, thresholds=(0.5,), limit=0.7)
    assert found.accuracy == pytest.approx(distance.min(axis=1).clip(max=0.7).mean(), rel=1e-12)
    assert found.completeness == pytest.approx(distance.min(axis=0).clip(max=0.7).mean(), rel=1e-12)
    assert found.precision[0.5] == (distance.min(axis=1) < 0.5).mean()
    assert found.recall[0.5] == (distance.min(axis=0) < 0.5).mean()
    for count in (1, 3, 40):
        near, number = NearestPoints(true).query(predicted, count=count)
        kept = min(count, len(true))
        np.testing.assert_allclose(near[:, :kept], np.sort(distance, axis=1)[:, :kept])
        np.testing.assert_allclose(
            np.take_along_axis(distance, number[:, :kept], axis=1), near[:, :kept]
        )
        assert (number[:, kept:] == len(true)).all()
        assert np.isinf(near[:, kept:]).all()


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_chamfer_and_f_score_are_symmetric(seed):
    a, b = _clouds(seed)
    one, two = (cloud_errors(*c, thresholds=(0.4,)) for c in ((a, b), (b, a)))
    assert one.chamfer == pytest.approx(two.chamfer, rel=1e-12)
    assert one.f_score[0.4] == pytest.approx(two.f_score[0.4], rel=1e-12)
    assert one.normal_consistency == pytest.approx(two.normal_consistency, rel=1e-9)
    assert (one.accuracy, one.completeness) == (two.completeness, two.accuracy)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.floats(0.01, 100))
def test_a_motion_of_both_changes_nothing_and_a_scale_scales(seed, scale):
    a, b = _clouds(seed)
    turn = _turn(seed)
    one = cloud_errors(a, b)
    two = cloud_errors(*(scale * c @ turn.T + [1, -2, 3] for c in (a, b)))
    for name in ("accuracy", "accuracy_median", "completeness", "completeness_median", "chamfer"):
        assert getattr(two, name) == pytest.approx(scale * getattr(one, name), rel=1e-9)
    assert two.normal_consistency == pytest.approx(one.normal_consistency, rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.lists(st.floats(0.01, 3), min_size=2, max_size=5, unique=True))
def test_the_f_score_grows_with_its_threshold(seed, thresholds):
    found = cloud_errors(*_clouds(seed), normals=False, thresholds=sorted(thresholds)).f_score
    assert list(found.values()) == sorted(found.values())
    assert all(0 <= value <= 1 for value in found.values())


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_the_order_of_points_and_threads_do_not_matter(seed):
    a, b = _clouds(seed)
    one = cloud_errors(a, b, workers=1)
    rng = np.random.default_rng(seed)
    two = cloud_errors(rng.permutation(a), torch.from_numpy(rng.permutation(b)), workers=2)
    assert two.accuracy == pytest.approx(one.accuracy, rel=1e-12)
    assert two.normal_consistency == pytest.approx(one.normal_consistency, rel=1e-9)


def test_a_cloud_has_no_distance_to_itself():
    cloud, _ = _clouds(0)
    found = cloud_errors(cloud, cloud, thresholds=(1e-9,))
    assert found.accuracy == found.completeness == found.chamfer == 0
    assert found.f_score == {1e-9: 1}
    assert found.normal_consistency == pytest.approx(1)


def test_far_outliers_and_points_on_top_of_each_other_are_found_too():
    cloud = np.concatenate([np.zeros((5000, 3)), np.full((1, 3), 1e12), np.eye(3)])
    distance, number = NearestPoints(cloud).query(np.array([[0.0, 0, 0.9], [1e12, 1e12, 1e12]]))
    np.testing.assert_allclose(distance[:, 0], [0.1, 0], atol=1e-12)
    assert number[:, 0].tolist() == [5003, 5000]


def test_normals_of_a_sphere_point_away_from_its_centre():
    directions = np.random.default_rng(0).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = np.abs((estimate_normals(directions) * directions).sum(axis=1))
    assert cosine.mean() > 0.999
    few = estimate_normals(directions, radius=1e-6)
    np.testing.assert_array_equal(few, np.tile([0.0, 0.0, 1.0], (len(few), 1)))


def test_given_normals_of_any_length_count_by_direction():
    a, b = _clouds(0, 20, 20)
    up, across = np.tile([0.0, 0, 3], (20, 1)), np.tile([0.0, 2, 2], (20, 1))
    found = cloud_errors(a, b, given_normals=(up, across))
    assert found.normal_consistency == pytest.approx(np.sqrt(0.5))
    with pytest.raises(ConfigError, match="20 given normals have no length"):
        cloud_errors(a, b, given_normals=(up, across * 0))


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_icp_undoes_a_small_motion_and_reports_it(seed):
    rng = np.random.default_rng(seed)
    cloud = rng.random((500, 3)) * [4, 3, 2]
    angle = 0.01
    turn = np.array([
        [np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]
    ])  # fmt: skip
    moved = cloud @ turn.T + [0.01, -0.02, 0.01]
    found = icp(moved, cloud, threshold=0.2, rounds=100)
    assert found.fitness == 1
    assert found.rmse < 1e-3
    assert 0 < found.rounds < 100
    back = moved @ found.transform[:3, :3].T + found.transform[:3, 3]
    np.testing.assert_allclose(back, found.points, atol=1e-9)
    assert np.linalg.det(found.transform[:3, :3]) == pytest.approx(1)


def test_icp_moves_single_pairs_and_lines_as_far_as_they_tell():
    true = np.array([[0.0, 0, 0], [5, 5, 5]])
    found = icp(np.array([[0.1, 0, 0]]), true, threshold=1.0)
    np.testing.assert_allclose(found.points, [[0, 0, 0]], atol=1e-12)
    line = np.arange(6.0)[:, None] * [1.0, 0, 0]
    found = icp(line + np.array([0, 0.2, 0]), line, threshold=0.5)
    np.testing.assert_allclose(found.points, line, atol=1e-9)
    assert icp(line, line, threshold=0.5, rounds=0).rounds == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.array([[0, 0, 0], [np.nan, 0, 0], [1, 1, 1.0]]), "not finite in 1 of 3 points"),
    ],
)
def test_a_cloud_without_distances_is_refused_by_its_name(bad, message):
    good = _clouds(0)[0]
    with pytest.raises(ConfigError, match=f"predicted cloud .*{message}"):
        cloud_errors(torch.from_numpy(bad), good)
    with pytest.raises(ConfigError, match=f"true cloud .*{message}"):
        icp(good, bad, threshold=0.1)
    for function in (voxel_means, without_outliers):
        with pytest.raises(ConfigError, match=message):
            function(bad, **({"side": 0.1} if function is voxel_means else {}))


def test_a_cloud_without_three_columns_is_refused():
    with pytest.raises(ConfigError, match=r"the true cloud must have shape \(n, 3\), got \(4, 2\)"):
        as_cloud(np.zeros((4, 2)), "true")


def test_clouds_without_normals_are_refused_only_where_these_are_asked_for():
    line = np.arange(9.0)[:, None] * [1.0, 2.0, 3.0]
    assert cloud_errors(line, line, normals=False).chamfer == 0
    with pytest.raises(ConfigError, match="all 9 points lie on a line"):
        cloud_errors(line, line)
    with pytest.raises(ConfigError, match="at least three points, got 2"):
        estimate_normals(line[:2])
    with pytest.raises(ConfigError, match="lie on a line"):
        icp(line, line, threshold=1.0, planes=True)
    with pytest.raises(ConfigError, match="threshold of ICP must be positive"):
        icp(line, line, threshold=0.0)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.floats(0.05, 3))
def test_voxels_keep_the_weight_and_one_mean_per_cube(seed, side):
    cloud, _ = _clouds(seed)
    found = voxel_means(cloud, side)
    cells = np.floor((cloud - cloud.min(axis=0)) / side + 0.5)
    unique, which = np.unique(cells, axis=0, return_inverse=True)
    expected = [cloud[which.ravel() == i].mean(axis=0) for i in range(len(unique))]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_voxels_that_cannot_be_counted_are_refused():
    wide = np.array([[0.0, 0, 0], [1e9, 1e9, 1e9]])
    with pytest.raises(ConfigError, match=r"too small for a cloud 1e\+09 wide: take at least 625"):
        voxel_means(wide, 1e-3)
    assert len(voxel_means(wide, 626.0)) == 2
    with pytest.raises(ConfigError, match="must be positive"):
        voxel_means(wide, 0.0)


def test_one_point_is_no_outlier_and_thinning_takes_tensors():
    assert len(without_outliers(np.zeros((1, 3)))) == 1
    cloud = torch.rand(50, 3)
    few = thinned(cloud, 7, 0)
    assert isinstance(few, torch.Tensor)
    np.testing.assert_array_equal(few, thinned(cloud.numpy(), 7, 0))


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_alignment_by_medians_forgives_scale_and_shift_in_depth(seed, scale, shift):
    true = torch.from_numpy(_clouds(seed, 41)[0])
    predicted = scale * true + torch.tensor([0, 0, shift]).double()
    found = align_by_medians(predicted, true)
    torch.testing.assert_close(found.predicted(predicted), found.true(true))
    with pytest.raises(ConfigError, match="predicted points are not finite"):
        align_by_medians(predicted * torch.nan, true)
