"""Relative poses of all pairs, and the area under the curve of their errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.evaluation.metrics import (
    align_paths,
    motion_errors,
    moved_path,
    pair_errors,
    path_errors,
    pose_auc,
    share_below,
)
from everview.geometry.rotations import matrix_from_quaternion, rigid

ERRORS = st.lists(st.floats(0, 60), min_size=1, max_size=30)


def _poses(seed, frames=6):
    g = torch.Generator().manual_seed(seed)
    rotation = matrix_from_quaternion(torch.randn(frames, 4, generator=g, dtype=torch.float64))
    return rigid(rotation, torch.randn(frames, 3, generator=g, dtype=torch.float64))


def _other_world(seed, poses, scale):
    moved = _poses(seed + 1, 1) @ poses
    return rigid(moved[:, :3, :3], scale * moved[:, :3, 3])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_neither_world_frame_nor_unit_of_the_estimate_matters(seed, scale):
    true, estimated = _poses(seed), _poses(seed + 7)
    other = _other_world(seed, estimated, scale)
    one, two = (pair_errors(poses, true) for poses in (estimated, other))
    for name in ("rotation_degrees", "direction_degrees", "pose_degrees"):
        torch.testing.assert_close(getattr(two, name), getattr(one, name), atol=1e-6, rtol=1e-6)
    one, two = (path_errors(poses, true) for poses in (estimated, other))
    for name in ("rmse", "mean", "median", "rotation_degrees"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_another_world_frame_of_both_changes_nothing(seed):
    true, estimated = _poses(seed), _poses(seed + 7)
    world = _poses(seed + 3, 1)
    for alignment in ("none", "se3", "sim3"):
        one = path_errors(estimated, true, alignment=alignment)
        two = path_errors(world @ estimated, world @ true, alignment=alignment)
        assert two.rmse == pytest.approx(one.rmse, rel=1e-8)
        assert two.rotation_degrees == pytest.approx(one.rotation_degrees, rel=1e-8)
    one, two = motion_errors(estimated, true), motion_errors(world @ estimated, world @ true)
    torch.testing.assert_close(two.translation, one.translation)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_an_alignment_with_more_freedom_leaves_no_larger_error(seed):
    true, estimated = _poses(seed), _poses(seed + 7)
    sim3, se3, none = (
        path_errors(estimated, true, alignment=a).rmse for a in ("sim3", "se3", "none")
    )
    assert sim3 <= se3 * (1 + 1e-9)
    assert se3 <= none * (1 + 1e-9)


@pytest.mark.parametrize("alignment", ["sim3", "se3", "scale", "none"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_path_and_motion_errors_agree_with_evo_to_a_millionth(seed, alignment):
    evo = pytest.importorskip("evo.core.metrics", reason="evo of the dev extra is not installed")
    from evo.core.trajectory import PosePath3D

    g = torch.Generator().manual_seed(seed)
    steps = 0.3 * torch.randn(40, 4, generator=g, dtype=torch.float64)
    turns = matrix_from_quaternion(steps.cumsum(0) + torch.tensor([0, 0, 0, 3.0]))
    true = rigid(turns, torch.randn(40, 3, generator=g, dtype=torch.float64).cumsum(0))
    noise = torch.randn(40, 4, generator=g, dtype=torch.float64)
    wrong = matrix_from_quaternion(0.1 * noise + torch.tensor([0, 0, 0, 1.0]))
    estimated = rigid(turns @ wrong, 0.4 * true[:, :3, 3] + 0.2 * noise[:, :3])
    ours, theirs = (PosePath3D(poses_se3=list(p.numpy())) for p in (true, estimated))
    if alignment == "scale":
        theirs.align(ours, correct_only_scale=True)
    elif alignment != "none":
        theirs.align(ours, correct_scale=alignment == "sim3")

    def rmse(metric):
        metric.process_data((ours, theirs))
        return metric.get_statistic(evo.StatisticsType.rmse)

    path = path_errors(estimated, true, alignment=alignment)
    relation = evo.PoseRelation
    assert path.rmse == pytest.approx(rmse(evo.APE(relation.translation_part)), rel=1e-6)
    angle = rmse(evo.APE(relation.rotation_angle_deg))
    assert path.rotation_degrees == pytest.approx(angle, rel=1e-6)
    aligned = moved_path(estimated, align_paths(estimated, true, alignment=alignment))
    for gap in (1, 5):
        motion = motion_errors(aligned, true, gap=gap)
        for part, values in (
            (relation.translation_part, motion.translation),
            (relation.rotation_angle_deg, motion.rotation_degrees),
        ):
            rpe = evo.RPE(part, delta=gap, delta_unit=evo.Unit.frames, all_pairs=True)
            ours_rmse = float(values.square().mean().sqrt())
            assert ours_rmse == pytest.approx(rmse(rpe), rel=1e-6)


def test_a_line_of_cameras_is_scored_although_a_turn_about_it_stays_open():
    true = rigid(torch.eye(3).expand(5, 3, 3), torch.arange(5.0)[:, None] * torch.tensor([1, 2, 3]))
    found = path_errors(_other_world(3, true.double(), 0.1), true)
    assert found.rmse == pytest.approx(0, abs=1e-9)
    assert found.scale == pytest.approx(10)


def test_a_single_pose_has_no_pairs_and_no_path():
    for compare in (pair_errors, path_errors):
        with pytest.raises(ConfigError, match="at least 2 poses, got 1"):
            compare(torch.eye(4)[None], torch.eye(4)[None])


def test_a_pair_of_cameras_in_one_place_counts_by_its_rotation_alone():
    true = torch.eye(4).repeat(2, 1, 1)
    turned = true.clone()
    turned[1, :3, :3] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned[1, 0, 3] = 1
    errors = pair_errors(turned, true)
    assert errors.direction_degrees.isnan().all()
    assert errors.pose_degrees.tolist() == pytest.approx([90])


def test_auc_is_the_mean_share_below_each_whole_degree():
    errors = torch.tensor([0.5, 1.5, 2.5, 40.0], dtype=torch.float64)
    assert pose_auc(errors, 3) == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert pose_auc(np.array([3.0]), 3) == pytest.approx(1 / 3)
    assert pose_auc(np.array([2.0]), 3) == pytest.approx(1 / 3)
    assert pose_auc(np.array([0.0]), 3) == 1
    assert pose_auc(np.array([0.0, np.inf]), 30) == 0.5


@given(ERRORS, st.integers(1, 40))
def test_auc_is_that_of_its_definition(errors, limit):
    e = np.array(errors)
    shares = [(e < k).mean() for k in range(1, limit)] + [(e <= limit).mean()]
    assert pose_auc(e, limit) == pytest.approx(np.mean(shares), abs=1e-12)


@given(ERRORS, st.integers(1, 40), st.data())
def test_auc_grows_with_the_limit_and_when_an_error_shrinks(errors, limit, data):
    e = np.array(errors)
    before = pose_auc(e, limit)
    if limit not in e:  # an error on the closed last border counts there, and only there
        assert pose_auc(e, limit + 1) >= before - 1e-12
    e[data.draw(st.integers(0, len(e) - 1))] *= data.draw(st.floats(0, 1))
    assert pose_auc(e, limit) >= before - 1e-12


@pytest.mark.parametrize(
    ("errors", "limit", "message"),
    [
        ([], 5, "no pair of poses"),
        ([1.0, np.nan], 5, "1 of 2 pose errors are NaN or negative"),
        ([-1.0], 5, "NaN or negative"),
        ([1.0], 0, "whole number from 1 on, got 0"),
        ([1.0], -3, "whole number from 1 on, got -3"),
    ],
)
def test_an_auc_that_means_nothing_is_refused(errors, limit, message):
    with pytest.raises(ConfigError, match=message):
        pose_auc(np.array(errors, np.float64), limit)


def test_accuracy_is_the_share_strictly_below():
    assert share_below(np.array([4.0, 5.0, 6.0, 1.0]), 5) == 0.5
    with pytest.raises(ConfigError, match="no pair"):
        share_below(np.zeros(0), 5)
